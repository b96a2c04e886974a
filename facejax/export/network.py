"""Networks as they are exported: a function from images to named outputs, its reference, and its metadata.

The input is uint8 RGB of the network's size, and the outputs are probabilities and years: channel order, normalisation
and decoding of the heads are part of the file, so that an app cannot get them wrong. Only the resize is left to it.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from facejax.cards.use import USE
from facejax.inference import LoadedModel
from facejax.models import model_from_cfg
from facejax.models.depthwise import Implementation
from facejax.tasks import TASKS, Task

INPUT = "images"
# Identity heads name people of a training set, so only the features are exported.
_EXPORTED_KINDS = ("age", "binary", "categorical", "regression")
# Largest difference from Flax allowed for a float32 export; features relative to their maximum, ages in years.
_TOLERANCE = 1e-3
_AGE_TOLERANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Network:
    """One network to be exported.

    Attributes:
        name: File name without suffix.
        function: Traceable: images (n, height, width, 3) -> a tuple of arrays, in the order of `outputs`.
        reference: The outputs to match: images -> arrays by output, computed by the package's own inference code.
        prepare: Converts face crops, uint8 RGB of any size, to a batch of images for `function`.
        shape: Height, width and channels of an image; None where any size is allowed.
        dtype: Type of the images' pixels.
        outputs: Names of the outputs.
        metadata: JSON-serialisable metadata, written into the file.
        licence: Licence of the weights, as stated by their publisher.
    """

    name: str
    function: Callable[..., tuple]
    reference: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    prepare: Callable[[Sequence[np.ndarray]], np.ndarray]
    shape: tuple[int | None, int | None, int]
    dtype: type[np.generic]
    outputs: tuple[str, ...]
    metadata: dict[str, Any]
    licence: str

    @property
    def axes(self) -> list[int | str]:
        """The input's shape with its batch axis; axes of any size are named: ``["batch", "height", "width", 3]``."""
        height, width, channels = self.shape
        return ["batch", height or "height", width or "width", channels]


def face_network(model: LoadedModel, depthwise: Implementation = "conv") -> Network:
    """A trained network: uint8 RGB (n, size, size, 3) -> ``features`` (n, D), probabilities by task, ``age`` in years.

    Args:
        model: The network.
        depthwise: Implementation of depthwise layers: ``conv`` for ONNX and LiteRT, ``shift`` for StableHLO on CPU.
    """
    cfg = model.cfg
    module = model_from_cfg(cfg, depthwise=depthwise)
    tasks = [name for name in cfg.tasks if TASKS[name].kind in _EXPORTED_KINDS]
    size = cfg.preprocessing.image_size

    def function(images):
        raw: Any = module.apply(model.variables, cfg.preprocessing.normalize(images))
        return raw["features"], *(_read(TASKS[name], raw[name]) for name in tasks)

    def reference(images: np.ndarray) -> dict[str, np.ndarray]:
        raw = model.outputs(images)
        decoded = model.decode(raw)
        return {"features": raw["features"], **{name: decoded[name] for name in tasks}}

    outputs = {"features": {"shape": ["batch", cfg.num_features], "meaning": "descriptor of the face"}}
    outputs |= {name: _describe(model, TASKS[name]) for name in tasks}
    metadata = {
        "kind": "face",
        "input": {
            "name": INPUT,
            "shape": ["batch", size, size, 3],
            "dtype": "uint8",
            "channels": "RGB",
            "range": [0, 255],
            "resize": cfg.preprocessing.interpolation,
            "margin": cfg.preprocessing.margin,
        },
        "outputs": outputs,
        "cfg": cfg.to_dict(),
        "use": USE,
    }
    return Network(
        name=file_stem(cfg.name),
        function=function,
        reference=reference,
        prepare=lambda faces: np.stack([cfg.preprocessing.resize(face) for face in faces]),
        shape=(size, size, 3),
        dtype=np.uint8,
        outputs=tuple(outputs),
        metadata=metadata,
        licence=cfg.licence,
    )


def file_stem(name: str) -> str:
    """File name for weights: all but letters, digits, dots, dashes and underscores becomes an underscore."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "network"


def compare(
    network: Network, run: Callable[[np.ndarray], Mapping[str, np.ndarray]], faces: Sequence[np.ndarray]
) -> dict:
    """Compares an exported network with the package's own on faces.

    Args:
        network: The network.
        run: The exported network: images -> arrays by output.
        faces: Crops, uint8 RGB of any size.

    Returns:
        ``{"faces": n, "max_difference": {output: largest difference}, "mean_difference": ...}``; for ``features``,
        relative to their largest value.

    Raises:
        ValueError: There is no face to compare on, or an output is not finite.
    """
    if not len(faces):
        raise ValueError("expected at least one face to check the export on, got none")
    images = network.prepare(faces)
    expected, got = network.reference(images), run(images)
    largest, mean = {}, {}
    for name in network.outputs:
        if got[name].shape != expected[name].shape:
            raise ValueError(f"{network.name}: {name} of shape {got[name].shape}, expected {expected[name].shape}")
        if not (np.isfinite(got[name]).all() and np.isfinite(expected[name]).all()):
            raise ValueError(f"{network.name}: {name} is not finite on the faces that the export is checked on")
        difference = np.abs(got[name].astype(np.float64) - expected[name])
        scale = max(float(np.abs(expected[name]).max()), 1e-12) if name == "features" else 1.0
        largest[name], mean[name] = float(difference.max()) / scale, float(difference.mean()) / scale
    return {"faces": len(faces), "max_difference": largest, "mean_difference": mean}


def require_parity(network: Network, differences: Mapping[str, Any]) -> None:
    """Raises ValueError if a float32 export differs from Flax by more than rounding errors."""
    for name, difference in differences["max_difference"].items():
        allowed = _AGE_TOLERANCE if name == "age" else _TOLERANCE
        if not difference <= allowed:
            raise ValueError(
                f"{network.name}: the export was not written, as its {name!r} differs from Flax by {difference:.3g} on "
                f"{differences['faces']} faces (allowed: {allowed:g})"
            )


def _read(task: Task, raw: jax.Array) -> jax.Array:
    """`facejax.decoding` as part of the graph; the check before a file is written ensures that the two agree."""
    if task.kind == "regression":
        return raw
    if task.kind == "binary":
        positive = jax.nn.sigmoid(raw)
        return jnp.concatenate([1 - positive, positive], axis=1)
    probabilities = jax.nn.softmax(raw, axis=1)
    if task.kind == "categorical":
        return probabilities
    best, index = jax.lax.top_k(probabilities, 2)
    return jnp.sum(best * (index + 1), axis=1) / jnp.sum(best, axis=1)


def _describe(model: LoadedModel, task: Task) -> dict[str, Any]:
    if task.kind == "age":
        return {"shape": ["batch"], "meaning": "perceived age in years (paper eq. 1)"}
    names = list(model.class_names(task.name))
    meaning = "values" if task.kind == "regression" else "probabilities"
    return {"shape": ["batch", len(names)], "meaning": meaning, "labels": names}
