"""The recipe shared by the rows of Table 5; what differs is in each config's own file."""

from facejax.protocol_config import (
    ClipsConfig,
    DescriptorConfig,
    DetectionConfig,
    NetworkConfig,
    VideoConfig,
    VideoPaper,
)


def vgaf_run(backbone: str, paper: VideoPaper) -> VideoConfig:
    """Faces from 64 px (as published) warped to ArcFace's five points; mean and std over faces, then over frames."""
    return VideoConfig(
        clips=ClipsConfig("vgaf", label="group_emotion", people_kind="group"),
        detection=DetectionConfig(min_face=64.0, choose="all", cut="five_points"),
        network=NetworkConfig(backbone=backbone),
        descriptor=DescriptorConfig("faces_then_frames", ("mean", "std")),
        paper=paper,
    )
