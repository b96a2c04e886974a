"""Expression, 8 classes, MobileNet-v1, fine-tuned, on AffectNet (paper Table 2: 56.88 %, 60.40 % for 7 from 8).

    python experiments/run.py --config emotion_mobilenet_imagenet

The recipe of `emotion_b2` (see there for differences from the published code); input 224 px. Starts from published
ImageNet weights, `mobilenet_v1.keras_in1k` (docs/weights.md says where to get them and how to use the file on an
offline machine). (The published code trains this network in Keras: a hidden layer of 256, Adam without SAM, batch 80,
with input in "caffe" mode. Here the input is RGB in -1 to 1: see `identity_mobilenet`.)

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "MobileNet-v1 (ImageNet)", "affectnet", accuracy=56.88, accuracy7=60.4)


def get_config() -> Config:
    """Table 2, MobileNet-v1 (ImageNet)."""
    return affectnet_run("mobilenet_v1", "mobilenet_v1.keras_in1k", PAPER)
