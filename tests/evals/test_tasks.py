import json

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from facejax.evals.tasks import RegressionResult, evaluate_task, format_interval, format_result, selection_value
from facejax.tasks import TASKS

RNG = np.random.default_rng(0)


def one_hot_like(labels, classes):
    scores = RNG.random((len(labels), classes)).astype(np.float32)
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_result_and_a_value_to_select_by(name):
    task = TASKS[name]
    labels = RNG.integers(1, 5 if task.kind != "binary" else 2, 40)
    scores = one_hot_like(labels, {"binary": 2, "identity": 5}.get(task.kind, task.num_outputs))
    if task.kind == "regression":
        labels = RNG.normal(size=(40, 2)).astype(np.float32)
    result = evaluate_task(task, scores, labels)
    assert result.n == 40
    assert isinstance(selection_value(task, result, "accuracy"), float)
    assert np.isfinite(selection_value(task, result, "accuracy"))
    json.dumps(result.to_dict())
    assert "(n=40)" in format_result(result)


def test_gender_is_scikit_learns_accuracy_and_leaves_the_unlabelled_out():
    labels, scores = RNG.integers(-1, 2, 200), one_hot_like(range(200), 2)
    labels[7], scores[7] = 1, np.nan  # a photo that could not be read
    result = evaluate_task(TASKS["gender"], scores, labels)
    known = (labels >= 0) & np.isfinite(scores[:, 0])
    predicted = scores[known].argmax(axis=1)
    assert result.n == known.sum()
    assert result.metrics()["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels[known], predicted))
    expected = sklearn.metrics.balanced_accuracy_score(labels[known], predicted)
    assert result.metrics()["balanced_accuracy"] == pytest.approx(expected)
    assert selection_value(TASKS["gender"], result, "balanced_accuracy") == pytest.approx(expected)
    assert selection_value(TASKS["gender"], result, "accuracy") == result.metrics()["accuracy"] != expected


def test_age_by_equation_1_with_two_ages():
    scores = np.zeros((3, 100), np.float32)
    scores[0, [29, 39, 79]] = 0.4, 0.4, 0.2  # 30 and 40 count, 80 does not: 35
    scores[1, 9] = 1
    scores[2, 99] = 1
    metrics = evaluate_task(TASKS["age"], scores, np.array([36, 10, 103])).metrics()
    assert metrics["mae"] == pytest.approx((1 + 0 + 3) / 3)
    assert metrics["rmse"] == pytest.approx(np.sqrt(10 / 3))
    assert metrics["class_accuracy"] == pytest.approx(2 / 3)  # 103 years are in the last class
    result = evaluate_task(TASKS["age"], scores, np.array([36, 10, 103]))
    assert selection_value(TASKS["age"], result, "accuracy") == pytest.approx(-4 / 3)
    assert format_result(result) == "mae 1.333, rmse 1.826, class accuracy 66.67% (n=3)"
    assert evaluate_task(TASKS["age"], scores, np.array([29.6, 9.4, -1])).metrics()["class_accuracy"] == 0.5


def test_interval_of_the_mean_error_of_ages():
    scores = np.eye(100, dtype=np.float32)[[30, 40, 50, 60]]
    result = evaluate_task(TASKS["age"], scores, np.array([31, 45, 53, 60])).to_dict()
    errors = np.array([0, 4, 2, 1])
    low, high = scipy.stats.norm.interval(0.95, errors.mean(), scipy.stats.sem(errors))
    assert result["interval95"] == pytest.approx([low, high])
    found = scipy.stats.binomtest(1, 4).proportion_ci(method="wilson")
    assert result["class_interval95"] == pytest.approx([found.low, found.high])
    few = evaluate_task(TASKS["age"], scores[:2], np.array([31, 61])).to_dict()
    assert few["interval95"][0] == 0  # an error is never below


def test_identity_counts_ranks():
    best = np.array([[3, 1, 2, 0, 4], [9, 8, 7, 6, 5], [1, 2, 3, 4, 5]], np.float32)
    result = evaluate_task(TASKS["identity"], best, np.array([3, 5, 9]))
    assert result.metrics() == {"accuracy": pytest.approx(1 / 3), "rank5": pytest.approx(2 / 3)}
    exact = scipy.stats.binomtest(1, 3).proportion_ci(method="wilson")
    assert result.to_dict()["interval95"] == pytest.approx([exact.low, exact.high])


def test_valence_and_arousal():
    target = RNG.normal(size=(60, 2)).astype(np.float32)
    predicted = (0.7 * target + 0.2 * RNG.normal(size=(60, 2)) + 0.1).astype(np.float32)
    target[50:55], target[55:, 1] = np.nan, np.nan  # neither value, or one of the two
    metrics = evaluate_task(TASKS["valence_arousal"], predicted, target).metrics()
    for index, name in enumerate(("valence", "arousal")):
        x, y = predicted[:50, index].astype(float), target[:50, index].astype(float)
        r = scipy.stats.pearsonr(x, y).statistic
        ccc = 2 * r * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        assert metrics[f"ccc_{name}"] == pytest.approx(ccc, rel=1e-5)
        assert metrics[f"rmse_{name}"] == pytest.approx(sklearn.metrics.root_mean_squared_error(y, x), rel=1e-5)
    mean = (metrics["ccc_valence"] + metrics["ccc_arousal"]) / 2
    result = evaluate_task(TASKS["valence_arousal"], predicted, target)
    assert selection_value(TASKS["valence_arousal"], result, "accuracy") == pytest.approx(mean)


def test_no_zero_is_negative():
    steps = np.array([[-1.0], [0], [1]])
    result = RegressionResult(("valence",), 1e-9 * -steps, steps)
    assert -0.0005 < result.metrics()["ccc_valence"] < 0
    assert format_result(result) == "ccc valence 0.000, rmse valence 0.816 (n=3)"
    assert format_interval(-1e-9, [-2e-9, 1e-9], decimals=3) == "0.000 [0.000, 0.000]"


def test_a_value_without_an_interval_stands_alone():
    assert format_interval(0.6242, (0.601, 0.647), scale=100.0) == "62.42 [60.10, 64.70]"
    for none in (None, (float("nan"), float("nan")), [None, None]):
        assert format_interval(5.125, none, decimals=1) == "5.1"


@pytest.mark.parametrize("name", ["emotion8", "gender", "identity", "age", "valence_arousal"])
def test_no_records_have_no_figures(name):
    task = TASKS[name]
    outputs = {"gender": 2, "identity": 5}.get(name, task.num_outputs)
    labels = np.zeros((0, 2), np.float32) if task.kind == "regression" else np.zeros(0, np.int64)
    result = evaluate_task(task, np.zeros((0, outputs), np.float32), labels)
    assert result.n == 0
    assert all(np.isnan(value) for value in result.metrics().values())
    assert np.isnan(selection_value(task, result, "accuracy"))
    assert format_result(result) == "no records (n=0)"
