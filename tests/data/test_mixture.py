import functools
import shutil

import numpy as np
import pytest

from facejax.data.loader import eval_batches, train_loader
from facejax.data.mixture import MixedSource, open_source
from facejax.data.records import Record
from facejax.data.tfrecord import CorruptRecordError
from facejax.datasets import registry
from facejax.datasets.prepare import prepare_dataset
from facejax.preprocessing import Preprocessing


def reader(name, labels):
    """A dataset with one record per label, in the split ``train`` unless the label names another."""

    class Toy(registry.Dataset):
        description, licence, url, tasks, expected_counts = "toy", "none", "", (), {"train": None}
        default_crop = "none"

        def records(self, raw=None, **options):
            for index, values in enumerate(labels):
                values = dict(values)
                yield Record(f"{index}.png", values.pop("split", "train"), functools.partial(colour, index), values)

    Toy.name = name
    Toy.__module__ = __name__
    return registry.register_dataset(Toy)


def colour(index):
    return np.full((16, 16, 3), 20 * index + 10, np.uint8)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("mixture")
    reader("toy_faces", [{"identity": i // 2, "age": 20 + i, "gender": i % 2} for i in range(6)])
    reader("toy_moods", [{"identity": i, "emotion": i, "valence_arousal": (0.1 * i, -0.1)} for i in range(4)])
    # Two of the four people are in the validation split.
    reader("toy_split", [{"identity": i} for i in range(4)] + [{"identity": i, "split": "validation"} for i in (0, 1)])
    reader("toy_years", [{"age": 30.5, "note": 1}, {"gender": 1}])
    reader("toy_whole", [{"age": 40}, {"gender": 0}])
    reader("toy_texts", [{"note": "calm"}])
    reader("toy_half", [{"identity": 0, "age": 30}, {"age": 40}, {"identity": 1}])
    reader("toy_other", [{"identity": i, "split": split} for split in ("train", "validation") for i in (0, 1)])
    names = ("toy_faces", "toy_moods", "toy_split", "toy_other", "toy_years", "toy_whole", "toy_texts", "toy_half")
    try:
        for name in names:
            prepare_dataset(name, None, directory, workers=1, image_format="bmp", log=lambda line: None)
    finally:
        for name in names:
            del registry._registered[name]
    return directory


def test_labels_that_a_set_lacks_are_missing_and_persons_stay_apart(data_dir):
    source = open_source(data_dir, "toy_faces+toy_moods", "train")
    assert isinstance(source, MixedSource)
    assert len(source) == 10
    ages, emotions, persons = (source.labels(key) for key in ("age", "emotion", "identity"))
    assert sorted(ages) == [-1] * 4 + [20, 21, 22, 23, 24, 25]
    assert sorted(emotions) == [-1] * 6 + [0, 1, 2, 3]
    assert sorted(persons) == [0, 0, 1, 1, 2, 2, 3, 4, 5, 6]
    assert np.isnan(source.labels("valence_arousal")).all(axis=1).sum() == 6
    for index in range(10):
        record = source.read(index)
        for key in ("age", "emotion", "identity", "gender"):
            assert record[key] == source.labels(key)[index]
        np.testing.assert_array_equal(record["valence_arousal"], source.labels("valence_arousal")[index])
    with pytest.raises(KeyError, match="no label 'ethnicity'"):
        source.labels("ethnicity")


def test_whole_and_fractional_numbers_are_joined(data_dir):
    source = open_source(data_dir, "toy_moods+toy_faces+toy_years", "train")
    ages = source.labels("age")
    assert ages.dtype == np.float32
    np.testing.assert_array_equal(np.sort(ages), [20, 21, 22, 23, 24, 25, 30.5, *[np.nan] * 5])
    assert source.labels("gender").dtype == np.int64
    for index in range(len(source)):
        record = source.read(index)
        assert record["age"].dtype == np.float32
        np.testing.assert_array_equal(record["age"], ages[index])
    # A missing integer, -1 in its own dataset, is NaN here.
    source = open_source(data_dir, "toy_whole+toy_years", "train")
    for ages in (source.labels("age"), [source.read(index)["age"] for index in range(4)]):
        np.testing.assert_array_equal(np.sort(ages), [30.5, 40, np.nan, np.nan])
    with pytest.raises(ValueError, match=r"toy_texts/train stores 'note' as .*text.*, another dataset in the mix as"):
        open_source(data_dir, "toy_years+toy_texts", "train")


def test_selected_records_keep_their_labels_and_persons(data_dir):
    source = open_source(data_dir, "toy_faces+toy_moods", "train")
    part = source.select(source.labels("emotion") >= 0)
    assert len(part) == 4
    assert sorted(part.labels("identity")) == [3, 4, 5, 6]
    assert [part.read(i)["emotion"] for i in range(4)] == part.labels("emotion").tolist()
    assert all(name.startswith("toy_moods/") for name in part.ids())


def test_batches_mix_the_sets_and_evaluation_counts_each_record_once(data_dir):
    source = open_source(data_dir, "toy_faces+toy_moods", "train")
    preprocessing = Preprocessing(image_size=16)
    stream = iter(train_loader(source, preprocessing, 5, seed=0))
    seen = [next(stream) for _ in range(2)]
    assert sorted(np.concatenate([batch["index"] for batch in seen])) == list(range(10))
    assert any(0 < (batch["age"] >= 0).sum() < 5 for batch in seen)
    counted = [batch["index"] for batch in eval_batches(source, preprocessing, 4)]
    assert sorted(np.concatenate(counted)) == [-1, -1, *range(10)]


def test_a_corrupt_record_is_left_out_where_asked_for(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    (shard,) = (tmp_path / "toy_moods").glob("*/*.tfrecord-*-of-00001")
    content = bytearray(shard.read_bytes())
    content[100] ^= 255  # of the dataset's first record
    shard.write_bytes(content)
    with pytest.raises(CorruptRecordError):
        open_source(tmp_path, "toy_faces+toy_moods", "train")[6]
    source = open_source(tmp_path, "toy_faces+toy_moods", "train", "skip")
    assert source[6]["index"] == 7
    masks = [batch["mask"].tolist() for batch in eval_batches(source, Preprocessing(image_size=16), 5)]
    assert masks == [[1] * 5, [1, 0, 1, 1, 1]]
    assert list(source.corrupt) == [6]


def test_a_person_has_one_number_in_all_splits(data_dir):
    train, validation = (open_source(data_dir, "toy_split+toy_other", split) for split in ("train", "validation"))
    assert sorted(train.labels("identity")) == [0, 1, 2, 3, 4, 5]
    assert sorted(validation.labels("identity")) == [0, 1, 4, 5]
    assert [int(validation.read(i)["identity"]) for i in range(4)] == validation.labels("identity").tolist()


def test_records_of_nobody_stay_without_a_person(data_dir):
    source = open_source(data_dir, "toy_faces+toy_half", "train")
    assert sorted(source.labels("identity")) == [-1, 0, 0, 1, 1, 2, 2, 3, 4]
    assert [int(source.read(i)["identity"]) for i in range(9)] == source.labels("identity").tolist()


def test_sets_without_the_split_are_left_out_where_asked_for(data_dir, caplog):
    with pytest.raises(ValueError, match="'toy_faces' has no split 'validation'"):
        open_source(data_dir, "toy_faces+toy_other", "validation")
    source = open_source(data_dir, "toy_faces+toy_other", "validation", some=True)
    assert source.name == "toy_other/validation"
    assert "toy_faces: no split 'validation'" in caplog.text
    # The three people of the skipped dataset keep their indices, so that the others have those of the train split.
    train = open_source(data_dir, "toy_faces+toy_other", "train")
    numbers = dict(zip(train.ids(), train.labels("identity"), strict=True))
    assert sorted(numbers[name] for name in numbers if name.startswith("toy_other/")) == [3, 4]
    assert sorted(source.labels("identity")) == [3, 4]
    assert [int(source.read(i)["identity"]) for i in range(2)] == source.labels("identity").tolist()
    assert all(name.startswith("toy_other/validation/") for name in source.ids())
    with pytest.raises(ValueError, match="no split 'validation'"):
        open_source(data_dir, "toy_faces+toy_moods", "validation", some=True)


def test_one_name_is_that_set_and_an_empty_mixture_is_refused(data_dir):
    assert not isinstance(open_source(data_dir, "toy_moods", "train"), MixedSource)
    with pytest.raises(ValueError, match="at least one"):
        MixedSource([], [])
    with pytest.raises(FileNotFoundError):
        open_source(data_dir, "toy_moods+affectnet", "train")
