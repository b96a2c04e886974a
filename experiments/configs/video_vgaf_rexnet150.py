r"""VGAF, emotion of a group in a clip with RexNet-150 (paper Table 5: 63.58 %).

    python experiments/run.py --config video_vgaf_rexnet150 --config.clips.raw=VGAF \
        --config.network.init_from=emotion_rexnet150

All faces of every frame, warped onto ArcFace's five points; mean and std over the faces of a frame, then mean and std
over the frames, L2-normed; classifiers and rules for clips without a face as in video_afew_rexnet150. Without VGAF
(licence-gated) rendered clips of `people` take its place; without `init_from` the weights are random.
"""

from facejax.protocol_config import (
    ClipsConfig,
    DescriptorConfig,
    DetectionConfig,
    NetworkConfig,
    VideoConfig,
    VideoPaper,
)


def get_config() -> VideoConfig:
    """Table 5, RexNet-150."""
    return VideoConfig(
        clips=ClipsConfig("vgaf", label="group_emotion", people_kind="group"),
        detection=DetectionConfig(choose="all", cut="five_points"),
        network=NetworkConfig(backbone="rexnet_150"),
        descriptor=DescriptorConfig("faces_then_frames", ("mean", "std")),
        paper=VideoPaper("Table 5", "RexNet-150", "vgaf", accuracy=63.58, accuracy_with_faces=0.0),
    )
