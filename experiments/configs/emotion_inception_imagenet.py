"""Expression, 8 classes, Inception-v3, fine-tuned, on AffectNet (paper Table 2: 59.65 %, 63.10 % for 7 from 8).

    python experiments/run.py --config emotion_inception_imagenet

The recipe of `emotion_b2`, whose file says where the published code differs; input 299 px.
Starts from published ImageNet weights, `inception_v3.tf_in1k` (docs/weights.md says where they are and how to bring
the file to a machine without a network).

Not run in full here: AffectNet is licence-gated.
"""

from experiments.configs._expression import affectnet_run
from facejax.config import Config, PaperResult

PAPER = PaperResult("Table 2", "Inception-v3 (ImageNet)", "affectnet", accuracy=59.65, accuracy7=63.1)


def get_config() -> Config:
    """Table 2, Inception-v3 (ImageNet)."""
    return affectnet_run("inception_v3", "inception_v3.tf_in1k", PAPER)
