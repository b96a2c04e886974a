"""Expression, age, gender, ethnicity, valence and arousal at once, EfficientNet-B0, on the built-in dataset `people`.

    python experiments/run.py --config people_b0

Five heads on one pass, all trained from random weights on rendered photos with exact labels. Not a row of the paper: it
shows that the dataset can be learnt (docs/people.md compares its results with a linear classifier on pixels), and
`init_from=people_b0` measures what pre-training on it is worth for real photos (experiments/people_study.py).

Time: on one CPU core, alongside other work, the CPU profile took 57 minutes, after 16 for rendering the photos
(experiments/results/README.md); the full recipe was not run.
"""

from facejax.config import Config, CpuProfile, DataConfig, ModelConfig, PaperResult, StageConfig, StagesConfig


def get_config() -> Config:
    """All five tasks of the built-in set."""
    return Config(
        data=DataConfig(name="people", augmentation="flip", people_photos_each=3, num_train=24000),
        model=ModelConfig(
            backbone="tf_efficientnet_b0",
            tasks=("emotion8", "gender", "age", "ethnicity", "valence_arousal"),
        ),
        stages=StagesConfig(
            head=StageConfig(epochs=0), full=StageConfig(epochs=20, lr=1e-3, warmup_steps=500, schedule="cosine")
        ),
        cpu=CpuProfile(
            image_size=64,
            batch_size=32,
            people_train=18000,
            people_validation=1200,
            head_epochs=0,
            full_epochs=10,
            warmup_steps=200,
        ),
        paper=PaperResult("", "no row of the paper: the built-in set", "people"),
    )
