"""``facejax analyze`` for a video or a camera: a stream to frames.jsonl, faces.csv and an annotated video."""

import argparse
import contextlib
import datetime
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from facejax.atomic import atomic_file
from facejax.cli import DONE
from facejax.cli.analyze import columns, settings_of
from facejax.cli.options import load_analyzer
from facejax.cli.progress import Progress
from facejax.cli.results_file import FRAMES, as_text, file_key, keep_settings, locked_folder, write_table
from facejax.inference.results import flat_row
from facejax.inference.video import VideoFrame, VideoWriter, analyze_frames, webcam_frames
from facejax.video.frames import mean_rate, read_frames

if TYPE_CHECKING:
    from facejax.inference.model import LoadedModel
    from facejax.video.classifiers import ClipClassifier

_CAMERA_FPS = 10


def run_video(args: argparse.Namespace, *, camera: bool) -> int:
    """Runs the command; returns the exit status. Ctrl-C ends a camera recording, which is kept."""
    classifier = None
    if args.clips is not None:
        from facejax.video.classifiers import ClipClassifier

        # Loaded first: a video takes minutes, but a wrong file is detected immediately.
        classifier = ClipClassifier.load(args.clips)
    analyzer = load_analyzer(args.model, args.min_face)
    if classifier is not None:
        told = re.search(r"\(([0-9a-f]{12})\)", classifier.source)
        if told and told[1] != analyzer.models[0].digest():
            raise ValueError(
                f"{args.clips} classifies clips by features of {classifier.source}; {args.model[0]} is another "
                "network, or has other weights or another input size, so its features do not fit: give that one first"
            )
    source = args.source[0]
    if camera:
        number = source.partition(":")[2] or "0"
        if not number.isdecimal():
            raise ValueError(f"expected webcam or webcam:NUMBER, got {source!r}")
        frames = analyze_frames(analyzer, webcam_frames(int(number)), at_once=1)
    else:
        frames = analyze_frames(analyzer, read_frames(pathlib.Path(source), every=args.every))
    tracks: set[int] = set()
    with contextlib.ExitStack() as stack:
        lines = writer = None
        if args.out is not None:
            # A camera recording cannot be repeated: the time makes its settings unique, so that no other overwrites it.
            key = f"{source} {datetime.datetime.now()}" if camera else file_key(pathlib.Path(source).absolute())
            settings = {**settings_of(args, analyzer), "video": key, "every": args.every, "seconds": args.seconds}
            stack.enter_context(locked_folder(args.out, settings))
            lines = stack.enter_context(_whole_frames(args.out, settings))
            if args.draw:
                fps = _CAMERA_FPS if camera else mean_rate(source, every=args.every, seconds=args.seconds)
                writer = stack.enter_context(VideoWriter(args.out / "annotated.mp4", fps))
        progress = stack.enter_context(Progress("frames", quiet=args.quiet))
        # Ctrl-C may end a camera recording at any point, also while a frame is drawn.
        with contextlib.suppress(KeyboardInterrupt) if camera else contextlib.nullcontext():
            for frame in frames:
                if args.seconds and frame.time > args.seconds:
                    break
                progress.add()
                tracks |= {face.track for face in frame.faces if face.track is not None}
                _tell(args, frame, lines)
                if writer is not None:
                    writer.write(frame.draw())
    if args.out is not None:
        name = "faces.parquet" if args.parquet else "faces.csv"
        write_table(args.out / name, _rows(args.out / FRAMES), ["frame", "time", "track", *columns(analyzer)])
    if classifier is not None:
        _tell_clip(args, analyzer.models[0], classifier)
    if not args.quiet:
        print(f"{progress.done} frames, {len(tracks)} face track{'s' * (len(tracks) != 1)}", file=sys.stderr)
    return DONE


@contextlib.contextmanager
def _whole_frames(folder: pathlib.Path, settings: dict[str, Any]) -> Iterator[TextIO]:
    """Opens the file for the frames, which appears with the settings once complete; after an error, none is left."""
    with atomic_file(folder / FRAMES) as file:
        with as_text(file) as text:
            yield text
        keep_settings(folder, settings)


def _tell(args: argparse.Namespace, frame: VideoFrame, lines: Any) -> None:
    if lines is not None:
        lines.write(json.dumps(frame.to_dict(embedding=args.embedding)) + "\n")
    elif args.json:
        print(json.dumps(frame.to_dict(embedding=args.embedding)), flush=True)
    else:
        for face in frame.faces:
            print(f"{frame.time:8.2f} s  #{face.track}  {'; '.join(face.caption())}", flush=True)


def _rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for line in file:
            frame = json.loads(line)
            for face in frame["faces"]:
                yield {"frame": frame["frame"], "time": frame["time"], **flat_row(face)}


def _tell_clip(args: argparse.Namespace, model: "LoadedModel", classifier: "ClipClassifier") -> None:
    """Prints the clip's class by a classifier saved by a video protocol, from this network's features.

    The faces are detected once more, with the settings used to train the classifier: the faces reported by frame are
    detected and aligned differently.
    """
    from facejax.detect import MTCNN, make_cropper
    from facejax.video.faces import find_faces
    from facejax.video.features import embed_faces

    of = classifier.detection
    frames = read_frames(pathlib.Path(args.source[0]), every=args.every)
    frames = itertools.takewhile(lambda frame: not args.seconds or frame.time <= args.seconds, frames)
    detector = MTCNN(of.min_face, of.thresholds)
    faces = find_faces(frames, detector, make_cropper(of.cut), choose=of.choose)
    features, numbers = embed_faces((face for _, of_frame in faces for face in of_frame), model.features)
    label = classifier.predict([(features, numbers)])[0] if len(numbers) else None
    told = {"clip_expression": label, "features_of": classifier.source}
    words = f"{label} (features of {classifier.source})" if len(numbers) else "none, no face was found"
    print(json.dumps(told) if args.json else f"expression of the clip: {words}")
