"""Expression, 8 classes, EfficientNet-B2, fine-tuned, on AffectNet (paper Table 2: 60.28 %, 64.30 % for 7 from 8).

    python experiments/run.py --config emotion_b2_imagenet

The recipe of `emotion_b2` (see there for differences from the published code); input 260 px. Starts from published
ImageNet weights, `tf_efficientnet_b2.ns_jft_in1k` (docs/weights.md says where to get them and how to use the file on an
offline machine).

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "EfficientNet-B2 (ImageNet)", "affectnet", accuracy=60.28, accuracy7=64.3)


def get_config() -> Config:
    """Table 2, EfficientNet-B2 (ImageNet)."""
    return affectnet_run("tf_efficientnet_b2", "tf_efficientnet_b2.ns_jft_in1k", PAPER)
