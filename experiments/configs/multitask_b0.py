"""Expression, valence and arousal at once, EfficientNet-B0, on AffectNet (EmotiEffLib: 61.93 %, CCC 0.594, 0.549).

    python experiments/run.py --config multitask_b0

The successor of `emotion_b0`: two heads on one pass of the backbone, with class-weighted softmax for the 8 expressions
and one minus the mean concordance coefficient for valence and arousal; batch 48, otherwise the recipe of `emotion_b2`
(the published code again trains all weights for 6 epochs, on crops that are not rotated: prepare with ``--no-align``).
The numbers are those that the EmotiEffLib repository states for its model of this kind.

Not run in full here: AffectNet is licence-gated.
"""

from facejax.config import Config, ModelConfig, PaperResult


def get_config() -> Config:
    """EmotiEffLib, EfficientNet-B0, expression with valence and arousal."""
    return Config(
        batch_size=48,
        model=ModelConfig(
            backbone="tf_efficientnet_b0", tasks=("emotion8", "valence_arousal"), init_from="identity_b0"
        ),
        paper=PaperResult(
            "EmotiEffLib",
            "enet_b0_8_va_mtl",
            "affectnet",
            accuracy=61.93,
            accuracy7=64.94,
            ccc_valence=0.594,
            ccc_arousal=0.549,
        ),
    )
