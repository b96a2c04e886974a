r"""AFEW, emotion of a clip with RexNet-150 (paper Table 4: 57.27 %).

    python experiments/run.py --config video_afew_rexnet150 --config.clips.raw=AFEW \
        --config.network.init_from=emotion_rexnet150_7

The largest face of every frame; mean, max, min and std of the features over the frames, L2-normed; linear SVM, RBF SVM
and random forest, with C chosen by cross-validation on the training clips (the published constants come from
--config.classifier.choose_by=peeking_at_validation). Training clips without a face are dropped, validation clips
without one get zeros. The only RexNet-150 in Table 2 with all weights trained is for 7 expressions. Without AFEW
(licence-gated), rendered clips of `people` are used instead; without `init_from`, the weights are random.
"""

from facejax.protocol_config import NetworkConfig, VideoConfig, VideoPaper


def get_config() -> VideoConfig:
    """Table 4, RexNet-150."""
    return VideoConfig(
        network=NetworkConfig(backbone="rexnet_150"),
        paper=VideoPaper("Table 4", "RexNet-150", "afew", accuracy=57.27),
    )
