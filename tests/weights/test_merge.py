"""Strict merging: no leaf keeps its initial value and none is dropped, unless requested."""

import numpy as np
import pytest

from facejax.weights.merge import merge_variables


def variables(seed, **heads):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return {
        "params": {
            "backbone": {"conv": {"kernel": draw(3, 3, 2, 4)}},
            **{f"head_{name}": {"logits": {"kernel": draw(4, n)}} for name, n in heads.items()},
        },
        "batch_stats": {"backbone": {"bn": {"mean": draw(4)}}},
    }


def test_takes_every_leaf_and_casts():
    source = variables(1, emotion8=8)
    source["params"]["backbone"]["conv"]["kernel"] = source["params"]["backbone"]["conv"]["kernel"].astype(np.float64)
    merged = merge_variables(variables(0, emotion8=8), source)
    kernel = merged["params"]["backbone"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, source["params"]["backbone"]["conv"]["kernel"].astype(np.float32))
    np.testing.assert_array_equal(
        merged["batch_stats"]["backbone"]["bn"]["mean"], source["batch_stats"]["backbone"]["bn"]["mean"]
    )


def test_error_lists_missing_extra_and_misshapen():
    source = variables(1, identity=9, gender=1)
    with pytest.raises(ValueError, match="do not fit") as error:
        merge_variables(variables(0, identity=7, emotion8=8), source)
    text = str(error.value)
    assert "Only in the model (1):\n  params/head_emotion8/logits/kernel (4, 8)" in text
    assert "Only in the weights (1):\n  params/head_gender/logits/kernel (4, 1)" in text
    assert "params/head_identity/logits/kernel (4, 7) in the model, (4, 9) in the weights" in text


@pytest.mark.parametrize(
    ("path", "wrong", "message"),
    [
        (("params", "backbone", "conv", "kernel"), np.float32(np.nan), "backbone/conv/kernel .* contains NaN"),
        (("params", "backbone", "conv", "kernel"), np.int8(3), "backbone/conv/kernel .* has type int8"),
        (("batch_stats", "backbone", "bn", "var"), np.float32(-1), "bn/var .* negative variance"),
        (("batch_stats", "backbone", "bn", "mean"), np.float32(np.inf), "bn/mean .* infinity"),
    ],
)
def test_what_no_trained_weight_is_is_refused(path, wrong, message):
    target, source = variables(0), variables(1)
    for side in (target, source):
        side["batch_stats"]["backbone"]["bn"]["var"] = np.ones(4, np.float32)
    merge_variables(target, source)
    leaves = source
    for key in path[:-1]:
        leaves = leaves[key]
    leaves[path[-1]] = np.full_like(leaves[path[-1]], wrong, dtype=wrong.dtype)
    with pytest.raises(ValueError, match=message):
        merge_variables(target, source)


def test_heads_left_out_by_name_keep_the_models_values():
    target, source = variables(0, emotion8=8, identity=7), variables(1, identity=9)
    merged = merge_variables(target, source, leave_out=("head_emotion8", "head_identity"))
    for head in ("head_emotion8", "head_identity"):
        kernel = merged["params"][head]["logits"]["kernel"]
        np.testing.assert_array_equal(kernel, target["params"][head]["logits"]["kernel"])
    np.testing.assert_array_equal(
        merged["params"]["backbone"]["conv"]["kernel"], source["params"]["backbone"]["conv"]["kernel"]
    )


def test_leave_out_must_name_a_head():
    with pytest.raises(ValueError, match="neither side has; heads: \\['head_identity'\\]"):
        merge_variables(variables(0, identity=7), variables(1, identity=7), leave_out=("head_identiti",))


def test_collections_without_leaves_stay():
    target = {"params": {"backbone": {"kernel": np.zeros(2)}}, "batch_stats": {}}
    assert merge_variables(target, {"params": {"backbone": {"kernel": np.ones(2)}}})["batch_stats"] == {}
