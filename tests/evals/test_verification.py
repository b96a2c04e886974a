import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from facejax.evals.verification import best_threshold, draw_pairs, verify


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    same = np.arange(400) % 2 == 0
    return np.where(same, 0.6, 0.2) + rng.normal(0, 0.25, 400), same, np.arange(400) // 40


def accuracy(similarity, same, threshold):
    return ((similarity >= threshold) == same).mean()


def test_threshold_is_the_best_of_all(pairs):
    similarity, same, _ = pairs
    for values in (similarity, similarity.round(1)):  # with ties
        threshold = best_threshold(values, same)
        candidates = [*values, values.max() + 1]
        assert accuracy(values, same, threshold) == max(accuracy(values, same, c) for c in candidates)
    assert best_threshold(np.array([0.2, 0.4]), np.array([False, True])) == pytest.approx(0.3)
    # To part the two first from their equals would be right four times, but no threshold does.
    assert best_threshold(np.array([0.5, 0.5, 0.5, 0.5, 0.1]), np.array([True, True, False, False, True])) <= 0.1
    assert best_threshold(np.array([0.3]), np.array([False])) > 0.3
    assert best_threshold(np.array([0.3]), np.array([True])) <= 0.3


def test_folds_are_judged_by_the_others(pairs):
    similarity, same, fold = pairs
    result = verify(similarity, same, fold)
    for k in range(10):
        others = fold != k
        assert result.threshold[k] == best_threshold(similarity[others], same[others])
        assert result.accuracy[k] == accuracy(similarity[~others], same[~others], result.threshold[k])
    assert (result.mean, result.std) == pytest.approx((result.accuracy.mean(), np.std(result.accuracy)))


def test_rates_by_brute_force(pairs):
    similarity, same, fold = pairs
    rates = (0.005, 0.01, 0.1, *np.arange(0.015, 0.5, 0.015))
    result = verify(similarity, same, fold, (0.001, *rates))
    assert result.auc == pytest.approx(roc_auc_score(same, similarity))
    for far in rates:  # 0.005: one of 200 pairs
        allowed = [t for t in similarity if (similarity[~same] >= t).mean() <= far]
        assert result.tar[far] == pytest.approx(max((similarity[same] >= t).mean() for t in allowed))
    assert np.isnan(result.tar[0.001])  # 200 pairs of different people cannot show one in a thousand
    assert result.to_dict()["tar_at_far"]["0.001"] is None
    gaps = [abs((similarity[~same] >= t).mean() - (similarity[same] < t).mean()) for t in similarity]
    t = similarity[int(np.argmin(gaps))]
    expected = ((similarity[~same] >= t).mean() + (similarity[same] < t).mean()) / 2
    assert result.equal_error == pytest.approx(expected, abs=0.01)


def test_the_equal_error_of_rates_that_never_meet_lies_between_them():
    """At 0.5 one of two strangers is accepted and one of three pairs of a person refused: no other rates are nearer."""
    similarity, same = np.array([0.9, 0.8, 0.4, 0.5, 0.1]), np.array([True, True, True, False, False])
    result = verify(similarity, same, np.array([0, 1, 0, 1, 0]))
    assert result.equal_error == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_drawn_pairs_are_as_lfw_s():
    identities = np.repeat(np.arange(60), np.tile([1, 2, 4], 20))
    pairs, same, fold = draw_pairs(identities, folds=5, pairs_per_fold=12)
    np.testing.assert_array_equal(identities[pairs[:, 0]] == identities[pairs[:, 1]], same)
    assert len({tuple(sorted(pair)) for pair in pairs.tolist()}) == len(pairs)
    for k in range(5):
        assert (same[fold == k]).sum() == (~same[fold == k]).sum() == 12
    people = [set(identities[pairs[fold == k]].ravel()) for k in range(5)]
    assert sum(map(len, people)) == len(set.union(*people))
    with pytest.raises(ValueError, match="5 people with two photos"):
        draw_pairs(np.array([0, 0, 1, 2]), folds=5)


def test_pairs_are_drawn_from_all_that_there_are():
    pairs, same, _ = draw_pairs(np.repeat([0, 1], 30), folds=1, pairs_per_fold=100)  # 435 pairs of each person
    assert 30 < (pairs[same] < 30).all(axis=1).sum() < 70
    identities = np.array([0, 0, 0, *range(1, 30)])
    pairs, same, _ = draw_pairs(identities, folds=1)
    assert len(np.unique(identities[pairs[~same]])) > 2  # persons with one photo too


def test_one_kind_of_pair_is_no_verification(pairs):
    with pytest.raises(ValueError, match="both kinds"):
        verify(pairs[0], np.ones(400, bool), pairs[2])
