"""Expression, 8 classes, RexNet-150, fine-tuned, on AffectNet (no row of the paper).

    python experiments/run.py --config emotion_rexnet150

The recipe of `emotion_b2` (see there for differences from the published code); input 224 px. Starts from the best model
of `identity_rexnet150`; if there is none, from random weights, with a message. Dropout of 0.2 before the head, as in
`identity_rexnet150`. The paper has no number for it.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "RexNet-150 (VGGFace2)", "affectnet")


def get_config() -> Config:
    """Table 2, RexNet-150 (VGGFace2)."""
    return affectnet_run("rexnet_150", "identity_rexnet150", PAPER, dropout_rate=0.2)
