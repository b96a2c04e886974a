"""``facejax search``: builds an index of known people and finds them in other photos.

    facejax search index PEOPLE --out INDEX       PEOPLE/NAME/photo.jpg, one folder per person
    facejax search find INDEX PHOTO ...

Similarity is the cosine between embeddings. The threshold is calibrated on the index itself: at most a fraction
``--false-matches`` of the pairs of photos of different people exceed it. Identifying people needs a lawful reason and
usually their consent; see docs/responsible_use.md.
"""

import argparse
import io
import json
import math
import pathlib
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from facejax.atomic import atomic_file
from facejax.cli import DONE, PARTLY
from facejax.cli.options import DEFAULT_MODEL, add_output_options, load_analyzer, make_out, photos_of, shown
from facejax.cli.progress import Progress

FORMAT = 2
NAME = "index.npz"
_CONTENT = {"format", "model", "weights", "min_face", "threshold"}
# Rows compared at once.
_BLOCK = 1024


def add_parser(commands: Any) -> None:
    """Adds the command and its two subcommands."""
    parser = commands.add_parser(
        "search",
        help="index known people, find them in photos",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", required=True)
    index = parts.add_parser(
        "index",
        help="build an index from a folder with one subfolder per person",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    index.add_argument("people", type=pathlib.Path, help="folder with one subfolder of photos per person")
    index.add_argument("--out", type=pathlib.Path, required=True, metavar="FOLDER")
    index.add_argument("--model", default=DEFAULT_MODEL, metavar="FOLDER|NAME", help=f"default: {DEFAULT_MODEL}")
    index.add_argument("--min-face", type=int, default=20, metavar="PIXELS")
    index.add_argument(
        "--false-matches",
        type=float,
        default=0.001,
        metavar="RATE",
        help="fraction of pairs of different people that may exceed the threshold\n(0.001; needs 1 / RATE such pairs)",
    )
    add_output_options(index)
    index.set_defaults(run=run_index)
    find = parts.add_parser("find", help="find out who is in photos")
    find.add_argument("index", type=pathlib.Path)
    find.add_argument("photo", nargs="+")
    find.add_argument("--threshold", type=float, help="minimum similarity, instead of the calibrated threshold")
    add_output_options(find)
    find.set_defaults(run=run_find)


def run_index(args: argparse.Namespace) -> int:
    """Builds an index; returns the exit status."""
    _check_rate(args.false_matches)  # first, as the photos take minutes
    if not args.people.is_dir():
        raise ValueError(f"{args.people} is not a folder; expected one with a subfolder of photos for each person")
    labelled = [
        (path, folder.name)
        for folder in sorted(args.people.iterdir())
        if folder.is_dir()
        for path in photos_of([str(folder)])
    ]
    if not labelled:
        raise ValueError(f"no photo in {args.people}; expected PEOPLE/NAME/photo.jpg")
    make_out(args.out)  # if this fails, the photos need not be read
    analyzer = load_analyzer([args.model], args.min_face)
    embeddings, names, without, failed = _embed(analyzer, labelled, args.quiet)
    if not embeddings:
        raise ValueError(f"no face was found in the photos of {args.people}")
    vectors = np.stack(embeddings).astype(np.float32)
    threshold, different, same = calibrate(vectors, np.array(names), args.false_matches)
    folder = pathlib.Path(args.model)
    content = {
        "format": FORMAT,
        "model": str(folder.absolute()) if folder.is_dir() else args.model,
        "weights": analyzer.models[0].digest(),
        "min_face": args.min_face,
        "threshold": threshold,
    }
    _write(args.out, content, vectors, names)
    if missing := sorted({name for _, name in labelled} - set(names)):
        print(f"not in the index, as no face was found: {', '.join(missing)}", file=sys.stderr)
    told = {
        "people": len(set(names)),
        "faces": len(names),
        "photos_without_face": without,
        "photos_not_read": failed,
        "threshold": threshold,
        "pairs_of_different_people": different,
        "pairs_of_one_person_found": same,
    }
    if args.json:
        print(json.dumps(told))
    else:
        words = {name.replace("_", " "): "none" if value is None else value for name, value in told.items()}
        if threshold is not None:
            words["threshold"] = f"{threshold:.3f}"
        if same is not None:
            words["pairs of one person found"] = f"{same:.1%}"
        print("; ".join(f"{name}: {value}" for name, value in words.items()))
    if threshold is None and not args.quiet:
        print(
            f"{different} pairs of different people are too few to calibrate {args.false_matches:g}, which needs "
            f"{math.ceil(1 / args.false_matches)}: {_remedy(different)}, or give `find` a --threshold",
            file=sys.stderr,
        )
    return PARTLY if failed else DONE


def _embed(
    analyzer: Any, labelled: list[tuple[pathlib.Path, str]], quiet: bool
) -> tuple[list[np.ndarray], list[str], int, int]:
    """Embeddings of the largest face per photo, their names, and the numbers of faceless and unreadable photos."""
    embeddings, names, without, failed = [], [], 0, 0
    with Progress("photos", len(labelled), quiet=quiet) as progress:
        for (_, name), faces in zip(labelled, _faces(analyzer, [path for path, _ in labelled]), strict=True):
            progress.add()
            if isinstance(faces, str):
                failed += 1
                print(f"not read: {faces}", file=sys.stderr)
            elif not faces:
                without += 1
            else:
                embeddings.append(max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2]))).embedding)
                names.append(name)
    return embeddings, names, without, failed


def _remedy(different: int) -> str:
    """What to do about too few pairs of different people; without any, no rate can be calibrated."""
    return "add people or photos, build the index with a higher --false-matches" if different else "add people"


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise ValueError(f"expected a false-match rate between 0 and 1, got {rate}")


def calibrate(
    vectors: Float[np.ndarray, "n features"], names: np.ndarray, rate: float
) -> tuple[float | None, int, float | None]:
    """Finds the threshold that at most a fraction `rate` of the pairs of different people exceed.

    Args:
        vectors: L2-normalised embeddings.
        names: Name of the person of each embedding, (n,) text.
        rate: False-match rate, 0 to 1.

    Returns:
        The threshold, None if there are fewer than 1 / rate such pairs; their number; and the fraction of pairs of the
        same person that reach the threshold, None if there are no such pairs.
    """
    _check_rate(rate)
    different, same = [], []
    for start in range(0, len(vectors), _BLOCK):
        similar = vectors[start : start + _BLOCK] @ vectors.T
        later = np.arange(len(vectors))[None] > np.arange(start, start + len(similar))[:, None]
        equal = names[start : start + _BLOCK, None] == names[None]
        different.append(similar[later & ~equal])
        same.append(similar[later & equal])
    others, own = np.concatenate(different), np.concatenate(same)
    if len(others) * rate < 1:
        return None, len(others), None
    allowed = int(len(others) * rate)
    # The smallest similarity above that of all but `allowed` pairs.
    threshold = float(np.nextafter(np.partition(others, -allowed - 1)[-allowed - 1], np.float32(2)))
    return threshold, len(others), float((own >= threshold).mean()) if len(own) else None


def run_find(args: argparse.Namespace) -> int:
    """Prints who is in photos; returns the exit status."""
    content, vectors, names = _read(args.index)
    threshold = content["threshold"] if args.threshold is None else args.threshold
    if threshold is None:
        raise ValueError(
            "this index has no threshold, as it has too few people: give one (a cosine, at most 1) by --threshold, "
            f"or build it again: {_remedy(len(set(names)) - 1)}"
        )
    if args.threshold is not None and not -1 <= threshold <= 1:
        raise ValueError(f"expected --threshold to be a cosine, -1 to 1, got {threshold:g}")
    paths = list(photos_of(args.photo))
    if not paths:
        raise ValueError(f"no photo in {', '.join(args.photo)}")
    analyzer = load_analyzer([content["model"]], content["min_face"])
    if analyzer.models[0].digest() != content["weights"]:
        raise ValueError(f"{args.index} was built with other weights than {content['model']} has now: build it again")
    failed = 0
    for path, faces in zip(paths, _faces(analyzer, paths), strict=True):
        if isinstance(faces, str):
            failed += 1
            print(f"not read: {faces}", file=sys.stderr)
            continue
        found = []
        for face in faces:
            similar = vectors @ face.embedding
            best = int(similar.argmax())
            name = str(names[best]) if similar[best] >= threshold else None
            found.append({"box": face.to_dict()["box"], "name": name, "similarity": float(similar[best])})
        if args.json:
            print(json.dumps({"photo": str(path), "threshold": threshold, "faces": found}))
        else:
            words = [f"{shown(match['name'] or 'unknown')} ({match['similarity']:.2f})" for match in found]
            print(f"{shown(path)}: {', '.join(words) or 'no face'}")
    return PARTLY if failed else DONE


def _faces(analyzer: Any, paths: list[pathlib.Path]) -> Iterator[Any]:
    """Yields the faces of each photo, or the reason why it could not be read."""
    from facejax.cli.reading import analyze_files

    for _, result, _ in analyze_files(analyzer, paths):
        yield result if isinstance(result, str) else result.faces


def _write(folder: pathlib.Path, content: dict[str, Any], vectors: np.ndarray, names: list[str]) -> None:
    # A single file, so that embeddings, names and threshold always come from the same run.
    with atomic_file(folder / NAME) as file:
        np.savez(file, embeddings=vectors, names=np.array(names), content=np.array(json.dumps(content)))


def _read(folder: pathlib.Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Reads what `_write` wrote, without unpickling anything.

    Raises:
        FileNotFoundError: There is no index.
        ValueError: It is damaged, or has another format.
    """
    if not (folder / NAME).is_file():
        make = f"facejax search index PEOPLE --out {shlex.quote(str(folder))}"
        raise FileNotFoundError(f"no index in {folder}; to build one: {make}")
    data = io.BytesIO((folder / NAME).read_bytes())
    try:
        with np.load(data, allow_pickle=False) as arrays:
            # Format 1 stored its content in a separate file.
            content = json.loads(arrays["content"].item()) if "content" in arrays else {"format": 1}
            vectors, names = arrays["embeddings"], arrays["names"]
            found = content["format"]
            if found == FORMAT and (missing := _CONTENT - content.keys()):
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except Exception as error:  # from zip, NumPy or JSON, depending on what is damaged
        raise ValueError(f"{folder} contains a damaged index: build it again") from error
    if found != FORMAT:
        raise ValueError(f"{folder} contains an index of format {found}, expected {FORMAT}: build it again")
    return content, vectors, names
