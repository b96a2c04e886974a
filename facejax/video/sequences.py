"""Fits the networks of `attention` on exported features, scores clips with them, and saves and loads them."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, Int

from facejax.atomic import atomic_file
from facejax.video.attention import SequenceRecipe, apply, initial_state, train_step

# (features (n, D), frame numbers (n,)) of a clip's faces; n may be 0.
ClipArrays = tuple[np.ndarray, np.ndarray]
_FORMAT = 1
_WARMUP = 0.1  # fraction of the steps


@dataclasses.dataclass(frozen=True)
class FittedSequence:
    """Trained networks over the frames of a clip.

    Attributes:
        recipe: How they were trained.
        num_classes: Classes of the task.
        mean: Mean of each feature over the faces of the training clips, used to standardise features.
        std: Standard deviation, likewise.
        params: Parameters of each repeat.
    """

    recipe: SequenceRecipe
    num_classes: int
    mean: Float[np.ndarray, " features"]
    std: Float[np.ndarray, " features"]
    params: tuple[Any, ...]

    def scores(self, clips: Sequence[ClipArrays]) -> Float[np.ndarray, "clips classes"]:
        """Probabilities, averaged over the repeats, float32."""
        network, size = self.recipe.network(self.num_classes), self.recipe.batch_size
        parts: list[np.ndarray] = [np.zeros((0, self.num_classes), np.float32)]
        for start in range(0, len(clips), size):
            some = clips[start : start + size]
            batch = pad_clips(some, self.recipe.max_frames, size, self.mean, self.std)
            found = np.mean([np.asarray(apply(network, params, batch)) for params in self.params], axis=0)
            parts.append(found[: len(some)])
        return np.concatenate(parts)

    def save(self, path: pathlib.Path) -> None:
        """Writes ``.npz`` (arrays and JSON text, no pickle), atomically."""
        arrays: dict[str, Any] = flatten_dict({str(repeat): tree for repeat, tree in enumerate(self.params)}, sep="/")
        about = {"format": _FORMAT, "num_classes": self.num_classes, "recipe": dataclasses.asdict(self.recipe)}
        with atomic_file(path) as file:
            np.savez(file, about=np.array(json.dumps(about)), mean=self.mean, std=self.std, **arrays)

    @classmethod
    def load(cls, path: pathlib.Path) -> "FittedSequence":
        """Reads what `save` wrote.

        Raises:
            ValueError: The file has another format.
        """
        with np.load(path, allow_pickle=False) as stored:
            if "about" not in stored or (about := json.loads(str(stored["about"])))["format"] != _FORMAT:
                raise ValueError(f"{path} does not contain a facejax sequence network in format {_FORMAT}")
            arrays = {name: stored[name] for name in stored.files if name not in ("about", "mean", "std")}
            trees, recipe = unflatten_dict(arrays, sep="/"), SequenceRecipe(**about["recipe"])
            params = tuple(trees[str(repeat)] for repeat in range(recipe.repeats))
            return cls(recipe, about["num_classes"], stored["mean"], stored["std"], params)


def fit_sequence(
    recipe: SequenceRecipe, clips: Sequence[ClipArrays], labels: Int[np.ndarray, " clips"], num_classes: int
) -> FittedSequence:
    """Trains the networks of a recipe; the same clips, labels and seed give the same networks.

    Args:
        recipe: Network and training.
        clips: Training clips, each with at least one face.
        labels: Their classes.
        num_classes: Classes of the task.

    Raises:
        ValueError: A clip has no face.
    """
    empty = [index for index, (features, _) in enumerate(clips) if not len(features)]
    if empty or not len(clips):
        raise ValueError(f"expected training clips with faces; {len(empty)} of {len(clips)} have none: leave them out")
    faces = np.concatenate([features for features, _ in clips])
    mean, std = faces.mean(axis=0), faces.std(axis=0)
    std = np.where(std > 1e-6, std, 1)  # otherwise a feature that is dead in training would later outweigh all others
    everything = pad_clips(clips, recipe.max_frames, len(clips), mean, std)
    everything["labels"] = np.asarray(labels, np.int32)
    params = tuple(_train(recipe, everything, num_classes, recipe.seed + repeat) for repeat in range(recipe.repeats))
    return FittedSequence(recipe, num_classes, mean, std, params)


def _train(recipe: SequenceRecipe, clips: dict[str, np.ndarray], num_classes: int, seed: int) -> Any:
    count = len(clips["labels"])
    steps_per_epoch = -(-count // recipe.batch_size)
    steps = steps_per_epoch * recipe.epochs
    network = recipe.network(num_classes)
    first: Any = {name: value[:1] for name, value in clips.items()}
    params, state = initial_state(network, recipe.weight_decay, first, seed)
    order_rng, dropout = np.random.default_rng(seed), jax.random.key(seed)
    for step in range(steps):
        if step % steps_per_epoch == 0:
            # The last batch is filled with clips from the start of the epoch, so that only one shape is compiled.
            order = np.resize(order_rng.permutation(count), steps_per_epoch * recipe.batch_size)
        start = step % steps_per_epoch * recipe.batch_size
        batch: Any = {name: value[order[start : start + recipe.batch_size]] for name, value in clips.items()}
        rate = np.float32(recipe.lr * _schedule(step, steps))
        rng = jax.random.fold_in(dropout, step)
        params, state, _ = train_step(network, recipe.weight_decay, params, state, batch, rate, rng)
    return jax.device_get(params)


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then cosine decay to zero."""
    warmup = max(round(_WARMUP * steps), 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def pad_clips(
    clips: Sequence[ClipArrays],
    max_frames: int,
    count: int,
    mean: Float[np.ndarray, " features"],
    std: Float[np.ndarray, " features"],
) -> dict[str, Any]:
    """``features`` (count, max_frames, D), standardised, ``frames`` and ``mask`` (count, max_frames); zero-padded.

    Longer clips are subsampled evenly. Frame numbers count from the clip's first face.
    """
    batch = {
        "features": np.zeros((count, max_frames, len(mean)), np.float32),
        "frames": np.zeros((count, max_frames), np.int32),
        "mask": np.zeros((count, max_frames), bool),
    }
    for index, (features, frames) in enumerate(clips):
        length = len(features)
        if not length:
            continue
        chosen = np.arange(length)
        if length > max_frames:
            chosen = np.linspace(0, length - 1, max_frames).round().astype(int)
        used = len(chosen)
        batch["features"][index, :used] = (features[chosen] - mean) / std
        batch["frames"][index, :used] = frames[chosen] - frames[0]
        batch["mask"][index, :used] = True
    return batch
