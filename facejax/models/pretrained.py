"""The metadata of a network's weights: preprocessing, heads, label order, source and licence."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from facejax.models.layers import GlobalPool
from facejax.naming import did_you_mean
from facejax.preprocessing import Interpolation, Preprocessing


@dataclasses.dataclass(frozen=True)
class PretrainedCfg:
    """Everything needed to build a network, prepare its input and decode its outputs, and where its weights come from.

    Attributes:
        architecture: Name in the registry, without tag.
        tag: Name of the weights of that architecture; empty for the configuration that a new training run starts from.
        preprocessing: How a face crop becomes the input.
        tasks: Names of the heads (`facejax.tasks.TASKS`).
        num_classes: Number of outputs by task, if the task does not fix it (identity).
        labels: Class names by task in the order of the head's outputs, if known.
        shared_hidden: Tasks whose heads share one hidden layer (`facejax.models.face_model.FaceModel`).
        num_features: Width of the features.
        global_pool: See `facejax.models.layers.Backbone`.
        source: URL of the page or file that publishes the weights.
        sha256: Hash of the published file, lower-case hex; empty if no file was available to hash.
        licence: Licence of the weights as stated by their publisher; empty if none is stated.
        training_data: Names of the training datasets (`facejax.cards.terms`), in the order of training.
        notes: Training data and other things to know before use.
    """

    architecture: str
    tag: str = ""
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    tasks: tuple[str, ...] = ()
    num_classes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    shared_hidden: tuple[str, ...] = ()
    num_features: int = 0
    global_pool: GlobalPool = "avg"
    source: str = ""
    sha256: str = ""
    licence: str = ""
    training_data: tuple[str, ...] = ()
    notes: str = ""

    @property
    def name(self) -> str:
        """``architecture.tag``, or the architecture alone."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PretrainedCfg":
        """Inverse of `to_dict`, also after a JSON round trip (lists become tuples again).

        Raises:
            ValueError: If there is a field that this version does not know, or no architecture.
        """
        values = dict(values)
        for kind, given in ((cls, values), (Preprocessing, values.get("preprocessing", {}))):
            known = {field.name for field in dataclasses.fields(kind)}
            for name in given:
                if name not in known:
                    raise ValueError(f"{kind.__name__} has no field {name!r}{did_you_mean(name, known)}")
        if "architecture" not in values:
            raise ValueError(f"PretrainedCfg needs 'architecture', got {sorted(values)}")
        preprocessing = {key: _tuples(value) for key, value in values.pop("preprocessing", {}).items()}
        values = {key: _tuples(value) for key, value in values.items()}
        return cls(preprocessing=Preprocessing(**preprocessing), **values)


def imagenet_cfg(
    plain: PretrainedCfg, tag: str, licence: str, *, interpolation: Interpolation = "bicubic", timm_name: str = ""
) -> PretrainedCfg:
    """The configuration of a network's ImageNet-1k weights as published by timm, including the classifier as a head.

    Args:
        plain: The network's untagged configuration.
        tag: timm's name for the weights.
        licence: Licence of the weights.
        interpolation: Resize kernel that they were trained with.
        timm_name: timm's name for the network, if it differs.
    """
    return dataclasses.replace(
        plain,
        tag=tag,
        preprocessing=dataclasses.replace(plain.preprocessing, interpolation=interpolation),
        tasks=("identity",),
        num_classes={"identity": 1000},
        source=f"https://huggingface.co/timm/{timm_name or plain.architecture}.{tag}/resolve/main/model.safetensors",
        licence=licence,
        training_data=("imagenet_1k",),
        notes="ImageNet-1k; the classifier's 1000 outputs are ImageNet's classes.",
    )


CFGS: dict[str, PretrainedCfg] = {}
"""Configurations by ``architecture.tag`` or ``architecture``; filled by `facejax.models.registry.register_model`."""


def pretrained_cfg(name: str) -> PretrainedCfg:
    """The configuration of ``architecture`` or ``architecture.tag``.

    Raises:
        ValueError: If there is none; the message suggests the closest name.
    """
    if name not in CFGS:
        raise ValueError(f"no weights or model called {name!r}{did_you_mean(name, CFGS)}")
    return CFGS[name]


def _tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value
