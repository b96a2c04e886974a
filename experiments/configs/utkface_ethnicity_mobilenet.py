"""Ethnicity by classifiers on features, MobileNet-v1 (paper Table 7: FC 87.6, SVM-RBF 87.7, LinearSVC 85.6, RF 83.8).

    python tools/prepare_dataset.py utkface --raw UTKFACE --out data
    python experiments/run.py --config utkface_ethnicity_mobilenet --config.network.init_from=identity_mobilenet

UTKFace aligned and cropped, 20,149 photos for fitting and 3,559 for testing; L2-normed features, classes weighted, C by
cross-validation on the training photos. ``logistic`` is a new softmax layer trained to the optimum;
`ethnicity_mobilenet` trains the same layer with SAM, like every head here. Every accuracy is also reported by group. If
UTKFace is not prepared, rendered photos of `people` are used instead; without `init_from`, the weights are random.
"""

from facejax.protocol_config import AttributesConfig, AttributesPaper, NetworkConfig


def get_config() -> AttributesConfig:
    """Table 7, all four rows."""
    return AttributesConfig(
        heads=(),
        fit="ethnicity",
        network=NetworkConfig(backbone="mobilenet_v1"),
        paper=AttributesPaper(
            "Table 7",
            "MobileNet-v1 features",
            "utkface",
            logistic=87.6,
            random_forest=83.8,
            svc_rbf=87.7,
            linear_svc=85.6,
        ),
    )
