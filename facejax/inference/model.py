"""Inference with one trained network: face crops to features and predictions, preprocessed as its weights require."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from facejax.cards.card import model_card, read_card
from facejax.decoding import expected_age, probabilities
from facejax.models import FaceModel, PretrainedCfg, list_models, model_from_cfg
from facejax.naming import did_you_mean
from facejax.preprocessing import Preprocessing
from facejax.tasks import TASKS
from facejax.weights.checkpoint import load_inference_checkpoint
from facejax.weights.convert import load_published

# Any number of faces runs in batches of these sizes, the last one padded, so that nothing is recompiled.
BATCH_SIZES = (1, 4, 16, 64)
# Descriptive fields of a `PretrainedCfg`, which do not affect the results.
_DESCRIPTIVE_FIELDS = {"source", "licence", "training_data", "notes"}
# Fields added later, with the values that were implied before: omitted from the digest to keep old digests valid.
_IMPLIED_DEFAULTS = {"global_pool": "avg"}


class LoadedModel:
    """A network with its weights.

    Attributes:
        cfg: Metadata stored with the weights: preprocessing, tasks, label order, source, licence.
        variables: ``params`` and ``batch_stats``.
        card: The model card, Markdown: use, data, licence, measured accuracy, limits.
    """

    def __init__(self, cfg: PretrainedCfg, variables: dict[str, Any], card: str | None = None):
        """Builds the network of `cfg`, to which `variables` must belong. A missing `card` is generated from `cfg`."""
        self.cfg = cfg
        self.card = model_card(cfg) if card is None else card
        self.variables = jax.device_put(variables)
        self._outputs = _outputs_of(model_from_cfg(cfg), cfg.preprocessing)  # pyright: ignore  # modules are hashable

    def digest(self) -> str:
        """Hash of the weights and of everything else that affects the results, 12 hexadecimal digits.

        Training overwrites ``best``: a different epoch of the same run has a different digest.
        """
        cfg = {
            key: value
            for key, value in self.cfg.to_dict().items()
            if key not in _DESCRIPTIVE_FIELDS and (key, value) not in _IMPLIED_DEFAULTS.items()
        }
        digest = hashlib.sha256(json.dumps(cfg, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        return digest.hexdigest()[:12]

    def outputs(self, faces: Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        """Features and raw outputs of every head.

        Args:
            faces: Crops, uint8 RGB (height, width, 3) of any size, 0-255; a sequence, or one array with a batch axis.

        Returns:
            ``{"features": (n, D), <task>: (n, outputs)}``, float32; n = 0 gives empty arrays of these widths.

        Raises:
            ValueError: A crop is not uint8 RGB, or has no pixels.
        """
        crops = [np.asarray(face) for face in faces]
        for index, crop in enumerate(crops):
            if not crop.size:
                raise ValueError(f"expected non-empty crops, but crop {index} has shape {crop.shape}")
        resized = [self.cfg.preprocessing.resize(crop) for crop in crops]
        count = len(resized)
        size = self.cfg.preprocessing.image_size
        parts = []
        while resized or not parts:
            batch_size = next((n for n in BATCH_SIZES if n >= len(resized)), BATCH_SIZES[-1])
            batch, resized = resized[:batch_size], resized[batch_size:]
            images = np.zeros((batch_size, size, size, 3), np.uint8)
            for place, image in enumerate(batch):
                images[place] = image
            parts.append(self._outputs(self.variables, images))
        return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}

    def class_names(self, task: str) -> tuple[str, ...]:
        """Names of a task's outputs in order: those stored with the weights, or else the task's own.

        Raises:
            KeyError: The task does not exist.
        """
        if task in self.cfg.labels:
            return tuple(self.cfg.labels[task])
        if task not in TASKS:
            raise KeyError(f"no task {task!r}{did_you_mean(task, TASKS)}")
        return TASKS[task].labels

    def features(self, faces: Sequence[np.ndarray] | np.ndarray) -> Float[np.ndarray, "n features"]:
        """Pooled output of the penultimate layer, (n, D) float32: the paper's face descriptor. Args as in `outputs`."""
        return self.outputs(faces)["features"]

    def predict(self, faces: Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        """Predictions of every head. Args as in `outputs`.

        Returns:
            By task: probabilities (n, classes) in the order of ``cfg.labels``; ``age``: years (n,) by the paper's
            equation 1; ``valence_arousal``: (n, 2).
        """
        return self.decode(self.outputs(faces))

    def decode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Converts the result of `outputs` to that of `predict`."""
        predictions = {}
        for name in self.cfg.tasks:
            task, raw = TASKS[name], outputs[name]
            predictions[name] = raw if task.kind == "regression" else probabilities(task, raw)
            if task.kind == "age":
                predictions[name] = expected_age(predictions[name])
        return predictions


@functools.lru_cache(maxsize=16)
def _outputs_of(model: FaceModel, preprocessing: Preprocessing) -> Callable[[Any, Any], Any]:
    """(variables, images) -> outputs, compiled once per architecture and shared by all its weights."""

    @jax.jit
    def outputs(variables, images):
        return model.apply(variables, preprocessing.normalize(images))

    return outputs


def load_model(name_or_dir: str | os.PathLike) -> LoadedModel:
    """Loads a trained model from a folder, or published weights by name.

    Args:
        name_or_dir: ``workdirs/emotion_b2/best``, the output of tools/convert_weights.py, or a name such as
            ``mobilenet_v1.vggface2_age_gender`` (docs/weights.md), which is downloaded and converted once
            (`facejax.weights.convert.load_published`).

    Raises:
        FileNotFoundError: There is no such folder or name, or the folder contains no model.
        ConnectionError: The published file is not cached and cannot be downloaded; the message says where to put it.
    """
    name, card, published = os.fspath(name_or_dir), None, list_models(pretrained=True)
    directory = pathlib.Path(name)
    if directory.is_dir():
        variables, cfg = load_inference_checkpoint(directory)
        card = read_card(directory)
    elif name in published:
        variables, cfg = load_published(name)
    else:
        raise FileNotFoundError(
            f"no folder {name!r} and no published weights of that name{did_you_mean(name, published)}. The name of an "
            "architecture alone has no weights: train it (experiments/run.py), or convert a file "
            "(tools/convert_weights.py FORMAT FILE --out DIR)"
        )
    return LoadedModel(cfg, variables, card)
