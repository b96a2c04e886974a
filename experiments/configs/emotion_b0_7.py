"""Expression, 7 classes (no contempt), EfficientNet-B0 fine-tuned on AffectNet (paper Table 2: 65.74 %).

    python experiments/run.py --config emotion_b0_7

The recipe is that of `emotion_b2`, at 224 px, trained on the 283,901 photos of 7 classes; its file says where the
published code differs and what was run here.
"""

from facejax.config import Config, ModelConfig, PaperResult


def get_config() -> Config:
    """Table 2, EfficientNet-B0, trained on 7."""
    return Config(
        model=ModelConfig(backbone="tf_efficientnet_b0", task="emotion7"),
        paper=PaperResult("Table 2", "EfficientNet-B0, trained on 7", "affectnet", accuracy7=65.74),
    )
