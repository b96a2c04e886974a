import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from facejax.video.fusion import choose_weights, fuse, standardize
from facejax.video.smoothing import ExponentialSmoother, smooth_scores


def test_exponential_smoothing_equals_its_definition():
    rng = np.random.default_rng(0)
    times, scores = np.cumsum(rng.uniform(0.01, 2.0, 20)), rng.dirichlet(np.ones(3), 20)
    smoother = ExponentialSmoother(0.7)
    for index, time in enumerate(times):
        weights = np.exp(-(time - times[: index + 1]) / 0.7)
        expected = weights @ scores[: index + 1] / weights.sum()
        found = smoother(float(time), scores[index])
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert found.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="in order"):
        smoother(0.0, scores[0])
    np.testing.assert_allclose(smoother(1e6, scores[3]), scores[3])  # after a long gap only what is new counts


def test_gaussian_smoothing_equals_scipy_on_even_times():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), 200)
    smoothed = smooth_scores(np.arange(200) / 25, scores, 0.2)
    np.testing.assert_allclose(smoothed[30:170], gaussian_filter1d(scores, 5, axis=0, truncate=4)[30:170], atol=1e-4)
    np.testing.assert_allclose(smoothed.sum(axis=1), 1)


def test_gaussian_smoothing_with_missing_frames():
    times = np.array([0.0, 0.1, 5.0])
    smoothed = smooth_scores(times, np.eye(3), 0.2)
    np.testing.assert_allclose(smoothed[2], [0, 0, 1])  # alone in its time
    w = np.exp(-0.5 * 0.25)
    np.testing.assert_allclose(smoothed[0], [1 / (1 + w), w / (1 + w), 0])
    for wrong in ((times[::-1].copy(), 0.2), (times, 0.0)):
        with pytest.raises(ValueError, match="expected"):
            smooth_scores(wrong[0], np.eye(3), wrong[1])


def test_fusion_puts_members_on_one_scale():
    margins = np.array([[100.0, 300.0], [200.0, -np.inf]])
    scaled = standardize(margins)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_allclose(standardize(margins * 7), scaled)
    assert scaled[1].tolist() == [1, 0]
    members = [margins[:1], np.array([[0.9, 0.1]])]
    np.testing.assert_allclose(fuse(members), np.mean([standardize(m) for m in members], axis=0))
    np.testing.assert_allclose(fuse(members, (2, 0)), standardize(members[0]))
    for wrong in ([], [margins, margins[:1]]):
        with pytest.raises(ValueError, match="one shape"):
            fuse(wrong)
    with pytest.raises(ValueError, match="2 weights"):
        fuse(members, (1.0,))


def test_weights_are_those_of_the_best_accuracy():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    good, noise = np.eye(3)[labels] + rng.normal(0, 0.6, (200, 3)), rng.normal(size=(200, 3))
    weights = choose_weights([good, noise], labels)
    by_hand = {w: (fuse([good, noise], (w, 10 - w)).argmax(1) == labels).mean() for w in range(11)}
    assert by_hand[round(10 * weights[0])] == max(by_hand.values())
    assert choose_weights([good, good], labels) == (0.5, 0.5)
