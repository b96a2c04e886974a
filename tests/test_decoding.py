import numpy as np
import pytest
import scipy.special

from facejax.decoding import expected_age, probabilities
from facejax.tasks import TASKS


def test_expected_age_closed_cases():
    p = np.zeros((3, 100), np.float32)
    p[0, 29] = 1.0  # certain: 30 years
    p[1, [19, 39, 59]] = 0.5, 0.3, 0.2  # 20, 40, 60 years
    p[2, [9, 10]] = 0.25, 0.75
    np.testing.assert_allclose(expected_age(p), [30, (20 * 0.5 + 40 * 0.3) / 0.8, 10.75], rtol=1e-6)
    np.testing.assert_allclose(expected_age(p, top=1), [30, 20, 11], rtol=1e-6)
    np.testing.assert_allclose(expected_age(p, top=100), [30, 34, 10.75], rtol=1e-6)
    assert expected_age(np.full((1, 100), 0.01)) == pytest.approx(1.5)  # the youngest of equally probable ones
    with pytest.raises(ValueError, match="between 1 and 100"):
        expected_age(p, top=0)


def test_probabilities_equal_scipys():
    logits = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32) * 30
    np.testing.assert_allclose(
        probabilities(TASKS["emotion8"], logits), scipy.special.softmax(logits, axis=1), atol=1e-6
    )
    assert probabilities(TASKS["emotion8"], logits.astype(np.float64)).dtype == np.float32
    gender = probabilities(TASKS["gender"], logits[:, :1])
    np.testing.assert_allclose(gender[:, 1], scipy.special.expit(logits[:, 0]), atol=1e-6)
    with pytest.raises(ValueError, match="regression"):
        probabilities(TASKS["valence_arousal"], logits[:, :2])
