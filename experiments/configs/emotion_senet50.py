"""Expression, 8 classes, SENet-50, fine-tuned, on AffectNet (paper Table 2: 58.70 %, 62.30 % for 7 from 8).

    python experiments/run.py --config emotion_senet50

The recipe of `emotion_b2` (see there for differences from the published code); input 224 px. Starts from the best model
of `identity_senet50`; if there is none, from random weights, with a message.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "SENet-50 (VGGFace2)", "affectnet", accuracy=58.7, accuracy7=62.3)


def get_config() -> Config:
    """Table 2, SENet-50 (VGGFace2)."""
    return affectnet_run("senet50", "identity_senet50", PAPER)
