"""Age and gender, MobileNet-v1, two heads on the frozen identity base (paper section 3: gender 97 %, age class 13 %).

    python experiments/run.py --config attributes_mobilenet

Trains on IMDB-Wiki's frontal photos and all of Adience, mixed. Both heads share a hidden layer of 256 with dropout;
softmax over 100 ages (decoded by eq. 1), sigmoid for gender; Adam at 1e-3 (no SAM, as in the published Keras code),
batch 80, 3 epochs. Table 6 measures this network on UTKFace (experiments/tables.py). Starts from `identity_mobilenet`.

The paper does not say on which photos it measured. Here it is a tenth of IMDB-Wiki's people, who are in none of that
dataset's training photos. Age class accuracy: the most probable year is the true one.

Not reproduced from the published code: weight decay of 4e-5 on the dense layers, augmentation (shear, rotation, zoom,
shifts, flips), and alternating steps, one on the ages of a batch and the next on the gender of another. Not run in full
here: the datasets are licence-gated or not available.
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
