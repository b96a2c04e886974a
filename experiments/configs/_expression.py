"""The recipe that the rows of Table 2 share; what differs stands in each config's own file."""

from facejax.config import Config, ModelConfig, PaperResult, StageConfig, StagesConfig

HEAD_ONLY = StagesConfig(full=StageConfig(epochs=0))


def affectnet_run(
    backbone: str, init_from: str, paper: PaperResult, *, task: str = "emotion8", stages: StagesConfig | None = None
) -> Config:
    """Fine-tuning on AffectNet's manually labelled photos: head 3 epochs, then all weights 10 (paper section 3)."""
    return Config(
        model=ModelConfig(backbone=backbone, tasks=(task,), init_from=init_from),
        stages=stages or StagesConfig(),
        paper=paper,
    )
