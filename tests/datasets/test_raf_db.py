import miniatures
import pytest

from facejax.datasets import get_dataset
from facejax.tasks import EMOTION8

READER = get_dataset("raf_db")


@pytest.fixture
def raw(tmp_path):
    miniatures.raf_db(tmp_path)
    return tmp_path


def test_labels_and_split(raw):
    records = list(READER.records(raw))
    names = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral", "neutral", "happiness"]
    assert [EMOTION8[record.labels["emotion"]] for record in records] == names
    assert [record.split for record in records] == ["train"] * 7 + ["test"] * 2
    assert records[0].id == "aligned/train_00001_aligned.jpg"
    assert all(record.image.is_file() for record in records)


def test_the_folder_itself_and_a_flat_copy_read_alike(raw):
    before = [record.id for record in READER.records(raw)]
    assert [record.id for record in READER.records(raw / "basic")] == before
    (raw / "basic/EmoLabel/list_patition_label.txt").rename(raw / "list_patition_label.txt")
    (raw / "basic/Image/aligned").rename(raw / "aligned")
    assert [record.id for record in READER.records(raw)] == before


def test_malformed_rows_are_counted(raw):
    with (raw / "basic/EmoLabel/list_patition_label.txt").open("a") as file:
        file.write("test_0003.jpg 8\ntest_0003.jpg\n../test_0003.jpg 1\nval_0003.jpg 1\n")
    assert len(list(READER.records(raw))) == 9
    assert len(READER.skipped["malformed row"]) == 4
