import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from facejax.config import LossConfig, SamConfig, StageConfig
from facejax.train import losses, sam
from facejax.train.step import init_optimizer, make_optimizer

from . import toy

ALL = StageConfig(lr=1e-2)
HEADS = StageConfig(lr=1e-2, trainable="heads", batch_norm="running")


def run(steps=3, **setup):
    functions, state = toy.setup(**setup)
    train = jax.jit(functions.train)
    history = []
    for i in range(steps):
        state, metrics = train(state, toy.make_batch(seed=i))
        history.append(metrics)
    return state, history


def leaves_equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def largest_difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


def plain_loss(params, batch_stats, batch):
    """The loss of the toy step, computed without the step."""
    outputs, updates = toy.ToyModel().apply(
        {"params": params, "batch_stats": batch_stats},
        toy.PREPROCESSING.normalize(batch["image"]),
        train=True,
        mutable=["batch_stats"],
    )
    log_p = jax.nn.log_softmax(outputs["emotion8"])
    weights = jnp.linspace(1.0, 3.0, 8)[batch["emotion"]]
    loss = -(weights * log_p[jnp.arange(len(log_p)), batch["emotion"]]).sum() / weights.sum()
    return loss, updates["batch_stats"]


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1, 1, 1, 1, 1]),
        ("constant", 4, [1 / 4, 7 / 16, 5 / 8, 13 / 16, 1, 1, 1, 1]),  # PyTorch's LinearLR, from lr / 4
        ("cosine", 0, [(1 + np.cos(np.pi * t / 8)) / 2 for t in range(8)]),
        ("cosine", 4, [1 / 4, 7 / 16, 5 / 8, 13 / 16, *((1 + np.cos(np.pi * t / 4)) / 2 for t in range(4))]),
    ],
)
def test_learning_rates_follow_the_schedule(schedule, warmup, expected):
    tx = make_optimizer(StageConfig(lr=0.1, schedule=schedule, warmup_steps=warmup), steps=8)
    gradient = jnp.ones(1)  # always the same: then each of Adam's updates is the learning rate
    state, rates = tx.init(gradient), []
    for _ in range(8):
        update, state = tx.update(gradient, state)
        rates.append(-float(update[0]))
    np.testing.assert_allclose(rates, 0.1 * np.array(expected), atol=1e-5)


def test_optimizer_is_adam_as_published():
    """Kingma and Ba 2015, algorithm 1 with their constants, in NumPy, on gradients of any size."""
    gradients = np.random.default_rng(0).normal(size=(5, 4)) * np.array([1, 1e-2, 1e-6, 1e-8])
    tx, params, mean, square = make_optimizer(StageConfig(lr=0.1), steps=5), jnp.ones(4), 0, 0
    state = tx.init(params)
    for step, gradient in enumerate(gradients, 1):
        update, state = tx.update(jnp.asarray(gradient, jnp.float32), state, params)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        expected = -0.1 * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(update, expected, rtol=1e-4)


def test_labels_are_smoothed_as_the_config_says():
    _, state = toy.setup()
    batch = toy.make_batch()
    logits = jax.nn.log_softmax(
        toy.ToyModel().apply(
            {"params": state.params, "batch_stats": state.batch_stats},
            toy.PREPROCESSING.normalize(batch["image"]),
            train=True,
            mutable=["batch_stats"],
        )[0]["emotion8"]
    )
    smoothed = optax.smooth_labels(jax.nn.one_hot(batch["emotion"], 8), 0.2)
    config = LossConfig(class_weights="none", label_smoothing=0.2)
    _, history = run(1, loss=config)
    assert float(history[0]["loss"]) == pytest.approx(float(-(smoothed * logits).sum(axis=1).mean()), rel=1e-5)


def test_rho_zero_is_exactly_adam():
    state, _ = run(sam=SamConfig(rho=0.0))
    _, start = toy.setup()
    tx = optax.adam(1e-2)
    params, stats, opt_state = start.params, start.batch_stats, start.opt_state

    @jax.jit
    def adam_step(params, stats, opt_state, batch):
        gradient, stats = jax.grad(plain_loss, has_aux=True)(params, stats, batch)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state

    for i in range(3):
        params, stats, opt_state = adam_step(params, stats, opt_state, toy.make_batch(seed=i))
    assert largest_difference(state.params, params) < 1e-7
    assert largest_difference(state.batch_stats, stats) < 1e-6


@pytest.mark.parametrize(("passes", "join"), [("both", False), ("both", True), ("first", False), ("second", False)])
def test_sam_step_is_the_two_pass_rule(passes, join):
    state, history = run(steps=1, sam=SamConfig(rho=0.5, batch_stats=passes), join=join)
    _, start = toy.setup()
    batch = toy.make_batch(seed=0)
    grad = jax.jit(jax.value_and_grad(plain_loss, has_aux=True))
    (loss, first), g = grad(start.params, start.batch_stats, batch)
    norm = np.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in jax.tree.leaves(g)))
    perturbed = jax.tree.map(lambda w, d: w + 0.5 * d / (norm + 1e-12), start.params, g)
    (_, second), g = grad(perturbed, {"both": first}.get(passes, start.batch_stats), batch)
    # After one step, bias-corrected Adam moves by lr * g / (|g| + 1e-8).
    expected = jax.tree.map(lambda w, d: w - 1e-2 * d / (jnp.abs(d) + 1e-8), start.params, g)
    assert largest_difference(state.params, expected) < 1e-5
    assert largest_difference(state.batch_stats, first if passes == "first" else second) < 1e-5
    assert float(history[0]["loss"]) == pytest.approx(float(loss), rel=1e-5)
    norm = np.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in jax.tree.leaves(g)))
    assert float(history[0]["grad_norm"]) == pytest.approx(norm, rel=1e-5)


def test_sam_differs_from_adam():
    # If the perturbation were lost, only the test above would notice.
    assert largest_difference(run(sam=SamConfig(rho=0.5))[0].params, run(sam=SamConfig(rho=0.0))[0].params) > 1e-4


def test_sam_with_optax_as_oracle():
    def loss_fn(w, _=None):
        return jnp.sum((w["a"] - 1.0) ** 4) + jnp.sum(w["a"][0] * w["b"] ** 2)

    params = {"a": jnp.array([0.3, -0.7]), "b": jnp.array([[1.5, -0.2]])}
    gradient, _, _ = sam.sam_gradient(lambda p, s, i: (jax.grad(loss_fn)(p), s, {}), params, {}, rho=0.05)
    oracle = optax.contrib.sam(
        optax.sgd(1.0), optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), opaque_mode=True
    )
    updates, _ = oracle.update(
        jax.grad(loss_fn)(params), oracle.init(params), params, grad_fn=lambda p, _: jax.grad(loss_fn)(p)
    )
    assert largest_difference(gradient, jax.tree.map(jnp.negative, updates)) < 1e-6


@pytest.mark.parametrize("sizes", [(3, 5000, 4096), (3, 7), (4096,)])
def test_norm_is_that_of_all_leaves(sizes):
    rng = np.random.default_rng(0)
    leaves = [rng.standard_normal((n, 2)).astype(np.float32) for n in sizes]
    expected = np.linalg.norm(np.concatenate([leaf.ravel() for leaf in leaves]).astype(np.float64))
    np.testing.assert_allclose(jax.jit(sam.norm)(leaves), expected, rtol=1e-6)


@pytest.mark.parametrize("stage", [ALL, StageConfig(lr=1e-2, schedule="cosine", warmup_steps=2)])
def test_optimizer_starts_as_optax_starts_it(stage):
    _, start = toy.setup()
    tx = make_optimizer(stage, 10)
    ours, theirs = init_optimizer(tx, start.params), tx.init(start.params)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.tree.map(lambda x: x.dtype, ours) == jax.tree.map(lambda x: x.dtype, theirs)
    assert leaves_equal(ours, theirs)


def test_head_stage_leaves_the_base_bit_identical_and_moves_the_head():
    _, start = toy.setup(stage=HEADS)
    state, _ = run(stage=HEADS)
    assert leaves_equal(state.params["backbone"], start.params["backbone"])
    assert leaves_equal(state.batch_stats, start.batch_stats)
    assert not leaves_equal(state.params["head_emotion8"], start.params["head_emotion8"])


def test_head_stage_on_cached_features_is_the_same_run():
    functions, state = toy.setup(stage=HEADS)
    cached = state
    train, features = jax.jit(functions.train), jax.jit(functions.features)
    for i in range(3):
        batch = toy.make_batch(seed=i)
        state, _ = train(state, batch)
        cached, _ = train(cached, {**batch, "features": features(cached.params, cached.batch_stats, batch)})
    assert largest_difference(state.params, cached.params) < 1e-6


def test_head_stage_computes_no_gradient_into_the_base():
    def flops(**stage):
        functions, state = toy.setup(stage=StageConfig(lr=1e-2, **stage))
        return jax.jit(functions.train).lower(state, toy.make_batch()).compile().cost_analysis()["flops"]

    heads, everything = flops(trainable="heads", batch_norm="running"), flops(trainable="all")
    functions, state = toy.setup()
    forward = jax.jit(functions.evaluate).lower(state.params, state.batch_stats, toy.make_batch())
    assert heads < 1.5 * forward.compile().cost_analysis()["flops"] < everything


def test_running_batch_norm_keeps_its_statistics_while_all_weights_learn():
    _, start = toy.setup()
    state, _ = run(stage=StageConfig(lr=1e-2, batch_norm="running"))
    assert leaves_equal(state.batch_stats, start.batch_stats)
    assert not leaves_equal(state.params["backbone"], start.params["backbone"])


def test_toy_set_reaches_zero_error():
    functions, state = toy.setup(sam=SamConfig(rho=0.02), loss=LossConfig(class_weights="example"))
    train, batch = jax.jit(functions.train), toy.make_batch(24)
    for _ in range(300):
        state, metrics = train(state, batch)
    assert float(metrics["emotion8/accuracy"]) == 1
    predictions = jax.jit(functions.evaluate)(state.params, state.batch_stats, batch)["emotion8"].argmax(axis=-1)
    assert float((predictions == batch["emotion"]).mean()) > 0.9


def test_logged_metrics_are_those_of_the_weights_before_the_step():
    functions, state = toy.setup()
    batch = toy.make_batch()
    _, metrics = jax.jit(functions.train)(state, batch)
    outputs, _ = toy.ToyModel().apply(
        {"params": state.params, "batch_stats": state.batch_stats},
        toy.PREPROCESSING.normalize(batch["image"]),
        train=True,
        mutable=["batch_stats"],
    )
    logits = outputs["emotion8"]
    loss = losses.cross_entropy(logits, batch["emotion"], batch["mask"], jnp.linspace(1.0, 3.0, 8))
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(metrics["emotion8/accuracy"]) == pytest.approx(float((logits.argmax(-1) == batch["emotion"]).mean()))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_logged_accuracy_counts_each_record_once_whatever_the_parts(parts):
    """Of sixteen records five have a label; some parts have none."""
    functions, state = toy.setup(
        stage=StageConfig(lr=1e-2, batch_norm="running"), sam=SamConfig(parts=parts), loss=LossConfig("none")
    )
    batch = toy.make_batch()
    known = np.isin(np.arange(16), [0, 4, 8, 10, 12])
    batch["emotion"] = jnp.where(known, batch["emotion"], -1)
    said = jax.jit(functions.evaluate)(state.params, state.batch_stats, batch)["emotion8"].argmax(axis=-1)
    batch["emotion"] = batch["emotion"].at[8].set(said[8]).at[0].set(said[0])
    expected = float((said == batch["emotion"]).sum() / known.sum())
    assert expected > 0
    _, metrics = jax.jit(functions.train)(state, batch)
    assert float(metrics["emotion8/accuracy"]) == pytest.approx(expected)


def test_dropout_follows_the_step_and_the_key():
    first, _ = run(dropout_rate=0.5)
    again, _ = run(dropout_rate=0.5)
    without, _ = run()
    assert leaves_equal(first.params, again.params)
    assert not leaves_equal(first.params, without.params)
    functions, state = toy.setup(dropout_rate=0.5, tx=optax.sgd(0.0))  # fixed weights: only dropout differs
    train, batch = jax.jit(functions.train), toy.make_batch()
    after, metrics = train(state, batch)
    later, keyed = train(after, batch)[1], train(state.replace(rng=jax.random.key(4)), batch)[1]
    assert len({float(of["loss"]) for of in (metrics, later, keyed)}) == 3


@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_each_pass_of_sam_drops_others(dropout):
    """Very close to the weights the second pass has the first one's gradient, except for the dropout."""
    same = {"steps": 1, "dropout_rate": dropout, "tx": optax.sgd(1.0)}
    first, second = (run(sam=SamConfig(rho=rho), **same)[0].params for rho in (0.0, 1e-9))
    assert (largest_difference(first, second) > 1e-2) == (dropout > 0)


def test_where_nothing_is_to_be_learnt_sam_stands_still():
    still = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    square = jax.grad(lambda w: sum(jnp.sum(leaf**2) for leaf in w.values()))
    gradient, _, _ = sam.sam_gradient(lambda w, stats, index: (square(w), stats, {}), still, {}, rho=0.05)
    assert leaves_equal(gradient, still)


def test_sam_adam_step_equals_pytorch():
    """torch.optim.Adam and the two-pass rule, written here, on the same network in float32."""
    torch = pytest.importorskip("torch")
    _, start = toy.setup()
    state, _ = run(steps=2, sam=SamConfig(rho=0.05))
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(6, eps=1e-3, momentum=0.1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 8),
    )
    base, head = start.params["backbone"], start.params["head_emotion8"]
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(np.asarray(base["Conv_0"]["kernel"]).transpose(3, 2, 0, 1)))
        net[5].weight.copy_(torch.tensor(np.asarray(head["kernel"]).T))
        net[5].bias.copy_(torch.tensor(np.asarray(head["bias"])))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    criterion = torch.nn.CrossEntropyLoss(weight=torch.linspace(1.0, 3.0, 8))
    for i in range(2):
        batch = toy.make_batch(seed=i)
        x = torch.tensor(np.asarray(toy.PREPROCESSING.normalize(batch["image"])).transpose(0, 3, 1, 2))
        y = torch.tensor(np.asarray(batch["emotion"]), dtype=torch.long)
        criterion(net(x), y).backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in net.parameters()))
        backup = [p.detach().clone() for p in net.parameters()]
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.05 * p.grad / (norm + 1e-12))
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        with torch.no_grad():
            for p, old in zip(net.parameters(), backup, strict=True):
                p.copy_(old)
        optimizer.step()
        optimizer.zero_grad()
    kernel = np.asarray(state.params["backbone"]["Conv_0"]["kernel"]).transpose(3, 2, 0, 1)
    np.testing.assert_allclose(kernel, net[0].weight.detach(), atol=1e-5)
    np.testing.assert_allclose(np.asarray(state.params["head_emotion8"]["kernel"]).T, net[5].weight.detach(), atol=1e-5)
    stats = state.batch_stats["backbone"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], net[1].running_mean, atol=1e-5)
