"""Expression, 8 classes, MobileNet-v1, head only, on AffectNet (paper Table 2: 40.58 %, 45.17 % for 7 from 8).

    python experiments/run.py --config emotion_mobilenet_head_only

Only the first stage of `emotion_b2`: 3 epochs of the head on the frozen base of `identity_mobilenet`.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import HEAD_ONLY, affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "MobileNet-v1, head only", "affectnet", accuracy=40.58, accuracy7=45.17)


def get_config() -> Config:
    """Table 2, MobileNet-v1, head only."""
    return affectnet_run("mobilenet_v1", "identity_mobilenet", PAPER, stages=HEAD_ONLY)
