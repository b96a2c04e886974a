import collections

import miniatures
import pytest

from facejax.datasets import get_dataset
from facejax.datasets.utkface import TRAIN, VALIDATION, _training

READER = get_dataset("utkface")


@pytest.fixture
def raw(tmp_path):
    miniatures.utkface(tmp_path)
    return tmp_path


def test_labels_and_malformed_names(raw):
    labels = {record.id.removeprefix("UTKFace/").split(".")[0]: dict(record.labels) for record in READER.records(raw)}
    assert len(labels) == 20
    # The file name says 0 for male and 1 for female; facejax has female first.
    assert labels["20_0_0_20170116174525000"] == {"age": 20, "gender": 1, "ethnicity": 0}
    assert labels["21_1_1_20170116174525001"] == {"age": 21, "gender": 0, "ethnicity": 1}
    assert labels["24_0_4_20170116174525004"] == {"age": 24, "gender": 1, "ethnicity": 4}
    assert labels["116_1_0_20170120134921760"] == {"age": 116, "gender": 0, "ethnicity": 0}
    assert labels["24_0_1_20170116220224657 "] == {"age": 24, "gender": 1, "ethnicity": 1}
    assert labels["55_0_0_20170116232725357jpg"] == {"age": 55, "gender": 1, "ethnicity": 0}
    assert labels["39_1_20170116174525125"] == {"age": 39, "ethnicity": 1}
    assert labels["61_1_20170109142408075"] == {"age": 61, "gender": 0, "ethnicity": 1}
    assert labels["61_1_20170109150557335"] == {"age": 61, "gender": 0, "ethnicity": 3}
    assert READER.skipped == {}


def test_the_whole_set_splits_into_the_sizes_of_the_paper():
    stems = [str(number) for number in range(23_708)]
    train = _training(stems, seed=0)
    assert (len(train), 23_708 - len(train)) == (TRAIN, VALIDATION) == (20_149, 3_559)
    assert train == _training(stems, seed=0) != _training(stems, seed=1)


@pytest.mark.parametrize("missing", ["0", "5000", "23707"])
def test_a_missing_photo_moves_one_other_at_the_most(missing):
    stems = [str(number) for number in range(23_708)]
    before, after = (_training(names, 0) for names in (stems, [stem for stem in stems if stem != missing]))
    assert len(before ^ after - {missing}) <= 1


def test_the_split_of_a_subset_is_that_of_the_whole(raw):
    whole = {record.id: record.split for record in READER.records(raw)}
    assert collections.Counter(whole.values()) == {"train": 17, "validation": 3}
    subset = {record.id: record.split for record in READER.records(raw, ages=(21, 55))}  # both inclusive
    assert subset.items() < whole.items()
    assert {int(key.split("/")[1].split("_")[0]) for key in subset} == {*range(21, 34), 24, 39, 55}


def test_a_listing_names_the_test_photos(raw):
    listing = raw / "utk_test.csv"
    listing.write_text(",file,age\n5,25_1_0_20170116174525005.jpg.chip.jpg,4\n7,not_there.jpg.chip.jpg,6\n")
    records = list(READER.records(raw, listing=listing))
    assert [(r.split, r.labels["age"]) for r in records] == [("test", 25)]
    listing.write_text("file\n")
    with pytest.raises(ValueError, match="second column"):
        list(READER.records(raw, listing=listing))


def test_a_listing_of_aligned_names_keeps_photos_in_the_wild(raw):
    miniatures.utkface_wild(raw)
    listing = raw / "utk_test.csv"
    names = ("60_1_3_20170120230123456.jpg", "55_0_0_20170116232725357jpg", "44_1_4_20170116235150272.jpg", "not_there")
    listing.write_text(",file,age\n" + "".join(f"{i},{name}.chip.jpg,4\n" for i, name in enumerate(names)))
    records = list(READER.records(raw, release="wild", listing=listing))
    assert [(r.split, r.labels["age"]) for r in records] == [("test", 44), ("test", 55), ("test", 60)]
    listing.write_text("file,name\n0,24_0_1_20170116220224657.jpg\n1,24_0_4_20170116174525004 .jpg\n")
    assert [r.labels["age"] for r in READER.records(raw, release="aligned", listing=listing)] == [24, 24]


def test_photos_in_the_wild_are_test(raw):
    miniatures.utkface_wild(raw)
    records = list(READER.records(raw, release="wild"))
    assert {record.split for record in records} == {"test"}
    assert {record.id: tuple(record.labels.get(k) for k in ("age", "gender", "ethnicity")) for record in records} == {
        "part1/1_0_0_20161219140623097.jpg": (1, 1, 0),
        "part1/61_1_20170109142408075.jpg": (61, 0, 1),
        "part1/61_3_20170109150557335.jpg": (61, 0, 3),
        "part2/39_1_20170116174525125.jpg": (39, None, 1),
        "part2/44_1_4_20170116235150272.pg": (44, 0, 4),
        "part2/53__0_20170116184028385.jpg": (53, None, 0),
        "part3/55_0_0_20170116232725357jpg": (55, 1, 0),
        "part3/60_1_3_20170120230123456.jpg": (60, 0, 3),
    }
    assert all(record.id.startswith("UTKFace/") for record in READER.records(raw))


def test_ages_in_the_wrong_order_are_refused(raw):
    with pytest.raises(ValueError, match="ages must be the youngest and the oldest to keep, got 60,21"):
        next(READER.records(raw, ages=(60, 21)))


def test_other_names_are_counted(raw):
    miniatures.photos(
        raw, "UTKFace/x.jpg", "UTKFace/200_0_0_20170116174525125.jpg", "UTKFace/5_2_0_20170116174525125.jpg"
    )
    assert len(list(READER.records(raw))) == 20
    assert {reason: len(rows) for reason, rows in READER.skipped.items()} == {
        "malformed file name": 2,
        "age above 116": 1,
    }
