import miniatures
import pytest

from facejax.datasets import get_dataset

READER = get_dataset("ytf")


@pytest.fixture
def raw(tmp_path):
    miniatures.ytf(tmp_path)
    return tmp_path


def test_frames_with_their_boxes(raw):
    records = list(READER.records(raw))
    assert [record.id for record in records] == [
        "Abdullah_Gul/0/0.1.jpg",
        "Richard_Gere/3/3.618.jpg",
        "Richard_Gere/3/3.619.jpg",
    ]
    assert all(record.image.is_file() for record in records)
    assert records[0].bbox == (75, 50, 125, 110)  # centre (100, 80), 50 wide, 60 high
    assert records[1].bbox == (196, 99, 328, 231)
    assert [record.labels for record in records][:2] == [
        {"identity": 0, "person": "Abdullah_Gul"},
        {"identity": 1, "person": "Richard_Gere"},
    ]


def test_names_and_subjects(raw):
    assert READER.names(raw) == READER.names(raw / "frame_images_DB") == ["Abdullah_Gul", "Richard_Gere"]
    (raw / "subjects.txt").write_text("Richard_Gere\n")
    for subjects in (["Richard_Gere"], raw / "subjects.txt"):
        assert {record.labels["identity"] for record in READER.records(raw, subjects=subjects)} == {0}


def test_malformed_rows_are_counted(raw):
    with (raw / "frame_images_DB/Abdullah_Gul.labeled_faces.txt").open("a") as file:
        file.write("Richard_Gere\\3\\3.618.jpg,0,1,1,1,1,0.0,1\nAbdullah_Gul\\..\\..\\x.jpg,0,1,1,1,1,0.0,1\n")
        file.write("Abdullah_Gul_Jr\\0\\0.1.jpg,0,1,1,1,1,0.0,1\n")
        file.write("Abdullah_Gul\\0\\0.2.jpg,0,1,1,-1,1,0.0,1\nAbdullah_Gul\\0\\0.2.jpg,0,nan,1,1,1\nx\n")
    assert len(list(READER.records(raw))) == 3
    assert {reason: len(rows) for reason, rows in READER.skipped.items()} == {
        "frame of another person": 2,
        "not a path inside the data set": 1,
        "empty box": 1,
        "malformed row": 2,
    }


def test_a_folder_without_listings_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no Name\.labeled_faces\.txt"):
        READER.names(tmp_path)
