"""Expression, 7 classes (no contempt), EfficientNet-B2, fine-tuned, on AffectNet (paper Table 2: 66.34 % for 7).

    python experiments/run.py --config emotion_b2_7

The recipe of `emotion_b2` (see there for differences from the published code); input 260 px. Starts from the best model
of `identity_b2`; if there is none, from random weights, with a message. It uses global max pooling instead of average
pooling, as the published code does for this row only; the paper does not mention it (--config.model.global_pool=avg is
as in the other rows). The authors' page of 2022 gives 65.91 % for crops that are not rotated.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "EfficientNet-B2, trained on 7", "affectnet", accuracy7=66.34)


def get_config() -> Config:
    """Table 2, EfficientNet-B2, trained on 7."""
    return affectnet_run("tf_efficientnet_b2", "identity_b2", PAPER, task="emotion7", global_pool="max")
