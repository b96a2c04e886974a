"""Splits a batch into equal parts that run sequentially: m-SAM on one device, and batches that do not fit in memory.

Part j of m contains the records j, j + m, j + 2m, ...: if the batch is sharded over devices, so is every part, and
nothing has to be moved.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

PyTree = Any
T = TypeVar("T")


def split(batch: PyTree, parts: int) -> PyTree:
    """The batch's leaves (batch, ...) as (parts, batch / parts, ...); the batch must be a multiple of `parts`."""
    return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def merge(pieces: PyTree) -> PyTree:
    """Leaves (parts, n, ...) as (parts * n, ...), with each record in the position it had before `split`."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), pieces)


def mean_over_parts(function: Callable[[PyTree, Any], T], batch: PyTree, parts: int) -> T:
    """Mean of ``function(part, index of the part)`` over the parts of a batch, using the memory of one part at a time.

    Args:
        function: Returns a pytree of floats, such as a gradient; traced once.
        batch: Leaves (batch, ...).
        parts: 1 calls the function on the whole batch.
    """
    if parts == 1:
        return function(batch, 0)
    pieces, indices = split(batch, parts), jnp.arange(parts)
    first = jax.tree.map(lambda x: x[0], (pieces, indices))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *first))

    def add(total, piece):
        return jax.tree.map(jnp.add, total, function(*piece)), None

    total, _ = jax.lax.scan(add, zeros, (pieces, indices))
    return jax.tree.map(lambda x: x / parts, total)


def scan_microbatches(function: Callable[[T, PyTree], tuple[T, PyTree]], carry: T, batch: PyTree, count: int):
    """(carry, outputs by record) of ``carry, outputs = function(carry, microbatch)`` over the parts of a batch.

    The gradient recomputes the intermediate values of each part instead of keeping them, so that the memory is that of
    one part and of the outputs; this costs one more forward pass. (Computed on the outputs of all parts, any loss
    equals that of the whole batch: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup".)

    Args:
        function: Traced once.
        carry: Value passed from part to part.
        batch: Leaves (batch, ...).
        count: Number of parts; 1 calls the function on the whole batch, without recomputation.
    """
    if count == 1:
        return function(carry, batch)
    carry, outputs = jax.lax.scan(jax.checkpoint(function), carry, split(batch, count))
    return carry, merge(outputs)
