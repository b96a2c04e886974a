import numpy as np
import pytest

from facejax.video.fusion import fuse, standardize
from facejax.video.smoothing import ExponentialSmoother


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


def test_fusion_puts_members_on_one_scale():
    margins = np.array([[100.0, 300.0], [200.0, -np.inf]])
    scaled = standardize(margins)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_allclose(standardize(margins * 7), scaled)
    assert scaled[1].tolist() == [1, 0]
    spread = (20000 / 3) ** 0.5  # the population's, of 100, 200 and 300
    assert scaled[0, 1] == pytest.approx(1 / (1 + np.exp(-200 / spread)))
    members = [margins[:1], np.array([[0.9, 0.1]])]
    np.testing.assert_allclose(fuse(members), np.mean([standardize(m) for m in members], axis=0))
    for wrong in ([], [margins, margins[:1]]):
        with pytest.raises(ValueError, match="one shape"):
            fuse(wrong)
