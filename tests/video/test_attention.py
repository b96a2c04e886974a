import dataclasses
import functools
import itertools

import jax
import numpy as np
import optax
import pytest

from facejax.video import sequences
from facejax.video.attention import SEQUENCE_NETWORKS, SequenceRecipe, initial_state, time_code
from facejax.video.sequences import FittedSequence, _schedule, fit_sequence, pad_clips

RECIPE = SequenceRecipe(width=16, heads=2, epochs=30, batch_size=16, max_frames=8, dropout=0.1, lr=3e-3)


@pytest.fixture(scope="module")
def clips():
    """The class is visible in only one frame of five: an average over the clip's frames hides it in noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 2
    made = []
    for label in labels:
        features = rng.normal(size=(rng.integers(3, 8), 6)).astype(np.float32)
        features[rng.integers(len(features))] += np.array([4, 0, 0, 0, 0, 0]) + 4 * label * np.eye(6)[1]
        made.append((features, np.arange(len(features))))
    return made, labels


@pytest.mark.parametrize("name", SEQUENCE_NETWORKS)
def test_networks_learn_what_one_frame_shows_and_survive_a_file(name, clips, tmp_path):
    features, labels = clips
    fitted = fit_sequence(dataclasses.replace(RECIPE, name=name), features[:64], labels[:64], 2)
    scores = fitted.scores(features[64:])
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    assert (scores.argmax(axis=1) == labels[64:]).mean() > 0.8
    fitted.save(tmp_path / "n.npz")
    np.testing.assert_array_equal(FittedSequence.load(tmp_path / "n.npz").scores(features[64:]), scores)
    empty = np.zeros((0, 6), np.float32), np.zeros(0, np.int64)
    assert np.isfinite(fitted.scores([empty])).all()


@pytest.mark.parametrize("name", SEQUENCE_NETWORKS)
def test_padding_and_other_clips_change_nothing(name, clips):
    features, labels = clips
    fitted = fit_sequence(dataclasses.replace(RECIPE, name=name, epochs=1), features[:32], labels[:32], 2)
    alone = np.concatenate([fitted.scores([clip]) for clip in features[:5]])
    np.testing.assert_allclose(fitted.scores(features[:5]), alone, atol=1e-6)
    longer = dataclasses.replace(fitted, recipe=dataclasses.replace(fitted.recipe, max_frames=20))
    np.testing.assert_allclose(longer.scores(features[:5]), alone, atol=1e-5)


def test_training_is_reproducible(clips):
    features, labels = clips
    recipe = dataclasses.replace(RECIPE, epochs=2, repeats=2)
    first, second = (fit_sequence(recipe, features[:32], labels[:32], 2) for _ in range(2))
    np.testing.assert_array_equal(first.scores(features), second.scores(features))
    other = fit_sequence(dataclasses.replace(recipe, seed=7), features[:32], labels[:32], 2)
    leaves = [jax.tree.leaves(params) for params in (*first.params, *other.params)]
    alone = [dataclasses.replace(first, params=(params,)).scores(features) for params in first.params]
    np.testing.assert_allclose(first.scores(features), np.mean(alone, axis=0), rtol=1e-6)
    for some, others in itertools.combinations(leaves, 2):  # repeats differ, and so do seeds
        assert any((a != b).any() for a, b in zip(some, others, strict=True))


def test_every_step_drops_others(clips, monkeypatch):
    step, keys = sequences.train_step, []

    def noted(*args):
        keys.append(tuple(jax.random.key_data(args[-1]).tolist()))
        return step(*args)

    monkeypatch.setattr(sequences, "train_step", noted)
    fit_sequence(dataclasses.replace(RECIPE, epochs=2, repeats=2), clips[0][:32], clips[1][:32], 2)
    assert len(set(keys)) == len(keys) == 2 * 2 * 2


def test_an_epoch_shows_every_clip_in_an_order_of_its_own(monkeypatch):
    epochs = []

    def noted(network, weight_decay, params, state, batch, *args):
        epochs.append(batch["labels"].tolist())
        return params, state, 0.0

    monkeypatch.setattr(sequences, "train_step", noted)
    clips = [(np.full((1, 2), number, np.float32), np.arange(1)) for number in range(20)]
    fit_sequence(dataclasses.replace(RECIPE, epochs=3, batch_size=8), clips, np.arange(20), 20)
    assert len(epochs) == 3 * 3
    orders = [[*itertools.chain(*epochs[start : start + 3])] for start in (0, 3, 6)]
    for order in orders:
        assert sorted(order[:20]) == list(range(20))
        assert order[20:] == order[:4]
    assert len({*map(tuple, orders), tuple(range(20))}) == 4


@pytest.mark.parametrize("name", SEQUENCE_NETWORKS)
def test_dropout_is_of_training_alone(name):
    network = SequenceRecipe(name, width=16, heads=2, dropout=0.5).network(2)
    batch = {"features": np.random.default_rng(1).normal(size=(1, 3, 6)).astype(np.float32)}
    batch |= {"frames": np.arange(3)[None], "mask": np.ones((1, 3), bool)}
    params, _ = initial_state(network, 0.0, batch, 0)

    @functools.partial(jax.jit, static_argnums=0)
    def logits(train, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return network.apply({"params": params}, *batch.values(), train, rngs=rngs)

    np.testing.assert_array_equal(logits(False, 0), logits(False, 1))
    assert not np.allclose(logits(True, 0), logits(True, 1))


def test_a_file_of_another_format_is_refused(clips, tmp_path, monkeypatch):
    fitted = fit_sequence(dataclasses.replace(RECIPE, epochs=1), clips[0][:32], clips[1][:32], 2)
    monkeypatch.setattr(sequences, "_FORMAT", 0)
    fitted.save(tmp_path / "old.npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="in format 1"):
        FittedSequence.load(tmp_path / "old.npz")


def test_attention_pools_as_written():
    """One clip by hand, in NumPy, from the weights."""
    recipe = RECIPE
    network = recipe.network(2)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 3, 6)).astype(np.float32)
    batch = {"features": x, "frames": np.arange(3)[None], "mask": np.array([[True, True, False]])}
    params, _ = initial_state(network, 0.0, batch, 0)
    p = jax.device_get(params)

    def dense(layer, v):
        return v @ p[layer]["kernel"] + p[layer]["bias"]

    tokens = np.asarray(jax.nn.gelu(dense("project", x[0])))
    relevance = dense("relevance", np.tanh(dense("look", tokens)))[:2, 0]
    weights = np.exp(relevance) / np.exp(relevance).sum()
    expected = dense("logits", weights @ tokens[:2])
    found = network.apply({"params": params}, batch["features"], batch["frames"], batch["mask"], False)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)


def test_transformer_computes_what_is_written():
    """One clip by hand, in NumPy, from the weights."""
    network = SequenceRecipe("transformer", width=8, heads=2, layers=1).network(2)
    x = np.random.default_rng(1).normal(size=(1, 3, 6)).astype(np.float32)
    batch = {"features": x, "frames": np.array([[0, 7, 9]]), "mask": np.array([[True, True, False]])}
    params, _ = initial_state(network, 0.0, batch, 0)
    p = jax.device_get(params)

    def dense(layer, v):
        return v @ p[layer]["kernel"] + p[layer]["bias"]

    def norm(layer, v):
        centred = v - v.mean(axis=1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6) * p[layer]["scale"] + p[layer]["bias"]

    def softmax(v):
        return np.exp(v) / np.exp(v).sum(axis=1, keepdims=True)

    speeds = 256.0 ** -(np.arange(4) / 3)
    angles = np.array([[0], [7], [9]]) * speeds
    tokens = dense("project", x[0]) + np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    attention, inner, attended = p["attention_0"], norm("norm_attention_0", tokens), 0
    for head in range(2):
        query, key, value = (
            inner @ attention[name]["kernel"][:, head] + attention[name]["bias"][head]
            for name in ("query", "key", "value")
        )
        seen = softmax(query @ key[:2].T / np.sqrt(4)) @ value[:2]  # the third frame has no face
        attended = attended + seen @ attention["out"]["kernel"][head]
    tokens = tokens + attended + attention["out"]["bias"]
    tokens = tokens + dense("mlp_out_0", np.asarray(jax.nn.gelu(dense("mlp_in_0", norm("norm_mlp_0", tokens)))))
    expected = dense("logits", norm("norm", tokens)[:2].mean(axis=0))
    found = network.apply({"params": params}, batch["features"], batch["frames"], batch["mask"], False)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_a_step_is_one_of_adamw():
    network = SequenceRecipe(width=8, dropout=0.0).network(2)
    batch = {"features": np.random.default_rng(1).normal(size=(4, 3, 6)).astype(np.float32)}
    batch |= {"frames": np.tile(np.arange(3), (4, 1)), "mask": np.ones((4, 3), bool), "labels": np.array([0, 1, 1, 0])}
    params, state = initial_state(network, 0.3, batch, 0)
    oracle = optax.adamw(0.01, weight_decay=0.3)
    expected, oracle_state = jax.device_get(params), oracle.init(params)

    @jax.grad
    def gradient(params):
        logits = network.apply({"params": params}, batch["features"], batch["frames"], batch["mask"], False)
        return -jax.nn.log_softmax(logits)[np.arange(4), batch["labels"]].mean()

    @jax.jit
    def oracle_step(params, state):
        updates, state = oracle.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(3):
        expected, oracle_state = oracle_step(expected, oracle_state)
        params, state, _ = sequences.train_step(network, 0.3, params, state, batch, np.float32(0.01), jax.random.key(0))
    for tree in (params, expected):
        del tree["relevance"]["bias"]  # a softmax over frames does not see it: Adam moves it by rounding alone
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_feature_that_is_dead_in_training_does_not_drown_the_others(clips):
    features, labels = clips
    dead = [(np.where(np.arange(6) == 5, np.float32(0), of_clip), frames) for of_clip, frames in features]
    fitted = fit_sequence(dataclasses.replace(RECIPE, epochs=1), dead[:32], labels[:32], 2)
    woken = [(np.where(np.arange(6) == 5, np.float32(1e-3), of_clip), frames) for of_clip, frames in features]
    np.testing.assert_allclose(fitted.scores(woken), fitted.scores(dead), atol=1e-2)


def test_padding_thins_long_clips_evenly():
    features = np.arange(9, dtype=np.float32)[:, None]
    batch = pad_clips([(features, np.arange(9) + 5), (features[:2], np.arange(2))], 5, 3, np.ones(1), np.array([0.5]))
    assert batch["features"][0, :, 0].tolist() == [-2, 2, 6, 10, 14]  # twice what 0, 2, 4, 6, 8 have above 1
    assert batch["features"][1, :, 0].tolist() == [-2, 0, 0, 0, 0]  # of 0 and 1, and nothing behind them
    assert batch["frames"][0].tolist() == [0, 2, 4, 6, 8]
    assert batch["mask"].sum(axis=1).tolist() == [5, 2, 0]


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_to_zero():
    rates = [_schedule(step, 50) for step in range(51)]
    np.testing.assert_allclose(rates[:5], np.arange(1, 6) / 5)
    np.testing.assert_allclose(rates[5:], (1 + np.cos(np.linspace(0, np.pi, 46))) / 2, atol=1e-12)


def test_time_code_tells_frames_apart():
    code = np.asarray(time_code(np.arange(200)[None], 16))[0]
    distances = np.linalg.norm(code[:, None] - code[None], axis=-1) + 9 * np.eye(200)
    assert distances.min() > 0.05


def test_mistakes(clips):
    features, labels = clips
    with pytest.raises(ValueError, match="multiple of 2 x heads"):
        SequenceRecipe("transformer", width=20, heads=4)
    assert SequenceRecipe("attention", width=20, heads=4).network(2).width == 20  # which has no heads
    empty = np.zeros((0, 6), np.float32), np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="1 of 3 have none"):
        fit_sequence(RECIPE, [*features[:2], empty], labels[:3], 2)
