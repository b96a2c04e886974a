"""Runs MTCNN's three networks on a device, in batches of a few sizes that are each compiled once.

On a CPU, sampling and network are separate calls, and outputs are read in place. On an accelerator every call and every
copy costs host time that it has to wait for, so it gets one call per batch and returns one array.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from facejax.detect import networks, sampling, strip, weights

# Number of canvases, and of crops for R- and O-Net: per call (each number is compiled once), and how many of them a
# network processes at a time. On a CPU few at a time, so that activations stay in the cache, but many per call, since
# cores wait for each other between calls; an accelerator processes all at once.
_BATCH_SIZES = {
    "cpu": {"pnet": (1, 4, 16), "rnet": (8, 32, 128), "onet": (2, 8, 32)},
    "accelerator": {"pnet": (8, 32, 64), "rnet": (128, 512, 1024), "onet": (64, 256, 512)},
}
_AT_A_TIME = {"cpu": {"pnet": 1, "rnet": 32, "onet": 8}, "accelerator": {"pnet": 64, "rnet": 1024, "onet": 512}}

_NETWORKS = {"pnet": networks.PNet(), "rnet": networks.RNet(), "onet": networks.ONet()}
# Sides of the crops in pixels.
SIDES = {"rnet": 24, "onet": 48}

# Maximum number of windows per canvas that may pass P-Net before all outputs are copied to the host instead; 10 to 110
# pass on average.
_PASSING = 256


class Cascade:
    """The networks on JAX's default device.

    Args:
        threshold: Minimum probability for P-Net.

    Raises:
        FileNotFoundError: The package ``mtcnn``, which provides the weights, is not installed.
    """

    def __init__(self, threshold: float):
        kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
        self.accelerator = kind == "accelerator"
        self._batch_sizes, self._at_a_time = _BATCH_SIZES[kind], _AT_A_TIME[kind]
        self._params = {name: jax.device_put(weights.load(name)) for name in _NETWORKS}
        self._threshold = np.float32(threshold)
        self._device_threshold = jax.device_put(self._threshold)

    def propose(
        self, sums: Int[Array, "entries 3"], tiles: strip.Strip
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, "n 4"]]:
        """P-Net's windows on a strip that reach its threshold.

        Args:
            sums: Integral images of the photos (`sampling.PhotoBuffer`).
            tiles: Layout of their pyramids, with at least one canvas.

        Returns:
            The index of each window (`strip.Strip.windows`), its probability and its box offsets.
        """
        at_a_time, params, runs = self._at_a_time["pnet"], self._params["pnet"], []
        for start, stop, canvases in self._batches("pnet", tiles.canvases):
            if self.accelerator:
                few, *outputs = _passing_windows(
                    at_a_time, params, self._device_threshold, sums, tiles.tables, canvases
                )
                few.copy_to_host_async()
            else:
                few, outputs = None, _windows(at_a_time, params, *strip.canvas_pixels(sums, tiles.tables, canvases))
            runs.append((start, stop, few, outputs))
        columns = []
        for start, stop, few, (probability, offsets) in runs:
            windows = math.prod(probability.shape[1:])
            rows = None if few is None else np.asarray(few)
            if rows is not None and (passing := int(rows[0, 0])) < len(rows):
                rows = rows[1 : passing + 1]
                index, scores, offsets = rows[:, 0].astype(np.int64), rows[:, 1], rows[:, 2:]
            else:
                scores, offsets = np.asarray(probability).ravel(), np.asarray(offsets).reshape(-1, 4)
                index = np.flatnonzero(scores >= self._threshold)
                scores, offsets = scores[index], offsets[index]
            used = np.searchsorted(index, (stop - start) * windows)
            columns.append((start * windows + index[:used], scores[:used], offsets[:used]))
        seen, scores, offsets = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        return seen, scores, offsets

    def refine(
        self, name: str, sums: Int[Array, "entries 3"], table: Int[np.ndarray, "n 6"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 4"], Float[np.ndarray, "n points"]]:
        """Outputs of ``rnet`` or ``onet`` for crops: probability, box offsets, landmarks (R-Net: 0, O-Net: 10).

        Args:
            name: The network.
            sums: Integral images of the photos (`sampling.PhotoBuffer`).
            table: The crops: at least one row of `sampling.REGION` columns.
        """
        at_a_time, params, runs = self._at_a_time[name], self._params[name], []
        for start, stop, rows in self._batches(name, len(table)):
            if self.accelerator:
                outputs = _sampled_crops(name, at_a_time, params, sums, table[rows])
            else:
                outputs = _crops(name, at_a_time, params, sampling.crop_pixels(sums, table[rows], side=SIDES[name]))
            outputs.copy_to_host_async()
            runs.append((stop - start, outputs))
        outputs = np.concatenate([np.asarray(part)[:length] for length, part in runs])
        return outputs[:, 0], outputs[:, 1:5], outputs[:, 5:]

    def _batches(self, name: str, total: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Start, stop and row indices of each batch; the last batch is padded by repeating the last row."""
        for start, stop, size in _batches(total, self._batch_sizes[name], round_up=self.accelerator):
            yield start, stop, np.minimum(np.arange(start, start + size, dtype=np.int32), stop - 1)


# Separate from the sampling, whose shapes depend on the buffer's length, so that the part that is slow to compile has
# few shapes.
@functools.partial(jax.jit, static_argnums=0)
def _windows(at_a_time: int, params: dict, pixels: Array, valid: Array) -> tuple[Array, Array]:
    """P-Net's probabilities and offsets for canvases."""
    return _network("pnet", at_a_time, params, pixels, valid)  # pyright: ignore


@functools.partial(jax.jit, static_argnums=(0, 1))
def _crops(name: str, at_a_time: int, params: dict, crops: Array) -> Float[Array, "batch columns"]:
    """R- or O-Net's outputs for crops, concatenated."""
    probability, *others = _network(name, at_a_time, params, crops)
    return jnp.concatenate([probability[:, None], *others], axis=1)


def _network(name: str, at_a_time: int, params: dict, *inputs: Array) -> tuple[Array, ...]:
    """A network's outputs for a batch, of which it processes `at_a_time` rows at a time."""

    def apply(rows: tuple[Array, ...]) -> tuple[Array, ...]:
        return _NETWORKS[name].apply({"params": params}, *rows)  # pyright: ignore

    total = len(inputs[0])
    if total <= at_a_time:
        return apply(inputs)
    chunks = jax.lax.map(apply, tuple(rows.reshape(-1, at_a_time, *rows.shape[1:]) for rows in inputs))
    return tuple(rows.reshape(total, *rows.shape[2:]) for rows in chunks)


@functools.partial(jax.jit, static_argnums=0)
def _passing_windows(
    at_a_time: int, params: dict, threshold: Float[Array, ""], sums: Array, tables: strip.Tables, canvases: Array
) -> tuple[Float[Array, "rows 6"], Array, Array]:
    """P-Net's outputs for canvases, preceded by a compact table of the windows that reach the threshold.

    The table has a row for each of these windows (index, probability, offsets), up to `_PASSING` per canvas, after a
    first row that starts with their number. Index and number are below 2^24, so that float32 represents them exactly.
    """
    pixels, valid = jax.lax.optimization_barrier(strip.canvas_pixels(sums, tables, canvases))
    probability, offsets = _windows(at_a_time, params, pixels, valid)
    scores, size = probability.ravel(), _PASSING * len(probability)
    passing = scores >= threshold
    # Only windows that pass are written, whereas `jnp.nonzero` would accumulate all windows in a few places.
    count = jnp.cumsum(passing, dtype=jnp.int32)
    place = jnp.where(passing, count - 1, size)
    index = jnp.zeros(size, jnp.int32).at[place].set(jnp.arange(len(passing), dtype=jnp.int32), mode="drop")
    few = jnp.concatenate([index[:, None], scores[index, None], offsets.reshape(-1, 4)[index]], axis=1)
    return jnp.concatenate([jnp.full((1, 6), count[-1]), few], dtype=jnp.float32), probability, offsets


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sampled_crops(name: str, at_a_time: int, params: dict, sums: Array, table: Array) -> Float[Array, "batch columns"]:
    """`_crops` of regions (rows of `sampling.REGION` columns)."""
    crops = jax.lax.optimization_barrier(sampling.crop_pixels(sums, table, side=SIDES[name]))
    return _crops(name, at_a_time, params, crops)


def _batches(total: int, sizes: tuple[int, ...], *, round_up: bool) -> list[tuple[int, int, int]]:
    """Start, stop and size of batches that cover `total` items; all but the last are full.

    With `round_up` the remainder goes into one batch that is large enough; otherwise into several, so that little of
    the last one is empty.
    """
    result, start = [], 0
    while start < total:
        left = total - start
        fitting = [size for size in sizes if size <= left]
        size = fitting[-1] if fitting else sizes[0]
        if round_up:
            size = next((size for size in sizes if size >= left), sizes[-1])
        result.append((start, min(total, start + size), size))
        start += size
    return result
