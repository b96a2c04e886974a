r"""VGAF, emotion of a group in a clip with MobileNet-v1 (paper Table 5: 68.92 %, 70.31 % of clips with faces).

    python experiments/run.py --config video_vgaf_mobilenet --config.clips.raw=VGAF \
        --config.network.init_from=emotion_mobilenet_7

All faces of every frame, warped onto ArcFace's five points; mean and std over the faces of a frame, then mean and std
over the frames, L2-normed; classifiers and handling of clips without a face as in video_afew_mobilenet. The published
row is from the network trained on 7 expressions (mobilenet_7.h5). The published code uses svc_rbf with C=1, chosen on
the validation clips, and a smallest face of 64 px, as here. Without VGAF (licence-gated), rendered clips of `people`
are used instead; without `init_from`, the weights are random.
"""

from experiments.configs._video import vgaf_run
from facejax.protocol_config import VideoConfig, VideoPaper


def get_config() -> VideoConfig:
    """Table 5, MobileNet-v1."""
    return vgaf_run(
        "mobilenet_v1", VideoPaper("Table 5", "MobileNet-v1", "vgaf", accuracy=68.92, accuracy_with_faces=70.31)
    )
