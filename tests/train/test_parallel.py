"""One step, several placements: what must be equal and what must differ, on 8 simulated devices.

Plain gradient descent replaces Adam where the magnitude of a gradient matters, since Adam normalises it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from facejax.config import LossConfig, SamConfig, StageConfig
from facejax.train import microbatches, parallel
from facejax.train.flops import count_flops, peak_flops

from . import toy

STEPS = 4
ALL = StageConfig(lr=1e-2)
RUNNING = StageConfig(lr=1e-2, batch_norm="running")
HEADS = StageConfig(lr=1e-2, trainable="heads", batch_norm="running")
# Normalised by records instead of their weights, the loss is the mean of the parts' losses.
BY_RECORD = LossConfig(class_weights="example")


SGD = optax.sgd(0.1)
PARTS = tuple(int(i) for i in microbatches.split(np.arange(16), 8).reshape(-1))
slow = pytest.mark.slow


def host_batch(seed, order=None):
    batch = jax.device_get(toy.make_batch(16, seed))
    return batch if order is None else {name: value[np.asarray(order)] for name, value in batch.items()}


@functools.cache
def train(kind="jit", devices=8, sharing="none", order=None, **setup):
    """(state on the host, metrics) after some steps."""
    functions, state = toy.setup(axis_name=parallel.axis_name(kind), **setup)
    placement = parallel.place(functions, kind, parallel.data_mesh(jax.devices()[:devices]), sharing)
    state = placement.to_step(placement.put_state(state))
    step = placement.compile(state, placement.put_batch(host_batch(0)))
    for i in range(STEPS):
        state, metrics = step.call(state, placement.put_batch(host_batch(i, order)))
    state = placement.gather(placement.from_step(state))
    return jax.device_get(dataclasses.replace(state, rng=jax.random.key_data(state.rng))), {
        name: float(value) for name, value in metrics.items()
    }


def difference(a, b):
    """Largest difference of two trees relative to the largest value of its leaf."""

    def relative(x, y):
        return np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), 1e-3)

    return max(jax.tree.leaves(jax.tree.map(relative, (a.params, a.batch_stats), (b.params, b.batch_stats))))


@pytest.mark.parametrize("stage", [ALL, HEADS], ids=["all", "heads"])
def test_jit_on_eight_devices_is_jit_on_one(stage):
    one, eight = train(devices=1, stage=stage, tx=SGD), train(stage=stage, tx=SGD)
    assert difference(one[0], eight[0]) < 1e-6
    assert eight[1] == pytest.approx(one[1], rel=1e-6)


def test_synced_pmap_with_synced_batch_norm_is_jit():
    same = {"loss": BY_RECORD, "sam": SamConfig(rho=0.5, perturbation="synced"), "tx": SGD}
    jit, pmap = train(**same), train("pmap", sync_norm=parallel.PMAP_AXIS, **same)
    assert difference(jit[0], pmap[0]) < 1e-6
    assert pmap[1] == pytest.approx(jit[1], rel=1e-6)


@pytest.mark.parametrize(("kind", "stage"), [("jit", ALL), ("pmap", ALL), ("jit", HEADS)])
def test_joined_weights_learn_what_single_ones_do(kind, stage):
    same = {"kind": kind, "stage": stage, "tx": SGD, "sam": SamConfig(rho=0.5)}
    single, joined = train(**same), train(join=True, **same)
    assert difference(single[0], joined[0]) < 1e-6
    assert joined[1] == pytest.approx(single[1], rel=1e-6)


def test_weights_are_joined_on_accelerators_that_hold_them_whole(monkeypatch):
    assert not parallel.should_join_weights("none")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert parallel.should_join_weights("none")
    assert not parallel.should_join_weights("optimizer")
    assert not parallel.should_join_weights("full")


def test_local_perturbation_differs_from_the_synced_one():
    # Were the gradient already summed over the devices (shard_map's check_vma), the two would be the same.
    same = {"loss": BY_RECORD, "tx": SGD, "sync_norm": parallel.PMAP_AXIS}
    local = train("pmap", sam=SamConfig(rho=0.5, perturbation="local"), **same)[0]
    synced = train("pmap", sam=SamConfig(rho=0.5, perturbation="synced"), **same)[0]
    assert difference(local, synced) > 1e-3
    plain = [train("pmap", sam=SamConfig(rho=0.0, perturbation=kind), **same)[0] for kind in ("local", "synced")]
    assert difference(*plain) == 0


def test_per_device_batch_norm_differs_from_that_of_the_batch():
    same = {"loss": BY_RECORD, "sam": SamConfig(rho=0.0), "tx": SGD}
    assert difference(train("pmap", **same)[0], train(**same)[0]) > 1e-3


@pytest.mark.parametrize(
    ("stage", "devices", "perturbation"),
    [
        pytest.param(ALL, 1, "local", id="all-1-local"),
        pytest.param(ALL, 2, "local", id="all-2-local", marks=slow),
        pytest.param(ALL, 1, "synced", id="all-1-synced"),
        pytest.param(ALL, 2, "synced", id="all-2-synced", marks=slow),
        pytest.param(HEADS, 1, "local", id="heads-1-local", marks=slow),
        pytest.param(HEADS, 2, "synced", id="heads-2-synced", marks=slow),
    ],
)
def test_parts_on_few_devices_are_pmap_on_eight(stage, devices, perturbation):
    """m-SAM does not need m devices; dropout, BatchNorm and the loss normalisation are per part too."""
    # Part j holds records j, j + 8, ...; device j of pmap the j-th pair of neighbours.
    same = {"stage": stage, "dropout_rate": 0.3, "tx": SGD}
    pmap = train("pmap", order=PARTS, sam=SamConfig(rho=0.5, perturbation=perturbation), **same)
    parts = train(devices=devices, sam=SamConfig(rho=0.5, perturbation=perturbation, parts=8), **same)
    assert difference(pmap[0], parts[0]) < 1e-6
    assert parts[1] == pytest.approx(pmap[1], rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "devices"),
    [(LossConfig(), 4), pytest.param(LossConfig(), 1, marks=slow), pytest.param(BY_RECORD, 4, marks=slow)],
)
def test_accumulation_is_one_big_batch_where_batch_norm_is_running(loss, devices):
    same = {"stage": RUNNING, "loss": loss, "dropout_rate": 0.3, "tx": SGD, "sam": SamConfig(rho=0.5)}
    whole, accumulated = train(devices=1, **same), train(devices=devices, accumulate=4, **same)
    assert difference(whole[0], accumulated[0]) < 1e-6
    assert accumulated[1] == pytest.approx(whole[1], rel=1e-5)


def test_accumulation_under_batch_norm_moves_the_statistics_by_every_microbatch():
    # The four microbatches one after another, with momentum 0.9 each, by hand.
    same = {"stage": ALL, "sam": SamConfig(rho=0.0), "accumulate": 4}
    functions, state = toy.setup(**same)
    batch = toy.make_batch(16)
    after, _ = jax.jit(functions.train)(state, batch)
    kernel = state.params["backbone"]["Conv_0"]["kernel"]
    images = microbatches.split(toy.PREPROCESSING.normalize(batch["image"]), 4)
    mean = state.batch_stats["backbone"]["BatchNorm_0"]["mean"]
    for part in images:
        y = jax.lax.conv_general_dilated(part, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        mean = 0.9 * mean + 0.1 * y.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(after.batch_stats["backbone"]["BatchNorm_0"]["mean"], mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("rho", "moves", "passes"), [(0.05, "both", 2), (0.05, "second", 1), (0.0, "both", 1)])
@pytest.mark.parametrize(("parts", "accumulate"), [(4, 1), (1, 2), (2, 2)])
def test_statistics_of_a_frozen_base_are_the_mean_of_those_of_the_parts(parts, accumulate, rho, moves, passes):
    """Updated by every pass that should, although both use the features that are computed only once."""
    stage = StageConfig(lr=1e-2, trainable="heads", batch_norm="batch")
    functions, state = toy.setup(stage=stage, sam=SamConfig(rho, moves, parts=parts), accumulate=accumulate)
    batch = toy.make_batch(16)
    after, _ = jax.jit(functions.train)(state, batch)
    kernel = state.params["backbone"]["Conv_0"]["kernel"]
    moved = []
    for part in microbatches.split(toy.PREPROCESSING.normalize(batch["image"]), parts):
        mean = state.batch_stats["backbone"]["BatchNorm_0"]["mean"]
        for images in [*microbatches.split(part, accumulate)] * passes:
            y = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            mean = 0.9 * mean + 0.1 * y.mean(axis=(0, 1, 2))
        moved.append(mean)
    found = after.batch_stats["backbone"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(found, np.mean(moved, axis=0), rtol=1e-4, atol=1e-6)


def test_accumulation_needs_less_memory():
    def planned(accumulate):
        functions, state = toy.setup(stage=RUNNING, accumulate=accumulate)
        placement = parallel.place(functions, "jit", parallel.data_mesh(jax.devices()[:1]))
        batch = placement.put_batch(jax.device_get(toy.make_batch(512)))
        return placement.compile(placement.put_state(state), batch).bytes_per_device

    assert planned(16) < planned(1) / 2


@pytest.mark.parametrize("sharing", ["optimizer", "full"])
def test_shared_out_state_is_the_whole_one_in_less_memory(sharing, monkeypatch):
    monkeypatch.setattr(parallel, "MIN_SHARDED_ELEMENTS", 1)
    whole, shared = train(), train(sharing=sharing)
    assert difference(whole[0], shared[0]) < 1e-6
    assert difference(*(dataclasses.replace(s, params=s.opt_state[0].nu) for s in (whole[0], shared[0]))) < 1e-6
    assert shared[1] == pytest.approx(whole[1], rel=1e-6)

    functions, state = toy.setup()
    placement = parallel.place(functions, "jit", parallel.data_mesh(), sharing)
    state = placement.put_state(state)
    step = placement.compile(state, placement.put_batch(host_batch(0)))
    after, _ = step.call(state, placement.put_batch(host_batch(0)))
    for name, shares in (("opt_state", True), ("params", sharing == "full"), ("batch_stats", False)):
        kernel = [leaf for leaf in jax.tree.leaves(getattr(after, name)) if leaf.shape == (6, 8)]
        for leaf in kernel:  # the head's, or its moments; the convolution's sides do not divide by 8
            assert leaf.addressable_data(0).size == (6 if shares else 48)
    assert float(jnp.abs(placement.evaluate(after.params, after.batch_stats, host_batch(0))["emotion8"]).sum()) > 0


def test_nothing_is_shared_out_under_pmap():
    functions, _ = toy.setup(axis_name=parallel.PMAP_AXIS)
    with pytest.raises(ValueError, match=r"--config.parallel=jit"):
        parallel.place(functions, "pmap", parallel.data_mesh(), "full")


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_flops_are_those_counted_by_hand(kind):
    functions, state = toy.setup(axis_name=parallel.axis_name(kind))
    placement = parallel.place(functions, kind, parallel.data_mesh())
    step = placement.compile(placement.to_step(placement.put_state(state)), placement.put_batch(host_batch(0)))
    # Two passes; forward and the kernel's gradient of the convolution (photos need none), all three of the head.
    convolution, head = 2 * 16 * 8 * 8 * 6 * 27, 2 * 16 * 6 * 8
    assert step.flops == 2 * (2 * convolution + 3 * head)


def test_flops_of_loops_groups_and_branches():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 8))
    assert count_flops(lambda x: jax.lax.scan(lambda c, _: (c @ w, None), x, length=5)[0], x) == 5 * 2 * 4 * 8 * 8
    assert count_flops(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ w, lambda x: x, x), x) == 2 * 4 * 8 * 8
    image, kernel = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 2, 10))
    grouped = count_flops(
        lambda x: jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        ),
        image,
    )
    assert grouped == 2 * (2 * 4 * 4 * 10) * (3 * 3 * 2)
    spread = count_flops(  # like the gradient of stride 2: 9 of the 36 positions under the filters are non-zero
        lambda x: jax.lax.conv_general_dilated(
            x, kernel, (1, 1), [(0, 0)] * 2, (2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        ),
        image,
    )
    assert spread == 2 * (2 * 9 * 9 * 10) * (3 * 3 * 2) // 4


def test_peaks():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("TPU v5 lite") == 197e12
    assert peak_flops("cpu") is None
