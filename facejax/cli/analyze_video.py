"""``facejax analyze`` of a video or a camera: streams; writes frames.jsonl, faces.csv and an annotated video."""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from facejax.cli import DONE
from facejax.cli.analyze import columns, settings_of
from facejax.cli.options import load_analyzer
from facejax.cli.progress import Progress
from facejax.cli.results_file import FRAMES, file_key, keep_settings, open_folder, write_table
from facejax.inference.results import flat_row
from facejax.inference.video import VideoFrame, VideoWriter, analyze_frames, webcam_frames
from facejax.video.frames import mean_rate, read_frames

if TYPE_CHECKING:
    from facejax.video.classifiers import ClipClassifier

_CAMERA_FPS = 10


def run_video(args: argparse.Namespace, *, camera: bool) -> int:
    """Returns the exit status. Ctrl-C ends a camera's recording, which is kept."""
    classifier = None
    if args.clips is not None:
        from facejax.video.classifiers import ClipClassifier

        # Before all else: a video takes minutes, a wrong file shows at once.
        classifier = ClipClassifier.load(args.clips)
    analyzer = load_analyzer(args)
    source = args.source[0]
    if camera:
        number = source.partition(":")[2] or "0"
        if not number.isdecimal():
            raise ValueError(f"expected webcam or webcam:NUMBER, got {source!r}")
        frames = analyze_frames(analyzer, webcam_frames(int(number)), at_once=1)
    else:
        frames = analyze_frames(analyzer, read_frames(pathlib.Path(source), every=args.every))
    clip = _ClipFaces()
    tracks: set[int] = set()
    with contextlib.ExitStack() as stack:
        lines = writer = None
        if args.out is not None:
            # A recording of a camera is never made again: another one has other settings, and cannot overwrite it.
            key = f"{source} {datetime.datetime.now()}" if camera else file_key(pathlib.Path(source).absolute())
            settings = {**settings_of(args, analyzer), "video": key, "every": args.every, "seconds": args.seconds}
            open_folder(args.out, settings)
            lines = stack.enter_context(_whole_frames(args.out, settings))
            if args.draw:
                fps = _CAMERA_FPS if camera else mean_rate(source, every=args.every, seconds=args.seconds)
                writer = stack.enter_context(VideoWriter(args.out / "annotated.mp4", fps))
        progress = stack.enter_context(Progress("frames", quiet=args.quiet))
        # Ctrl-C ends a camera's recording wherever it strikes, also while a frame is drawn.
        with contextlib.suppress(KeyboardInterrupt) if camera else contextlib.nullcontext():
            for frame in frames:
                if args.seconds and frame.time > args.seconds:
                    break
                progress.add()
                tracks |= {face.track for face in frame.faces if face.track is not None}
                clip.add(frame) if classifier is not None else None
                _tell(args, frame, lines)
                if writer is not None:
                    writer.write(frame.draw())
    if args.out is not None:
        name = "faces.parquet" if args.parquet else "faces.csv"
        write_table(args.out / name, _rows(args.out / FRAMES), ["frame", "time", "track", *columns(analyzer)])
    if classifier is not None:
        _tell_clip(args, clip, classifier)
    if not args.quiet:
        print(f"{progress.done} frames, {len(tracks)} tracks of faces", file=sys.stderr)
    return DONE


@contextlib.contextmanager
def _whole_frames(folder: pathlib.Path, settings: dict[str, Any]) -> Iterator[TextIO]:
    """A file for the frames, which appears with the settings when all is written; an error inside leaves none."""
    partial = folder / f".{FRAMES}.partial"
    try:
        with partial.open("w") as file:
            yield file
        keep_settings(folder, settings)
        os.replace(partial, folder / FRAMES)
    finally:
        partial.unlink(missing_ok=True)


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


class _ClipFaces:
    """Features of all faces of a clip: some kilobytes a face, for clips of seconds or minutes."""

    def __init__(self):
        self.features: list[np.ndarray] = []
        self.frames: list[int] = []
        self.areas: list[float] = []

    def add(self, frame: VideoFrame) -> None:
        for face in frame.faces:
            assert face.features is not None
            self.features.append(face.features)
            self.frames.append(frame.index)
            self.areas.append(float(np.prod(face.box[2:] - face.box[:2])))

    def largest(self) -> list[int]:
        """Index of the largest face of each frame."""
        best: dict[int, int] = {}
        for index, frame in enumerate(self.frames):
            if frame not in best or self.areas[index] > self.areas[best[frame]]:
                best[frame] = index
        return list(best.values())


def _tell_clip(args: argparse.Namespace, clip: _ClipFaces, classifier: "ClipClassifier") -> None:
    """The clip's class, by a classifier that a video protocol saved (its features must be the first network's)."""
    label = None
    if clip.frames:
        chosen = clip.largest() if classifier.descriptor.levels == "frames" else range(len(clip.frames))
        features = np.array([clip.features[index] for index in chosen], np.float32)
        frames = np.array([clip.frames[index] for index in chosen], np.int64)
        label = classifier.predict([(features, frames)])[0]
    told = {"clip_expression": label, "features_of": classifier.source}
    words = f"{label} (features of {classifier.source})" if clip.frames else "none, no face was found"
    print(json.dumps(told) if args.json else f"expression of the clip: {words}")
