"""Expression, 8 classes, EfficientNet-B0, fine-tuned, on AffectNet (paper Table 2: 61.32 %, 64.57 % for 7 from 8).

    python experiments/run.py --config emotion_b0

The recipe of `emotion_b2` (see there for differences from the published code); input 224 px. Starts from the best model
of `identity_b0`; if there is none, from random weights, with a message. The authors' page of 2022 gives these numbers
for crops that are not rotated (prepared with ``--no-align``), and 61.03 and 64.89 % for rotated ones; by the paper's
text, all are rotated.

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "EfficientNet-B0 (VGGFace2)", "affectnet", accuracy=61.32, accuracy7=64.57)


def get_config() -> Config:
    """Table 2, EfficientNet-B0 (VGGFace2)."""
    return affectnet_run("tf_efficientnet_b0", "identity_b0", PAPER)
