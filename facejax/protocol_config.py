"""Protocols that train no network, as values: LFW, emotions of clips, attributes. See `facejax.config`.

A config file's ``get_config()`` may return one of these instead of a `facejax.config.Config`; ``experiments/run.py``
starts it the same way, and every field is overridden the same way. Standard library only.
"""

import dataclasses
from typing import Annotated, Literal

from facejax.config import Bounds, Fraction, Natural, NotNegative, Positive, Seed

Classifier = Literal["linear_svc", "svc_rbf", "random_forest", "logistic"]


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """What makes the features.

    Attributes:
        backbone: Registered name (`facejax.list_models`).
        init_from: Whose weights: a config's name (``emotion_b0``: the best model of its run, beside this one's
            workdir), or the folder of a saved model (tools/convert_weights.py, or a workdir's ``best``). Empty for
            random weights, which every report then says.
        image_size: Input height and width in pixels; 0 takes the one that is stored with the weights.
    """

    backbone: str = "tf_efficientnet_b0"
    init_from: str = ""
    image_size: Natural = 0


@dataclasses.dataclass(frozen=True)
class DetectionConfig:
    """How faces are found and cut out.

    Attributes:
        min_face: Side of the smallest face in pixels (the published code: 32, for VGAF 64).
        thresholds: Of MTCNN's three networks (the published code: 0.6, 0.7, 0.9).
        choose: Which face of a frame or photo: ``largest`` (the paper's text), ``probable`` (highest score: its
            published code for AFEW), or ``all`` (VGAF).
        cut: ``box``: the detected box as it is; ``eyes``: and turned until the eyes are level; ``five_points``: warped
            onto ArcFace's template (the published code for VGAF).
    """

    min_face: float = 32.0
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.9)
    choose: Literal["largest", "probable", "all"] = "largest"
    cut: Literal["box", "eyes", "five_points"] = "box"


@dataclasses.dataclass(frozen=True)
class ClipsConfig:
    """Which clips.

    Attributes:
        name: A data set with clips: ``afew``, ``vgaf``, or the built-in ``people``.
        raw: Folder that holds the set as it is published (docs/datasets.md); where it is empty, clips of `people` are
            rendered instead, and every report says so.
        label: Field of a clip's record with its class.
        every: Looks at every n-th frame; the paper at all.
        max_side: Frames are reduced to this many pixels on their longer side before detection; 0 for never.
        people_kind: ``solo`` (one person, 7 emotions, like AFEW) or ``group`` (3 emotions, like VGAF).
        people_train: Rendered training clips.
        people_validation: Rendered validation clips, of other people.
        people_frames: Frames of a rendered clip.
        people_size: Rows of its frames, pixels.
    """

    name: Literal["afew", "vgaf", "people"] = "afew"
    raw: str = ""
    label: Literal["emotion", "group_emotion"] = "emotion"
    every: Positive = 1
    max_side: Natural = 0
    people_kind: Literal["solo", "group"] = "solo"
    people_train: Positive = 210
    people_validation: Positive = 105
    people_frames: Positive = 12
    people_size: Positive = 224


@dataclasses.dataclass(frozen=True)
class DescriptorConfig:
    """How the features of a clip's faces become one vector.

    Attributes:
        levels: ``frames``: statistics over all faces of the clip, one a frame (AFEW); ``faces_then_frames``: over the
            faces of each frame, then over the frames (VGAF).
        statistics: Among mean, max, min and std, in this order (AFEW: all four; VGAF: mean and std, at both levels).
    """

    levels: Literal["frames", "faces_then_frames"] = "frames"
    statistics: Annotated[tuple[Literal["mean", "max", "min", "std"], ...], Bounds(1)] = ("mean", "max", "min", "std")


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """The classifiers on the descriptors.

    Attributes:
        names: Among linear_svc, svc_rbf, random_forest (the paper's) and logistic (a new softmax layer).
        costs: Values of C that are tried for the first two and for logistic.
        choose_by: ``cross_validation`` on the training clips; or ``peeking_at_validation``: the C that is
            best on the clips that are reported, as the published code chose its constants. That flatters.
        folds: Of the cross-validation.
        trees: Of the random forest.
        max_depth: Of its trees, 0 for no limit (published MobileNet classifier of AFEW: 7).
    """

    names: tuple[Classifier, ...] = ("linear_svc", "svc_rbf", "random_forest")
    costs: Annotated[tuple[Annotated[float, Bounds(1e-6)], ...], Bounds(1)] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    choose_by: Literal["cross_validation", "peeking_at_validation"] = "cross_validation"
    folds: Annotated[int, Bounds(2)] = 5
    trees: Positive = 1000
    max_depth: Natural = 0


@dataclasses.dataclass(frozen=True)
class SequenceConfig:
    """Networks over the frame features of a clip, beyond the paper (its future work).

    Attributes:
        names: Among attention and transformer; none by default, since neither beat linear_svc in cross-validation on
            rendered clips (experiments/results/README.md).
        width: Of the projection of the features, and of the transformer.
        heads: Attention heads of the transformer.
        layers: Blocks of the transformer.
        dropout: On projected features and in the blocks.
        epochs: Passes over the training clips.
        lr: Peak learning rate of AdamW, warmed up and decayed to zero.
        weight_decay: Of AdamW.
        batch_size: Clips of a step.
        max_frames: Longer clips are thinned evenly to this many faces.
        repeats: Networks of different seeds whose probabilities are averaged.
    """

    names: tuple[Literal["attention", "transformer"], ...] = ()
    width: Positive = 64
    heads: Positive = 4
    layers: Positive = 1
    dropout: Fraction = 0.3
    epochs: Positive = 60
    lr: NotNegative = 1e-3
    weight_decay: NotNegative = 0.05
    batch_size: Positive = 32
    max_frames: Positive = 64
    repeats: Positive = 1


@dataclasses.dataclass(frozen=True)
class VideoPaper:
    """The row of the paper, percent; 0 where it has no number.

    Attributes:
        table: Table.
        row: Its row.
        dataset: What it was measured on.
        accuracy: On all validation clips.
        accuracy_with_faces: On those with faces.
    """

    table: str = ""
    row: str = ""
    dataset: str = ""
    accuracy: float = 0.0
    accuracy_with_faces: float = 0.0


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """Emotion of a clip from the features of its frames (paper section 3.3, Tables 4 and 5).

    Attributes:
        seed: Of random weights, folds, forests and sequence networks.
        compare_folds: Folds of the comparison of all classifiers on training and validation clips together; 0 for none.
    """

    seed: Seed = 0
    compare_folds: Natural = 5
    clips: ClipsConfig = ClipsConfig()
    detection: DetectionConfig = DetectionConfig()
    network: NetworkConfig = NetworkConfig()
    descriptor: DescriptorConfig = DescriptorConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    sequence: SequenceConfig = SequenceConfig()
    paper: VideoPaper = VideoPaper()


@dataclasses.dataclass(frozen=True)
class PhotosConfig:
    """Which photos of whom.

    Attributes:
        name: ``lfw``, ``facial_expressions`` (whose grey chips are LFW's people), or the built-in ``people``.
        raw: Folder that holds the set as it is published; where it is empty, photos of `people` are rendered instead,
            and every report says so.
        subjects: Text file with one name a line: only these people count (the paper's 596); empty for all.
        pairs: LFW's ``pairs.txt`` for verification; empty for pairs that are drawn in the same way.
        people_photos: Rendered photos, six a person.
    """

    name: str = "lfw"
    raw: str = ""
    subjects: str = ""
    pairs: str = ""
    people_photos: Positive = 240


@dataclasses.dataclass(frozen=True)
class LfwPaper:
    """The row of the paper: rank-1 accuracy, percent, mean and standard deviation of 10 repeats.

    Attributes:
        table: Table.
        row: Its row.
        dataset: What it was measured on.
        centre: With the centre crop.
        centre_std: Its standard deviation.
        mtcnn: With MTCNN's box, no margin.
        mtcnn_std: Its standard deviation.
    """

    table: str = ""
    row: str = ""
    dataset: str = ""
    centre: float = 0.0
    centre_std: float = 0.0
    mtcnn: float = 0.0
    mtcnn_std: float = 0.0


@dataclasses.dataclass(frozen=True)
class LfwConfig:
    """Identification with one training photo a subject (paper Table 1), verification and search on the same features.

    Attributes:
        seed: Of the drawn photos, pairs and galleries.
        repeats: Random choices of the training photos.
        crops: Among ``centre``, ``mtcnn`` (the paper's two) and ``whole`` (photos that are crops already); a row each.
        folds: Of verification.
        pairs_per_fold: Pairs of one person, and as many of two, in a fold that is drawn.
    """

    seed: Seed = 0
    repeats: Positive = 10
    crops: Annotated[tuple[Literal["centre", "mtcnn", "whole"], ...], Bounds(1)] = ("centre", "mtcnn")
    folds: Annotated[int, Bounds(2)] = 10
    pairs_per_fold: Positive = 300
    photos: PhotosConfig = PhotosConfig()
    detection: DetectionConfig = DetectionConfig()
    network: NetworkConfig = NetworkConfig(backbone="mobilenet_v1")
    paper: LfwPaper = LfwPaper()


@dataclasses.dataclass(frozen=True)
class FacesConfig:
    """Which prepared set (tools/prepare_dataset.py), with ages, genders or ethnicities.

    Attributes:
        name: Its name; where it is not prepared in the data folder, `people` is rendered instead, and the report says
            so.
        train_split: Split on whose features the new classifiers are fitted.
        eval_split: Split that is reported.
        single_face: Keeps only photos in which the preparation found exactly one face (paper Table 6).
        person: Label that tells persons apart, for intervals that draw persons instead of photos; empty for ``person``
            where the set has it.
        people_train: Rendered training photos.
        people_validation: Rendered photos that are reported.
    """

    name: str = "utkface"
    train_split: str = "train"
    eval_split: str = "validation"
    single_face: bool = False
    person: str = ""
    people_train: Positive = 600
    people_validation: Positive = 300


@dataclasses.dataclass(frozen=True)
class AttributesPaper:
    """Rows of the paper's Tables 6 and 7; 0 where it has no number.

    Attributes:
        table: Table.
        row: Its row.
        dataset: What it was measured on.
        split: Of it.
        gender: Accuracy, percent.
        age_mae: Mean absolute error of all photos, years.
        gender_21_60: Accuracy on photos of people aged 21 to 60, percent.
        age_mae_21_60: Error on them, years.
        logistic: Accuracy of a new fully connected layer, percent; the next three: of the other classifiers.
        random_forest: Of a random forest.
        svc_rbf: Of an SVM with RBF kernel.
        linear_svc: Of a linear SVM.
    """

    table: str = ""
    row: str = ""
    dataset: str = ""
    split: str = "validation"
    gender: float = 0.0
    age_mae: float = 0.0
    gender_21_60: float = 0.0
    age_mae_21_60: float = 0.0
    logistic: float = 0.0
    random_forest: float = 0.0
    svc_rbf: float = 0.0
    linear_svc: float = 0.0


@dataclasses.dataclass(frozen=True)
class AttributesConfig:
    """What a network's heads say of age, gender and expression, by group of people; and classifiers on its features.

    Attributes:
        seed: Of random weights, folds, forests and the bootstrap.
        heads: Heads that are evaluated where the network has them and the set the label.
        fit: Label that new classifiers learn from the features (Table 7: ethnicity); empty for none.
        group_by: Attributes by whose groups every metric is also given.
    """

    seed: Seed = 0
    heads: tuple[Literal["age", "gender", "ethnicity", "emotion8", "emotion7"], ...] = (
        "age",
        "gender",
        "ethnicity",
        "emotion8",
        "emotion7",
    )
    fit: Literal["ethnicity", "gender", "emotion", ""] = "ethnicity"
    group_by: tuple[Literal["gender", "ethnicity", "age"], ...] = ("gender", "ethnicity", "age")
    faces: FacesConfig = FacesConfig()
    network: NetworkConfig = NetworkConfig(backbone="mobilenet_v1")
    classifier: ClassifierConfig = ClassifierConfig(names=("logistic", "random_forest", "svc_rbf", "linear_svc"))
    paper: AttributesPaper = AttributesPaper()
