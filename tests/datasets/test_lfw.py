import miniatures
import numpy as np
import pytest

from facejax.data.records import Record
from facejax.datasets import get_dataset
from facejax.datasets.lfw import Pair, shared_subjects

READER = get_dataset("lfw")


@pytest.fixture
def raw(tmp_path):
    miniatures.lfw(tmp_path)
    return tmp_path


def test_photos_by_person(raw):
    records = list(READER.records(raw))
    assert len(records) == 23
    assert records[0].id == "Aaron_Eckhart/Aaron_Eckhart_0001.jpg"
    identities = {record.labels["person"]: record.labels["identity"] for record in records}
    assert identities == {"Aaron_Eckhart": 0, "Aaron_Sorkin": 1, "Abdullah_Gul": 2, "Zydrunas_Ilgauskas": 3}
    assert {record.split for record in records} == {"test"}


@pytest.mark.parametrize("folder", ["lfw_funneled", "lfw-deepfunneled"])
def test_the_funneled_copies_read_alike(raw, folder):
    before = [(record.id, record.labels) for record in READER.records(raw)]
    (raw / "lfw").rename(raw / folder)
    assert [(record.id, record.labels) for record in READER.records(raw)] == before
    assert [(record.id, record.labels) for record in READER.records(raw / folder)] == before


def test_subjects_restrict_and_those_without_photos_are_counted(raw):
    (raw / "subjects.txt").write_text("Abdullah_Gul\nAaron_Sorkin\nNobody_Known\n")
    records = list(READER.records(raw, subjects=raw / "subjects.txt"))
    assert {r.labels["person"]: r.labels["identity"] for r in records} == {"Aaron_Sorkin": 0, "Abdullah_Gul": 1}
    assert READER.skipped == {"subject without photos": ["Nobody_Known"]}
    assert len(list(READER.records(raw, subjects=["Aaron_Eckhart"]))) == 1


def test_the_subjects_of_the_paper_have_two_photos_and_a_video(raw):
    miniatures.ytf(raw)
    videos = get_dataset("ytf").names(raw)
    assert shared_subjects(READER.records(raw), videos) == ["Abdullah_Gul"]
    assert shared_subjects(READER.records(raw), [*videos, "Aaron_Eckhart"]) == ["Abdullah_Gul"]  # one photo only


def test_the_paper_s_list_has_596_subjects(shared_dir):
    # 596 people: made-up photos and videos of exactly these give the list back.
    names = (shared_dir / "data/lfw_ytf_subjects.txt").read_text().split()
    records = [Record(f"{n}/{i}", "test", shared_dir, {"person": n}) for n in [*names, "Extra"] for i in range(2)]
    assert shared_subjects(records, [*names, "Only_A_Video"]) == sorted(names)
    assert len(names) == 596


def test_pairs(raw):
    gul, sorkin, eckhart = "Abdullah_Gul/Abdullah_Gul", "Aaron_Sorkin/Aaron_Sorkin", "Aaron_Eckhart/Aaron_Eckhart"
    assert READER.pairs(raw / "pairs.txt") == [
        Pair(f"{gul}_0013.jpg", f"{gul}_0014.jpg", True, 0),
        Pair(f"{sorkin}_0001.jpg", f"{sorkin}_0002.jpg", True, 0),
        Pair(f"{gul}_0013.jpg", f"{eckhart}_0001.jpg", False, 0),
        Pair(f"{sorkin}_0002.jpg", "Zydrunas_Ilgauskas/Zydrunas_Ilgauskas_0001.jpg", False, 0),
        Pair(f"{gul}_0001.jpg", f"{gul}_0002.jpg", True, 1),
        Pair(f"{gul}_0003.jpg", f"{gul}_0004.jpg", True, 1),
        Pair(f"{eckhart}_0001.jpg", f"{sorkin}_0001.jpg", False, 1),
        Pair(f"{eckhart}_0001.jpg", f"{sorkin}_0002.jpg", False, 1),
    ]
    (raw / "pairs.txt").write_text("2\t1\nA\t1\nA\t1\tB\t1\nC\t1\t2\nC\t1\tD\t1\n")
    assert [pair.fold for pair in READER.pairs(raw / "pairs.txt")] == [0, 1, 1]  # the malformed one's place stays empty
    (raw / "pairs.txt").write_text("10\n")
    with pytest.raises(ValueError, match="first line such as '10 300'"):
        READER.pairs(raw / "pairs.txt")


def test_other_files_are_counted(raw):
    miniatures.photos(raw, "lfw/Aaron_Sorkin/Someone_Else_0001.jpg", "lfw/Aaron_Sorkin/Aaron_Sorkin_1.jpg")
    assert len(list(READER.records(raw))) == 23
    assert len(READER.skipped["photo not named after its folder"]) == 2


def test_a_folder_prepared_by_tfds(tmp_path):
    import tensorflow_datasets as tfds

    names = ["Aaron_Sorkin", "Abdullah_Gul", "Aaron_Sorkin"]
    examples = [(np.full((250, 250, 3), 50 * i, np.uint8), {"label": name}) for i, name in enumerate(names)]
    miniatures.tfds_folder(tmp_path, "lfw", "0.1.1", {"train": examples}, label=tfds.features.Text())
    records = list(READER.records(tmp_path / "lfw/0.1.1"))
    assert sorted(record.labels["person"] for record in records) == sorted(names)
    assert len({record.id for record in records}) == 3
    means = {(record.labels["person"], int(record.image().mean())) for record in records}
    assert means == {("Aaron_Sorkin", 0), ("Abdullah_Gul", 50), ("Aaron_Sorkin", 100)}


def test_a_folder_of_another_set_prepared_by_tfds(tmp_path):
    miniatures.celeb_a(tmp_path)
    with pytest.raises(
        ValueError, match="does not contain LFW: its examples have attributes, identity, image, landmarks"
    ):
        list(READER.records(tmp_path / "celeb_a/2.1.0"))
