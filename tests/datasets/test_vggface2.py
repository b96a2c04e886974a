import miniatures
import numpy as np
import pytest

from facejax.datasets import get_dataset
from facejax.datasets.vggface2 import _held_out

READER = get_dataset("vggface2")


@pytest.fixture
def raw(tmp_path):
    miniatures.vggface2(tmp_path)
    return tmp_path


def test_identities_count_over_both_folders_in_order_of_the_class_ids(raw):
    seen = {record.id.split("/")[1]: record.labels["identity"] for record in READER.records(raw)}
    assert seen == {"n000001": 0, "n000002": 1, "n000009": 2, "n000023": 3}


def test_a_tenth_of_each_person_is_held_out(raw):
    held = {}
    for record in READER.records(raw):
        class_id = record.id.split("/")[1]
        held.setdefault(class_id, []).append(record.split == "validation")
    assert {class_id: (sum(flags), len(flags)) for class_id, flags in held.items()} == {
        "n000001": (2, 20),
        "n000002": (1, 10),
        "n000009": (1, 2),  # one of two, so that every class of two photos is validated
        "n000023": (0, 1),  # and every class is trained
    }


def test_the_split_depends_on_the_seed_and_on_no_other_person(raw):
    before = {record.id: record.split for record in READER.records(raw)}
    other = {record.id: record.split for record in READER.records(raw, seed=1)}
    assert before != other
    miniatures.photos(raw, *(f"train/n000005/{i:04d}_01.jpg" for i in range(5)))
    after = {record.id: record.split for record in READER.records(raw)}
    assert {key: after[key] for key in before} == before


def test_the_part_is_rounded_and_drawn_for_each_person_apart():
    def held_out(class_id, count):
        held = _held_out([f"{class_id}/{i:04d}_01" for i in range(count)], 0.1, seed=0)
        return frozenset(photo.split("/")[1] for photo in held)

    assert [len(held_out("n000001", count)) for count in (14, 16, 24, 26)] == [1, 2, 2, 3]
    assert len({held_out(f"n{person:06d}", 200) for person in range(5)}) == 5


def test_a_photo_of_every_person_is_left_for_training():
    photos = [f"n000001/{i:04d}_01" for i in range(3)]
    assert [len(_held_out(photos[:count], 0.9, seed=0)) for count in (2, 3)] == [1, 2]


def test_a_missing_photo_changes_the_split_of_at_most_one_other():
    photos = [f"n000001/{i:04d}_01" for i in range(200)]
    complete = _held_out(photos, 0.1, seed=0)
    for missing in photos:
        rest = [photo for photo in photos if photo != missing]
        assert len((_held_out(rest, 0.1, seed=0) ^ complete) - {missing}) <= 1


def test_meta_rows_with_their_published_quirks(raw):
    people = {r.id.split("/")[1]: (r.labels.get("person"), r.labels.get("gender")) for r in READER.records(raw)}
    assert people == {
        "n000001": ("14th_Dalai_Lama", 1),
        "n000002": ("A_Fine_Frenzy", 0),
        "n000009": ("Kemi_Adetiba,_Director", 0),
        "n000023": ("Aarón_Díaz", 1),
    }
    assert READER.skipped == {}


def test_a_meta_file_that_a_spreadsheet_wrote_reads_alike(raw):
    # The form found in public repositories: quotes doubled, no header, no trailing comma.
    (raw / "meta/identity_meta.csv").write_text('n000001," ""14th_Dalai_Lama""",424,0, m\n')
    assert next(READER.records(raw)).labels == {"identity": 0, "person": "14th_Dalai_Lama", "gender": 1}


def test_boxes_and_landmarks(raw):
    records = {record.id: record for record in READER.records(raw)}
    first = records["test/n000001/0001_02.jpg"]
    assert first.bbox == (60, 60, 139, 169)
    np.testing.assert_allclose(first.landmarks[:2], [[75.81253, 110.2077], [103.1778, 104.6074]], rtol=1e-6)
    assert records["test/n000001/0002_01.jpg"].bbox == (134, -8, 341, 287)
    assert records["train/n000002/0001_02.jpg"].bbox == (161, 140, 385, 464)
    assert records["test/n000009/0001_02.jpg"].bbox == (1, 2, 4, 6)
    assert records["train/n000002/0002_01.jpg"].bbox is None
    assert records["train/n000002/0002_01.jpg"].landmarks is None


def test_rows_of_a_person_may_lie_apart(raw):
    with (raw / "bb_landmark/loose_bb_test.csv").open("a") as file:
        file.write('"n000001/0003_02",5,6,7,8\n"n000009/0002_01",1,1,1,1\n"n000001/0004_01",9,9,9,9\n')
    boxes = {record.id.removeprefix("test/"): record.bbox for record in READER.records(raw) if record.bbox}
    assert boxes["n000001/0001_02.jpg"] == (60, 60, 139, 169)
    assert boxes["n000001/0003_02.jpg"] == (5, 6, 12, 14)
    assert boxes["n000001/0004_01.jpg"] == (9, 9, 18, 18)


def test_without_the_csv_files_only_identities_remain(raw):
    for path in raw.glob("*/*.csv"):
        path.unlink()
    assert {tuple(record.labels) for record in READER.records(raw)} == {("identity",)}


def test_malformed_rows_are_counted_and_cost_no_photo(raw):
    with (raw / "bb_landmark/loose_bb_test.csv").open("a") as file:
        file.write('"n000009/0002_01",1,2,nan,4\n"n000009/0002_01",1,2\n')
    (raw / "meta/identity_meta.csv").write_text("n000001,x\n")
    assert len(list(READER.records(raw))) == 33
    assert {reason: len(rows) for reason, rows in READER.skipped.items()} == {
        "malformed row of identity_meta.csv": 1,
        "malformed row of loose_bb_test.csv": 2,
    }
