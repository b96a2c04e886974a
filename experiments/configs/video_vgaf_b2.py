r"""VGAF, emotion of a group in a clip with EfficientNet-B2 (paper Table 5: 69.84 %).

    python experiments/run.py --config video_vgaf_b2 --config.clips.raw=VGAF \
        --config.network.init_from=emotion_b2_7

All faces of every frame, warped onto ArcFace's five points; mean and std over the faces of a frame, then mean and std
over the frames, L2-normed; classifiers and handling of clips without a face as in video_afew_b2. The published row is
from the network trained on 7 expressions (enet_b2_7). The published code uses linear_svc with C=0.01, chosen on the
validation clips, and a smallest face of 64 px, as here. Without VGAF (licence-gated), rendered clips of `people` are
used instead; without `init_from`, the weights are random.
"""

from experiments.configs._video import vgaf_run
from facejax.protocol_config import VideoConfig, VideoPaper


def get_config() -> VideoConfig:
    """Table 5, EfficientNet-B2."""
    return vgaf_run("tf_efficientnet_b2", VideoPaper("Table 5", "EfficientNet-B2", "vgaf", accuracy=69.84))
