"""A prepared dataset of coloured squares whose colour encodes the class, and a toy network for it."""

import contextlib
import pathlib

import cv2
import flax.linen as nn
import numpy as np

from facejax.config import CheckpointConfig, Config, DataConfig, ModelConfig, StageConfig, StagesConfig
from facejax.datasets.prepare import prepare_dataset
from facejax.models import registry
from facejax.models.layers import Backbone
from facejax.models.pretrained import CFGS, PretrainedCfg
from facejax.preprocessing import Preprocessing
from facejax.tasks import EMOTION8


class ToyNet(Backbone):
    num_features: int = 16

    @nn.compact
    def __call__(self, images, use_running_average=True):
        x = nn.Conv(16, (4, 4), strides=4)(images)
        x = nn.BatchNorm(use_running_average=use_running_average, momentum=0.9)(x)
        return nn.relu(x).mean(axis=(1, 2))


@contextlib.contextmanager
def registered_toy_net():
    """Adds `toy_net` to the registry while a test runs."""

    def toy_net(**kwargs):
        return ToyNet(**kwargs)

    registry.register_model(PretrainedCfg("toy_net", preprocessing=Preprocessing(image_size=16), num_features=16))(
        toy_net
    )
    try:
        yield
    finally:
        del CFGS["toy_net"], registry._CONSTRUCTORS["toy_net"]


def prepare_squares(directory: pathlib.Path, people: int = 30) -> pathlib.Path:
    """A data folder with squares in the layout of `facial_expressions`, prepared without detection."""
    raw = directory / "raw"
    (raw / "images").mkdir(parents=True)
    (raw / "data").mkdir()
    rows, rng = ["user.id,image,emotion"], np.random.default_rng(0)
    attributes = ["image,gender,ethnicity"]
    for person in range(people):
        for place, emotion in enumerate(EMOTION8):
            if emotion == "contempt" and person % 3:
                continue
            colour = np.array([(place & 1) * 160, (place >> 1 & 1) * 160, (place >> 2) * 160]) + 40
            image = np.clip(rng.normal(colour, 25, (20, 20, 3)), 0, 255).astype(np.uint8)
            name = f"Person_{chr(97 + person // 26)}{chr(97 + person % 26)}_{place:04d}.png"
            cv2.imwrite(str(raw / "images" / name), image)
            rows.append(f"1,{name},{emotion}")
            attributes.append(f"{name},{'male' if person % 2 else 'female'},")
    (raw / "data" / "legend.csv").write_text("\n".join(rows) + "\n")
    (raw / "attributes.csv").write_text("\n".join(attributes) + "\n")
    prepare_dataset("facial_expressions", raw, directory / "data", crop="none", workers=0, log=lambda line: None)
    return directory / "data"


def toy_config(**changes) -> Config:
    """Two short stages on the squares."""
    values = {
        "batch_size": 16,
        "eval_batch_size": 16,
        "data": DataConfig(name="facial_expressions", read_threads=1),
        "model": ModelConfig(backbone="toy_net"),
        "stages": StagesConfig(
            head=StageConfig(epochs=1, lr=1e-2, trainable="heads", batch_norm="running"),
            full=StageConfig(epochs=2, lr=2e-2),
        ),
        "checkpoint": CheckpointConfig(every_steps=4),
    }
    return Config(**{**values, **changes})
