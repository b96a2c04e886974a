"""Expression, 7 classes (no contempt), EfficientNet-B0, fine-tuned, on AffectNet (paper Table 2: 65.74 % for 7).

    python experiments/run.py --config emotion_b0_7

The recipe of `emotion_b2` (see there for differences from the published code); input 224 px. Starts from the best model
of `identity_b0`; if there is none, from random weights, with a message. Trained on the 283,901 photos of 7 classes.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "EfficientNet-B0, trained on 7", "affectnet", accuracy7=65.74)


def get_config() -> Config:
    """Table 2, EfficientNet-B0, trained on 7."""
    return affectnet_run("tf_efficientnet_b0", "identity_b0", PAPER, task="emotion7")
