r"""VGAF, emotion of a group in a clip with RexNet-150 (paper Table 5: 63.58 %).

    python experiments/run.py --config video_vgaf_rexnet150 --config.clips.raw=VGAF \
        --config.network.init_from=emotion_rexnet150_7

All faces of every frame, warped onto ArcFace's five points; mean and std over the faces of a frame, then mean and std
over the frames, L2-normed; classifiers and handling of clips without a face as in video_afew_rexnet150. The only
RexNet-150 in Table 2 with all weights trained is for 7 expressions. Without VGAF (licence-gated), rendered clips of
`people` are used instead; without `init_from`, the weights are random.
"""

from experiments.configs._video import vgaf_run
from facejax.protocol_config import VideoConfig, VideoPaper


def get_config() -> VideoConfig:
    """Table 5, RexNet-150."""
    return vgaf_run("rexnet_150", VideoPaper("Table 5", "RexNet-150", "vgaf", accuracy=63.58))
