import io

import cv2
import miniatures
import numpy as np
import pytest

from facejax.data.source import FaceSource
from facejax.datasets import get_dataset
from facejax.datasets.prepare import prepare_dataset
from facejax.tasks import EMOTION8

READER = get_dataset("affectnet")
IN_ORDER_OF_THE_SET = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")


@pytest.fixture
def raw(tmp_path):
    miniatures.affectnet(tmp_path)
    return tmp_path


@pytest.fixture
def raw_2021(tmp_path):
    miniatures.affectnet_2021(tmp_path)
    return tmp_path


def test_labels_of_2017(raw):
    records = list(READER.records(raw))
    names = [EMOTION8[record.labels["emotion"]] for record in records]
    assert names == [*IN_ORDER_OF_THE_SET, "happiness", "anger", "contempt"]
    assert [record.split for record in records] == ["train"] * 9 + ["validation"] * 2
    assert records[0].labels["valence_arousal"] == (-0.5, 0.25)
    assert "valence_arousal" not in records[8].labels
    assert records[9].labels["valence_arousal"] == (0.1, -0.2)
    assert records[10].labels["valence_arousal"] == (1.0, -1.0)
    assert {reason: len(rows) for reason, rows in READER.skipped.items()} == {
        "expression none, uncertain or no face": 3,
        "empty box": 1,
    }


def test_boxes_landmarks_and_files_of_2017(raw):
    first = next(READER.records(raw))
    assert first.id == f"Manually_Annotated_Images/100/{0:056x}.jpg"
    assert first.image.is_file()
    assert first.bbox == (134, 134, 1033, 1033)
    assert first.landmarks.shape == (68, 2)
    np.testing.assert_array_equal(first.landmarks[[0, 67]], [[100.0, 100.5], [167.0, 167.5]])


def test_labels_of_2021(raw_2021):
    records = {record.id: record for record in READER.records(raw_2021)}
    assert {key: (record.split, EMOTION8[record.labels["emotion"]]) for key, record in records.items()} == {
        "train_set/images/0.jpg": ("train", "neutral"),
        "train_set/images/2.jpg": ("train", "happiness"),
        "train_set/images/10.jpg": ("train", "contempt"),
        "val_set/images/3.jpg": ("validation", "anger"),
    }
    assert list(records) == sorted(records, key=lambda key: (key[0] == "v", len(key), key))  # by number, train first
    assert records["train_set/images/2.jpg"].labels["valence_arousal"] == (0.1, -0.5)
    assert "valence_arousal" not in records["train_set/images/0.jpg"].labels
    np.testing.assert_array_equal(records["val_set/images/3.jpg"].landmarks, np.arange(136).reshape(68, 2))
    assert READER.skipped == {"expression none, uncertain or no face": ["train_set/annotations/11"]}


def test_the_crops_of_2021_are_turned_so_that_the_eyes_are_level(raw_2021, tmp_path):
    face = np.zeros((224, 224, 3), np.uint8)
    eyes = np.array([(75, 90), (150, 120)])
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = eyes
    for eye in eyes.tolist():
        cv2.circle(face, eye, 9, (255, 255, 255), -1)
    for images in raw_2021.glob("*_set/images"):
        for photo in images.iterdir():
            cv2.imwrite(str(photo), face)
            np.save(images.parent / "annotations" / f"{photo.stem}_lnd.npy", points.ravel())
    prepare_dataset("affectnet", raw_2021, tmp_path / "out", workers=1, log=lambda line: None)
    crop = FaceSource(tmp_path / "out", "affectnet", "validation").read(0)["image"]
    assert crop.shape == face.shape
    rows = [np.argwhere(side[..., 0] > 127)[:, 0].mean() for side in (crop[:, :112], crop[:, 112:])]
    assert abs(rows[0] - rows[1]) < 0.5


def test_a_pickled_annotation_is_never_loaded(raw_2021):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    np.save(raw_2021 / "train_set/annotations/2_exp.npy", np.array(Bomb(), object), allow_pickle=True)
    assert len(list(READER.records(raw_2021))) == 3
    (reason,) = set(READER.skipped) - {"expression none, uncertain or no face"}
    assert "pickled object" in reason


def header_of(shape: str, descr: str = "<f8") -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(1))
    return stream.getvalue()[:128].replace(b"(1,)", shape.encode()).replace(b"<f8", descr.encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        header_of("(9000000000000,)"),
        header_of("(-3,)"),
        b"\0" * 70_000,
        header_of("(1,)") + bytes(70_000),  # its first number is readable, but no published file is as long
        b"PK\x03\x04" * 50,
        header_of("(1,)", "<U0") + b"12345678",
        header_of("(1,)") + np.float64(np.nan).tobytes(),
    ],
)
def test_damaged_annotations_are_counted(raw_2021, content):
    (raw_2021 / "train_set/annotations/2_aro.npy").write_bytes(content)
    assert "train_set/images/2.jpg" not in {record.id for record in READER.records(raw_2021)}
    assert sum("annotation" in reason for reason in READER.skipped) == 1


def test_hostile_rows_are_counted(raw):
    listing = raw / "Manually_Annotated_file_lists/training.csv"
    rows = [
        "../../../etc/passwd",
        "/etc/passwd",
        "a/../../b.jpg",
        "C:/x.jpg",
        "..\\..\\x.jpg",
        "x\0y.jpg",
        "",
        "a" * 300,
    ]
    with listing.open("a") as file:
        file.writelines(miniatures.affectnet_row(path, 1) + "\n" for path in rows)
        file.write(miniatures.affectnet_row("ok/1.jpg", "1.5") + "\n")
        file.write(miniatures.affectnet_row("ok/2.jpg", "1", box="1,2,NULL,4") + "\n")
        file.write(miniatures.affectnet_row("ok/3.jpg", "1", landmarks="1;2") + "\n")
        file.write('"ok/4.jpg,1,2\n')
    records = list(READER.records(raw))
    assert len(records) == 12
    assert records[9].id.endswith("ok/3.jpg")
    assert records[9].landmarks is None
    counts = {reason: len(noted) for reason, noted in READER.skipped.items()}
    assert counts["not a path inside the data set"] == 7
    assert counts["line holds NUL"] == counts["malformed expression"] == counts["malformed box"] == 1
    assert counts["malformed landmarks, photo kept"] == counts["malformed row"] == 1


def test_columns_in_another_order_are_refused(raw):
    listing = raw / "Manually_Annotated_file_lists/training.csv"
    header, rest = listing.read_text().split("\n", 1)
    listing.write_text(header.replace("valence,arousal", "arousal,valence") + "\n" + rest)
    with pytest.raises(ValueError, match=r"training.csv:1: expected .*valence,arousal, got .*arousal,valence"):
        list(READER.records(raw))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_re_encoded_lists_read_alike(raw, encoding):
    before = [record.id for record in READER.records(raw)]
    for listing in (raw / "Manually_Annotated_file_lists").iterdir():
        listing.write_bytes(listing.read_text().encode(encoding))
    assert [record.id for record in READER.records(raw)] == before


def test_the_error_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"training\.csv or .*train_set.*which contains nothing.*datasets\.md"):
        list(READER.records(tmp_path))
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        list(READER.records(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="--raw DIR"):
        list(READER.records(None))
