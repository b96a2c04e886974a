import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.train import losses


def reference(logits, labels, weights, smoothing, normalization):
    """Equation 2 and torch's smoothing in float64, one record at a time."""
    total, norm = 0.0, 0.0
    for row, label in zip(np.asarray(logits, np.float64), labels, strict=True):
        log_p = row - np.log(np.exp(row - row.max()).sum()) - row.max()
        w = weights if normalization != "none" else np.ones_like(weights)
        total += (1 - smoothing) * w[label] * -log_p[label] + smoothing / len(row) * (w * -log_p).sum()
        norm += w[label] if normalization == "batch" else 1
    return total / norm


@pytest.mark.parametrize("normalization", ["batch", "example", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_follows_equation_2(normalization, smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(9, 8)).astype(np.float32) * 4
    labels = rng.integers(0, 8, 9).astype(np.int32)
    weights = rng.uniform(1, 30, 8).astype(np.float32)
    padded = jnp.concatenate([logits, 99 * jnp.ones((2, 8))])
    loss = losses.cross_entropy(
        padded,
        jnp.concatenate([labels, jnp.array([-1, 3], jnp.int32)]),
        jnp.array([1.0] * 9 + [0.0] * 2),
        jnp.asarray(weights),
        normalization=normalization,
        label_smoothing=smoothing,
    )
    assert float(loss) == pytest.approx(reference(logits, labels, weights, smoothing, normalization), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_batch_normalization_is_torchs_weighted_mean(smoothing):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(16, 8)).astype(np.float32)
    labels = rng.integers(0, 8, 16).astype(np.int32)
    weights = rng.uniform(1, 30, 8).astype(np.float32)
    expected = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights), label_smoothing=smoothing)(
        torch.tensor(logits), torch.tensor(labels, dtype=torch.long)
    )
    loss = losses.cross_entropy(
        jnp.asarray(logits), jnp.asarray(labels), jnp.ones(16), jnp.asarray(weights), label_smoothing=smoothing
    )
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)


def test_class_weights_of_affectnet():
    counts = np.array([24882, 3750, 3803, 6378, 134415, 74874, 25459, 14090])
    weights = losses.class_weights(counts)
    assert weights[4] == 1
    assert weights[1] == pytest.approx(134415 / 3750)
    assert losses.class_weights(np.array([4, 0, 2])).tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match="no training record"):
        losses.class_weights(np.zeros(8))


def test_all_masked_batch_is_zero_and_finite():
    loss = losses.cross_entropy(
        jnp.ones((3, 8)), jnp.full(3, -1, jnp.int32), jnp.zeros(3), jnp.ones(8), label_smoothing=0.1
    )
    assert float(loss) == 0


def test_binary_cross_entropy_is_torchs_and_ignores_what_is_masked():
    torch = pytest.importorskip("torch")
    logits, labels = np.array([2.0, -1.0, 0.3, 9.0], np.float32), np.array([1, 0, 0, -1])
    mask = np.array([1.0, 1.0, 1.0, 0.0], np.float32)
    ours = losses.binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask))
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits[:3]), torch.tensor(labels[:3], dtype=torch.float32)
    )
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    assert float(losses.binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.zeros(4))) == 0


def test_concordance_is_the_closed_form_of_numpy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50, 2)).astype(np.float32)
    y = 0.5 * y + x
    y[40:] = np.nan
    mask = (np.arange(50) < 40).astype(np.float32)
    a, b = x[:40].astype(np.float64), y[:40].astype(np.float64)
    covariance = np.array([np.cov(a[:, i], b[:, i], bias=True)[0, 1] for i in range(2)])
    expected = 2 * covariance / (a.var(0) + b.var(0) + (a.mean(0) - b.mean(0)) ** 2)
    ours = losses.concordance(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    gradient = jax.grad(lambda x: losses.concordance(x, jnp.asarray(y), jnp.asarray(mask)).sum())(jnp.asarray(x))
    assert np.isfinite(gradient).all()
    assert not gradient[40:].any()


def test_concordance_beside_the_published_code_s():
    """Its variances divide by n - 1 (torch.var); its two losses, (1 - CCC) / 2 each, add up to 1 minus the mean CCC."""
    n = 48
    x, y = np.random.default_rng(1).normal(size=(2, n, 2)).astype(np.float32)
    y = 0.5 * y + x + 0.3
    theirs = []
    for a, b in zip(x.T.astype(np.float64), y.T.astype(np.float64), strict=True):
        cor = np.corrcoef(a, b)[0, 1]
        # Theirs has 1 in place of n / (n - 1).
        spread = a.var(ddof=1) + b.var(ddof=1) + n / (n - 1) * (a.mean() - b.mean()) ** 2
        theirs.append(2 * cor * a.std(ddof=1) * b.std(ddof=1) / spread)
    ours = losses.concordance(jnp.asarray(x), jnp.asarray(y), jnp.ones(n))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert float(1 - ours.mean()) == pytest.approx(sum((1 - value) / 2 for value in theirs), rel=1e-5)


def test_concordance_of_equal_values_is_one_and_of_none_is_zero():
    x = jnp.linspace(-1, 1, 12).reshape(6, 2)
    np.testing.assert_allclose(losses.concordance(x, x, jnp.ones(6)), 1, rtol=1e-6)
    np.testing.assert_allclose(losses.concordance(x, x, jnp.zeros(6)), 0, atol=1e-6)
