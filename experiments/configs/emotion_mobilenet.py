"""Expression, 8 classes, MobileNet-v1, fine-tuned, on AffectNet (paper Table 2: 60.20 %, 64.71 % for 7 from 8).

    python experiments/run.py --config emotion_mobilenet

The recipe of `emotion_b2` (see there for differences from the published code); input 224 px. Starts from the best model
of `identity_mobilenet`; if there is none, from random weights, with a message. The authors' page attributes the 64.71 %
to their network trained on 7 (`emotion_mobilenet_7`), on crops that are not rotated; Table 2 does not say so. (The
published code trains this network in Keras: a hidden layer of 256, Adam without SAM, batch 80, 3 and 5 epochs and 2
more of SGD at 1e-3. Its input is RGB minus the means of BGR in that order, and its own weight file needs such input.)

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "MobileNet-v1 (VGGFace2)", "affectnet", accuracy=60.2, accuracy7=64.71)


def get_config() -> Config:
    """Table 2, MobileNet-v1 (VGGFace2)."""
    return affectnet_run("mobilenet_v1", "identity_mobilenet", PAPER)
