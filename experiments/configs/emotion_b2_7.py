"""Expression, 7 classes (no contempt), EfficientNet-B2, fine-tuned, on AffectNet (paper Table 2: 66.34 % for 7).

    python experiments/run.py --config emotion_b2_7

The recipe of `emotion_b2`, whose file says where the published code differs; input 260 px.
Starts from the best model of `identity_b2`; without one, from random weights, and says so.
One more difference from the published code: for this row it pools by the maximum instead of the mean.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "EfficientNet-B2, trained on 7", "affectnet", accuracy7=66.34)


def get_config() -> Config:
    """Table 2, EfficientNet-B2, trained on 7."""
    return affectnet_run("tf_efficientnet_b2", "identity_b2", PAPER, task="emotion7")
