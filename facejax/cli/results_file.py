"""``results.jsonl``: one line per photo, written as computed, so that an interrupted run can be resumed."""

import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TextIO

from facejax.atomic import atomic_file, write_atomically
from facejax.cli.options import make_out, shown
from facejax.locks import exclusive_lock

NAME, SETTINGS = "results.jsonl", "settings.json"
FRAMES = "frames.jsonl"  # for a video, instead of NAME


class ResultsFile:
    """Lines ``{"key": ..., "result": {...}}``; use as a context manager.

    A key consists of a photo's path, size and modification time: a photo that changed is analysed again, and its last
    line counts. An incomplete last line, left by a killed process, is dropped.

    Args:
        folder: Folder of the file.
        settings: Everything that affects the results; a run with different settings is rejected.

    Raises:
        ValueError: The folder contains results of other settings, or files of these names not written by facejax.
        BlockingIOError: Another process is writing to it.
    """

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any]):
        self.path = folder / NAME
        # Photo -> key and error of its last line.
        self._last: dict[str, tuple[str, str | None]] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked_folder(folder, settings))
            if self.path.exists():
                self._recover()
            keep_settings(folder, settings)
            self._file = stack.enter_context(self.path.open("a"))
            self._close = stack.pop_all().close

    @property
    def keys(self) -> set[str]:
        """Keys of the photos whose last line is a result, not an error."""
        return {key for key, error in self._last.values() if error is None}

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Appends a line and flushes it; an error that repeats the photo's last line is not written again."""
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
                        f"line {number} of {self.path} is broken or was not written by facejax: choose another --out"
                    ) from error
                whole += len(line)
        os.truncate(self.path, whole)


@contextlib.contextmanager
def locked_folder(folder: pathlib.Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Locks a folder of results for this process; creates it if needed.

    Raises:
        ValueError: It contains results of other settings, or files of these names not written by facejax.
        BlockingIOError: Another process is writing to it.
    """
    make_out(folder)
    if (folder / SETTINGS).exists():
        _check_settings(folder / SETTINGS, settings)
    else:
        for path in (folder / NAME, folder / FRAMES):
            if path.exists():
                raise ValueError(
                    f"{path} was not written by facejax, or by an older one: there is no {SETTINGS} next to it; "
                    "choose another --out"
                )
    with exclusive_lock(folder):  # only now, so that no lock file is left in a folder of other files
        for left in folder.glob(f"{FRAMES}.*.tmp"):  # left by a run that was killed
            left.unlink()
        yield


def keep_settings(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings that `locked_folder` compares with."""
    write_atomically(folder / SETTINGS, (json.dumps(settings) + "\n").encode())


def _check_settings(path: pathlib.Path, settings: Mapping[str, Any]) -> None:
    try:
        made = json.loads(path.read_text())
    except ValueError:
        made = None
    if made == settings:
        return
    if not isinstance(made, dict) or made.keys().isdisjoint(settings):
        raise ValueError(f"{path} was not written by facejax: choose another --out")
    if missing := ", ".join(sorted(settings.keys() - made.keys())):
        raise ValueError(
            f"{path} is from an older facejax or another kind of source (lacks: {missing}): choose another --out"
        )
    differ = ", ".join(sorted(key for key in {*made, *settings} if made.get(key) != settings.get(key)))
    raise ValueError(f"{path.parent} contains results of other settings (differ: {differ}): choose another --out")


def file_key(path: pathlib.Path) -> str:
    """Identifies the content of a photo or video without reading it: path, size and modification time."""
    try:
        status = path.stat()
    except OSError:
        return f"{path}|gone"
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def read_results(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields the results in a file. If a photo is there more than once, the last result is the valid one."""
    with path.open() as file:
        for line in file:
            yield json.loads(line)["result"]


def write_table(path: pathlib.Path, rows: Iterator[dict[str, Any]], columns: list[str]) -> None:
    """Writes a CSV or, by the suffix, a Parquet file atomically, with at most a thousand rows in memory."""
    with atomic_file(path) as file:
        if path.suffix == ".parquet":
            _write_parquet(file, rows, columns)
            return
        # A photo's name need not be UTF-8: its bytes are written unchanged.
        with as_text(file, errors="surrogateescape", newline="") as text:
            writer = csv.DictWriter(text, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


@contextlib.contextmanager
def as_text(file: BinaryIO, **options: Any) -> Iterator[TextIO]:
    """Wraps a binary file, which stays open, for writing UTF-8 text; options are those of `io.TextIOWrapper`."""
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
