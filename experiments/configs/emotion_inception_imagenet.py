"""Expression, 8 classes, Inception-v3, fine-tuned, on AffectNet (paper Table 2: 59.65 %, 63.10 % for 7 from 8).

    python experiments/run.py --config emotion_inception_imagenet

The recipe of `emotion_b2` (see there for differences from the published code); input 299 px. Starts from published
ImageNet weights, `inception_v3.tf_in1k` (docs/weights.md says where to get them and how to use the file on an offline
machine).

The CPU profile uses 75 px; with smaller inputs, no pixels are left in this network's last feature maps.

Not run in full here: AffectNet is licence-gated.
"""

import dataclasses

from experiments.configs._expression import affectnet_run
from facejax.config import Config, CpuProfile, PaperResult

PAPER = PaperResult("Table 2", "Inception-v3 (ImageNet)", "affectnet", accuracy=59.65, accuracy7=63.1)


def get_config() -> Config:
    """Table 2, Inception-v3 (ImageNet)."""
    config = affectnet_run("inception_v3", "inception_v3.tf_in1k", PAPER)
    return dataclasses.replace(config, cpu=CpuProfile(image_size=75))
