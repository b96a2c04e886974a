"""Age and gender, MobileNet-v1, two heads on the frozen identity base (paper section 3: gender 97 %, age class 13 %).

    python experiments/run.py --config attributes_mobilenet

IMDB-Wiki's frontal photos and all of Adience, mixed; a hidden layer of 256 with dropout that both heads share; softmax
over 100 ages (read by eq. 1), sigmoid for gender; Adam 1e-3 (no SAM, as the published Keras code has it), batch 80, 3
epochs. Table 6 measures this network on UTKFace (experiments/tables.py). Starts from `identity_mobilenet`.

The paper does not say on which photos it measured; here it is a tenth of IMDB-Wiki's people, whom no training photo of
that set shows. Age class: the most probable year is the true one.

Not in the recipe: the published code's weight decay of 4e-5 on the dense layers, its augmentation (shear, turns, zoom,
shifts, flips), and that it takes one step by the ages of a batch, the next by the gender of another. Not run in full
here: the sets are licence-gated or not at hand.
"""

from facejax.config import (
    Config,
    CpuProfile,
    DataConfig,
    ModelConfig,
    PaperResult,
    SamConfig,
    StageConfig,
    StagesConfig,
)


def get_config() -> Config:
    """Section 3, age and gender."""
    return Config(
        batch_size=80,
        # Nine tenths of 300,000 photos of IMDB-Wiki, and all 15,000 of Adience.
        data=DataConfig(name="imdb_wiki+adience", num_train=285000),
        model=ModelConfig(
            backbone="mobilenet_v1",
            tasks=("gender", "age"),
            shared_hidden=("gender", "age"),
            dropout_rate=0.5,
            init_from="identity_mobilenet",
        ),
        stages=StagesConfig(
            head=StageConfig(epochs=3, lr=1e-3, trainable="heads", batch_norm="running"), full=StageConfig(epochs=0)
        ),
        sam=SamConfig(rho=0.0),
        cpu=CpuProfile(head_epochs=30, full_epochs=0),
        paper=PaperResult("section 3", "MobileNet-v1", "imdb_wiki+adience", accuracy=97.0, age_class=13.0),
    )
