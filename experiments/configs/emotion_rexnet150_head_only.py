"""Expression, 8 classes, RexNet-150, head only, on AffectNet (paper Table 2: 48.88 %, 56.95 % for 7 from 8).

    python experiments/run.py --config emotion_rexnet150_head_only

Only the first stage of `emotion_b2`: 3 epochs of the head on the frozen base of `identity_rexnet150`, with its dropout
of 0.2 before the head.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import HEAD_ONLY, affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "RexNet-150, head only", "affectnet", accuracy=48.88, accuracy7=56.95)


def get_config() -> Config:
    """Table 2, RexNet-150, head only."""
    return affectnet_run("rexnet_150", "identity_rexnet150", PAPER, stages=HEAD_ONLY, dropout_rate=0.2)
