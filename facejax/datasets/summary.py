"""Statistics on a dataset's photos: progress while it is prepared, counts and warnings when it is done."""

import collections
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from facejax.data.metadata import VERSION, class_names
from facejax.data.shards import Chunk, ChunkedShards
from facejax.datasets.crops import Outcome
from facejax.datasets.registry import Dataset

LISTS = ("no_face", "missing", "corrupt", "several_faces")
SECONDS_BETWEEN_LINES = 5.0


def summarise(
    store: ChunkedShards, reader: Dataset, skipped: Mapping[str, Sequence[str]], plan: Mapping[str, Any]
) -> dict[str, Any]:
    """Contents of summary.json, from the notes of all chunks and those of the reader.

    Args:
        store: Its chunks are all done.
        reader: Reader of the dataset.
        skipped: What the reader skipped, by reason.
        plan: Settings of the preparation, stored as ``plan``.
    """
    splits: dict[str, dict] = {}
    for chunk, note in store.notes():
        total = splits.setdefault(chunk.split, {"photos": 0, "faces": 0, **dict.fromkeys(LISTS, 0), "classes": {}})
        for key in ("photos", "faces"):
            total[key] += note[key]
        for kind in LISTS:
            total[kind] += len(note["lists"][kind])
        for key, counts in note["classes"].items():
            total["classes"].setdefault(key, collections.Counter()).update(counts)
    for total in splits.values():
        total["classes"] = {key: _named(key, counts) for key, counts in total["classes"].items()}
    return {
        "name": reader.name,
        "version": VERSION,
        "splits": splits,
        # Counts of all photos; an option of the reader may select some.
        "expected_photos": {} if plan["options"] else dict(reader.expected_counts),
        "expected_total": None if plan["options"] else reader.expected_total,
        "skipped_by_reader": {reason: len(places) for reason, places in sorted(skipped.items())},
        "plan": dict(plan),
    }


def _named(key: str, counts: Mapping[str, int]) -> dict[str, int]:
    names = class_names(key)
    in_order = sorted((int(value), count) for value, count in counts.items())
    return {("unknown" if value < 0 else names[value] if names else str(value)): count for value, count in in_order}


def describe_summary(summary: Mapping[str, Any]) -> list[str]:
    """Human-readable lines: the outcome of each split, and where its size differs from the published one."""
    lines = []
    for split, total in summary["splits"].items():
        lines.append(
            f"{summary['name']} {split}: of {total['photos']} photos {total['faces']} gave a crop, {total['no_face']} "
            f"had no face, {total['missing']} are missing, {total['corrupt']} corrupt"
        )
        if summary["plan"]["detector"]:
            lines[-1] += f"; {total['several_faces']} crops are from photos with several faces"
        for key in (key for key in total["classes"] if class_names(key)):
            lines.append(f"  {key}: " + ", ".join(f"{name} {count}" for name, count in total["classes"][key].items()))
    name = summary["name"]
    usable = collections.Counter(
        {split: total["photos"] - total["missing"] for split, total in summary["splits"].items()}
    )
    of_splits = {split: expected for split, expected in summary["expected_photos"].items() if expected is not None}
    compared = [(f"{name} {split}", usable[split], expected) for split, expected in of_splits.items()]
    if not of_splits and summary.get("expected_total"):  # absent from datasets prepared by older versions
        compared = [(name, usable.total(), summary["expected_total"])]
    for what, there, expected in compared:
        if there != expected:
            lines.append(
                f"WARNING: {what}: {there} photos found (missing ones not counted), {expected} "
                f"published ({there - expected:+d}). See missing.txt and skipped.txt"
            )
    lines += [f"{name}: {n} in skipped.txt: {reason}" for reason, n in summary["skipped_by_reader"].items()]
    return lines


def explain_no_crop(summary: Mapping[str, Any], notes: Iterable[tuple[Chunk, Mapping[str, Any]]]) -> str:
    """Why a whole dataset gave no crop: how many photos for each reason, and the first of them with that reason.

    Args:
        summary: From `summarise`.
        notes: Notes of all chunks (`ChunkedShards.notes`).
    """
    first: dict[str, Sequence[str]] = {}
    for _, note in notes:
        for kind, rows in note["lists"].items():
            if rows:
                first.setdefault(kind, rows[0])
    totals = summary["splits"].values()
    told = ", ".join(
        f"{sum(total[kind] for total in totals)} {kind.replace('_', ' ')} ({': '.join(row)})"
        for kind, row in sorted(first.items())
    )
    photos = sum(total["photos"] for total in totals)
    return f"{summary['name']}: none of {photos} photos gave a crop: {told}; see --raw and --crop"


class Progress:
    """Logs photos done, rate and time left, every few seconds."""

    def __init__(self, name: str, todo: int, done_before: int, log: Callable[[str], None]):
        self._name, self._todo, self._log = name, todo, log
        self._done, self._first, self._kinds = 0, 0, collections.Counter()
        self._start = self._last = self._begun = time.monotonic()
        if done_before:
            log(f"{name}: continuing; {done_before} photos are done, {todo} to do")

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Counts finished photos; logs if the last line is old enough."""
        if not self._done:  # includes the detector's compilation, so it is left out of the rate
            self._first, self._begun = len(outcomes), time.monotonic()
        self._done += len(outcomes)
        self._kinds.update(outcome.kind for outcome in outcomes)
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self.report()

    def report(self, last: bool = False) -> None:
        """Logs photos done, photos per second and seconds left; in the last line, the seconds taken."""
        self._last = time.monotonic()
        rate = (self._done - self._first) / max(self._last - self._begun, 1e-9)
        if last:
            speed = f", {self._last - self._start:.0f} s"
        else:
            speed = f", {rate:.1f}/s, {(self._todo - self._done) / rate:.0f} s left" if rate else ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self._kinds.items()))
        self._log(f"{self._name}: {self._done}/{self._todo} photos{speed} ({kinds})")
