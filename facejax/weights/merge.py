"""Strict merging: the weights must match the model leaf by leaf, otherwise the error lists the differences."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

Variables = Mapping[str, Any]

_NAMED = 5
"""Tensors that an error of `check_tensors` names of each kind."""


def merge_variables(target: Variables, source: Variables, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """`target` with every leaf replaced by the leaf at the same path in `source`, cast to the target's type.

    Args:
        target: Variables of the model, ``{"params": ..., "batch_stats": ...}``; arrays or `abstract_variables`.
        source: Variables to merge into it, nested like `target`.
        leave_out: Heads (``head_identity``) that are excluded from the comparison on both sides: they keep their values
            in `target` and are ignored in `source`.

    Raises:
        ValueError: If a leaf is missing, unexpected or of another shape (all of them are listed), if it contains values
            that no trained weight has (integers, NaN, a negative variance), or if a name in `leave_out` is a head of
            neither side.
    """
    heads = set(leave_out)
    present = {key for side in (target, source) for key in side.get("params", {}) if key.startswith("head_")}
    if unknown := heads - present:
        raise ValueError(f"leave_out names {sorted(unknown)}, which neither side has; heads: {sorted(present)}")

    ours: dict[tuple[str, ...], Any] = flatten_dict(target)
    theirs: dict[tuple[str, ...], Any] = flatten_dict(source)
    kept = {path: leaf for path, leaf in ours.items() if path[1] in heads}
    ours = {path: leaf for path, leaf in ours.items() if path not in kept}
    theirs = {path: leaf for path, leaf in theirs.items() if path[1] not in heads}
    missing = [f"{'/'.join(p)} {tuple(ours[p].shape)}" for p in ours if p not in theirs]
    extra = [f"{'/'.join(p)} {tuple(theirs[p].shape)}" for p in theirs if p not in ours]
    misshapen = [
        f"{'/'.join(p)} {tuple(ours[p].shape)} in the model, {tuple(theirs[p].shape)} in the weights"
        for p in ours
        if p in theirs and tuple(ours[p].shape) != tuple(theirs[p].shape)
    ]
    if missing or extra or misshapen:
        raise ValueError(
            "the weights do not fit the model."
            + _listing("Only in the model", missing)
            + _listing("Only in the weights", extra)
            + _listing("Different shapes", misshapen)
            + "\nHeads that are meant to differ can be excluded by name (leave_out)."
        )
    for path in ours:
        if wrong := _no_weight(path, np.asarray(theirs[path])):
            raise ValueError(f"{'/'.join(path)} of the weights {wrong}: the file is damaged, or not a trained network")
    merged = {path: np.asarray(theirs[path], dtype=leaf.dtype) for path, leaf in ours.items()}
    return {**{key: {} for key in target}, **unflatten_dict({**merged, **kept})}


def _no_weight(path: tuple[str, ...], leaf: np.ndarray) -> str:
    """Describes what is wrong with a leaf; empty if nothing is."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return f"has type {leaf.dtype} instead of float"
    if not np.isfinite(leaf).all():
        return "contains NaN or infinity"
    return "contains a negative variance" if path[-1] == "var" and (leaf < 0).any() else ""


def _listing(title: str, lines: list[str]) -> str:
    return f"\n{title} ({len(lines)}):\n  " + "\n  ".join(sorted(lines)) if lines else ""


def check_tensors(what: str, expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, np.ndarray]) -> None:
    """Checks that a file's tensors are exactly those of a network.

    Args:
        what: Description of the network, for the error message.
        expected: Shape by name.
        tensors: Array by name.

    Raises:
        ValueError: A tensor is missing, unexpected or of the wrong shape; the message names the first of each kind.
    """
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    misshapen = [
        f"{name} {tensors[name].shape} (expected {shape})"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if missing or extra or misshapen:
        raise ValueError(
            f"these are not the weights of {what}."
            + _first("Missing", missing)
            + _first("Unexpected", extra)
            + _first("Wrong shape", misshapen)
        )


def _first(title: str, names: list[str]) -> str:
    """A line with the first names and the number of the rest; empty if there are none."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"\n{title} ({len(names)}): {', '.join(names[:_NAMED])}{more}" if names else ""
