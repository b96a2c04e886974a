"""Identity, 9131 people, EfficientNet-B2, on VGGFace2 (paper section 3: 95.6 % of the held-out photos).

    python experiments/run.py --config identity_b2

Batch 48, SAM over Adam, RandomResizedCrop and flip; 1 epoch of the head at 1e-3 on the frozen base, then 10 epochs of
all weights at 1e-4; input 260 px. Starts from the ImageNet weights `tf_efficientnet_b2.ns_jft_in1k`.

Not run in full here: VGGFace2 is licence-gated. Without it, the CPU profile learns 30 people of the built-in dataset
from 40 photos each.
"""

from experiments.configs._identity import vggface2_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("section 3", "identity, EfficientNet-B2", "vggface2", accuracy=95.6)


def get_config() -> Config:
    """Section 3, identity, EfficientNet-B2."""
    return vggface2_run("tf_efficientnet_b2", "tf_efficientnet_b2.ns_jft_in1k", PAPER)
