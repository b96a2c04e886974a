r"""LFW identification with MobileNet-v1 (paper Table 1: centre 90.80 ± 3.96 %, MTCNN 92.60 ± 4.01 %).

    python experiments/run.py --config lfw_mobilenet --config.photos.raw=LFW \
        --config.photos.subjects=lfw_ytf_classes.txt --config.network.init_from=identity_mobilenet

One random training photo of each of the 596 subjects with two photos or more in LFW and a video in YouTube Faces, all
others for testing; 1-NN by Euclidean distance of L2-normed features; mean ± std of 10 repeats. Verification and 1:N
search are reported too. `init_from` is a run (identity_mobilenet), or a folder of converted weights; without it the
weights are random. Without a folder of LFW, the built-in rendered people are used instead.
"""

from facejax.protocol_config import LfwConfig, LfwPaper, NetworkConfig


def get_config() -> LfwConfig:
    """Table 1, MobileNet-v1."""
    return LfwConfig(
        network=NetworkConfig(backbone="mobilenet_v1"),
        paper=LfwPaper("Table 1", "MobileNet-v1", "lfw", centre=90.8, centre_std=3.96, mtcnn=92.6, mtcnn_std=4.01),
    )
