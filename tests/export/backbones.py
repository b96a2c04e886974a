"""Registered backbones as networks to export, with random weights."""

import dataclasses
from typing import Any

import numpy as np

from facejax.export.network import Network, face_network
from facejax.inference import LoadedModel
from facejax.models import init_variables, model_from_cfg, pretrained_cfg
from facejax.preprocessing import Preprocessing
from facejax.weights.keras import from_keras, keras_shapes
from facejax.weights.timm import expected_tensors, from_timm
from tests.inference.toy import noise
from tools.make_goldens import REFERENCES, random_tensors

# Smallest inputs that Inception and VGG take; 64 pixels for all others.
SIZES = {"inception_v3": 96, "vgg16": 224}


def random_network(name: str) -> tuple[Network, int]:
    """The network, with random weights and BatchNorm statistics that let a signal through; its input side."""
    size = SIZES.get(name, 64)
    cfg = dataclasses.replace(
        pretrained_cfg(name), tasks=("age", "emotion8"), num_classes={}, labels={}, preprocessing=Preprocessing(size)
    )
    variables, backbone = init_variables(model_from_cfg(cfg), seed=0, image_size=size), random_backbone(name)
    model = LoadedModel(cfg, {**backbone, "params": {**variables["params"], **backbone["params"]}})
    features = model.features([noise(size, size, seed=i) for i in range(3)])
    assert features.std(axis=0).max() > 0.01 * np.abs(features).max()  # else nothing is tested
    return face_network(model), size


def random_backbone(name: str) -> dict[str, Any]:
    """Variables of the backbone: random tensors of its reference, converted."""
    reference = REFERENCES[name]
    expected, convert = (expected_tensors(name), from_timm) if reference.model else (keras_shapes(name), from_keras)
    return convert(name, random_tensors({tensor: shape for tensor, (_, shape) in expected.items()}, reference.gain))
