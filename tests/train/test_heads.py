"""Several heads in one pass: losses add up, and a record without a label does not update that label's head."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from facejax.config import LossConfig, SamConfig, StageConfig
from facejax.models.face_model import FaceModel, init_variables
from facejax.preprocessing import Preprocessing
from facejax.tasks import TASKS
from facejax.train.state import TrainState, split_params
from facejax.train.step import head_loss, make_step_functions, scores, task_labels, total_loss

from . import prepared

NAMES = ("gender", "age", "ethnicity", "valence_arousal", "emotion8")
PREPROCESSING = Preprocessing(image_size=16)
WEIGHTS = {"gender": jnp.ones(2), "age": jnp.ones(100), "ethnicity": jnp.arange(1.0, 6.0), "emotion8": jnp.ones(8)}
WEIGHTS["valence_arousal"] = jnp.ones(2)


def make_batch(n=12):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.integers(0, 255, (n, 16, 16, 3), np.uint8)),
        "gender": jnp.asarray(rng.integers(0, 2, n), jnp.int32),
        "age": jnp.asarray(rng.integers(1, 90, n), jnp.int32),
        "ethnicity": jnp.asarray(rng.integers(0, 5, n), jnp.int32),
        "emotion": jnp.asarray(rng.integers(0, 8, n), jnp.int32),
        "valence_arousal": jnp.asarray(rng.uniform(-1, 1, (n, 2)), jnp.float32),
        "mask": jnp.ones(n),
    }


def step_of(names, stage=None, keep=()):
    model = FaceModel(prepared.ToyNet(), (*keep, *names), shared_hidden=("gender", "age") if "age" in names else ())
    variables = init_variables(model, 0, 16)
    tx, stage = optax.adam(1e-2), stage or StageConfig(lr=1e-2)
    functions = make_step_functions(
        model, [TASKS[name] for name in names], PREPROCESSING, tx, WEIGHTS, stage, SamConfig(), LossConfig()
    )
    trainable, _ = split_params(variables["params"], stage.trainable)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(trainable),
        rng=jax.random.key(0),
    )
    return functions, state


def test_all_kinds_of_heads_learn_at_once():
    functions, state = step_of(NAMES)
    train, batch = jax.jit(functions.train), make_batch()
    first = None
    for _ in range(60):
        state, metrics = train(state, batch)
        first = first or jax.device_get(metrics)
    last = jax.device_get(metrics)
    assert set(last) == {"loss", "grad_norm", *(f"{n}/loss" for n in NAMES), "valence_arousal/ccc"} | {
        f"{n}/accuracy" for n in NAMES if n != "valence_arousal"
    }
    assert all(last[f"{name}/loss"] < first[f"{name}/loss"] for name in NAMES)
    assert last["loss"] == pytest.approx(sum(last[f"{name}/loss"] for name in NAMES), rel=1e-5)
    found = functions.evaluate(state.params, state.batch_stats, {**batch, "mask": batch["mask"].at[3].set(0)})
    assert {name: values.shape for name, values in found.items()} == {
        "gender": (12, 2),
        "age": (12, 100),
        "ethnicity": (12, 5),
        "valence_arousal": (12, 2),
        "emotion8": (12, 8),
    }
    assert all(np.isnan(values[3]).all() and np.isfinite(np.delete(values, 3, 0)).all() for values in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_a_label_leaves_that_head_as_it_was(name):
    functions, state = step_of(NAMES)
    batch, key = make_batch(), TASKS[name].label_key
    missing = jnp.full_like(batch[key], jnp.nan if name == "valence_arousal" else -1)
    after, metrics = jax.jit(functions.train)(state, {**batch, key: missing})
    assert float(metrics[f"{name}/loss"]) == 0
    for other in NAMES:
        moved = jax.tree.map(
            lambda a, b: not (a == b).all(), after.params[f"head_{other}"], state.params[f"head_{other}"]
        )
        assert any(jax.tree.leaves(moved)) == (other != name), other


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_a_mixed_batch_is_that_of_the_labelled_records(name):
    task, batch = TASKS[name], make_batch()
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(12, task.num_outputs)), jnp.float32)
    labels = batch[task.label_key]
    missing = jnp.full_like(labels, jnp.nan if name == "valence_arousal" else -1)
    known = jnp.arange(12) < 7
    mixed = {**batch, task.label_key: jnp.where(known.reshape(-1, *[1] * (labels.ndim - 1)), labels, missing)}
    part = {key: value[:7] for key, value in batch.items()}
    loss, metrics = head_loss(task, logits, mixed, WEIGHTS[name], LossConfig())
    expected, of_part = head_loss(task, logits[:7], part, WEIGHTS[name], LossConfig())
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    for key in metrics:
        np.testing.assert_allclose(metrics[key], of_part[key], rtol=1e-5)


def test_ages_are_classes_from_one_year_on():
    batch = {"age": jnp.array([1.0, 100.0, 116.0, 0.4, 29.6, jnp.nan, -1.0]), "mask": jnp.ones(7)}
    labels, mask = task_labels(TASKS["age"], batch)
    assert labels[:5].tolist() == [0, 99, 99, 0, 29]
    assert mask.tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_of_eight_emotions_seven_count_and_none_is_no_emotion():
    batch = {"emotion": jnp.array([*range(8), -1], jnp.int32), "mask": jnp.ones(9).at[3].set(0)}
    labels, mask = task_labels(TASKS["emotion7"], batch)
    assert labels[mask > 0].tolist() == [0, 1, 3, 4, 5, 6]
    # Neither contempt, nor a record that could not be read, nor one without a label.
    assert mask.tolist() == [1, 0, 1, 0, 1, 1, 1, 1, 0]


def test_a_record_with_one_of_two_values_does_not_count():
    values = jnp.array([[0.5, 0.1], [jnp.nan, 0.1], [0.5, jnp.nan], [0.2, 0.3]])
    _, mask = task_labels(TASKS["valence_arousal"], {"valence_arousal": values, "mask": jnp.array([1.0, 1, 1, 0])})
    assert mask.tolist() == [1, 0, 0, 0]


def test_gender_is_said_by_the_sign_of_one_output():
    logits = jnp.array([[2.0], [-1.0], [0.5]])
    batch = {"gender": jnp.array([1, 0, 0]), "mask": jnp.ones(3)}
    _, metrics = head_loss(TASKS["gender"], logits, batch, WEIGHTS["gender"], LossConfig())
    assert [float(value) for value in metrics["accuracy"]] == [2, 3]
    male = 1 / (1 + np.exp(-np.array([2.0, -1.0, 0.5])))
    np.testing.assert_allclose(scores(TASKS["gender"], logits), np.stack([1 - male, male], axis=1), rtol=1e-6)


def test_persons_of_logits_that_are_no_numbers_are_unknown():
    logits = jnp.array([[0.1, 0.9, 0.5], [0.1, jnp.nan, 0.5], [jnp.inf, 0.0, 0.5]])
    ranks = scores(TASKS["identity"], logits)
    assert ranks[0].tolist() == [1, 2, 0]
    assert np.isnan(ranks[1:]).all()


def test_task_weights_scale_their_loss():
    tasks = [TASKS["gender"], TASKS["emotion8"]]
    outputs = {"gender": jnp.ones((12, 1)), "emotion8": jnp.ones((12, 8))}
    total, metrics = total_loss(tasks, outputs, make_batch(), WEIGHTS, LossConfig(task_weights=(0.5, 3.0)))
    assert float(total) == pytest.approx(0.5 * float(metrics["gender/loss"]) + 3 * float(metrics["emotion8/loss"]))


def test_kept_heads_do_not_move():
    stage = StageConfig(lr=1e-2, trainable="heads", batch_norm="running")
    functions, state = step_of(("ethnicity",), stage, keep=("gender",))
    after, _ = jax.jit(functions.train)(state, make_batch())
    same = jax.tree.map(lambda a, b: bool((a == b).all()), after.params, state.params)
    assert jax.tree.all(same["head_gender"])
    assert jax.tree.all(same["backbone"])
    assert not jax.tree.all(same["head_ethnicity"])


def test_only_the_best_persons_are_kept():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 50)), jnp.float32)
    np.testing.assert_array_equal(scores(TASKS["identity"], logits), np.argsort(-logits, axis=1)[:, :5])
