"""Sharpness-aware minimisation (Foret et al. 2021), used in every training stage of the paper."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PyTree = Any
# Number of elements below which arrays are joined, and therefore never sharded over devices (`parallel.leaf_sharding`).
JOINED_BELOW = 4096
# grad_fn(params, batch_stats, pass_index) -> (gradients, new batch_stats, metrics)
GradFn = Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, PyTree, PyTree]]


def norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm over all leaves, like `optax.tree.norm`.

    Small arrays are first joined into one: on a CPU XLA compiles three kernels for the norm of each shape.
    """
    leaves = jax.tree.leaves(tree)
    small = [leaf.ravel() for leaf in leaves if leaf.size < JOINED_BELOW]
    parts = [leaf for leaf in leaves if leaf.size >= JOINED_BELOW] + ([jnp.concatenate(small)] if small else [])
    return jnp.sqrt(jnp.stack([jnp.sum(jnp.square(part)) for part in parts]).sum())


def sam_gradient(
    grad_fn: GradFn,
    params: PyTree,
    batch_stats: PyTree,
    *,
    rho: float,
    batch_stats_from: Literal["both", "first", "second"] = "both",
    sync: Callable[[PyTree], PyTree] = lambda gradients: gradients,
) -> tuple[PyTree, PyTree, PyTree]:
    """Gradient at params + rho g / (|g| + 1e-12), where g is the gradient at params; |g| is taken over all leaves.

    The perturbed weights are discarded: Optax applies the returned gradient to `params` (the two passes, restored
    weights and the 1e-12 are those of the SAM code that the paper used). The two passes are one traced function in a
    `lax.scan`, which halves the time to compile the step.

    Args:
        grad_fn: Gradient of the loss on the batch, with the updated BatchNorm statistics and metrics.
        params: The trainable parameters, which the loss is differentiated by.
        batch_stats: BatchNorm running statistics before the step.
        rho: Radius; 0 does a single pass, which is exactly the base optimiser.
        batch_stats_from: The pass (or both, one after the other) that updates the statistics.
        sync: Applied to g before the perturbation: the mean over devices for a synchronised perturbation.

    Returns:
        The gradient, the new batch_stats, and the metrics of the first pass (at the weights before the step).
    """
    if rho == 0:
        return grad_fn(params, batch_stats, jnp.zeros((), jnp.int32))

    # The next pass's perturbed weights are carried, not computed within it: XLA on CPU would fuse the sum into the
    # depthwise convolutions, and recompute it for every pixel and tap.
    def one_pass(carry, pass_index):
        perturbed, _, stats = carry
        gradient, new_stats, metrics = grad_fn(perturbed, stats, pass_index)
        if batch_stats_from != "both":
            moves = pass_index == ("first", "second").index(batch_stats_from)
            new_stats = jax.tree.map(lambda new, old: jnp.where(moves, new, old), new_stats, stats)
        direction = sync(gradient)
        radius = rho / (norm(direction) + 1e-12)
        perturbed = jax.tree.map(lambda w, g: w + (radius * g).astype(w.dtype), params, direction)
        return (perturbed, gradient, new_stats), metrics

    # The first pass reads no gradient. Passing the weights in its place avoids zeros, which take one kernel per shape
    # on a CPU.
    start = (params, params, batch_stats)
    (_, gradient, batch_stats), metrics = jax.lax.scan(one_pass, start, jnp.arange(2))
    return gradient, batch_stats, jax.tree.map(lambda both: both[0], metrics)
