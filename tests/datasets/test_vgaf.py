import miniatures
import pytest

from facejax.datasets import get_dataset
from facejax.tasks import GROUP_EMOTION

READER = get_dataset("vgaf")


@pytest.fixture
def raw(tmp_path):
    miniatures.vgaf(tmp_path)
    return tmp_path


def test_clips_and_labels(raw):
    clips = {clip.id: (clip.split, GROUP_EMOTION[clip.labels["group_emotion"]]) for clip in READER.clips(raw)}
    assert clips == {
        "Train/2_1.mp4": ("train", "negative"),
        "Train/2_2.mp4": ("train", "neutral"),
        "Train/3_1.mp4": ("train", "positive"),
        "Val/1_1.mp4": ("validation", "negative"),
        "Val/5_10.mp4": ("validation", "positive"),
    }


def test_clips_that_are_not_there_and_malformed_rows_are_counted(raw):
    (raw / "Train/2_1.mp4").unlink()
    with (raw / "Val_labels.txt").open("a") as file:
        file.write("9_9 0\n9_9 4\n9_9 \n9_9 1 1\n../1_1 2\n")
    assert len(list(READER.clips(raw))) == 4
    assert {reason: len(rows) for reason, rows in READER.skipped.items()} == {
        "no such clip": 1,
        "malformed row": 4,
        "not a path inside the data set": 1,
    }


def test_a_clip_counts_once_and_not_where_its_rows_contradict_each_other(raw):
    with (raw / "Val_labels.txt").open("a") as file:
        file.write("1_1 3\n1_1.mp4 3\n5_10 2\n")
    assert [clip.id for clip in READER.clips(raw) if clip.split == "validation"] == ["Val/1_1.mp4"]
    assert READER.skipped == {
        "further row of the same clip": ["1_1.mp4", "1_1.mp4"],
        "rows of the clip contradict each other": ["5_10.mp4"],
    }
