import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from facejax.evals import classification
from facejax.tasks import EMOTION7, EMOTION8


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 300)
    scores = rng.normal(size=(300, 8)) + 1.5 * np.eye(8)[labels]
    return scores, labels


def test_metrics_equal_scikit_learns(scored):
    scores, labels = scored
    result = classification.classify(scores, labels, EMOTION8)
    predicted = scores.argmax(axis=1)
    assert result.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert result.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    np.testing.assert_array_equal(result.confusion, metrics.confusion_matrix(labels, predicted))
    assert result.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    told = result.to_dict()["per_class"]
    assert [told[name]["n"] for name in EMOTION8] == np.bincount(labels, minlength=8).tolist()
    recalls = metrics.recall_score(labels, predicted, average=None)
    assert [told[name]["recall"] for name in EMOTION8] == pytest.approx(recalls)


def test_records_without_a_label_and_empty_classes_do_not_count(scored):
    scores, labels = scored
    unlabelled = np.where(labels == 2, -1, labels)
    result = classification.classify(scores, unlabelled, EMOTION8)
    assert result.n == (labels != 2).sum()
    assert result.to_dict()["per_class"]["disgust"]["recall"] is None
    recalls = metrics.recall_score(labels, scores.argmax(1), average=None, labels=range(8))
    assert result.balanced_accuracy == pytest.approx(np.delete(recalls, 2).mean())
    known = labels != 2
    f1 = metrics.f1_score(labels[known], scores[known].argmax(1), average=None, labels=range(8), zero_division=0)
    assert result.macro_f1 == pytest.approx(np.delete(f1, 2).mean())


def test_seven_from_eight_drops_contempt(scored):
    scores, labels = scored
    result = classification.seven_from_eight(
        np.concatenate([scores, scores[:5]]), np.concatenate([labels, np.full(5, -1)])
    )
    kept = labels != 1
    names8, names7 = np.array(EMOTION8), np.array(EMOTION7)
    masked = np.where(np.arange(8) == 1, -np.inf, scores)[kept]
    assert result.n == kept.sum()
    assert result.accuracy == pytest.approx((names8[masked.argmax(1)] == names8[labels[kept]]).mean())
    assert tuple(names7) == result.labels


def test_wilson_interval_closed_cases():
    # Brown, Cai and DasGupta 2001: the interval solves |p - phat| = z sqrt(p (1 - p) / n).
    low, high = classification.wilson_interval(37, 120)
    for p in (low, high):
        assert abs(p - 37 / 120) == pytest.approx(1.959964 * np.sqrt(p * (1 - p) / 120), rel=1e-5)
    assert classification.wilson_interval(0, 0) == (0, 1)
    for n in range(1, 60):
        for hits in {0, n // 3, n}:
            low, high = classification.wilson_interval(hits, n)
            assert low >= 0
            assert high <= 1
            exact = stats.binomtest(hits, n).proportion_ci(method="wilson")
            assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-9)
