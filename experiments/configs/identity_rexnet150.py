"""Identity, 9131 people, RexNet-150, on VGGFace2 (paper section 3: 96.7 % of the held-out photos).

    python experiments/run.py --config identity_rexnet150

Batch 48, SAM over Adam, RandomResizedCrop and flip; 1 epoch of the head at 1e-3 on the frozen base, then 10 epochs of
all weights at 1e-4; input 224 px. Starts from the ImageNet weights `rexnet_150.nav_in1k`. Dropout of 0.2 before the
head: timm's network has it, and the published code adds its own last layer after it.

Not run in full here: VGGFace2 is licence-gated. Without it, the CPU profile learns 30 people of the built-in dataset
from 40 photos each.
"""

from experiments.configs._identity import vggface2_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("section 3", "identity, RexNet-150", "vggface2", accuracy=96.7)


def get_config() -> Config:
    """Section 3, identity, RexNet-150."""
    return vggface2_run("rexnet_150", "rexnet_150.nav_in1k", PAPER, dropout_rate=0.2)
