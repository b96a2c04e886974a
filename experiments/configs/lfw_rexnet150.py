r"""LFW identification with RexNet-150 (paper Table 1: centre 94.76 ± 4.45 %, MTCNN 96.59 ± 3.95 %).

    python experiments/run.py --config lfw_rexnet150 --config.photos.raw=LFW \
        --config.photos.subjects=lfw_ytf_classes.txt --config.network.init_from=identity_rexnet150

One random training photo of each of the 596 subjects with two photos or more in LFW and a video in YouTube Faces, all
others for testing; 1-NN by Euclidean distance of L2-normed features; mean ± std of 10 repeats. Verification and 1:N
search are reported too. `init_from` is a run (identity_rexnet150), or a folder of converted weights; without it the
weights are random. Without a folder of LFW, the built-in rendered people are used instead.
"""

from facejax.protocol_config import LfwConfig, LfwPaper, NetworkConfig


def get_config() -> LfwConfig:
    """Table 1, RexNet-150."""
    return LfwConfig(
        network=NetworkConfig(backbone="rexnet_150"),
        paper=LfwPaper("Table 1", "RexNet-150", "lfw", centre=94.76, centre_std=4.45, mtcnn=96.59, mtcnn_std=3.95),
    )
