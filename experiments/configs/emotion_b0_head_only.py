"""Expression, 8 classes, EfficientNet-B0, head only, on AffectNet (paper Table 2: 49.15 %, 55.87 % for 7 from 8).

    python experiments/run.py --config emotion_b0_head_only

Only the first stage of `emotion_b2`: 3 epochs of the head on the frozen base of `identity_b0`.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import HEAD_ONLY, affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "EfficientNet-B0, head only", "affectnet", accuracy=49.15, accuracy7=55.87)


def get_config() -> Config:
    """Table 2, EfficientNet-B0, head only."""
    return affectnet_run("tf_efficientnet_b0", "identity_b0", PAPER, stages=HEAD_ONLY)
