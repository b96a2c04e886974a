"""Options shared by several commands, and the objects built from them."""

import argparse
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facejax.inference import FaceAnalyzer

DEFAULT_MODEL = "mobilenet_v1.vggface2_age_gender"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """``--model`` and ``--min-face``."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="FOLDER|NAME",
        help=f"a trained folder or published weights; may be given several times (default: {DEFAULT_MODEL})",
    )
    least = "smallest face to detect (default: 20); larger photos are downscaled to 8 megapixels first"
    parser.add_argument("--min-face", type=int, default=20, metavar="PIXELS", help=least)


def load_analyzer(models: Sequence[str] | None, min_face: int) -> "FaceAnalyzer":
    """Loads the networks of ``--model`` (None: the default) with a detector for ``--min-face``."""
    from facejax.detect import MTCNN
    from facejax.inference import FaceAnalyzer

    return FaceAnalyzer.load(*(models or [DEFAULT_MODEL]), detector=MTCNN(min_face=min_face))


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--quiet``."""
    parser.add_argument("--json", action="store_true", help="print JSON to standard output")
    parser.add_argument("--quiet", action="store_true", help="print no progress and no notes")


def make_out(folder: pathlib.Path) -> None:
    """Creates the folder of ``--out`` if it does not exist.

    Raises:
        ValueError: It is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file: choose a folder")
    folder.mkdir(parents=True, exist_ok=True)


def photos_of(sources: Sequence[str], without: pathlib.Path | None = None) -> Iterator[pathlib.Path]:
    """Yields the photos among files and folders: files as given, folders recursively in order of names.

    Links to folders are not followed, as they may form a loop. The folder `without` is skipped.

    Raises:
        FileNotFoundError: A file or folder does not exist.
    """
    from facejax.inference.images import PHOTO_SUFFIXES, UNREAD_SUFFIXES

    left_out = None if without is None else os.path.realpath(without)
    for source in sources:
        if os.path.isdir(source):  # '' is not a folder, though pathlib takes it for the current one
            for folder, folders, files in os.walk(source):
                folders[:] = [name for name in sorted(folders) if os.path.realpath(f"{folder}/{name}") != left_out]
                for name in sorted(files):
                    if pathlib.PurePath(name).suffix.lower() in PHOTO_SUFFIXES | UNREAD_SUFFIXES:
                        yield pathlib.Path(folder) / name
        elif os.path.exists(source):
            yield pathlib.Path(source)
        else:
            raise FileNotFoundError(f"no file or folder {source!r}")


def shown(path: str | os.PathLike) -> str:
    """A path as printable text: a name need not be UTF-8, and may contain any byte except 0 and the slash."""
    return os.fsencode(path).decode(errors="replace")
