"""Expression, 8 classes, NFNet-F0, fine-tuned, on AffectNet (paper Table 2: 58.35 %, 61.90 % for 7 from 8).

    python experiments/run.py --config emotion_nfnet_imagenet

The recipe of `emotion_b2` (see there for differences from the published code); input 192 px. Starts from published
ImageNet weights, `nfnet_f0.dm_in1k` (docs/weights.md says where to get them and how to use the file on an offline
machine).

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "NFNet-F0 (ImageNet)", "affectnet", accuracy=58.35, accuracy7=61.9)


def get_config() -> Config:
    """Table 2, NFNet-F0 (ImageNet)."""
    return affectnet_run("nfnet_f0", "nfnet_f0.dm_in1k", PAPER)
