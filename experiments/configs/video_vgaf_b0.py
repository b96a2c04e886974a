r"""VGAF, emotion of a group in a clip with EfficientNet-B0 (paper Table 5: 66.80 %, 68.29 % of clips with faces).

    python experiments/run.py --config video_vgaf_b0 --config.clips.raw=VGAF \
        --config.network.init_from=emotion_b0

All faces of every frame, warped onto ArcFace's five points; mean and std over the faces of a frame, then mean and std
over the frames, L2-normed; classifiers and handling of clips without a face as in video_afew_b0. The published row is
from Table 2's network (enet_b0_8_best_vgaf). The published code uses linear_svc with C=0.5, chosen on the validation
clips, and a smallest face of 64 px, as here. Without VGAF (licence-gated), rendered clips of `people` are used instead;
without `init_from`, the weights are random.
"""

from experiments.configs._video import vgaf_run
from facejax.protocol_config import VideoConfig, VideoPaper


def get_config() -> VideoConfig:
    """Table 5, EfficientNet-B0."""
    return vgaf_run(
        "tf_efficientnet_b0", VideoPaper("Table 5", "EfficientNet-B0", "vgaf", accuracy=66.8, accuracy_with_faces=68.29)
    )
