import pickle

import miniatures
import numpy as np
import pytest

from facejax.datasets import get_dataset
from facejax.datasets.fer2013 import majority
from facejax.tasks import EMOTION8

READER = get_dataset("fer2013")


@pytest.fixture
def raw(tmp_path):
    miniatures.fer2013(tmp_path)
    return tmp_path


def test_labels_and_split(raw):
    records = list(READER.records(raw))
    names = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "anger", "disgust"]
    assert [EMOTION8[record.labels["emotion"]] for record in records] == names
    assert [record.split for record in records] == ["train"] * 7 + ["validation", "test"]


def test_pixels(raw):
    for row, record in enumerate(READER.records(raw)):
        image = pickle.loads(pickle.dumps(record.image))()  # as a worker process would get it
        assert image.shape == (48, 48, 3)
        assert image.dtype == np.uint8
        for channel in range(3):
            np.testing.assert_array_equal(image[..., channel].ravel(), miniatures.fer_pixels(row))


def test_votes(raw):
    records = list(READER.records(raw, ferplus=True))
    assert {record.id: EMOTION8[record.labels["emotion"]] for record in records} == {
        "fer0000001": "neutral",
        "fer0000002": "contempt",
        "fer0000005": "happiness",
        "fer0000007": "sadness",
    }
    assert records[0].labels["votes"] == "6 0 1 1 0 0 0 0 2 0"
    assert READER.skipped == {
        "no majority for one of the 8 expressions": [
            "fer0000000",
            "fer0000003",
            "fer0000004",
            "fer0000006",
            "fer0000008",
        ]
    }


def published_majority(votes):
    """The rule as microsoft/FERPlus (src/ferplus.py, mode 'majority') states it, on floats."""
    raw = [0.0 if vote < 1.0 + np.finfo(float).eps else float(vote) for vote in votes]
    return int(np.argmax(raw)) if max(raw) > 0.5 * sum(raw) else None


def test_majority_is_the_published_rule():
    names = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", None, None]
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(2000):
        votes = rng.multinomial(10, rng.dirichlet(np.full(10, 0.2))).tolist()
        winner = published_majority(votes)
        expected = None if winner is None or names[winner] is None else EMOTION8.index(names[winner])
        assert majority(votes) == expected
        decided += expected is not None
    assert 500 < decided < 1900


def test_a_row_left_out_shifts_no_votes(raw):
    lines = (raw / "fer2013.csv").read_text().splitlines()
    lines[2] = lines[2].replace("Training", "Training,x")
    lines[3] = "2," + " ".join(["256"] * 2304) + ",Training"
    (raw / "fer2013.csv").write_text("\n".join(lines))
    ids = [record.id for record in READER.records(raw, ferplus=True)]
    assert ids == ["fer0000005", "fer0000007"]
    assert READER.skipped["malformed row"] == ["fer2013.csv:3", "fer0000002"]


def test_files_that_do_not_belong_together_are_refused(raw):
    lines = (raw / "fer2013new.csv").read_text().splitlines()
    (raw / "fer2013new.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    with pytest.raises(ValueError, match="correspond by line number"):
        list(READER.records(raw, ferplus=True))
    (raw / "fer2013.csv").write_text("pixels,emotion\n")
    with pytest.raises(ValueError, match="expected the columns emotion,pixels,Usage"):
        list(READER.records(raw))
