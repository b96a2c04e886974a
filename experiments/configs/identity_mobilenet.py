"""Identity, 9131 persons, MobileNet-v1, on VGGFace2 (paper section 3: 92.1 % of the held-out photos).

    python experiments/run.py --config identity_mobilenet

Batch 48, SAM over Adam, RandomResizedCrop and flip; head 1 epoch at 1e-3 on the frozen base, all weights 10 epochs at
1e-4; input 224 px. Starts from the ImageNet weights `mobilenet_v1.keras_in1k`.
They are fed with RGB in -1 to 1, as they were on ImageNet, and so is every network that starts from this one: the
published code's "caffe" mode (BGR less its means) is 128 times as wide as what the frozen base of the first stage
knows. (That code trains this one in Keras, without SAM: Adam 1e-3, batch 32.)

Not run in full here: VGGFace2 is licence-gated. Without it, on a CPU, the profile learns 30 persons of the
built-in set from 40 photos each.
"""

from experiments.configs._identity import vggface2_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("section 3", "identity, MobileNet-v1", "vggface2", accuracy=92.1)


def get_config() -> Config:
    """Section 3, identity, MobileNet-v1."""
    return vggface2_run("mobilenet_v1", "mobilenet_v1.keras_in1k", PAPER)
