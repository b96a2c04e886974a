"""Strict merge: weights fit a model leaf by leaf, or the error lists both sides."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

Variables = Mapping[str, Any]


def merge_variables(target: Variables, source: Variables, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """`target` with every leaf replaced by the leaf of the same path in `source`, cast to the target's type.

    Args:
        target: Variables of the model, ``{"params": ..., "batch_stats": ...}``; arrays or `abstract_variables`.
        source: Variables to take over, nested like `target`.
        leave_out: Names of heads (``identity``, or ``head_identity``) that are left out of the comparison on both
            sides: in `target` they keep their values, in `source` they are ignored.

    Raises:
        ValueError: If a leaf is missing, extra or of another shape (all of them are listed), or holds what no trained
            weight is (whole numbers, nan, a negative variance), or if a name in `leave_out` is a head of neither side.
    """
    heads = {name if name.startswith("head_") else f"head_{name}" for name in leave_out}
    present = {key for side in (target, source) for key in side.get("params", {})}
    if unknown := heads - present:
        raise ValueError(f"leave_out names {sorted(unknown)}, which neither side has; heads: {_heads(present)}")

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
            + _listing("In the model only", missing)
            + _listing("In the weights only", extra)
            + _listing("Of different shapes", misshapen)
            + "\nHeads that are meant to differ can be left out by name (leave_out)."
        )
    for path in ours:
        if wrong := _no_weight(path, np.asarray(theirs[path])):
            raise ValueError(f"{'/'.join(path)} of the weights {wrong}: the file is damaged, or no trained network")
    merged = {path: np.asarray(theirs[path], dtype=leaf.dtype) for path, leaf in ours.items()}
    return {**{key: {} for key in target}, **unflatten_dict({**merged, **kept})}


def _no_weight(path: tuple[str, ...], leaf: np.ndarray) -> str:
    """What is wrong with a leaf; empty for nothing."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return f"holds {leaf.dtype} numbers"
    if not np.isfinite(leaf).all():
        return "holds nan or infinity"
    return "is a variance below zero" if path[-1] == "var" and (leaf < 0).any() else ""


def _heads(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith("head_"))


def _listing(title: str, lines: list[str]) -> str:
    return f"\n{title} ({len(lines)}):\n  " + "\n  ".join(sorted(lines)) if lines else ""


def check_tensors(what: str, expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, np.ndarray]) -> None:
    """Checks that a file's tensors are exactly those of a network.

    Args:
        what: The network, for the message.
        expected: Shape by name.
        tensors: Array by name.

    Raises:
        ValueError: A tensor is missing, extra or misshapen; lists all of them.
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
            f"\nMissing ({len(missing)}): {', '.join(missing)}"
            f"\nNot of this network ({len(extra)}): {', '.join(extra)}"
            f"\nMisshapen ({len(misshapen)}): {', '.join(misshapen)}"
        )
