"""A set's records as a stream, read twice: first to count them, then to cut them. None is kept, however many there are.

VGGFace2 has 3.3 million photos; a list of their records would take gigabytes. The first reading keeps eight bytes a
photo (to find ids that are used twice) and what it sums up; the second one holds a chunk of each split.
"""

import array
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from facejax.data.metadata import STORED_FIELDS, Field, infer_field
from facejax.data.records import Record
from facejax.data.shards import Chunk
from facejax.datasets.registry import Dataset

_DTYPES = {int: "int64", float: "float32", str: "text"}


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a set's reader yields, summed up.

    Attributes:
        photos: Number of records by split, in the order of their names.
        fields: Types of their labels by name, sorted.
        digest: Hash of all that the reader says of every record; another reading of the same photos gives the same.
        made: Whether photos are made by functions, not read from files.
        boxed: Whether any of them has a box.
        skipped: What the reader left out: files or rows by reason.
        repeated: Hashes of the ids that are used more than once.
    """

    photos: Mapping[str, int]
    fields: Mapping[str, Field]
    digest: str
    made: bool
    boxed: bool
    skipped: Mapping[str, Sequence[str]]
    repeated: frozenset[int] = frozenset()


def survey(reader: Dataset, raw: pathlib.Path | None, options: Mapping[str, object]) -> Survey:
    """Reads all records once (twice where an id is used twice).

    Raises:
        ValueError: The reader finds no photo in the folder, or leaves all of them out; or a label has the name of a
            stored field.
        TypeError: Records disagree on the type of a label.
    """
    found = _survey(reader, raw, options, frozenset())
    if found.repeated:
        found = _survey(reader, raw, options, found.repeated)
    if not found.photos and found.skipped:
        left_out = ", ".join(f"{len(places)} ({reason})" for reason, places in found.skipped.items())
        raise ValueError(f"found no photo of {reader.name} in {raw} to keep; rows or files left out: {left_out}")
    if not found.photos:
        raise ValueError(f"found no photo of {reader.name} in {raw}; expected its layout as published at {reader.url}")
    return found


def _survey(
    reader: Dataset, raw: pathlib.Path | None, options: Mapping[str, object], repeated: frozenset[int]
) -> Survey:
    photos: dict[str, int] = {}
    digests = {}
    fields: dict[str, Field] = {}
    hashes = array.array("Q")
    made = boxed = False
    for record in read_records(reader, raw, options, repeated, again=bool(repeated)):
        if record.split not in photos:
            photos[record.split], digests[record.split] = 0, hashlib.sha256()
        photos[record.split] += 1
        digests[record.split].update(_describe(record))
        hashes.append(_hash(record.id))
        made = made or callable(record.image)
        boxed = boxed or record.bbox is not None
        for key, value in record.labels.items():
            known = fields.get(key)
            if known is None and (key in STORED_FIELDS or key in ("image", "index", "mask")):
                raise ValueError(f"{record.id}: a label may not be called {key!r}")
            # Nearly all are of the type that is known: the full inference would take most of the reading's time.
            if known is None or known.length or known.dtype != _DTYPES.get(type(value)):
                fields[key] = infer_field(key, value, known)
    splits = sorted(photos)
    whole = hashlib.sha256("".join(f"{split} {digests[split].hexdigest()}\n" for split in splits).encode())
    return Survey(
        photos={split: photos[split] for split in splits},
        fields=dict(sorted(fields.items())),
        digest=whole.hexdigest(),
        made=made,
        boxed=boxed,
        skipped={reason: tuple(places) for reason, places in reader.skipped.items()},
        repeated=repeated or _repeated(np.frombuffer(hashes, np.uint64)),
    )


def _describe(record: Record) -> bytes:
    labels = sorted((key, str(value)) for key, value in record.labels.items())
    points = None if record.landmarks is None else np.asarray(record.landmarks, np.float32).tobytes()
    return repr((record.id, record.bbox, points, labels)).encode()


def _hash(record_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "little")


def _repeated(hashes: np.ndarray) -> frozenset[int]:
    ordered = np.sort(hashes)
    return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def read_records(
    reader: Dataset,
    raw: pathlib.Path | None,
    options: Mapping[str, object],
    repeated: frozenset[int],
    *,
    again: bool = True,
) -> Iterator[Record]:
    """Yields the set's records in the reader's order, without second uses of an id.

    Args:
        reader: Of the set; its `skipped` is of this reading when it is over.
        raw: The set's folder.
        options: Of the reader.
        repeated: `Survey.repeated`: only for these need the ids be kept.
        again: What the reader leaves out was logged before and is only counted now.
    """
    reader.skipped.clear()
    reader.read_before = again
    seen = set()
    try:
        for record in reader.records(raw, **options):
            if repeated and _hash(record.id) in repeated:
                if record.id in seen:
                    reader.skip("id used twice", record.id)
                    continue
                seen.add(record.id)
            yield record
    finally:
        reader.read_before = False


def by_chunk(
    records: Iterable[Record], chunks: Sequence[Chunk], wanted: Iterable[Chunk]
) -> Iterator[tuple[Chunk, list[Record]]]:
    """Yields the wanted chunks with their records, each as soon as the last of these was read.

    Args:
        records: All of the set's, in the reader's order; the splits may alternate.
        chunks: All of the set's.
        wanted: Those to yield; the records of the others are passed over.

    Raises:
        ValueError: There are fewer or more records than the chunks hold: the folder has changed.
    """
    wanted = set(wanted)
    ahead: dict[str, Iterator[Chunk]] = {}
    for split in {chunk.split for chunk in chunks}:
        ahead[split] = iter([chunk for chunk in chunks if chunk.split == split])
    current = {split: next(of_split, None) for split, of_split in ahead.items()}
    places = dict.fromkeys(current, 0)
    parts: dict[str, list[Record]] = {split: [] for split in current}
    for record in records:
        chunk = current.get(record.split)
        if chunk is None:
            raise ValueError(f"{record.id}: more photos than a moment ago; the folder changed: start again")
        places[record.split] += 1
        if chunk in wanted:
            parts[record.split].append(record)
        if places[record.split] == chunk.stop:
            if chunk in wanted:
                yield chunk, parts[record.split]
            parts[record.split] = []
            current[record.split] = next(ahead[record.split], None)
    if any(current.values()):
        short = ", ".join(f"{split} from {places[split]}" for split, chunk in current.items() if chunk)
        raise ValueError(f"fewer photos than a moment ago ({short}); the folder changed: start again")
