"""``results.jsonl``: one line a photo, written as they come, so that a stopped run of a large folder goes on."""

import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TextIO

from facejax.atomic import whole_file, write_atomically
from facejax.cli.options import make_out, shown
from facejax.locks import alone_in

NAME, SETTINGS = "results.jsonl", "settings.json"
FRAMES = "frames.jsonl"  # of a video, in place of NAME


class ResultsFile:
    """Lines ``{"key": ..., "result": {...}}``; use as a context manager.

    A key is a photo's path, length and time of change: a photo that changed is looked at again, and its last line
    counts. A last line that a kill has torn is dropped.

    Args:
        folder: Where the file lies.
        settings: What decides the results; another run with other settings is refused.

    Raises:
        ValueError: The folder holds results of other settings, or files of these names that facejax did not write.
        BlockingIOError: Another process writes to it now.
    """

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any]):
        self.path = folder / NAME
        # Of each photo that has a line, the key and the error of the last one.
        self._last: dict[str, tuple[str, str | None]] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(held_folder(folder, settings))
            if self.path.exists():
                self._recover()
            keep_settings(folder, settings)
            self._file = stack.enter_context(self.path.open("a"))
            self._close = stack.pop_all().close

    @property
    def keys(self) -> set[str]:
        """Keys of the photos whose last line is a result and no error."""
        return {key for key, error in self._last.values() if error is None}

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Appends a line; it is in the file when this returns. An error that the photo's last line has is left out."""
        if "error" in result and self._last.get(result.get("photo", key)) == (key, result["error"]):
            return
        self._file.write(json.dumps({"key": key, "result": result}) + "\n")
        self._file.flush()
        self._remember(key, result)

    def __enter__(self) -> "ResultsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _remember(self, key: str, result: Mapping[str, Any]) -> None:
        self._last[result.get("photo", key)] = (key, result.get("error"))

    def _recover(self) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    told = json.loads(line)
                    self._remember(told["key"], told["result"])
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise ValueError(
                        f"line {number} of {self.path} is broken, or is not of facejax: choose another --out"
                    ) from error
                whole += len(line)
        os.truncate(self.path, whole)


@contextlib.contextmanager
def held_folder(folder: pathlib.Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """A folder of results for this process alone; makes it where there is none.

    Raises:
        ValueError: It holds results of other settings, or files of these names that facejax did not write.
        BlockingIOError: Another process writes to it now.
    """
    make_out(folder)
    if (folder / SETTINGS).exists():
        _check_settings(folder / SETTINGS, settings)
    else:
        for path in (folder / NAME, folder / FRAMES):
            if path.exists():
                raise ValueError(
                    f"{path} is not of facejax, or of an older one: no {SETTINGS} is beside it; choose another --out"
                )
    with alone_in(folder):  # not before: its file is not left in a folder of somebody else
        for left in folder.glob(f"{FRAMES}.*.tmp"):  # by a run that was killed
            left.unlink()
        yield


def keep_settings(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Writes what `held_folder` compares with."""
    write_atomically(folder / SETTINGS, (json.dumps(settings) + "\n").encode())


def _check_settings(path: pathlib.Path, settings: Mapping[str, Any]) -> None:
    try:
        made = json.loads(path.read_text())
    except ValueError:
        made = None
    if made == settings:
        return
    if not isinstance(made, dict) or made.keys().isdisjoint(settings):
        raise ValueError(f"{path} is not of facejax: choose another --out")
    if missing := ", ".join(sorted(settings.keys() - made.keys())):
        raise ValueError(
            f"{path} is of an older facejax, or of another kind of source (lacks: {missing}): choose another --out"
        )
    differ = ", ".join(sorted(key for key in {*made, *settings} if made.get(key) != settings.get(key)))
    raise ValueError(f"{path.parent} holds results of other settings (differ: {differ}): choose another --out")


def file_key(path: pathlib.Path) -> str:
    """What identifies the content of a photo or a video without reading it."""
    try:
        status = path.stat()
    except OSError:
        return f"{path}|gone"
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def read_results(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The results of a file, one after another; of a photo that is there twice, both, the later one counts."""
    with path.open() as file:
        for line in file:
            yield json.loads(line)["result"]


def write_table(path: pathlib.Path, rows: Iterator[dict[str, Any]], columns: list[str]) -> None:
    """Writes a csv or, by its suffix, a parquet file; whole or not at all, a thousand rows in memory."""
    with whole_file(path) as file:
        if path.suffix == ".parquet":
            _write_parquet(file, rows, columns)
            return
        # A photo's name need not be UTF-8: its bytes are written as they are.
        with as_text(file, errors="surrogateescape", newline="") as text:
            writer = csv.DictWriter(text, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


@contextlib.contextmanager
def as_text(file: BinaryIO, **options: Any) -> Iterator[TextIO]:
    """UTF-8 text to write to a file of bytes, which stays open; options are `io.TextIOWrapper`'s."""
    text = io.TextIOWrapper(file, "utf-8", **options)
    try:
        yield text
    finally:
        text.detach()  # flushes


def _write_parquet(file: BinaryIO, rows: Iterator[dict[str, Any]], columns: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = {"photo", "perceived_gender", "perceived_ethnicity", "expression"}
    whole = {"face", "frame", "track"}
    schema = pyarrow.schema(
        [
            (name, pyarrow.string() if name in texts else pyarrow.int64() if name in whole else pyarrow.float64())
            for name in columns
        ]
    )
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while group := list(itertools.islice(rows, 1000)):
            full: list[dict[str, Any]] = [{name: row.get(name) for name in columns} for row in group]
            for row in full:
                if "photo" in row:
                    row["photo"] = shown(row["photo"])  # Arrow's text is UTF-8
            writer.write_table(pyarrow.Table.from_pylist(full, schema))
