"""Ethnicity, MobileNet-v1, a new head next to age and gender on one base (paper Table 7: 87.6 % with a new FC layer).

    python experiments/run.py --config ethnicity_mobilenet

UTKFace, aligned and cropped, 20,149 photos for training and 3,559 for testing; five classes with class weights (eq. 2);
the base and the heads of `attributes_mobilenet` are frozen, so that one pass gives all three. The head is trained for 3
epochs at 1e-3: the paper does not say how long; this is what the other heads take.

Not run in full here: UTKFace is not available.
"""

from facejax.config import Config, CpuProfile, DataConfig, ModelConfig, PaperResult, StageConfig, StagesConfig


def get_config() -> Config:
    """Table 7, new FC layer."""
    return Config(
        data=DataConfig(name="utkface", num_train=20149),
        model=ModelConfig(
            backbone="mobilenet_v1",
            tasks=("ethnicity",),
            keep_heads=("gender", "age"),
            init_from="attributes_mobilenet",
        ),
        stages=StagesConfig(
            head=StageConfig(epochs=3, lr=1e-3, trainable="heads", batch_norm="running"), full=StageConfig(epochs=0)
        ),
        cpu=CpuProfile(head_epochs=30, full_epochs=0),
        paper=PaperResult("Table 7", "MobileNet-v1 features, new FC layer", "utkface", accuracy=87.6),
    )
