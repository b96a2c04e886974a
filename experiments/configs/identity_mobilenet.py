"""Identity, 9131 people, MobileNet-v1, on VGGFace2 (paper section 3: 92.1 % of the held-out photos).

    python experiments/run.py --config identity_mobilenet

Batch 48, SAM over Adam, RandomResizedCrop and flip; 1 epoch of the head at 1e-3 on the frozen base, then 10 epochs of
all weights at 1e-4; input 224 px. Starts from the ImageNet weights `mobilenet_v1.keras_in1k`. The input is RGB in -1 to
1, as it was on ImageNet, here and for every network that starts from this one: the published code's "caffe" mode (BGR
minus its means) has 128 times the range that the frozen base of the first stage was trained on. (That code trains this
network in Keras, without SAM: all weights from the start by Adam at 1e-3, batch 32, until two epochs bring no better
one; besides the flip it shears, rotates, zooms and shifts the photos.)

Not run in full here: VGGFace2 is licence-gated. Without it, the CPU profile learns 30 people of the built-in dataset
from 40 photos each.
"""

from experiments.configs._identity import vggface2_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("section 3", "identity, MobileNet-v1", "vggface2", accuracy=92.1)


def get_config() -> Config:
    """Section 3, identity, MobileNet-v1."""
    return vggface2_run("mobilenet_v1", "mobilenet_v1.keras_in1k", PAPER)
