"""Expression, 8 classes, EfficientNet-B0 fine-tuned on AffectNet (paper Table 2: 61.32 %, 64.57 % for 7 from 8).

    python experiments/run.py --config emotion_b0

The recipe is that of `emotion_b2`, at 224 px; its file says where the published code differs and what was run here.
The paper starts from its VGGFace2 identity network: --config.model.init_from=workdirs/identity_b0/best.
"""

from facejax.config import Config, ModelConfig, PaperResult


def get_config() -> Config:
    """Table 2, EfficientNet-B0 (VGGFace2)."""
    return Config(
        model=ModelConfig(backbone="tf_efficientnet_b0", task="emotion8"),
        paper=PaperResult("Table 2", "EfficientNet-B0 (VGGFace2)", "affectnet", accuracy=61.32, accuracy7=64.57),
    )
