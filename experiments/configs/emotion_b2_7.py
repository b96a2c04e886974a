"""Expression, 7 classes (no contempt), EfficientNet-B2 fine-tuned on AffectNet (paper Table 2: 66.34 %).

    python experiments/run.py --config emotion_b2_7

The recipe is that of `emotion_b2`, trained on the 283,901 photos of 7 classes; its file says where the published code
differs and what was run here. One more difference: for this row that code pools by the maximum instead of the mean.
"""

from facejax.config import Config, ModelConfig, PaperResult


def get_config() -> Config:
    """Table 2, EfficientNet-B2, trained on 7."""
    return Config(
        model=ModelConfig(backbone="tf_efficientnet_b2", task="emotion7"),
        paper=PaperResult("Table 2", "EfficientNet-B2, trained on 7", "affectnet", accuracy7=66.34),
    )
