"""Loads the network of a `NetworkConfig`: weights of an earlier run or of a folder, or random ones with a warning."""

import dataclasses
import logging
import pathlib

from facejax.config import ConfigError
from facejax.inference.model import LoadedModel
from facejax.models import create_model, list_models, pretrained_cfg
from facejax.models.face_model import init_variables
from facejax.naming import did_you_mean
from facejax.protocol_config import NetworkConfig
from facejax.train.initial import load_initial

logger = logging.getLogger("facejax")
RANDOM = "RANDOM weights"


def load_network(config: NetworkConfig, seed: int, workdir: pathlib.Path) -> tuple[LoadedModel, str]:
    """The network with its weights, and its description, which includes a digest of the weights.

    Args:
        config: Which network.
        seed: Seed of random weights.
        workdir: Workdir of this run; runs named by `init_from` are looked for next to it.

    Raises:
        ConfigError: There is no such network, or the weights are those of another one.
        FileNotFoundError: There are no such weights; the message says how to get them.
    """
    if config.backbone not in list_models():
        known = list_models()
        raise ConfigError(
            f"--config.network.backbone: no network {config.backbone!r}{did_you_mean(config.backbone, known)}"
        )
    if config.init_from:
        try:
            variables, cfg = load_initial(config.init_from, workdir)
        except FileNotFoundError as error:
            raise FileNotFoundError(str(error).replace("--config.model", "--config.network")) from error
        if cfg.architecture != config.backbone:
            raise ConfigError(
                f"--config.network.init_from={config.init_from} contains a {cfg.architecture}, "
                f"not a {config.backbone} (--config.network.backbone={cfg.architecture})"
            )
        description = f"{cfg.name}, weights of {config.init_from}"
    else:
        logger.warning(
            "THE FEATURES ARE FROM RANDOM WEIGHTS: no --config.network.init_from is given. Name a run (emotion_b0), or "
            "a folder written by tools/convert_weights.py. The results below say nothing about the paper's networks."
        )
        cfg = pretrained_cfg(config.backbone)
        variables = init_variables(
            create_model(config.backbone), seed, config.image_size or cfg.preprocessing.image_size
        )
        cfg = dataclasses.replace(cfg, tasks=(), labels={}, num_classes={}, shared_hidden=())
        description = f"{config.backbone}, {RANDOM}"
    if config.image_size:
        preprocessing = dataclasses.replace(cfg.preprocessing, image_size=config.image_size)
        cfg = dataclasses.replace(cfg, preprocessing=preprocessing)
    model = LoadedModel(cfg, variables)
    return model, f"{description} ({model.digest()}), {cfg.preprocessing.image_size} px"
