"""Every registered backbone as a network to export, with random weights."""

import dataclasses

import jax
import numpy as np

from facejax.export.network import Network, face_network
from facejax.inference import LoadedModel
from facejax.models import init_variables, model_from_cfg, pretrained_cfg
from facejax.preprocessing import Preprocessing

# Smallest inputs that Inception and VGG take; 64 pixels for all others.
SIZES = {"inception_v3": 96, "vgg16": 224}


def random_network(name: str) -> tuple[Network, int]:
    """The network, whose BatchNorm statistics are random too, and the side of its input."""
    size = SIZES.get(name, 64)
    cfg = dataclasses.replace(
        pretrained_cfg(name), tasks=("age", "emotion8"), num_classes={}, labels={}, preprocessing=Preprocessing(size)
    )
    variables = init_variables(model_from_cfg(cfg), seed=0, image_size=size)
    rng = np.random.default_rng(0)
    stats = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), variables["batch_stats"])
    return face_network(LoadedModel(cfg, {**variables, "batch_stats": stats})), size
