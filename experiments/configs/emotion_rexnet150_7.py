"""Expression, 7 classes (no contempt), RexNet-150, fine-tuned, on AffectNet (paper Table 2: 65.54 % for 7).

    python experiments/run.py --config emotion_rexnet150_7

The recipe of `emotion_b2` (see there for differences from the published code); input 224 px. Starts from the best model
of `identity_rexnet150`; if there is none, from random weights, with a message. Dropout of 0.2 before the head, as in
`identity_rexnet150`.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "RexNet-150, trained on 7", "affectnet", accuracy7=65.54)


def get_config() -> Config:
    """Table 2, RexNet-150, trained on 7."""
    return affectnet_run("rexnet_150", "identity_rexnet150", PAPER, task="emotion7", dropout_rate=0.2)
