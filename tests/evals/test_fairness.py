import json
import re

import numpy as np
import pytest
from scipy import stats

from facejax.evals.age import age_errors
from facejax.evals.bootstrap import accuracy_interval, interval95, person_clusters, resample
from facejax.evals.fairness import age_groups, attribute_groups, by_group, intersection


def test_bootstrap_of_a_mean_is_near_its_closed_form():
    values = np.random.default_rng(0).normal(5, 2, 400)
    draws = resample(lambda i: float(values[i].mean()), np.arange(400), samples=2000)
    assert draws.std() == pytest.approx(values.std() / 20, rel=0.06)
    low, high = interval95(draws)
    expected = stats.norm.interval(0.95, values.mean(), values.std() / 20)
    assert (low, high) == pytest.approx(expected, abs=0.03)


def test_photos_of_one_person_count_as_one():
    """100 people with 10 equal photos each: the error of the mean is that of 100 values, not of 1000."""
    persons = np.repeat(np.arange(100), 10)
    values = np.random.default_rng(0).normal(size=100)[persons]
    order = np.random.default_rng(1).permutation(1000)
    mean = lambda i: float(values[order][i].mean())  # noqa: E731
    by_person = resample(mean, np.arange(1000), persons[order]).std()
    assert by_person == pytest.approx(values.std() / 10, rel=0.15)
    assert resample(mean, np.arange(1000)).std() == pytest.approx(values.std() / 1000**0.5, rel=0.15)
    assert np.isnan(interval95(np.array([np.nan]))).all()
    assert interval95(np.append(np.arange(1001.0), np.nan)) == (25, 975)


def test_one_person_or_record_has_no_interval():
    mean = lambda i: float(i.mean())  # noqa: E731
    assert np.isnan(resample(mean, np.arange(6), np.zeros(6), samples=5)).all()
    assert np.isnan(resample(mean, np.arange(1), samples=5)).all()
    assert np.isfinite(resample(mean, np.arange(2), samples=5)).all()
    one = age_errors(np.array([30.0, 40, 50]), np.array([31, 44, 80]), 21, 60, clusters=np.array(["a", "a", "b"]))
    assert (one.n, one.mae) == (2, 2.5)
    assert np.isnan(one.interval95).all()


@pytest.mark.parametrize("right", [True, False])
def test_where_all_or_none_are_right_wilson_s_interval_is_over_persons(right):
    """Every draw would be the same; ten persons of four photos each are ten trials."""
    records, persons = np.arange(10, 50), np.repeat(np.arange(10), 4)
    hits = np.full(50, right)
    hits[:10] = not right  # records that do not count
    exact = stats.binomtest(10 * right, 10).proportion_ci(method="wilson")
    assert accuracy_interval(hits, records, persons) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert np.isnan(accuracy_interval(hits, records[:4], persons[:4])).all()  # one person
    hits[10:30] = not right  # five of the ten persons
    drawn = resample(lambda i: float(hits[i].mean()), records, persons)
    assert accuracy_interval(hits, records, persons) == interval95(drawn)


def test_groups_gap_and_worst():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2, -1], [200, 300, 10, 40])
    hits = rng.random(550) < np.array([0.9, 0.6, 0.1, 0.5])[group]
    result = by_group("accuracy", lambda i: float(hits[i].mean()), "gender", group, ("a", "b", "c"))
    assert [g.n for g in result.groups] == [200, 300, 10]
    assert [g.value for g in result.groups] == pytest.approx([hits[group == k].mean() for k in range(3)])
    assert (result.best, result.worst, result.unknown) == ("a", "b", 40)  # c is too small to be compared
    assert result.gap == pytest.approx(hits[:200].mean() - hits[200:500].mean())
    p, q = hits[:200].mean(), hits[200:500].mean()
    half = 1.96 * (p * (1 - p) / 200 + q * (1 - q) / 300) ** 0.5
    assert result.gap_interval95 == pytest.approx((p - q - half, p - q + half), abs=0.02)
    text = "\n".join(result.markdown())
    assert "| c | 10 | - |" in text
    assert "not compared" in text
    error = by_group(
        "error", lambda i: float(1 - hits[i].mean()), "gender", group, ("a", "b", "c"), higher_is_better=False
    )
    assert (error.best, error.worst) == ("a", "b")


def test_a_group_of_few_persons_is_not_compared():
    group = np.repeat([0, 1, 2, 3], [40, 40, 40, 40])
    persons = np.arange(160) % np.repeat([1, 9, 10, 20], 40) + 100 * group
    values = np.repeat([0.1, 0.2, 0.5, 0.9], 40)
    mean = lambda records: float(values[records].mean())  # noqa: E731
    result = by_group("m", mean, "x", group, ("one", "nine", "ten", "twenty"), clusters=persons, samples=50)
    assert [g.clusters for g in result.groups] == [1, 9, 10, 20]
    assert [g.counted for g in result.groups] == [False, False, True, True]
    assert (result.worst, result.gap) == ("ten", pytest.approx(0.4))
    assert np.isnan(result.groups[0].interval95).all()
    text = "\n".join(result.markdown())
    assert "| one | 40 | 1 | 10.00 (not compared) |" in text
    assert "Not compared: groups with fewer than 30 records or 10 people, which are too few for a conclusion." in text
    assert re.search(r"Gap 40\.00 points: twenty is served best, ten worst\. Unknown group: 0\.", text)
    assert "nan" not in text
    unidentified = by_group("m", mean, "x", group, ("one", "nine", "ten", "twenty"), samples=50)
    assert [(g.clusters, g.counted) for g in unidentified.groups] == [(None, True)] * 4
    assert unidentified.markdown()[2].startswith("| one | 40 | - | 10.00 ")
    alike = by_group(
        "m", lambda records: 0.5, "x", group, ("one", "nine", "ten", "twenty"), clusters=persons, samples=9
    )
    assert (alike.gap, alike.best, alike.worst) == (0, "", "")  # no group is served worse
    assert "Gap" not in "\n".join(alike.markdown())


def test_groups_are_drawn_apart():
    """Two groups of the same values differ by chance alone, and that chance is in the interval of their gap."""
    values = np.tile(np.random.default_rng(0).normal(size=100), 2)
    result = by_group("m", lambda i: float(values[i].mean()), "x", np.repeat([0, 1], 100), ("a", "b"))
    half = 1.96 * values.std() * (2 / 100) ** 0.5
    assert result.gap_interval95 == pytest.approx((-half, half), abs=0.06)


def test_a_group_of_thirty_records_is_compared():
    sizes = [30, 30, 29]
    result = by_group("m", lambda i: float(i.mean()), "x", np.repeat([0, 1, 2], sizes), ("a", "b", "c"), samples=20)
    assert [group.counted for group in result.groups] == [True, True, False]


def test_one_group_has_no_gap():
    result = by_group("m", lambda i: 1.0, "x", np.zeros(50, int), ("a", "b"))
    assert (result.best, result.worst) == ("", "")
    assert np.isnan(result.gap)


def test_intersections_and_age_groups():
    group, names = intersection(np.array([0, 1, -1, 1]), ("f", "m"), np.array([2, 0, 1, -1]), ("x", "y", "z"))
    assert [names[g] if g >= 0 else None for g in group] == ["f, z", "m, x", None, None]
    group, names = age_groups(np.array([0, 9, 10, 69, 70, 101, -1]))
    assert [names[g] if g >= 0 else None for g in group] == ["0-9", "0-9", "10-19", "60-69", "70+", "70+", None]
    assert age_groups(np.array([np.nan, 3.0]))[0].tolist() == [-1, 0]


def test_age_errors_of_the_paper_s_ranges():
    true = np.array([10, 21, 40, 60, 61, -1])
    predicted = np.array([20.0, 22, 38, 70, 61, 5])
    everyone, paper = age_errors(predicted, true), age_errors(predicted, true, 21, 60)
    assert (everyone.n, everyone.mae, everyone.bias, everyone.within5) == pytest.approx((5, 4.6, 3.8, 0.6))
    assert (paper.n, paper.mae) == pytest.approx((3, 13 / 3))
    assert paper.clipped_mae == pytest.approx(1)  # 70 counts as 60
    outside = age_errors(np.array([10.0, 30, 80]), np.array([22, 33, 59]), 21, 60)
    assert outside.clipped_mae == pytest.approx((1 + 3 + 1) / 3)
    assert paper.interval95[0] <= paper.mae <= paper.interval95[1]
    assert age_errors(predicted, true, seed=1).interval95 != everyone.interval95
    assert age_errors(predicted, true, 100).n == 0
    assert age_errors(predicted, true, -5).n == 5  # -1 is unknown, no age
    assert age_errors(np.array([30.0, 35.1]), np.array([25, 30])).within5 == 0.5  # 5 years count, 5.1 do not


def test_age_intervals_draw_the_persons_of_the_chosen_range():
    """60 people with 10 equal photos each within the range, preceded by twice as many photos outside it."""
    persons = np.concatenate([np.arange(1200) + 1000, np.repeat(np.arange(60), 10)])
    true = np.concatenate([np.full(1200, 5), np.full(600, 40)])
    errors = np.abs(np.random.default_rng(0).normal(size=60)) * 8
    predicted = true + np.concatenate([np.zeros(1200), np.repeat(errors, 10)])
    low, high = age_errors(predicted, true, 21, 60, clusters=persons).interval95
    assert high - low == pytest.approx(2 * 1.96 * errors.std() / 60**0.5, rel=0.15)


def test_attributes_that_a_set_has():
    labels = {"gender": np.array([0, 1, -1]), "age": np.array([8, -1, 71])}
    groups = attribute_groups(labels)
    assert list(groups) == ["gender", "age"]
    assert groups["gender"][1] == ("female", "male")
    assert [groups["age"][1][place] for place in groups["age"][0][[0, 2]]] == ["0-9", "70+"]
    groups = attribute_groups({"gender": np.array([1]), "ethnicity": np.array([2])})
    assert groups["gender, ethnicity"][1][int(groups["gender, ethnicity"][0][0])] == "male, asian"


def test_a_result_is_plain_json():
    result = by_group("m", lambda i: 1.0, "x", np.zeros(50, int), ("a", "b")).to_dict()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["gap"] is None


@pytest.mark.parametrize(
    "persons",
    [["b", "", "a", "b", ""], [7, -1, 3, 7, -1], [7.0, np.nan, 3.0, 7.0, np.nan], [7.0, np.nan, 3.0, 7.0, -1.0]],
)
def test_records_of_nobody_are_no_one_person(persons):
    clusters = person_clusters(np.array(persons))
    assert clusters[0] == clusters[3]
    assert len(set(clusters.tolist())) == 4
