"""The reader on a miniature of the published layout, and on the real part where it is available."""

import collections

import pytest

from facejax.datasets import get_dataset
from facejax.datasets.facial_expressions import person_of, split_of
from facejax.tasks import EMOTION8, ETHNICITY, GENDER

LEGEND = """user.id,image,emotion
628,facial-expressions_2868588k.jpg,anger
302,Aaron_Peirsol_0002.jpg,HAPPINESS
302,Aaron_Peirsol_0003.jpg, happiness
302,Aaron_Peirsol_0003.jpg,Happiness
302,Adel_Al-Jubeir_0001.jpg,neutral
302,Adel_Al-Jubeir_0003.jpg,neutral
302,Adel_Al-Jubeir_0003.jpg,sadness
302,José_Ramón_0001.jpg,Contempt
302,someone_1.jpg,boredom
302,../../etc/passwd,anger
302,,anger
302
"""


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "legend.csv").write_text(LEGEND)
    return tmp_path


def test_miniature(raw):
    reader = get_dataset("facial_expressions")
    reader.skipped.clear()
    records = {record.id: record for record in reader.records(raw)}
    emotions = {name: EMOTION8[record.labels["emotion"]] for name, record in records.items()}
    assert emotions == {
        "images/facial-expressions_2868588k.jpg": "anger",
        "images/Aaron_Peirsol_0002.jpg": "happiness",
        "images/Aaron_Peirsol_0003.jpg": "happiness",
        "images/Adel_Al-Jubeir_0001.jpg": "neutral",
        "images/José_Ramón_0001.jpg": "contempt",
    }
    assert records["images/Aaron_Peirsol_0002.jpg"].image == raw / "images" / "Aaron_Peirsol_0002.jpg"
    assert records["images/Aaron_Peirsol_0002.jpg"].labels["person"] == "aaron_peirsol"
    assert reader.skipped == {
        "further row of the same photo": ["Aaron_Peirsol_0003.jpg"],
        "rows of the photo contradict each other": ["Adel_Al-Jubeir_0003.jpg"],
        "label is none of the eight": ["legend.csv:10"],
        "not a path inside the data set": ["../../etc/passwd", ""],
        "malformed row": ["legend.csv:13"],
    }


def test_a_quote_left_open_costs_its_own_row(raw):
    lines = LEGEND.splitlines()
    (raw / "data" / "legend.csv").write_text("\n".join([*lines[:2], '302,"Open_0001.jpg,anger', *lines[2:]]))
    reader = get_dataset("facial_expressions")
    assert len(list(reader.records(raw))) == 5
    assert reader.skipped["malformed row"] == ["legend.csv:3", "legend.csv:14"]


def test_attributes(raw):
    rows = [
        "image,identity,gender,ethnicity",
        "Aaron_Peirsol_0002.jpg,x,male,",
        "José_Ramón_0001.jpg,z,,latino;caucasian",
        "Adel_Al-Jubeir_0001.jpg,y,Female,eastasian,",  # a trailing comma does no harm
        "odd",
    ]
    (raw / "attributes.csv").write_text("\n".join(rows))
    labels = {record.id[7:]: record.labels for record in get_dataset("facial_expressions").records(raw)}
    assert GENDER[labels["Aaron_Peirsol_0002.jpg"]["gender"]] == "male"
    assert "ethnicity" not in labels["Aaron_Peirsol_0002.jpg"]
    assert GENDER[labels["Adel_Al-Jubeir_0001.jpg"]["gender"]] == "female"
    assert ETHNICITY[labels["Adel_Al-Jubeir_0001.jpg"]["ethnicity"]] == "asian"
    assert not {"gender", "ethnicity"} & set(labels["José_Ramón_0001.jpg"])


def test_groups_of_the_attributes_are_those_of_the_task(raw):
    groups = {
        "caucasian": "white",
        "african": "black",
        "eastasian": "asian",
        "asianindian": "indian",
        "latino": "latino_middle_eastern",
        "middleeastern": "latino_middle_eastern",
    }
    for word, group in groups.items():
        (raw / "attributes.csv").write_text(f"image,gender,ethnicity\nAaron_Peirsol_0002.jpg,,{word}\n")
        labels = {record.id[7:]: record.labels for record in get_dataset("facial_expressions").records(raw)}
        assert ETHNICITY[labels["Aaron_Peirsol_0002.jpg"]["ethnicity"]] == group


@pytest.mark.parametrize(
    ("image", "person"),
    [
        ("Aaron_Peirsol_0002.jpg", "aaron_peirsol"),
        ("aaron_peirsol_0010.JPG", "aaron_peirsol"),
        ("HrithikRoshan_108.jpg", "hrithikroshan"),
        ("facial-expressions_2868588k.jpg", "facial-expressions"),
        ("Adel_Al-Jubeir_0003.jpg", "adel_al-jubeir"),
        ("50_Cent_0001.jpg", "50_cent"),
        ("0012.jpg", "0012"),
        ("Ashanti.jpg", "ashanti"),
    ],
)
def test_person_of_a_file_name(image, person):
    assert person_of(image) == person


def test_split_is_by_person_and_stable():
    people = [f"person_{number}" for number in range(5000)]
    splits = collections.Counter(map(split_of, people))
    assert 0.18 < splits["validation"] / 5000 < 0.22
    assert [name for name in people[:20] if split_of(name) == "validation"] == [
        "person_3", "person_8", "person_10", "person_15", "person_19",
    ]  # fmt: skip
    # Their hashes are 19 and 20 modulo 100: on either side of a fifth.
    assert [split_of(name) for name in ("person_190", "person_51")] == ["validation", "train"]


def test_all_photos_of_a_person_are_on_one_side_of_the_split(raw):
    rows = [f"1,person_{number}_{photo:04d}.jpg,anger\n" for number in (3, 4) for photo in range(20)]
    (raw / "data" / "legend.csv").write_text("user.id,image,emotion\n" + "".join(rows))
    records = list(get_dataset("facial_expressions").records(raw))
    sides = {(record.labels["person"], record.split) for record in records}
    assert sides == {("person_3", "validation"), ("person_4", "train")}


def test_broken_folders(tmp_path):
    reader = get_dataset("facial_expressions")
    with pytest.raises(FileNotFoundError, match=r"expected data/legend.csv in .*github.com/muxspace"):
        list(reader.records(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "legend.csv").write_text("image;emotion\na.jpg;anger\n")
    with pytest.raises(ValueError, match=r"no column 'image' among \['image;emotion'\]"):
        list(reader.records(tmp_path))


def test_the_real_part(shared_dir):
    raw = shared_dir / "data" / "facial_expressions"
    reader = get_dataset("facial_expressions")
    reader.skipped.clear()
    records = list(reader.records(raw))
    assert len(records) == 3622
    assert not reader.skipped
    assert all(record.image.is_file() for record in records)
    people = {split: {r.labels["person"] for r in records if r.split == split} for split in ("train", "validation")}
    assert not people["train"] & people["validation"]
    held_out = collections.Counter(EMOTION8[r.labels["emotion"]] for r in records if r.split == "validation")
    everyone = collections.Counter(EMOTION8[r.labels["emotion"]] for r in records)
    assert sum(held_out.values()) == 689
    for name in EMOTION8:  # each class is in both splits, at about the same share
        assert 0.15 < held_out[name] / everyone[name] < 0.25
