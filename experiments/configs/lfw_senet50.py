r"""LFW identification with SENet-50 (paper Table 1: centre 97.21 ± 4.19 %, MTCNN 96.61 ± 2.02 %).

    python experiments/run.py --config lfw_senet50 --config.photos.raw=LFW \
        --config.photos.subjects=lfw_ytf_classes.txt --config.network.init_from=identity_senet50

One random training photo of each of the 596 subjects with two photos or more in LFW and a video in YouTube Faces, all
others for testing; 1-NN by Euclidean distance of L2-normed features; mean ± std of 10 repeats. Verification and 1:N
search are reported too. `init_from` is a run (identity_senet50), or a folder of converted weights; without it the
weights are random. Without a folder of LFW, the built-in rendered people are used instead.
"""

from facejax.protocol_config import LfwConfig, LfwPaper, NetworkConfig


def get_config() -> LfwConfig:
    """Table 1, SENet-50."""
    return LfwConfig(
        network=NetworkConfig(backbone="senet50"),
        paper=LfwPaper("Table 1", "SENet-50", "lfw", centre=97.21, centre_std=4.19, mtcnn=96.61, mtcnn_std=2.02),
    )
