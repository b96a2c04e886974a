"""Batches: which records, in which order, for which process; resumption; each record once; corrupt records."""

import itertools

import numpy as np
import pytest

from facejax.data.loader import array_loader, eval_batches, train_loader
from facejax.data.source import FaceSource
from facejax.data.tfrecord import CorruptRecordError, index_path
from facejax.data.transforms import RandomHorizontalFlip, RandomResizedCrop
from facejax.preprocessing import Preprocessing
from tests.data.toy_set import image_of, labels_of, write_toy_set

COUNT = 30
PREPROCESSING = Preprocessing(image_size=16)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    write_toy_set(path, COUNT)
    return path


@pytest.fixture
def source(data_dir):
    return FaceSource(data_dir, "toy", "train")


def batches(loader, count):
    return list(itertools.islice(iter(loader), count))


def noisy_part(image, rng):
    """Augmentation that writes its random numbers into the pixels."""
    return np.clip(image.astype(int) + rng.integers(0, 50, image.shape), 0, 255).astype(np.uint8)


def test_a_batch(source):
    (batch,) = batches(train_loader(source, PREPROCESSING, 8, seed=0), 1)
    assert {key: (value.dtype.name, value.shape) for key, value in batch.items()} == {
        "image": ("uint8", (8, 16, 16, 3)),
        "emotion": ("int32", (8,)),
        "age": ("float32", (8,)),
        "valence_arousal": ("float32", (8, 2)),
        "mask": ("float32", (8,)),
        "index": ("int64", (8,)),
    }
    for place, index in enumerate(batch["index"].tolist()):
        assert (batch["image"][place] == image_of(index)[:16, :16]).all()
        assert batch["emotion"][place] == labels_of(index)["emotion"]
        np.testing.assert_allclose(batch["valence_arousal"][place], labels_of(index)["valence_arousal"], rtol=1e-6)
    assert batch["mask"].tolist() == [1] * 8


def test_every_epoch_is_another_permutation(source):
    stream = np.concatenate([batch["index"] for batch in batches(train_loader(source, PREPROCESSING, 10, seed=1), 9)])
    epochs = stream.reshape(3, COUNT)
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()} | {tuple(range(COUNT))}) == 4
    other = np.concatenate([batch["index"] for batch in batches(train_loader(source, PREPROCESSING, 10, seed=2), 3)])
    assert other.tolist() != epochs[0].tolist()


def test_a_record_is_augmented_anew_in_every_epoch(source):
    seen = {}
    for batch in batches(train_loader(source, PREPROCESSING, 10, seed=1, augment=[noisy_part]), 9):
        for index, image in zip(batch["index"].tolist(), batch["image"], strict=True):
            seen.setdefault(index, set()).add(image.tobytes())
    assert [len(seen[index]) for index in range(COUNT)] == [3] * COUNT


@pytest.mark.parametrize("process_count", [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_processes(source, process_count):
    options = {"augment": (RandomResizedCrop(20), RandomHorizontalFlip(), noisy_part)}
    alone = batches(train_loader(source, PREPROCESSING, 16, seed=3, **options), 4)
    parts = [
        batches(train_loader(source, PREPROCESSING, 16, 3, process_index=p, process_count=process_count, **options), 4)
        for p in range(process_count)
    ]
    for step, whole in enumerate(alone):
        for key in whole:
            np.testing.assert_array_equal(whole[key], np.concatenate([part[step][key] for part in parts]))


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_change_nothing(source, threads):
    loader = train_loader(source, PREPROCESSING, 8, seed=4, augment=[noisy_part], threads=threads)
    reference = train_loader(source, PREPROCESSING, 8, seed=4, augment=[noisy_part], threads=2)
    for ours, theirs in zip(batches(loader, 8), batches(reference, 8), strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


@pytest.mark.parametrize("step", [1, 5])
def test_resumption_is_exact(source, step):
    options = {"augment": (noisy_part,), "seed": 5}
    expected = batches(train_loader(source, PREPROCESSING, 8, **options), 8)[step:]
    by_step = batches(train_loader(source, PREPROCESSING, 8, start_step=step, **options), 8 - step)
    iterator = iter(train_loader(source, PREPROCESSING, 8, **options))
    for _ in range(step):
        next(iterator)
    state = iterator.get_state()
    fresh = iter(train_loader(source, PREPROCESSING, 8, **options))
    fresh.set_state(state)
    by_state = list(itertools.islice(fresh, 8 - step))
    for want, first, second in zip(expected, by_step, by_state, strict=True):
        for key in want:
            np.testing.assert_array_equal(want[key], first[key])
            np.testing.assert_array_equal(want[key], second[key])


def test_batch_size_must_divide(source):
    with pytest.raises(ValueError, match="not a multiple of 3 processes"):
        train_loader(source, PREPROCESSING, 8, 0, process_count=3)
    with pytest.raises(ValueError, match="process_index 2"):
        next(eval_batches(source, PREPROCESSING, 8, process_index=2, process_count=2))


@pytest.mark.parametrize(("batch_size", "process_count"), [(8, 1), (8, 4), (30, 1), (64, 2)])
def test_evaluation_counts_each_record_once(source, batch_size, process_count):
    seen = []
    parts = [
        list(eval_batches(source, PREPROCESSING, batch_size, process_index=p, process_count=process_count))
        for p in range(process_count)
    ]
    assert {len(part) for part in parts} == {-(-COUNT // batch_size)}
    for step in zip(*parts, strict=True):
        whole = {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        assert whole["image"].shape == (batch_size, 16, 16, 3)
        real = whole["mask"] == 1
        assert (whole["index"][~real] == -1).all()
        assert (whole["emotion"][~real] == -1).all()
        assert np.isnan(whole["age"][~real]).all()
        seen += whole["index"][real].tolist()
    assert seen == list(range(COUNT))


def test_array_loader_follows_the_same_order(source):
    arrays = {"feature": np.arange(COUNT) * 10, "index": np.arange(COUNT)}
    images = batches(train_loader(source, PREPROCESSING, 8, seed=7), 9)
    cached = batches(array_loader(arrays, 8, seed=7), 9)
    for one, other in zip(images, cached, strict=True):
        assert one["index"].tolist() == other["index"].tolist() == (other["feature"] // 10).tolist()
    resumed = batches(array_loader(arrays, 8, seed=7, start_step=4, process_index=1, process_count=2), 1)[0]
    assert resumed["index"].tolist() == cached[4]["index"][4:].tolist()


@pytest.mark.parametrize("arrays", [{}, {"feature": np.zeros((0, 4))}])
def test_array_loader_without_records(arrays):
    with pytest.raises(ValueError, match="the arrays have no records"):
        array_loader(arrays, 8, seed=7)


def test_labels_without_an_index(tmp_path):
    directory = write_toy_set(tmp_path, 20)
    indexed = FaceSource(tmp_path, "toy", "train")
    for shard in directory.glob("*-of-00003"):
        index_path(shard).unlink()
    scanned = FaceSource(tmp_path, "toy", "train")
    for key in ("emotion", "age", "valence_arousal", "person"):
        np.testing.assert_array_equal(indexed.labels(key), scanned.labels(key))


def test_selection(source):
    part = source.select(source.labels("emotion") == 2)
    assert part.labels("emotion").tolist() == [2] * len(part)
    assert [int(part[i]["age"] - 0.5) for i in range(len(part))] == list(range(2, COUNT, 8))
    assert part.ids()[1] == "photos/010.jpg"
    assert part.select([1]).labels("person").tolist() == ["person 5"]
    assert len(source) == COUNT
    seen = [index for batch in eval_batches(part, PREPROCESSING, 4) for index in batch["index"] if index >= 0]
    assert seen == list(range(len(part)))


def test_other_splits_and_policies(data_dir):
    with pytest.raises(ValueError, match="no split 'test'; it has train"):
        FaceSource(data_dir, "toy", "test")
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        FaceSource(data_dir, "toy", "train", on_corrupt="ignore")


def damage(directory, records, whole_shard_end=False):
    """Flips a byte in the given records of the second shard (10 to 19); or truncates the shard after the first one."""
    shard = directory / "toy-train.tfrecord-00001-of-00003"
    data = bytearray(shard.read_bytes())
    source = FaceSource(directory.parents[1], "toy", "train")
    for record in records:
        path, offset = source._records.locate(record)
        assert path == shard
        if whole_shard_end:
            data = data[: offset + 40]
            break
        data[offset + 100] ^= 255
    shard.write_bytes(data)


@pytest.mark.parametrize(("records", "cut"), [([12], False), ([15, 16, 19], False), ([17, 18, 19], True)])
def test_corrupt_records(tmp_path, records, cut):
    directory = write_toy_set(tmp_path, COUNT)
    clean = np.concatenate(
        [b["index"] for b in batches(train_loader(FaceSource(tmp_path, "toy", "train"), PREPROCESSING, 10, 8), 6)]
    )
    damage(directory, records, cut)
    strict = FaceSource(tmp_path, "toy", "train")
    with pytest.raises(CorruptRecordError, match=r"toy-train.tfrecord-00001-of-00003: record at byte \d+"):
        list(eval_batches(strict, PREPROCESSING, 8))
    with pytest.raises(CorruptRecordError):
        batches(train_loader(strict, PREPROCESSING, 10, 8), 5)

    lenient = FaceSource(tmp_path, "toy", "train", on_corrupt="skip")
    seen = [b["index"][b["mask"] == 1] for b in eval_batches(lenient, PREPROCESSING, 8)]
    assert np.concatenate(seen).tolist() == [index for index in range(COUNT) if index not in records]
    assert sorted(lenient.corrupt) == records

    # Training: the same order, with the next readable record in place of a corrupt one.
    lenient = FaceSource(tmp_path, "toy", "train", on_corrupt="skip")
    loader = train_loader(lenient, PREPROCESSING, 10, 8)
    stream = np.concatenate([batch["index"] for batch in batches(loader, 6)])
    replacement = {i: next(j % COUNT for j in range(i, 2 * COUNT) if j % COUNT not in records) for i in range(COUNT)}
    assert stream.tolist() == [replacement[index] for index in clean.tolist()]
    assert sorted(lenient.corrupt) == records


def test_a_selection_counts_its_own_corrupt_records(tmp_path):
    damage(write_toy_set(tmp_path, COUNT), [12, 14])
    source = FaceSource(tmp_path, "toy", "train", on_corrupt="skip")
    assert source[12]["index"] == 13
    part = source.select([14, 13, 12])
    assert [int(part[place]["index"]) for place in (0, 1, 2)] == [1, 1, 1]  # the first follows the last
    assert (sorted(source.corrupt), sorted(part.corrupt)) == ([12], [0, 2])


def test_labels_of_a_damaged_shard_that_has_lost_its_index(tmp_path, caplog):
    directory = write_toy_set(tmp_path, COUNT)
    labels = FaceSource(tmp_path, "toy", "train").labels("emotion")
    damage(directory, [12, 14])
    for index in directory.glob("*.index"):
        index.unlink()
    with pytest.raises(CorruptRecordError, match=r"-00001-of-00003: record at byte \d+: bad CRC of its data"):
        FaceSource(tmp_path, "toy", "train").labels("emotion")
    lenient = FaceSource(tmp_path, "toy", "train", on_corrupt="skip")
    found = lenient.labels("emotion")
    assert (found[[12, 14]] == -1).all()
    assert np.delete(found, [12, 14]).tolist() == np.delete(labels, [12, 14]).tolist()
    assert sorted(lenient.corrupt) == [12, 14]
    assert caplog.text.count("skipped") == 2
    part = FaceSource(tmp_path, "toy", "train", on_corrupt="skip").select([13, 14])
    assert part.labels("emotion").tolist() == [labels[13], -1]
    assert not part.corrupt  # the indices of the whole split refer to other records here
    assert lenient.select([13, 14]).ids() == ["photos/013.jpg", ""]
    with pytest.raises(CorruptRecordError, match=r"-00001-of-00003: record at byte \d+: bad CRC of its data"):
        FaceSource(tmp_path, "toy", "train").ids()


def test_corrupt_photo_in_a_sound_record(tmp_path):
    directory = write_toy_set(tmp_path, 4, shards=1)
    from facejax.data.example import decode_example, encode_example
    from facejax.data.tfrecord import TFRecordSource, write_shard

    shard = next(directory.glob("*-of-00001"))
    examples = [decode_example(record) for record in TFRecordSource([shard])]
    examples[2]["image"] = [b"\xff\xd8 no photo"]
    write_shard(shard, [encode_example(example) for example in examples])
    with pytest.raises(CorruptRecordError, match=r"record at byte \d+: CorruptImageError: damaged JPEG"):
        FaceSource(tmp_path, "toy", "train")[2]
    lenient = FaceSource(tmp_path, "toy", "train", on_corrupt="skip")
    assert lenient[2]["index"] == 3
    assert [b["mask"].tolist() for b in eval_batches(lenient, PREPROCESSING, 4)] == [[1, 1, 0, 1]]


def test_shards_of_two_preparations(tmp_path):
    directory = write_toy_set(tmp_path / "a", 10)
    other = write_toy_set(tmp_path / "b", 16)
    name = "toy-train.tfrecord-00001-of-00003"
    for file in (name, name + ".index"):
        (directory / file).write_bytes((other / file).read_bytes())
    with pytest.raises(ValueError, match="shards of two preparations are mixed"):
        FaceSource(tmp_path / "a", "toy", "train")
