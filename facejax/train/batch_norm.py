"""Restores BatchNorm for weights whose BatchNorm was folded into the convolutions, as in frozen graphs and ONNX files.

Such a layer is the identity plus a bias: it has mean 0 and variance 1 - epsilon, so with the statistics of a batch it
would compute something entirely different. Measured statistics, with scale and bias adjusted to match, give a layer
that computes the same as the folded one and can be trained as usual.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from facejax.data.loader import train_loader
from facejax.data.source import FaceSource
from facejax.models.normalization import BatchNorm
from facejax.preprocessing import Preprocessing

BATCHES, BATCH_SIZE = 16, 32


def is_folded(variables: dict[str, Any]) -> bool:
    """Whether every BatchNorm has mean 0 and the same constant variance other than 1 (a new layer has 1)."""
    leaves = jax.tree_util.tree_leaves_with_path(variables["batch_stats"])
    by_name = {name: [np.asarray(leaf) for path, leaf in leaves if path[-1].key == name] for name in ("mean", "var")}
    if not by_name["var"] or any(mean.any() for mean in by_name["mean"]):
        return False
    first = by_name["var"][0].flat[0]
    return bool(first != 1 and all((var == first).all() for var in by_name["var"]))


def restore_batch_norm(
    model: nn.Module, variables: dict[str, Any], preprocessing: Preprocessing, source: FaceSource, seed: int
) -> dict[str, Any]:
    """The variables with BatchNorm statistics of `BATCHES` x `BATCH_SIZE` photos; the network's function is unchanged.

    If a layer's input x has mean m and variance v (over records and positions), the linear function
    y = scale (x - mean) / sqrt(var + eps) + bias stays the same with mean' = m, var' = v,
    scale' = scale sqrt(v + eps) / sqrt(var + eps) and bias' = bias + scale (m - mean) / sqrt(var + eps).

    Args:
        model: A `FaceModel`.
        variables: Its variables, with folded BatchNorm.
        preprocessing: Preprocessing of the weights.
        source: Photos to measure the statistics on.
        seed: Seed for choosing the photos.
    """
    apply: Any = model.apply

    @jax.jit
    def moments(variables, images):
        found: dict[tuple[str, ...], tuple[jax.Array, jax.Array, float]] = {}

        def note_input(next_function, args, kwargs, context):
            if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
                x = args[0].astype(jnp.float32)
                axes = tuple(range(x.ndim - 1))
                found[context.module.path] = (x.mean(axis=axes), (x**2).mean(axis=axes), context.module.epsilon)
            return next_function(*args, **kwargs)

        with nn.intercept_methods(note_input):
            apply(variables, preprocessing.normalize(images), method="features")
        return found

    batches = iter(train_loader(source, preprocessing, min(BATCH_SIZE, len(source)), seed))
    found = [jax.device_get(moments(variables, next(batches)["image"])) for _ in range(BATCHES)]
    means = jax.tree.map(lambda *values: np.mean(values, axis=0), *found)
    params, batch_stats = jax.tree.map(np.array, (variables["params"], variables["batch_stats"]))
    for path, (mean, square, epsilon) in means.items():
        layer, stats = params, batch_stats
        for name in path:
            layer, stats = layer[name], stats[name]
        var = np.maximum(square - mean**2, 0)
        slope = layer["scale"] / np.sqrt(stats["var"] + epsilon)
        layer["bias"] += slope * (mean - stats["mean"])
        layer["scale"] = slope * np.sqrt(var + epsilon)
        stats["mean"], stats["var"] = mean, var
    return {"params": params, "batch_stats": batch_stats}
