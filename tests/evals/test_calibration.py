import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from facejax.evals.calibration import reliability


@pytest.fixture
def predicted():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4) * 0.5, 500)
    return probabilities, np.array([rng.choice(4, p=p) for p in probabilities])


def test_equals_the_definition_record_by_record(predicted):
    probabilities, labels = predicted
    result = reliability(probabilities, labels, bins=10)
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    ece = 0
    for m in range(10):  # Guo et al. 2017, equations 2-4: bins ((m-1)/M, m/M]
        members = (confidence > m / 10) & (confidence <= (m + 1) / 10)
        assert result.counts[m] == members.sum()
        if members.any():
            ece += members.sum() / 500 * abs(hit[members].mean() - confidence[members].mean())
    assert result.ece == pytest.approx(ece)
    assert result.nll == pytest.approx(log_loss(labels, probabilities))
    assert result.brier == pytest.approx(brier_score_loss(labels, probabilities, scale_by_half=False))


def test_honest_and_boastful_probabilities(predicted):
    probabilities, labels = predicted
    sharper = probabilities**4 / (probabilities**4).sum(axis=1, keepdims=True)
    assert reliability(probabilities, labels).ece < 0.1
    assert reliability(sharper, labels).ece > 0.15
    certain = reliability(np.eye(4)[labels], labels)
    assert (certain.ece, certain.brier, certain.nll) == (0, 0, 0)


def test_edges_and_the_worst_bin():
    halves = np.full((1, 2), 0.5)
    assert reliability(halves, np.array([0]), bins=10).counts.argmax() == 4  # a bin includes its upper edge
    assert len(reliability(halves, np.array([0])).counts) == 15
    (told,) = reliability(halves, np.array([0]), bins=10).to_dict()["bins"]
    assert told == {"from": pytest.approx(0.4), "n": 1, "confidence": 0.5, "accuracy": 1}
    wrong = reliability(np.array([[1.0, 0], [0.6, 0.4]]), np.array([1, 0]))
    assert wrong.nll == pytest.approx((-np.log(1e-12) - np.log(0.6)) / 2)
    assert (wrong.mce, wrong.ece) == (pytest.approx(1), pytest.approx(0.7))


def test_unlabelled_records_and_scores_that_are_none(predicted):
    probabilities, labels = predicted
    some = np.where(np.arange(500) < 100, labels, -1)
    assert reliability(probabilities, some).to_dict() == reliability(probabilities[:100], labels[:100]).to_dict()
    assert np.isnan(reliability(probabilities[:0], labels[:0]).ece)
    for wrong in (probabilities * 2, probabilities * 1.01, np.tile([1.2, -0.2, 0.0, 0.0], (500, 1))):
        with pytest.raises(ValueError, match="sum to 1"):
            reliability(wrong, labels)
