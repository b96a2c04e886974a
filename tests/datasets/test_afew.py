import miniatures
import pytest

from facejax.datasets import get_dataset
from facejax.tasks import EMOTION8

READER = get_dataset("afew")


@pytest.fixture
def raw(tmp_path):
    miniatures.afew(tmp_path)
    return tmp_path


def test_clips_and_labels(raw):
    clips = list(READER.clips(raw))
    assert [EMOTION8[clip.labels["emotion"]] for clip in clips] == 2 * [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
        "surprise",
    ]
    assert [clip.split for clip in clips] == ["train"] * 7 + ["validation"] * 7
    assert clips[0].id == "Train_AFEW/Angry/000000240.avi"
    assert all(clip.image.is_file() for clip in clips)
    assert READER.skipped == {"folder of no class": ["Train_AFEW/AlignedFaces_LBPTOP_Points"]}


def test_folders_may_be_named_as_in_the_paper_s_code(raw):
    (raw / "Train_AFEW").rename(raw / "train")
    (raw / "Val_AFEW").rename(raw / "val")
    assert [clip.id for clip in READER.clips(raw)][::7] == ["train/Angry/000000240.avi", "val/Angry/000100240.avi"]


def test_a_missing_split_is_an_error_and_it_has_no_photos(raw):
    with pytest.raises(NotImplementedError, match=r"see clips\(\)"):
        READER.records(raw)
    (raw / "Val_AFEW").rename(raw / "elsewhere")
    with pytest.raises(FileNotFoundError, match="Val_AFEW or Val or val"):
        list(READER.clips(raw))
