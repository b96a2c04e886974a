import datetime
import zlib

import miniatures
import numpy as np
import pytest
import scipy.io
from hypothesis import example, given
from hypothesis import strategies as st

from facejax.datasets import get_dataset
from facejax.datasets.imdb_wiki import age_at

READER = get_dataset("imdb_wiki")


@pytest.fixture
def raw(tmp_path):
    miniatures.imdb_wiki(tmp_path)
    return tmp_path


def test_labels(raw):
    labels = {record.id: dict(record.labels) for record in READER.records(raw)}
    assert labels == {
        "imdb_crop/01/nm0000001_rm124825600_1899-5-10_1968.jpg": {"age": 69, "gender": 1, "person": "Fred Astaire"},
        "imdb_crop/01/nm0000001_rm3343756032_1899-5-10_1970.jpg": {"age": 71, "gender": 1, "person": "Fred Astaire"},
        "imdb_crop/02/nm0000002_rm1_1924-9-16_2004.jpg": {"age": 79, "gender": 0, "person": "Lauren Bacall"},
        "wiki_crop/17/10000217_1981-05-05_2009.jpg": {"age": 28, "gender": 1, "person": "Sami Jauhojärvi"},
    }


def test_every_other_row_is_counted_with_its_reason(raw):
    list(READER.records(raw))
    assert {reason: len(rows) for reason, rows in READER.skipped.items()} == {
        "face score below min_score": 1,
        "second face": 1,
        "no gender": 1,
        "no face found by the set's authors": 1,
        "no usable date of birth": 1,
        "age outside 1-100": 1,
    }


def test_min_score_lets_more_in(raw):
    assert len(list(READER.records(raw, min_score=0.0))) == 5
    assert len(list(READER.records(raw, min_score=0.4))) == 5  # the score of the fifth itself


def test_crops_have_no_box_and_whole_photos_have_it_counted_from_0(raw):
    assert all(record.bbox is None for record in READER.records(raw))
    (raw / "imdb_crop").rename(raw / "imdb")
    records = list(READER.records(raw))
    assert {record.bbox for record in records if record.id.startswith("imdb/")} == {(10.5, 20.0, 31.0, 41.5)}
    assert records[-1].id.startswith("wiki_crop/")


def test_a_person_is_on_one_side_of_the_split(raw):
    rows = [
        (f"09/p{i}_{k}.jpg", (1950, 1, 1), 2000, 1.0, f"Person {i}", 3.0, np.nan) for i in range(300) for k in (0, 1)
    ]
    miniatures._write_mat(raw / "wiki_crop", "wiki", rows)
    sides = {}
    for record in READER.records(raw):
        sides.setdefault(record.labels["person"], set()).add(record.split)
    assert all(len(side) == 1 for side in sides.values())
    held_out = sum(side == {"validation"} for side in sides.values())
    assert 12 <= held_out <= 50  # 30 expected of 302, 3 sigma: 16


def test_a_share_of_none_holds_nobody_out(raw):
    assert zlib.crc32(b"Person 331") % 1000 == 0  # so it is the first to be held out
    rows = [("09/p331.jpg", (1950, 1, 1), 2000, 1.0, "Person 331", 3.0, np.nan)]
    miniatures._write_mat(raw / "wiki_crop", "wiki", rows)
    for share, split in ((0.0, "train"), (0.001, "validation"), (1.0, "validation")):
        assert {r.split for r in READER.records(raw, validation=share) if r.id == "wiki_crop/09/p331.jpg"} == {split}


@example(datetime.date(1950, 6, 30), 1990)
@example(datetime.date(1950, 7, 1), 1990)
@example(datetime.date(1950, 7, 2), 1990)
@given(st.dates(datetime.date(1850, 1, 1), datetime.date(2015, 12, 31)), st.integers(min_value=1850, max_value=2015))
def test_age_counts_the_birthdays_up_to_the_first_of_july(birth, year):
    age = age_at(miniatures.matlab_datenum(birth.year, birth.month, birth.day), float(year))
    birthdays = [y for y in range(birth.year + 1, year + 1) if (y, birth.month, birth.day) <= (year, 7, 1)]
    if year > birth.year:
        assert age == len(birthdays)
    else:
        assert age is not None
        assert age <= 0


def test_the_birth_of_the_file_name_is_the_date_of_the_datenum():
    # Matlab's own value: datenum(1899, 5, 10) is 693726 (first row of the published imdb.mat).
    assert miniatures.matlab_datenum(1899, 5, 10) == 693726
    assert age_at(693726.0, 1968.0) == 69


def test_something_else_is_refused_by_name(tmp_path):
    miniatures.write(tmp_path, {"wiki_crop/wiki.mat": b"not a matlab file"})
    with pytest.raises(ValueError, match=r"wiki\.mat: not a readable Matlab"):
        list(READER.records(tmp_path))
    scipy.io.savemat(tmp_path / "wiki_crop/wiki.mat", {"wiki": {"dob": [1.0]}})
    with pytest.raises(ValueError, match="it lacks face_location"):
        list(READER.records(tmp_path))
    scipy.io.savemat(tmp_path / "wiki_crop/wiki.mat", {"other": 1})
    with pytest.raises(ValueError, match="expected a 1x1 struct 'wiki'"):
        list(READER.records(tmp_path))
