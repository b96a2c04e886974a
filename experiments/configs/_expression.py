"""The recipe shared by the rows of Table 2; what differs is in each config's own file."""

from typing import Literal

from facejax.config import Config, DataConfig, ModelConfig, PaperResult, StageConfig, StagesConfig

BOTH_STAGES = StagesConfig()
HEAD_ONLY = StagesConfig(full=StageConfig(epochs=0))


def affectnet_run(
    backbone: str,
    init_from: str,
    paper: PaperResult,
    *,
    task: str = "emotion8",
    stages: StagesConfig = BOTH_STAGES,
    dropout_rate: float = 0.0,
    global_pool: Literal["", "avg", "max"] = "",
) -> Config:
    """Fine-tuning on AffectNet's manually labelled photos: 3 epochs of the head, then 10 of all weights (section 3)."""
    without_contempt = DataConfig(num_train=283901)
    return Config(
        data=without_contempt if task == "emotion7" else DataConfig(),
        model=ModelConfig(
            backbone=backbone,
            tasks=(task,),
            global_pool=global_pool,
            dropout_rate=dropout_rate,
            init_from=init_from,
        ),
        stages=stages,
        paper=paper,
    )
