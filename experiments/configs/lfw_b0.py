r"""LFW identification with EfficientNet-B0 (paper Table 1: centre 92.71 ± 4.61 %, MTCNN 94.58 ± 4.58 %).

    python experiments/run.py --config lfw_b0 --config.photos.raw=LFW \
        --config.photos.subjects=lfw_ytf_classes.txt --config.network.init_from=identity_b0

One random training photo of each of the 596 subjects with two photos or more in LFW and a video in YouTube Faces, all
others for testing; 1-NN by Euclidean distance of L2-normed features; mean ± std of 10 repeats. Verification and 1:N
search are reported too. `init_from` is a run (identity_b0), or a folder of converted weights; without it the weights
are random. Without a folder of LFW, the built-in rendered people are used instead.
"""

from facejax.protocol_config import LfwConfig, LfwPaper, NetworkConfig


def get_config() -> LfwConfig:
    """Table 1, EfficientNet-B0."""
    return LfwConfig(
        network=NetworkConfig(backbone="tf_efficientnet_b0"),
        paper=LfwPaper("Table 1", "EfficientNet-B0", "lfw", centre=92.71, centre_std=4.61, mtcnn=94.58, mtcnn_std=4.58),
    )
