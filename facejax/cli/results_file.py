"""``results.jsonl``: one line a photo, written as they come, so that a stopped run of a large folder goes on."""

import csv
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from facejax.data.tfrecord import write_atomically

NAME, SETTINGS = "results.jsonl", "settings.json"


class ResultsFile:
    """Lines ``{"key": ..., "result": {...}}``; use as a context manager.

    A key is a photo's path, length and time of change: a photo that changed is looked at again. A line that a kill has
    torn is dropped.

    Args:
        folder: Where the file lies.
        settings: What decides the results; another run with other settings is refused.

    Raises:
        ValueError: The folder holds results of other settings.
    """

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        kept = folder / SETTINGS
        if self.path.exists() and kept.exists():
            made = json.loads(kept.read_text())
            if made != settings:
                differ = ", ".join(sorted(key for key in {*made, *settings} if made.get(key) != settings.get(key)))
                raise ValueError(f"{folder} holds results of other settings (differ: {differ}): choose another --out")
        write_atomically(kept, (json.dumps(settings) + "\n").encode())
        self.keys = self._recover()
        self._file = self.path.open("a")

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Appends a line; it is in the file when this returns."""
        self._file.write(json.dumps({"key": key, "result": result}) + "\n")
        self._file.flush()
        self.keys.add(key)

    def __enter__(self) -> "ResultsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _recover(self) -> set[str]:
        keys, whole = set(), 0
        if not self.path.exists():
            return keys
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    keys.add(json.loads(line)["key"])
                except (ValueError, KeyError, TypeError):
                    break
                whole += len(line)
        os.truncate(self.path, whole)
        return keys


def photo_key(path: pathlib.Path) -> str:
    """What identifies a photo's content without reading it."""
    try:
        status = path.stat()
    except OSError:
        return f"{path}|gone"
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def read_results(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The results of a file, one after another; of a photo that is there twice, both."""
    with path.open() as file:
        for line in file:
            yield json.loads(line)["result"]


def write_table(path: pathlib.Path, rows: Iterator[dict[str, Any]], columns: list[str]) -> None:
    """Writes a csv or, by its suffix, a parquet file; whole or not at all, a thousand rows in memory.

    Raises:
        ImportError: Parquet needs pyarrow.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.suffix == ".parquet":
            _write_parquet(partial, rows, columns)
        else:
            with partial.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_parquet(path: pathlib.Path, rows: Iterator[dict[str, Any]], columns: list[str]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("parquet files need pyarrow: pip install 'facejax[tables]'") from error
    import itertools

    texts = {"photo", "perceived_gender", "perceived_ethnicity", "expression"}
    whole = {"face", "frame", "track"}
    schema = pyarrow.schema(
        [
            (name, pyarrow.string() if name in texts else pyarrow.int64() if name in whole else pyarrow.float64())
            for name in columns
        ]
    )
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(rows, 1000)):
            full = [{name: row.get(name) for name in columns} for row in group]
            writer.write_table(pyarrow.Table.from_pylist(full, schema))
