"""Records as a stream: counted exactly, cut into chunks as they come, and never all in memory."""

import dataclasses
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from facejax.data.metadata import Field
from facejax.data.records import Record
from facejax.data.shards import ChunkedShards
from facejax.datasets.registry import Dataset
from facejax.datasets.survey import by_chunk, read_records, survey


class Given(Dataset):
    """Yields what it is given."""

    name, description, licence, url = "given", "Given.", "MIT", "https://example.org/given"
    tasks, expected_counts, default_crop = (), {}, "none"

    def __init__(self, records):
        super().__init__()
        self.given = records

    def records(self, raw, **options) -> Iterator[Record]:
        self.skip("bad row", "row 3")
        yield from self.given


def photo():
    return np.zeros((4, 4, 3), np.uint8)


def numbered(count, **labels):
    """Every third for validation."""
    splits = ["validation" if index % 3 == 0 else "train" for index in range(count)]
    return [Record(f"{index:05d}", split, photo, {"age": index, **labels}) for index, split in enumerate(splits)]


def test_what_a_survey_says():
    records = numbered(10, person="x", valence=0)
    records[4] = dataclasses.replace(records[4], labels={"valence": 0.5, "pair": (1, 2)})
    found = survey(Given(records), None, {})
    assert dict(found.photos) == {"train": 6, "validation": 4}
    assert found.fields == {
        "age": Field("int64"),
        "pair": Field("int64", 2),
        "person": Field("text"),
        "valence": Field("float32"),
    }
    assert list(found.fields) == sorted(found.fields)
    assert found.made
    assert not found.boxed
    records[7] = dataclasses.replace(records[7], bbox=(0.0, 0.0, 1.0, 1.0))
    assert survey(Given(records), None, {}).boxed
    assert found.skipped == {"bad row": ("row 3",)}
    assert found.repeated == frozenset()


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x"},
        {"split": "validation"},
        {"labels": {"age": 3}},
        {"bbox": (0.0, 0.0, 1.0, 1.0)},
        {"landmarks": np.ones((5, 2), np.float32)},
    ],
)
def test_the_digest_tells_records_apart(change):
    records = numbered(5)
    same = survey(Given(numbered(5)), None, {})
    assert survey(Given(records), None, {}).digest == same.digest
    records[1] = dataclasses.replace(records[1], **change)
    assert survey(Given(records), None, {}).digest != same.digest


def test_second_uses_of_an_id_are_left_out():
    records = numbered(6)
    doubled = [records[0], records[1], records[1], records[2], records[0], *records[3:]]
    reader = Given(doubled)
    found = survey(reader, None, {})
    once = survey(Given(records), None, {})
    assert (found.photos, found.digest) == (once.photos, once.digest)
    assert found.skipped["id used twice"] == ("00001", "00000")
    assert len(found.repeated) == 2
    again = list(read_records(reader, None, {}, found.repeated))
    assert [record.id for record in again] == [record.id for record in records]


def test_labels_that_cannot_be():
    with pytest.raises(ValueError, match="00000: a label may not be called 'index'"):
        survey(Given(numbered(2, index=1)), None, {})
    mixed = [*numbered(2, name="x"), *(dataclasses.replace(r, id="z") for r in numbered(1, name=3))]
    with pytest.raises(TypeError, match="label 'name': records disagree on its type"):
        survey(Given(mixed), None, {})


def test_no_photo_is_found_or_all_are_left_out():
    with pytest.raises(ValueError, match=r"found no photo of given in None to keep; .* left out: 1 \(bad row\)$"):
        survey(Given([]), None, {})

    class Empty(Given):
        def records(self, raw, **options):
            yield from self.given

    with pytest.raises(ValueError, match="found no photo of given in None; expected its layout as published at"):
        survey(Empty([]), None, {})


def test_chunks_come_as_they_fill(tmp_path):
    records = numbered(30)
    store = ChunkedShards(tmp_path / "x", "given", {"train": 20, "validation": 10}, num_shards=5)
    wanted = [chunk for chunk in store.chunks if chunk.number % 2 == 0]
    found = list(by_chunk(iter(records), store.chunks, wanted))
    assert {chunk for chunk, _ in found} == set(wanted)
    for chunk, part in found:
        of_split = [record for record in records if record.split == chunk.split]
        assert part == of_split[chunk.start : chunk.stop]
    assert [chunk.split for chunk, _ in found] == ["validation", "train"] * 3  # neither split waits for the other


def test_a_folder_that_changes_in_between(tmp_path):
    records = numbered(30)
    store = ChunkedShards(tmp_path / "x", "given", {"train": 20, "validation": 10}, num_shards=5)
    with pytest.raises(ValueError, match=r"fewer photos than a moment ago \(train from 19\)"):
        list(by_chunk(records[:-1], store.chunks, store.chunks))
    with pytest.raises(ValueError, match="x: more photos than a moment ago"):
        list(by_chunk([*records, Record("x", "train", photo)], store.chunks, store.chunks))
    with pytest.raises(ValueError, match="x: more photos than a moment ago"):
        list(by_chunk([Record("x", "test", photo)], store.chunks, store.chunks))


class Many(Given):
    """Makes its records on demand."""

    def records(self, raw, **options) -> Iterator[Record]:
        for index in range(self.given):
            labels = {"identity": index // 100, "person": f"n{index // 100:06d}"}
            yield Record(f"train/n{index // 100:06d}/{index:07d}.jpg", "train", photo, labels)


def test_records_are_not_held(tmp_path):
    def peak(count):
        reader = Many(count)
        tracemalloc.start()
        found = survey(reader, None, {})
        store = ChunkedShards(tmp_path / "x", "given", found.photos)
        again = by_chunk(read_records(reader, None, {}, found.repeated), store.chunks, store.chunks)
        total = sum(len(part) for _, part in again)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == count
        return size

    peak(1000)
    # A record alone takes more than 600 bytes; its hash takes 8, twice while they are sorted, and its share of a chunk.
    assert (peak(8_000) - peak(2_000)) / 6_000 < 60
