"""The recipe of the identity networks (paper section 3, stage "identity").

The published code differs: its frozen base still updates BatchNorm statistics in the head's stage
(--config.stages.head.batch_norm=batch).
"""

from facejax.config import Config, CpuProfile, DataConfig, ModelConfig, PaperResult, StageConfig, StagesConfig


def vggface2_run(backbone: str, init_from: str, paper: PaperResult, *, dropout_rate: float = 0.0) -> Config:
    """9131 people of VGGFace2, a random tenth of each one's photos held out; 1 epoch of the head, 10 of all weights."""
    return Config(
        batch_size=48,
        data=DataConfig(
            name="vggface2",
            augmentation="random_resized_crop",
            people_photos_each=40,
            num_train=3067564,
        ),
        model=ModelConfig(
            backbone=backbone,
            tasks=("identity",),
            identities=9131,
            dropout_rate=dropout_rate,
            init_from=init_from,
        ),
        stages=StagesConfig(
            head=StageConfig(epochs=1, lr=1e-3, trainable="heads", batch_norm="running"),
            full=StageConfig(epochs=10, lr=1e-4),
        ),
        cpu=CpuProfile(people_train=1200, full_epochs=12),
        paper=paper,
    )
