"""Identity, 9131 people, SENet-50, on VGGFace2 (the paper takes its published VGGFace2 weights).

    python experiments/run.py --config identity_senet50

Batch 48, SAM over Adam, RandomResizedCrop and flip; 1 epoch of the head at 1e-3 on the frozen base, then 10 epochs of
all weights at 1e-4; input 224 px. Starts from random weights: no ImageNet file of this layout is listed in
docs/weights.md.

Not run in full here: VGGFace2 is licence-gated. Without it, the CPU profile learns 30 people of the built-in dataset
from 40 photos each.
"""

from experiments.configs._identity import vggface2_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("section 3", "identity, SENet-50", "vggface2")


def get_config() -> Config:
    """Section 3, identity, SENet-50."""
    return vggface2_run("senet50", "", PAPER)
