"""TFRecord shards against an independent CRC32C and hand-built records; damage of every kind."""

import os
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from facejax.data import tfrecord
from facejax.data.tfrecord import (
    BrokenFramingError,
    CorruptRecordError,
    TFRecordSource,
    frame,
    index_path,
    masked_crc32c,
    read_index,
    write_shard,
)


def slow_crc32c(data: bytes) -> int:
    """Bit by bit, from the polynomial (Castagnoli, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = slow_crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


RECORDS = [b"", b"a", b"123456789", bytes(range(256)) * 5, b"z" * 1000]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "set-train.tfrecord-00000-of-00001"
    write_shard(path, RECORDS, {"emotion": np.arange(5), "person": np.array(list("abcde"))})
    return path


def test_crc_check_value():
    assert slow_crc32c(b"123456789") == 0xE3069283
    assert [masked_crc32c(record) for record in RECORDS] == [masked(record) for record in RECORDS]


def test_bytes_of_a_shard(shard):
    expected = b""
    for record in RECORDS:
        length = struct.pack("<Q", len(record))
        expected += length + struct.pack("<I", masked(length)) + record + struct.pack("<I", masked(record))
    assert shard.read_bytes() == expected


def test_both_files_are_on_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    """Otherwise a power failure could leave an empty file under the final name."""
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(tfrecord.os, name)
        monkeypatch.setattr(tfrecord.os, name, lambda *args, n=name, f=original: calls.append(n) or f(*args))
    write_shard(tmp_path / "shard", RECORDS)
    assert calls == ["fsync", "replace"] * 2


def test_index_points_at_records(shard):
    offsets, lengths, labels = read_index(shard)
    assert lengths.tolist() == [len(record) for record in RECORDS]
    assert offsets.tolist() == [sum(16 + len(r) for r in RECORDS[:i]) for i in range(5)]
    assert labels["emotion"].tolist() == [0, 1, 2, 3, 4]
    index_path(shard).unlink()
    scanned = read_index(shard)
    assert (scanned[0] == offsets).all()
    assert (scanned[1] == lengths).all()


def test_random_access_over_shards(shard, tmp_path):
    second = tmp_path / "second"
    write_shard(second, [b"x", b"y"], {"emotion": np.array([7, 8])})
    source = TFRecordSource([shard, second])
    assert len(source) == 7
    assert [source[i] for i in (6, 0, 3, 5, 2)] == [b"y", b"", RECORDS[3], b"x", b"123456789"]
    assert source.labels["emotion"].tolist() == [0, 1, 2, 3, 4, 7, 8]
    assert "person" not in source.labels  # only in one of the shards
    assert source.locate(6) == (second, 17)
    for index in (7, -1):  # not the last record
        with pytest.raises(IndexError):
            source[index]


def test_closing_gives_the_files_back(shard, monkeypatch):
    opened, closed, close = [], [], os.close
    source = TFRecordSource([shard])
    assert source[2] == RECORDS[2]
    opened += source._descriptors.values()
    monkeypatch.setattr(tfrecord.os, "close", lambda descriptor: (closed.append(descriptor), close(descriptor)))
    source.close()
    assert opened == closed != []
    assert source[2] == RECORDS[2]
    opened += source._descriptors.values()
    del source
    assert opened == closed


def test_threads_share_a_source(shard):
    source = TFRecordSource([shard])
    places = np.random.default_rng(0).integers(0, 5, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.__getitem__, places)) == [RECORDS[place] for place in places]


@pytest.mark.parametrize("indexed", [True, False])
def test_truncated_shard(shard, indexed):
    data = shard.read_bytes()
    shard.write_bytes(data[:-10])
    if not indexed:
        index_path(shard).unlink()
        with pytest.raises(
            BrokenFramingError, match=r"00000-of-00001: record at byte 1354: truncated.*cannot be skipped"
        ):
            TFRecordSource([shard])
        return
    source = TFRecordSource([shard])
    assert source[3] == RECORDS[3]
    with pytest.raises(CorruptRecordError, match=r"record at byte 1354: truncated: 1006 of 1016 bytes") as caught:
        source[4]
    assert caught.value.offset == 1354
    shard.write_bytes(data[:1354])
    with pytest.raises(CorruptRecordError, match="0 of its header's 12 bytes"):
        source[4]


@pytest.mark.parametrize(
    ("place", "message"), [(1354 + 20, "bad CRC of its data"), (1354 + 2, "bad CRC of its length")]
)
def test_flipped_bit(shard, place, message):
    data = bytearray(shard.read_bytes())
    data[place] ^= 4
    shard.write_bytes(data)
    source = TFRecordSource([shard])
    assert source[3] == RECORDS[3]
    with pytest.raises(CorruptRecordError, match=message):
        source[4]


def test_damaged_length_without_an_index(shard):
    data = bytearray(shard.read_bytes())
    data[2] ^= 4
    shard.write_bytes(data)
    index_path(shard).unlink()
    with pytest.raises(BrokenFramingError, match=r"byte 0: bad CRC of its length\. Without the shard's \.index"):
        TFRecordSource([shard])


def test_index_of_another_shard(shard):
    shard.write_bytes(b"".join(frame(record) for record in reversed(RECORDS)))
    with pytest.raises(CorruptRecordError, match=r"its index says|bad CRC"):
        TFRecordSource([shard])[4]


def test_damaged_index(shard):
    index_path(shard).write_bytes(index_path(shard).read_bytes()[:50])
    with pytest.raises(ValueError, match=r"index .* is damaged .*delete it"):
        TFRecordSource([shard])


def test_a_flipped_bit_of_an_index_is_named_or_harmless(shard):
    """A damaged zip archive may look encrypted, of a newer version, or compressed with another method."""
    path = index_path(shard)
    whole = path.read_bytes()
    offsets, lengths, _ = read_index(shard)
    messages = set()
    for place in range(0, 8 * len(whole), 31):  # all of them would take minutes
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            read = read_index(shard)
        except ValueError as error:
            messages.add(str(error))
        else:
            assert (read[0] == offsets).all()
            assert (read[1] == lengths).all()
    assert all(f"index {path} is damaged" in message for message in messages)


def test_missing_shard(tmp_path):
    with pytest.raises(FileNotFoundError, match="prepare the dataset again"):
        TFRecordSource([tmp_path / "none"])


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(CorruptRecordError("shard", 5, "bad CRC")))
    assert (error.offset, str(error)) == (5, str(CorruptRecordError("shard", 5, "bad CRC")))
