"""Expression, 7 classes (no contempt), MobileNet-v1, fine-tuned, on AffectNet (no row of the paper).

    python experiments/run.py --config emotion_mobilenet_7

The recipe of `emotion_b2` (see there for differences from the published code); input 224 px. Starts from the best model
of `identity_mobilenet`; if there is none, from random weights, with a message. The paper has no number for it, but its
authors attribute 64.71 %, and Tables 4 and 5, to a network trained this way (mobilenet_7.h5). (The published code
trains this network in Keras: a hidden layer of 256, Adam without SAM, batch 80.)

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "MobileNet-v1, trained on 7", "affectnet")


def get_config() -> Config:
    """Table 2, MobileNet-v1, trained on 7."""
    return affectnet_run("mobilenet_v1", "identity_mobilenet", PAPER, task="emotion7")
