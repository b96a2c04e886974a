"""Registry of datasets by name. The reader of a dataset is the module of that name in this package, imported on demand.

A reader is a class with a few constant attributes and one generator:

    @register_dataset
    class Lfw(Dataset):
        name = "lfw"
        ...
        def records(self, raw, **options):
            yield Record(id="Aaron_Eckhart/Aaron_Eckhart_0001.jpg", split="test", image=raw / ..., labels={...})
"""

import importlib
import pathlib
import pkgutil
import typing
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from facejax.data.records import Record
from facejax.naming import did_you_mean
from facejax.tasks import TASKS

Crop = Literal["mtcnn", "centre", "annotation", "none"]
CROPS = typing.get_args(Crop)
# Modules of this package that are not datasets.
NON_DATASET_MODULES = frozenset(
    {"registry", "layout", "options", "survey", "plan", "crops", "chunks", "prepare", "beam", "summary", "tfds_folder"}
)

_registered: dict[str, "Dataset"] = {}


class Dataset:
    """A dataset as described by its reader.

    Attributes:
        name: The name that users type; also the name of the module.
        description: One or two sentences: what it contains and how it is split.
        licence: Terms under which it is published.
        commercial: Whether they allow commercial use: ``no``, ``yes``, or ``unclear`` if nothing says so.
        url: Where it is published.
        tasks: Names in `facejax.tasks.TASKS` for which its records have labels.
        expected_counts: Published number of photos (or clips) by split; None if it isn't published or not fixed.
        expected_total: Published number of photos in all splits together. It is used where `expected_counts` has None
            because the split is drawn; None if it isn't published either, or if the reader selects among the photos.
        default_crop: How faces are cropped by default: ``mtcnn`` (detected box), ``centre`` (the photo's middle),
            ``annotation`` (the dataset's own box), ``none`` (photos are already crops).
        edition: Version of a dataset that generates its photos, incremented when the same records give other photos.
        kind: ``photo`` (`records` yields them) or ``video`` (`clips` yields them).
    """

    name: ClassVar[str]
    description: ClassVar[str]
    licence: ClassVar[str]
    url: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    expected_counts: ClassVar[Mapping[str, int | None]]
    default_crop: ClassVar[Crop]
    expected_total: ClassVar[int | None] = None
    edition: ClassVar[int] = 1
    kind: ClassVar[Literal["photo", "video"]] = "photo"
    commercial: ClassVar[Literal["no", "unclear", "yes"]] = "no"

    def __init__(self):
        self.skipped: dict[str, list[str]] = {}
        self.read_before = False  # if True, skipped rows were already logged

    def skip(self, reason: str, record_id: str) -> None:
        """Records a row or file that the reader skips, so that the preparation counts and lists it.

        Args:
            reason: A few words that are the same for all such rows, such as ``duplicate row``.
            record_id: File or row.
        """
        self.skipped.setdefault(reason, []).append(record_id)

    def records(self, raw: pathlib.Path | None, **options: object) -> Iterator[Record]:
        """Yields the photos in a stable order.

        Args:
            raw: Folder with the dataset in its published layout; None for datasets that need none (`people`).
            **options: The reader's own options, documented there.

        Missing files need no check here: the preparation counts and lists them. Rows skipped for another reason are
        recorded by `skip`.
        """
        raise NotImplementedError(f"{self.name} is a {self.kind} dataset: it has no records(), see clips()")

    def clips(self, raw: pathlib.Path | None, **options: object) -> Iterator[Record]:
        """Yields the clips of a video dataset; `Record.image` is the path of the clip's file."""
        raise NotImplementedError(f"{self.name} is a {self.kind} dataset: it has no clips(), see records()")


def register_dataset(reader: type[Dataset]) -> type[Dataset]:
    """Class decorator that registers one instance of a reader for `get_dataset`.

    Raises:
        ValueError: Its name is not its module's, or is taken; a task or crop is unknown; an attribute is missing.
    """
    missing = [a for a in Dataset.__annotations__ if not hasattr(reader, a)]
    if missing:
        raise ValueError(f"reader {reader.__name__} lacks the attributes {', '.join(missing)}")
    module = reader.__module__.removeprefix(f"{__package__}.").split(".")[0]
    if reader.__module__.startswith(f"{__package__}.") and module != reader.name:
        raise ValueError(f"dataset {reader.name!r} must be read by a module of that name, not by {module!r}")
    unknown = [task for task in reader.tasks if task not in TASKS]
    if unknown:
        raise ValueError(f"dataset {reader.name!r} has unknown tasks {unknown}; known: {', '.join(TASKS)}")
    if reader.default_crop not in CROPS:
        raise ValueError(f"dataset {reader.name!r}: default_crop {reader.default_crop!r} is not one of {CROPS}")
    known = _registered.get(reader.name)
    if known is not None and type(known).__qualname__ != reader.__qualname__:
        raise ValueError(f"dataset {reader.name!r} is registered twice: {type(known)} and {reader}")
    _registered[reader.name] = reader()
    return reader


def list_datasets() -> list[str]:
    """Sorted names of all datasets; imports none of their readers."""
    modules = {module.name for module in pkgutil.iter_modules([str(pathlib.Path(__file__).parent)])}
    return sorted((modules - NON_DATASET_MODULES) | set(_registered))


def get_dataset(name: str) -> Dataset:
    """The reader of a dataset.

    Raises:
        ValueError: There is none of that name; the message suggests the nearest one and lists all.
    """
    if name not in _registered:
        names = list_datasets()
        if name not in names:
            raise ValueError(f"no dataset is called {name!r}{did_you_mean(name, names)}")
        importlib.import_module(f"{__package__}.{name}")
        if name not in _registered:
            raise RuntimeError(f"{__package__}.{name} registers no dataset of that name")
    return _registered[name]


def is_complete(name: str, split: str, photos: Mapping[str, int]) -> bool:
    """Whether a prepared split has about as many photos as were published, so that results on it are comparable.

    Up to 5 % may be missing: preparation skips photos without a face and unreadable ones. False if no number is
    published.

    Args:
        name: Name of the dataset.
        split: The split in question.
        photos: Number of photos in each prepared split; for a split that is drawn, their sum is compared.
    """
    reader = get_dataset(name)
    expected, there = reader.expected_counts.get(split), photos.get(split, 0)
    if expected is None:
        expected, there = reader.expected_total, sum(photos.values())
    return expected is not None and there >= 0.95 * expected
