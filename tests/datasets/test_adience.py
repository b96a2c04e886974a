import miniatures
import pytest

from facejax.datasets import get_dataset
from facejax.datasets.adience import age_of

READER = get_dataset("adience")


@pytest.fixture
def raw(tmp_path):
    miniatures.adience(tmp_path)
    return tmp_path


def test_labels(raw):
    assert {record.id.split("face.")[1]: dict(record.labels) for record in READER.records(raw)} == {
        "1.10399646885_67c7d20df9_o.jpg": {"fold": 0, "age": 28, "gender": 0},
        "2.10424815813_e94629b1ec_o.jpg": {"fold": 0, "age": 80, "gender": 1},
        "2282.11597935265_29bcdfa4a5_o.jpg": {"fold": 1, "age": 1},
        "3.a.jpg": {"fold": 1, "gender": 1},
        "2052.10524078416_6a401de320_o.jpg": {"fold": 2, "age": 35},
        "2283.11597935266_29bcdfa4a6_o.jpg": {"fold": 3, "age": 15, "gender": 1},
        "5.c.jpg": {"fold": 4, "age": 43, "gender": 0},
        "6.d.jpg": {"fold": 4, "gender": 0},
    }
    assert READER.skipped == {"neither age nor gender": ["fold_2_data.txt:3"]}


MIDDLES = {"(0, 2)": 1, "(4, 6)": 5, "(8, 12)": 10, "(15, 20)": 17, "(25, 32)": 28, "(38, 43)": 40, "(48, 53)": 50}
OTHERS = {"(60, 100)": 80, "58": 58, "None": None, "": None, "(9, 3)": None, "(1, 2": None, "1_0": None}


@pytest.mark.parametrize(("text", "years"), (MIDDLES | OTHERS).items())
def test_age_is_the_middle_of_the_interval(text, years):
    assert age_of(text) == years


def test_all_is_for_training_unless_a_fold_is_held_out(raw):
    assert {record.split for record in READER.records(raw)} == {"train"}
    split = {record.labels["fold"]: record.split for record in READER.records(raw, test_fold=3)}
    assert split == {0: "train", 1: "train", 2: "train", 3: "test", 4: "train"}
    with pytest.raises(ValueError, match="0 to 4"):
        list(READER.records(raw, test_fold=5))


def test_the_folder_of_unaligned_faces_has_other_names(raw):
    (raw / "aligned").rename(raw / "faces")
    first = next(READER.records(raw))
    assert first.id == "faces/30601258@N03/coarse_tilt_aligned_face.1.10399646885_67c7d20df9_o.jpg"


def test_malformed_rows_are_counted(raw):
    with (raw / "fold_0_data.txt").open("a") as file:
        file.write(
            "1@N\tx.jpg\t9\tforty\tm\t0\t0\t0\t0\t0\t0\t0\n1@N\tx.jpg\n../../etc\tpasswd\t1\t2\tm\t0\t0\t0\t0\t0\t0\t0\n"
        )
    assert len(list(READER.records(raw))) == 8
    assert {reason: len(rows) for reason, rows in READER.skipped.items()} == {
        "malformed age": 1,
        "malformed row": 1,
        "not a path inside the data set": 1,
        "neither age nor gender": 1,
    }


def test_another_table_is_refused(raw):
    (raw / "fold_0_data.txt").write_text("a,b,c\n")
    with pytest.raises(ValueError, match="no column 'user_id'"):
        list(READER.records(raw))
