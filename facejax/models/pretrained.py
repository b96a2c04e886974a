"""What must travel with a network's weights: input, heads, label order, origin and licence."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from facejax.models.layers import GlobalPool
from facejax.naming import nearest
from facejax.preprocessing import Interpolation, Preprocessing


@dataclasses.dataclass(frozen=True)
class PretrainedCfg:
    """Everything needed to build a network, feed it and read its outputs, and to know where its weights come from.

    Attributes:
        architecture: Name in the registry, without tag.
        tag: Which weights of that architecture; empty for none in particular (the configuration a new training run
            starts from).
        preprocessing: How a face crop becomes the input.
        tasks: Names of the heads (`facejax.tasks.TASKS`).
        num_classes: Outputs by task, where the task does not fix them (identity).
        labels: Class names by task in the order of the head's outputs, where they are known.
        shared_hidden: Tasks whose heads share one hidden layer (`facejax.models.face_model.FaceModel`).
        num_features: Width of the features.
        global_pool: See `facejax.models.layers.Backbone`.
        source: Address of the page or file that publishes the weights.
        sha256: Hash of the published file, lower-case hex; empty where no file was at hand to hash.
        licence: Licence of the weights as their publisher states it; empty where none is stated.
        training_data: Names in the register of data sets (`facejax.cards.terms`), first what was trained on first.
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
        """Inverse of `to_dict`, also after a way through JSON (lists become tuples again).

        Raises:
            ValueError: If there is a field that this version does not know, or none for the architecture.
        """
        values = dict(values)
        for kind, given in ((cls, values), (Preprocessing, values.get("preprocessing", {}))):
            known = {field.name for field in dataclasses.fields(kind)}
            for name in given:
                if name not in known:
                    raise ValueError(f"{kind.__name__} has no field {name!r}{nearest(name, known)}")
        if "architecture" not in values:
            raise ValueError(f"PretrainedCfg needs 'architecture', got {sorted(values)}")
        preprocessing = {key: _tuples(value) for key, value in values.pop("preprocessing", {}).items()}
        values = {key: _tuples(value) for key, value in values.items()}
        return cls(preprocessing=Preprocessing(**preprocessing), **values)


def imagenet_cfg(
    plain: PretrainedCfg, tag: str, licence: str, *, interpolation: Interpolation = "bicubic", timm_name: str = ""
) -> PretrainedCfg:
    """The configuration of a network's ImageNet-1k weights as timm publishes them; the classifier is a head too.

    Args:
        plain: The network's configuration without tag.
        tag: timm's name of the weights.
        licence: Of the weights.
        interpolation: Resize kernel that they were trained with.
        timm_name: Name of the network, where timm has another one.
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
        ValueError: If there is none, with the nearest name.
    """
    if name not in CFGS:
        raise ValueError(f"no weights or model called {name!r}{nearest(name, CFGS)}")
    return CFGS[name]


def _tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value
