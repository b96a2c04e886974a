import miniatures
import numpy as np
import pytest

from facejax.data.decode import CorruptImageError
from facejax.datasets import get_dataset, tfds_folder
from facejax.datasets.crops import load_photo

READER = get_dataset("celeb_a")


@pytest.fixture
def raw(tmp_path):
    miniatures.celeb_a(tmp_path)
    return tmp_path


@pytest.mark.parametrize("folder", [".", "celeb_a", "celeb_a/2.1.0"])
def test_gender_identity_and_landmarks(raw, folder):
    records = list(READER.records(raw / folder))
    found = {split: [r.labels for r in records if r.split == split] for split in miniatures.CELEB_A}
    # TFDS shuffles the examples of a split.
    for split, people in miniatures.CELEB_A.items():
        expected = [{"gender": int(male), "identity": number - 1} for number, male in people]
        assert sorted(found[split], key=str) == sorted(expected, key=str)
    for record in records:
        np.testing.assert_array_equal(record.landmarks, [[0, 1], [10, 11], [20, 21], [30, 31], [40, 41]])
        assert (record.image() == 127).all()


def test_another_set_is_refused(tmp_path):
    image = np.zeros((9, 9, 3), np.uint8)
    miniatures.tfds_folder(tmp_path, "celeb_a", "2.1.0", {s: [(image, {})] for s in ("train", "validation", "test")})
    with pytest.raises(ValueError, match="does not contain CelebA: its examples lack 'attributes'"):
        list(READER.records(tmp_path))


def test_a_damaged_photo_is_counted(raw, monkeypatch):
    record = next(READER.records(raw))

    def damaged(data):
        raise CorruptImageError("damaged header")

    monkeypatch.setattr(tfds_folder, "decode_image", damaged)
    assert load_photo(record, raw).problem == ("corrupt", "damaged header")
