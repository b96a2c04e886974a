"""Finds the faces in photos, folders, videos or a camera, and predicts their attributes."""

import argparse
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from facejax.atomic import write_atomically
from facejax.cards.use import USE
from facejax.cli import DONE, PARTLY
from facejax.cli.options import add_model_options, add_output_options, load_analyzer, photos_of, shown
from facejax.cli.progress import Progress

if TYPE_CHECKING:
    from facejax.inference import FaceAnalyzer, PhotoResult

# Subfolder of the results for annotated photos.
_DRAWN = "annotated"
_NOTE = "perceived attributes and looks of expressions, not what a person feels or is (docs/responsible_use.md)"


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "analyze", help="analyse faces in photos, folders, a video or a camera", description=__doc__, epilog=USE
    )
    parser.add_argument("source", nargs="+", help="photos and folders, or one video, or webcam, webcam:1, ...")
    add_model_options(parser)
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        metavar="FOLDER",
        help="write results.jsonl (video: frames.jsonl) and faces.csv; a rerun skips photos that are done, but "
        "restarts a video",
    )
    parser.add_argument(
        "--draw", action="store_true", help="with --out: also write annotated photos or an annotated video"
    )
    parser.add_argument("--parquet", action="store_true", help="with --out: write faces.parquet instead of faces.csv")
    parser.add_argument("--embedding", action="store_true", help="include embeddings, which identify people")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="video: analyse every n-th frame")
    parser.add_argument("--seconds", type=float, default=0.0, help="video: stop after this many seconds; 0 for never")
    parser.add_argument(
        "--clips", type=pathlib.Path, metavar="FILE", help="video: classifier for the emotion of the whole clip"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from facejax.inference.video import VIDEO_SUFFIXES

    cameras = [source for source in args.source if source == "webcam" or source.startswith("webcam:")]
    videos = [source for source in args.source if pathlib.PurePath(source).suffix.lower() in VIDEO_SUFFIXES]
    if (cameras or videos) and len(args.source) > 1:
        raise ValueError("only one video or camera at a time, and no photos with it")
    _check_options(args, camera=bool(cameras), video=bool(videos))
    if cameras or videos:
        from facejax.cli.analyze_video import run_video

        return run_video(args, camera=bool(cameras))
    return _run_photos(args)


def _check_options(args: argparse.Namespace, *, camera: bool, video: bool) -> None:
    """Rejects options that would otherwise be silently ignored."""
    for option in ("draw", "parquet"):
        if getattr(args, option) and args.out is None:
            raise ValueError(f"--{option} writes files: give a folder by --out FOLDER")
    if args.json and args.out is not None and args.clips is None:
        raise ValueError("--json and --out would write the same results twice: use only one of them")
    if args.embedding and not args.json and args.out is None:
        raise ValueError("--embedding needs --json or --out FOLDER: the printed text has no embeddings")
    if not args.seconds >= 0:
        raise ValueError(f"expected --seconds of at least 0 (0 for never), got {args.seconds:g}")
    if args.every != 1 and not video:
        raise ValueError("--every needs a video file")
    if args.seconds and not (video or camera):
        raise ValueError("--seconds needs a video or a camera")
    if args.clips is not None and not video:
        raise ValueError("--clips needs a video file")


def _run_photos(args: argparse.Namespace) -> int:
    # If the results are inside a photo folder, annotated photos must not be analysed as photos.
    paths = list(photos_of(args.source, without=args.out and args.out / _DRAWN))
    if args.out is not None:  # reruns may start in other working folders, where ./a.jpg may be another photo
        paths = [pathlib.Path(os.path.abspath(path)) for path in paths]
    if not paths:
        raise ValueError(
            f"no photo in {', '.join(args.source)} (videos must be given one at a time, by name; links to folders "
            "inside a folder are not followed)"
        )
    analyzer = load_analyzer(args.model, args.min_face)
    seen = failed = faces = 0
    for path, result in _results(args, analyzer, paths):
        seen += 1
        if isinstance(result, str):
            failed += 1
            if not args.quiet:
                print(f"not read: {result}", file=sys.stderr)
        else:
            faces += len(result.faces)
        if args.out is None:
            _print(args, path, result)
    if not args.quiet:
        counts = f"{seen} photo{'s' * (seen != 1)} analysed, {faces} face{'s' * (faces != 1)}"
        print(f"{counts}, {failed} not read; {_NOTE}", file=sys.stderr)
    return PARTLY if failed else DONE


def _results(args, analyzer: "FaceAnalyzer", paths: list[pathlib.Path]) -> Iterator[tuple[pathlib.Path, Any]]:
    """Yields results as they are computed; with ``--out``, writes them and skips those that already exist."""
    from facejax.cli.reading import analyze_files
    from facejax.cli.results_file import ResultsFile, file_key

    if args.out is None:
        with Progress("photos", len(paths), quiet=args.quiet) as progress:
            for path, result, _ in analyze_files(analyzer, paths):
                progress.add()
                yield path, result
        return
    with ResultsFile(args.out, settings_of(args, analyzer)) as file:
        done, drawn = file.keys, args.out / _DRAWN
        # Computed before photos are read: one that is replaced in the meantime is analysed again in the next run.
        keys = {path: file_key(path) for path in paths}
        left = [
            path for path in paths if keys[path] not in done or (args.draw and not (drawn / _drawn_name(path)).exists())
        ]
        if len(left) < len(paths) and not args.quiet:
            print(f"{len(paths) - len(left)} of {len(paths)} photos are in {file.path} already", file=sys.stderr)
        with Progress("photos", len(left), quiet=args.quiet) as progress:
            for path, result, image in analyze_files(analyzer, left):
                picture = drawn / _drawn_name(path)
                picture.unlink(missing_ok=True)  # may show an older version of the photo
                if args.draw and image is not None and not isinstance(result, str):
                    _draw(picture, result.draw(image))
                # Photos that only needed drawing already have their line.
                if keys[path] not in done:
                    file.add(keys[path], _as_dict(path, result, args.embedding))
                progress.add()
                yield path, result
        _write_faces(args, analyzer)


def settings_of(args: argparse.Namespace, analyzer: "FaceAnalyzer") -> dict[str, Any]:
    """Everything that affects the result for a photo or frame, JSON-serialisable."""
    weights = [f"{model.cfg.name} {model.digest()}" for model in analyzer.models]
    return {"weights": weights, "min_face": args.min_face, "embedding": args.embedding}


def _as_dict(path: pathlib.Path, result: "PhotoResult | str", embedding: bool) -> dict[str, Any]:
    if isinstance(result, str):
        return {"photo": str(path), "error": result}
    return result.to_dict(embedding=embedding)


def _drawn_name(path: pathlib.Path) -> str:
    """File name with a hash of the path, as photos in several folders may share a name."""
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    # Truncated, as file systems allow names of at most 255 bytes.
    return f"{os.fsdecode(os.fsencode(path.stem)[:200])}_{digest}.jpg"


def _draw(path: pathlib.Path, image: Any) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    write_atomically(path, data.tobytes())


def _write_faces(args: argparse.Namespace, analyzer: "FaceAnalyzer") -> None:
    from facejax.cli.results_file import NAME, read_results, write_table
    from facejax.inference.results import flat_row

    # A photo that changed, or only became readable later, has several lines.
    last = {result["photo"]: number for number, result in enumerate(read_results(args.out / NAME))}

    def rows() -> Iterator[dict[str, Any]]:
        for number, result in enumerate(read_results(args.out / NAME)):
            if "error" in result or last[result["photo"]] != number:
                continue
            for index, face in enumerate(result["faces"]):
                yield {"photo": result["photo"], "face": index, **flat_row(face)}

    name = "faces.parquet" if args.parquet else "faces.csv"
    write_table(args.out / name, rows(), ["photo", "face", *columns(analyzer)])


def columns(analyzer: "FaceAnalyzer") -> list[str]:
    """Columns of the table of faces for an analyzer."""
    from facejax.inference.results import LANDMARKS, OUTPUT_NAMES

    names = ["x1", "y1", "x2", "y2", "score", *(f"{point}_{axis}" for point in LANDMARKS for axis in "xy")]
    for attribute, labels in analyzer.labels.items():
        if attribute == "valence_arousal":
            names += ["valence", "arousal"]
            continue
        names.append(OUTPUT_NAMES[attribute])
        names += [] if attribute == "age" else [f"{OUTPUT_NAMES[attribute]}_{label}" for label in labels]
    return names


def _print(args: argparse.Namespace, path: pathlib.Path, result: "PhotoResult | str") -> None:
    if args.json:
        print(json.dumps(_as_dict(path, result, args.embedding)), flush=True)
    elif not isinstance(result, str):
        print(f"{shown(path)}: {len(result.faces)} face{'s' * (len(result.faces) != 1)}")
        for face in result.faces:
            x1, y1, x2, y2 = (round(float(edge)) for edge in face.box)
            print(f"  [{x1}, {y1}, {x2}, {y2}] {'; '.join(face.caption()) or f'score {face.score:.3f}'}", flush=True)
