"""Configurations of evaluation protocols that train no network: LFW, video emotion, attributes. See `facejax.config`.

A config file's ``get_config()`` may return one of these instead of a `facejax.config.Config`; ``experiments/run.py``
runs it the same way, and its fields are overridden the same way. Standard library only.
"""

import dataclasses
from typing import Annotated, Literal

from facejax.config import Bounds, Fraction, Natural, NotNegative, Positive, Seed

Classifier = Literal["linear_svc", "svc_rbf", "random_forest", "logistic"]


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The network that computes the features.

    Attributes:
        backbone: Registered name (`facejax.list_models`).
        init_from: Source of the weights: a config's name (``emotion_b0``: the best model of its run, next to this
            run's workdir), or the folder of a saved model (tools/convert_weights.py, or a workdir's ``best``). Empty
            for random weights, which every report then states.
        image_size: Input height and width in pixels; 0 for the size stored with the weights.
    """

    backbone: str = "tf_efficientnet_b0"
    init_from: str = ""
    image_size: Natural = 0


@dataclasses.dataclass(frozen=True)
class DetectionConfig:
    """How faces are detected and cropped.

    Attributes:
        min_face: Side of the smallest detectable face in pixels (published code: 32, for VGAF 64).
        thresholds: Thresholds of MTCNN's three networks (published code: 0.6, 0.7, 0.9).
        choose: Which face of a frame or photo is used: ``largest`` (the paper's text), ``probable`` (highest score: its
            published code for AFEW), or ``all`` (VGAF).
        cut: ``box``: the detected box as is; ``eyes``: the box rotated so that the eyes are level; ``five_points``:
            warped onto ArcFace's template (the published code for VGAF).
    """

    min_face: float = 32.0
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.9)
    choose: Literal["largest", "probable", "all"] = "largest"
    cut: Literal["box", "eyes", "five_points"] = "box"


@dataclasses.dataclass(frozen=True)
class ClipsConfig:
    """The video clips.

    Attributes:
        name: A dataset of clips: ``afew``, ``vgaf``, or the built-in ``people``.
        raw: Folder of the dataset as published (docs/datasets.md); if empty, clips of `people` are rendered instead,
            and every report says so.
        label: Field of a clip's record that contains its class.
        every: Use every n-th frame; the paper uses all.
        max_side: Frames are downscaled to this many pixels on the longer side before detection; 0 to disable.
        people_kind: ``solo`` (one person, 7 emotions, like AFEW) or ``group`` (3 emotions, like VGAF).
        people_train: Number of rendered training clips.
        people_validation: Number of rendered validation clips, of other people.
        people_frames: Frames per rendered clip.
        people_size: Height of the rendered frames in pixels.
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
    """How the features of a clip's faces are aggregated into one vector.

    Attributes:
        levels: ``frames``: statistics over all faces of the clip, one per frame (AFEW); ``faces_then_frames``: over the
            faces of each frame, then over the frames (VGAF).
        statistics: Any of mean, max, min and std, in this order (AFEW: all four; VGAF: mean and std, at both levels).
    """

    levels: Literal["frames", "faces_then_frames"] = "frames"
    statistics: Annotated[tuple[Literal["mean", "max", "min", "std"], ...], Bounds(1)] = ("mean", "max", "min", "std")


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """The classifiers that are fitted to the descriptors.

    Attributes:
        names: Any of linear_svc, svc_rbf, random_forest (the paper's) and logistic (a new softmax layer).
        costs: Values of C to try for the two SVMs and for logistic.
        choose_by: How C is selected: ``cross_validation`` on the training clips; or ``peeking_at_validation``: the C
            that is best on the reported clips, as the published code chose its constants, which is optimistic.
        folds: Number of cross-validation folds.
        trees: Number of trees of the random forest.
        max_depth: Maximum depth of its trees, 0 for no limit (published MobileNet classifier of AFEW: 7).
    """

    names: tuple[Classifier, ...] = ("linear_svc", "svc_rbf", "random_forest")
    costs: Annotated[tuple[Annotated[float, Bounds(1e-6)], ...], Bounds(1)] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    choose_by: Literal["cross_validation", "peeking_at_validation"] = "cross_validation"
    folds: Annotated[int, Bounds(2)] = 5
    trees: Positive = 1000
    max_depth: Natural = 0


@dataclasses.dataclass(frozen=True)
class SequenceConfig:
    """Sequence models over the frame features of a clip, beyond the paper (its future work).

    Attributes:
        names: Any of attention and transformer; none by default, since neither beat linear_svc in cross-validation on
            rendered clips (experiments/results/README.md).
        width: Width of the feature projection and of the transformer.
        heads: Attention heads of the transformer.
        layers: Number of transformer blocks.
        dropout: Dropout on the projected features and in the blocks.
        epochs: Passes over the training clips.
        lr: Peak learning rate of AdamW, with warm-up and decay to zero.
        weight_decay: Weight decay of AdamW.
        batch_size: Clips per step.
        max_frames: Longer clips are subsampled evenly to this many faces.
        repeats: Number of networks with different seeds whose probabilities are averaged.
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
        row: Row of the table.
        dataset: Dataset that the row reports on.
        accuracy: Accuracy on all validation clips.
        accuracy_with_faces: Accuracy on the clips in which a face was found.
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
        seed: Seed of random weights, folds, forests and sequence networks.
        compare_folds: Cross-validation folds for comparing all classifiers on the training and validation clips
            together; 0 for no comparison.
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
    """The photos and subjects.

    Attributes:
        name: ``lfw``, ``facial_expressions`` (whose grey chips show LFW's people), or the built-in ``people``.
        raw: Folder of the dataset as published; if empty, photos of `people` are rendered instead, and every report
            says so.
        subjects: Text file with one name per line: only these people are used (the paper's 596); empty for all.
        pairs: LFW's ``pairs.txt`` for verification; empty to draw pairs in the same way.
        people_photos: Number of rendered photos, six per person.
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
        row: Row of the table.
        dataset: Dataset that the row reports on.
        centre: Accuracy with the centre crop.
        centre_std: Standard deviation of `centre`.
        mtcnn: Accuracy with MTCNN's box, no margin.
        mtcnn_std: Standard deviation of `mtcnn`.
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
    """Identification with one training photo per subject (paper Table 1), verification and search on the same features.

    Attributes:
        seed: Seed for drawing photos, pairs and galleries.
        repeats: Number of random choices of the training photos.
        crops: Any of ``centre``, ``mtcnn`` (the paper's two) and ``whole`` (photos that are crops already); each gives
            one row.
        folds: Number of verification folds.
        pairs_per_fold: Number of same-person pairs in a drawn fold, and of different-person pairs.
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
    """The prepared dataset (tools/prepare_dataset.py), with ages, genders or ethnicities.

    Attributes:
        name: Name of the dataset; if it is not prepared in the data folder, `people` is rendered instead, and the
            report says so.
        train_split: Split whose features the new classifiers are fitted on.
        eval_split: Split that is reported.
        single_face: Keeps only photos in which the preparation found exactly one face (paper Table 6).
        person: Label that identifies people, for bootstrap intervals over people instead of photos; empty for
            ``person`` if the dataset has it.
        people_train: Number of rendered training photos.
        people_validation: Number of rendered photos in the reported split.
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
        row: Row of the table.
        dataset: Dataset that the row reports on.
        split: Split of the dataset.
        gender: Gender accuracy, percent.
        age_mae: Mean absolute error of the age on all photos, years.
        gender_21_60: Gender accuracy on photos of people aged 21 to 60, percent.
        age_mae_21_60: Mean absolute error of the age on them, years.
        logistic: Accuracy of a new fully connected layer, percent.
        random_forest: Accuracy of a random forest, percent.
        svc_rbf: Accuracy of an SVM with RBF kernel, percent.
        linear_svc: Accuracy of a linear SVM, percent.
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
    """A network's predictions of age, gender and expression, overall and per group; and classifiers on its features.

    Attributes:
        seed: Seed of random weights, folds, forests and the bootstrap.
        heads: Heads to evaluate if the network has them and the dataset has the label.
        fit: Label that new classifiers learn from the features (Table 7: ethnicity); empty for none.
        group_by: Attributes whose groups every metric is also reported for.
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
