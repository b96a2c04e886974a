"""Run configuration as frozen dataclasses.

A config file in ``experiments/configs`` has a ``get_config()`` that returns a `Config`. Every field is defined once,
here, with its default: no code reads a field that might not exist. The default of a new field keeps the previous
behaviour, so that runs started with an older version can be resumed. Standard library only.
"""

import dataclasses
import math
from typing import Annotated, Literal


class ConfigError(ValueError):
    """A misspelt name or an invalid value; the message is a single line that says how to fix it."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Annotates a field's type with inclusive bounds on its value, or on its length if it is a tuple."""

    least: float | int
    most: float | int = math.inf


Natural = Annotated[int, Bounds(0)]
Positive = Annotated[int, Bounds(1)]
Seed = Annotated[int, Bounds(0, 2**32 - 2)]
NotNegative = Annotated[float, Bounds(0)]
# For dropout and label smoothing: at 1 nothing would be left to learn from.
Fraction = Annotated[float, Bounds(0, 0.999)]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The prepared dataset to train on, and how its records become batches.

    Attributes:
        name: Name of the dataset (`facejax.datasets.list_datasets`), or several joined by ``+``: their records are
            mixed within each batch, and each head learns from the records that have its label.
        train_split: Training split.
        eval_split: Split that is evaluated after each epoch and reported.
        augmentation: ``none`` (the paper's expression training), ``flip``, or ``random_resized_crop`` with flip (its
            identity training: resize to 8/7 of the input size, then torchvision's RandomResizedCrop).
        read_threads: Reading and decoding threads per process.
        on_corrupt: How damaged records are handled: ``raise`` stops with an error that names the shard and offset,
            ``skip`` counts the record and replaces it.
        people_train: Number of photos to render for the train split of the built-in dataset.
        people_validation: The same for the validation split.
        people_photos_each: Number of photos of each rendered person.
        people_crop: How faces are cropped from these photos: ``mtcnn``, or the photo's ``centre``.
        people_imbalance: Distribution of expressions in the rendered training photos: uniform (``none``), or as in
            AffectNet.
        num_train: Size of the published train split, used by ``--dry_run`` if the dataset has not been prepared.
    """

    name: str = "affectnet"
    train_split: str = "train"
    eval_split: str = "validation"
    augmentation: Literal["none", "flip", "random_resized_crop"] = "none"
    read_threads: Natural = 4
    on_corrupt: Literal["raise", "skip"] = "raise"
    people_train: Positive = 24000
    people_validation: Positive = 4000
    people_photos_each: Positive = 6
    people_crop: Literal["mtcnn", "centre"] = "mtcnn"
    people_imbalance: Literal["none", "affectnet"] = "none"
    num_train: Positive = 287651


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        backbone: Registered name (`facejax.list_models`).
        tasks: Tasks whose heads are trained (`facejax.tasks.TASKS`), all from a single pass through the backbone. The
            metric of the first task selects the best epoch.
        keep_heads: Tasks whose heads are copied from `init_from` and kept unchanged alongside the trained ones; the
            backbone must be frozen.
        shared_hidden: Tasks of `tasks` that share one hidden layer (`facejax.models.face_model.FaceModel`).
        identities: Number of classes of the identity head; 0 for the number of identities in the prepared dataset.
        image_size: Input height and width in pixels; 0 for the backbone's default, or for that of `init_from` if heads
            are kept.
        global_pool: Global pooling of the last feature maps: mean (``avg``) or maximum (``max``) over the pixels; empty
            for that of `init_from`, or the mean.
        dropout_rate: Dropout on the pooled features before the heads.
        dtype: Compute type; parameters, BatchNorm statistics and the SAM norm stay float32.
        init_from: Source of the backbone's weights: a config's name (``identity_b2``: the best model of its run, next
            to this run's workdir), the name of published weights (docs/weights.md), or the folder of a saved model or
            of a run; empty for random weights.
        restore_batch_norm: If the initial weights have their BatchNorm folded into the convolutions, re-estimate its
            statistics on training photos before training (`facejax.train.batch_norm`), so that it can be trained as
            usual.
    """

    backbone: str = "tf_efficientnet_b2"
    tasks: tuple[str, ...] = ("emotion8",)
    keep_heads: tuple[str, ...] = ()
    shared_hidden: tuple[str, ...] = ()
    identities: Natural = 0
    image_size: Natural = 0
    global_pool: Literal["", "avg", "max"] = ""
    dropout_rate: Fraction = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    init_from: str = ""
    restore_batch_norm: bool = True


@dataclasses.dataclass(frozen=True)
class SamConfig:
    """Sharpness-aware minimisation (Foret et al. 2021, as in the paper's section 3).

    Attributes:
        rho: Radius of the perturbation, 0 for plain Adam.
        batch_stats: Which of the two passes updates the BatchNorm running statistics. ``both`` is what the published
            code does (the model stays in train mode); Google's SAM keeps those of the first.
        perturbation: Gradient that defines the perturbation with several devices under pmap, or several parts: each
            one's own (``local``, m-SAM, as in Foret et al.) or their mean (``synced``). Under jit with one part it is
            that of the whole batch either way.
        parts: m of m-SAM, on any number of devices: the batch is split into this many parts that run sequentially,
            each with its own perturbation, BatchNorm statistics and loss normalisation; their gradients are averaged.
            Also allows batches that would not fit in memory.
    """

    rho: NotNegative = 0.05
    batch_stats: Literal["both", "first", "second"] = "both"
    perturbation: Literal["local", "synced"] = "local"
    parts: Positive = 1


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The sum of the heads' losses; class-weighted softmax cross-entropy (paper eq. 2) for tasks with class weights.

    Attributes:
        class_weights: ``example``: eq. 2 as printed, the mean over the batch of w_y * loss, w_y = max N / N_y.
            ``batch``: the published code's weighted mean, divided by the batch's sum of weights. ``none``: unweighted.
        label_smoothing: As in torch.nn.CrossEntropyLoss, class weights included; 0 in the paper. The published
            code's later loss, 0.1, is that of ``class_weights`` ``example``.
        task_weights: Factor of each task's loss in the order of ``model.tasks``; empty for 1 each.
    """

    class_weights: Literal["batch", "example", "none"] = "batch"
    label_smoothing: Fraction = 0.0
    task_weights: tuple[NotNegative, ...] = ()


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        epochs: Passes over the train split; 0 skips the stage.
        lr: Peak learning rate of Adam.
        trainable: ``heads``: only the heads are trained, without backpropagation through the backbone; ``all``: all
            weights.
        batch_norm: ``batch``: BatchNorm uses the statistics of the batch and updates its running statistics;
            ``running``: it uses its running statistics, unchanged. A ``heads`` stage with ``running`` and no
            augmentation computes its features once.
        schedule: ``constant`` (the paper) or ``cosine`` decay to zero.
        warmup_steps: Steps of linear warm-up, starting at `lr` / `warmup_steps`.
    """

    epochs: Natural = 1
    lr: NotNegative = 1e-4
    trainable: Literal["heads", "all"] = "all"
    batch_norm: Literal["batch", "running"] = "batch"
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Natural = 0


@dataclasses.dataclass(frozen=True)
class StagesConfig:
    """The two stages of the paper: first the head with the backbone frozen, then all weights."""

    head: StageConfig = StageConfig(epochs=3, lr=1e-3, trainable="heads", batch_norm="running")
    full: StageConfig = StageConfig(epochs=10, lr=1e-4)

    def active(self) -> list[tuple[str, StageConfig]]:
        """(name, stage) of the stages that have epochs, in order."""
        return [(name, stage) for name, stage in (("head", self.head), ("full", self.full)) if stage.epochs]


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are saved, in addition to the end of every epoch.

    Attributes:
        every_steps: Also save every this many steps; 0 to save only at the end of each epoch.
        keep: Number of the newest checkpoints to keep; the best and last models are saved separately, for inference.
    """

    every_steps: Natural = 0
    keep: Annotated[int, Bounds(2)] = 2


@dataclasses.dataclass(frozen=True)
class PaperResult:
    """The row of the paper that a config reproduces; numbers are 0 where the paper has none.

    An override of the backbone, or one that puts another task first, clears it.

    Attributes:
        table: Table or section.
        row: Row of the table.
        dataset: Dataset that the paper reports on (`facejax.datasets.list_datasets`).
        accuracy: Accuracy of the config's first task, percent.
        accuracy7: Accuracy for 7 expressions, percent.
        age_class: How often the most probable age in years is the true one, percent.
        ccc_valence: Concordance of valence, in [-1, 1] (`facejax.evals.tasks.concordance`).
        ccc_arousal: Concordance of arousal.
    """

    table: str = ""
    row: str = ""
    dataset: str = ""
    accuracy: float = 0.0
    accuracy7: float = 0.0
    age_class: float = 0.0
    ccc_valence: float = 0.0
    ccc_arousal: float = 0.0


@dataclasses.dataclass(frozen=True)
class CpuProfile:
    """What ``profile=auto`` changes if there is no accelerator, so that a run finishes within minutes.

    Attributes:
        image_size: Input size in pixels.
        batch_size: Records per step.
        people_train: Number of rendered training photos.
        people_validation: Number of rendered validation photos.
        head_epochs: Epochs of the head stage.
        full_epochs: Epochs of the full stage.
        lr: Learning rate of the full stage. The paper's 1e-4 is meant for fine-tuning; from random weights it learns
            too slowly for so few steps.
        warmup_steps: Steps of linear warm-up of the full stage.
        schedule: Schedule of the full stage.
    """

    image_size: Natural = 48
    batch_size: Positive = 16
    people_train: Positive = 3600
    people_validation: Positive = 240
    head_epochs: Natural = 1
    full_epochs: Natural = 8
    lr: NotNegative = 2e-3
    warmup_steps: Natural = 40
    schedule: Literal["constant", "cosine"] = "cosine"


@dataclasses.dataclass(frozen=True)
class Config:
    """Configuration of a training run.

    Attributes:
        seed: Seed of the weights, the order of the data, augmentation and dropout.
        batch_size: Records per step over all devices and processes. An epoch is as many full batches as the records
            make up. Leftover records start the next epoch; after the last epoch of a stage they are not seen. The
            published PyTorch code puts them in a smaller batch; its Keras code (identity, age) takes as many steps as
            here.
        eval_batch_size: The same for evaluation.
        parallel: ``jit``: the global batch is sharded over a mesh, and the result does not depend on the number of
            devices; ``pmap``: each device computes its own part of the batch, with per-device BatchNorm.
        sharding: What is sharded across devices instead of replicated, under jit: nothing (``none``); Adam's two
            moments (``optimizer``, ZeRO stage 1); the moments and the parameters (``full``, ZeRO stage 3). The result
            is the same.
        accumulate: Number of microbatches that the backbone processes sequentially, for batches that do not fit in
            memory. The loss, its gradient and the SAM perturbation are those of the whole batch; BatchNorm in batch
            mode sees one microbatch at a time. Values other than 1 cost one more forward pass.
        select: Metric of the evaluation split that selects the best epoch, for classification tasks (age uses the
            mean absolute error; valence and arousal the mean concordance).
        profile: ``auto`` uses the `cpu` profile if there is no accelerator; ``full`` is the recipe as written.
    """

    seed: Seed = 0
    batch_size: Positive = 32
    eval_batch_size: Positive = 64
    parallel: Literal["jit", "pmap"] = "jit"
    sharding: Literal["none", "optimizer", "full"] = "none"
    accumulate: Positive = 1
    select: Literal["accuracy", "balanced_accuracy"] = "accuracy"
    profile: Literal["auto", "full", "cpu"] = "auto"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    stages: StagesConfig = StagesConfig()
    sam: SamConfig = SamConfig()
    loss: LossConfig = LossConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    cpu: CpuProfile = CpuProfile()
    paper: PaperResult = PaperResult()


def apply_cpu_profile(config: Config) -> Config:
    """Returns the config scaled down to its `CpuProfile`; overrides of the command line are applied afterwards.

    A stage that the recipe skips stays skipped.
    """
    cpu, stages = config.cpu, config.stages
    return dataclasses.replace(
        config,
        profile="cpu",
        batch_size=cpu.batch_size,
        model=dataclasses.replace(config.model, image_size=cpu.image_size),
        data=dataclasses.replace(config.data, people_train=cpu.people_train, people_validation=cpu.people_validation),
        stages=dataclasses.replace(
            stages,
            head=dataclasses.replace(stages.head, epochs=cpu.head_epochs if stages.head.epochs else 0),
            full=dataclasses.replace(
                stages.full,
                epochs=cpu.full_epochs if stages.full.epochs else 0,
                lr=cpu.lr,
                warmup_steps=cpu.warmup_steps,
                schedule=cpu.schedule,
            ),
        ),
    )
