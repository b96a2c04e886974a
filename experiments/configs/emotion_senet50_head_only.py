"""Expression, 8 classes, SENet-50, head only, on AffectNet (paper Table 2: 40.87 %, 44.76 % for 7 from 8).

    python experiments/run.py --config emotion_senet50_head_only

Only the first stage of `emotion_b2`: 3 epochs of the head on the frozen base of `identity_senet50`.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import HEAD_ONLY, affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "SENet-50, head only", "affectnet", accuracy=40.87, accuracy7=44.76)


def get_config() -> Config:
    """Table 2, SENet-50, head only."""
    return affectnet_run("senet50", "identity_senet50", PAPER, stages=HEAD_ONLY)
