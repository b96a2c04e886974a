"""Detection and cropping by a `DetectionConfig`; the faces of a dataset's clips, cached on disk for all networks."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import pathlib
import time
import zipfile
from collections.abc import Iterator

from experiments.protocols.cache import files_digest
from facejax.config import ConfigError
from facejax.data.records import Record
from facejax.datasets import get_dataset
from facejax.detect import MTCNN, make_cropper
from facejax.protocol_config import ClipsConfig, DetectionConfig
from facejax.tasks import EMOTION7, GROUP_EMOTION, TASKS
from facejax.video.faces import ClipFaces, clip_faces, find_faces
from facejax.video.features import Clip
from facejax.video.frames import Frame, VideoError, array_frames, read_frames

logger = logging.getLogger("facejax")
FORMAT = 1  # incremented when the same clips and settings start to give different files
_SECONDS_BETWEEN_LINES = 30.0


def make_detector(config: DetectionConfig) -> MTCNN:
    """The detector with the config's thresholds.

    Raises:
        ConfigError: One of its settings is out of range.
    """
    try:
        return MTCNN(config.min_face, config.thresholds)
    except ValueError as error:
        raise ConfigError(f"--config.detection: {error}") from error


@contextlib.contextmanager
def config_errors(field: str, value: str) -> Iterator[None]:
    """Context for reading what a config field names; turns a ValueError into a ConfigError that names the field."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"--config.{field}={value}: {error}") from error


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """The clips selected by a config, and where they come from.

    Attributes:
        name: Name of the dataset that is read.
        description: Description for reports.
        records: Records of its clips, train before validation.
        labels: Names of the classes.
    """

    name: str
    description: str
    records: tuple[Record, ...]
    labels: tuple[str, ...]


def open_clips(config: ClipsConfig) -> ClipSet:
    """The dataset of the config, or clips of `people` if no folder is given.

    Raises:
        ConfigError: Its clips have no such label.
        FileNotFoundError: The folder does not contain the dataset.
    """
    labels = EMOTION7 if config.label == "emotion" else GROUP_EMOTION
    if config.raw and config.name != "people":
        with config_errors("clips.raw", config.raw):
            records = tuple(get_dataset(config.name).clips(pathlib.Path(config.raw)))
        return _with_labels(config, ClipSet(config.name, config.name, records, labels))
    if config.name != "people":
        logger.info(
            "%s is not given (--config.clips.raw=DIR; see docs/datasets.md for where to get it). Using clips of the "
            "built-in dataset `people` instead: rendered heads, not videos of real people.",
            config.name,
        )
    options = {"kind": config.people_kind, "num_train": config.people_train, "num_validation": config.people_validation}
    options |= {"size": config.people_size, "num_frames": config.people_frames}
    records = tuple(get_dataset("people").clips(None, **options))
    description = f"people, {config.people_kind} clips (built-in, rendered)"
    return _with_labels(config, ClipSet("people", description, records, labels))


def _with_labels(config: ClipsConfig, clips: ClipSet) -> ClipSet:
    for record in clips.records:
        if config.label not in record.labels:
            raise ConfigError(
                f"--config.clips.label={config.label}: the clips of {clips.name} have {', '.join(record.labels)} only"
            )
    return clips


def clip_label(config: ClipsConfig, record: Record) -> int:
    """Class of a clip among the labels of its dataset, -1 for none of them."""
    label = record.labels[config.label]
    assert isinstance(label, int)
    return TASKS["emotion7"].label_map[label] if config.label == "emotion" else label


def faces_of_clips(
    config: ClipsConfig, detection: DetectionConfig, clips: ClipSet, data_dir: pathlib.Path
) -> Iterator[tuple[Clip, ClipFaces]]:
    """Yields each clip with its faces, from ``data_dir/clips/<set>-<digest>/`` if they were found before.

    There is one file per clip, written atomically: an interrupted run resumes where it was, and the next network starts
    at once. A clip whose file has changed is processed again. One that cannot be read is logged, counts as a clip
    without frames and faces, and is tried again by the next call.
    """
    directory = data_dir / "clips" / f"{clips.name}-{_digest(config, detection, clips)}"
    directory.mkdir(parents=True, exist_ok=True)
    detector: MTCNN | None = None
    cut = make_cropper(detection.cut)
    found = frames = 0
    started = last = time.monotonic()
    for number, record in enumerate(clips.records):
        # Rendered clips are fully identified by the folder's name.
        state = f"-{files_digest([record.image])}" if isinstance(record.image, pathlib.Path) else ""
        path = directory / f"{number:06d}{state}.npz"
        if zipfile.is_zipfile(path):  # not the case for a truncated file
            faces = ClipFaces.load(path)
        else:
            detector = detector or make_detector(detection)
            faces = _faces(record, config, detection, detector, cut)
            if faces.num_frames:
                faces.save(path)
                faces = ClipFaces.load(path)  # crops are stored as JPEG: use the same here as in later runs
            found, frames = found + 1, frames + faces.num_frames
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            speed = f"; {frames / (last - started):.1f} frames per second" if found else ""
            logger.info("faces of %d/%d clips%s", number + 1, len(clips.records), speed)
        yield Clip(record.id, record.split, clip_label(config, record), faces.num_frames), faces
    if found:
        seconds = time.monotonic() - started
        logger.info("faces of %d clips (%d frames) found in %.0f s, kept in %s", found, frames, seconds, directory)


def _faces(record: Record, config: ClipsConfig, detection: DetectionConfig, detector: MTCNN, cut) -> ClipFaces:
    try:
        return clip_faces(find_faces(_frames(record, config), detector, cut, choose=detection.choose))
    except (VideoError, FileNotFoundError) as error:
        logger.warning("%s cannot be read and counts as a clip without a face: %s", record.id, error)
        return clip_faces([])


def _frames(record: Record, config: ClipsConfig) -> Iterator[Frame]:
    if callable(record.image):
        return array_frames(record.image(), every=config.every)
    return read_frames(record.image, every=config.every, max_side=config.max_side)


def _digest(config: ClipsConfig, detection: DetectionConfig, clips: ClipSet) -> str:
    """Digest of everything that the files depend on."""
    settings = {
        "format": FORMAT,
        "clips": [record.id for record in clips.records],
        "detection": dataclasses.asdict(detection),
        "every": config.every,
        "max_side": config.max_side,
    }
    if clips.name == "people":
        settings |= {"frames": config.people_frames, "size": config.people_size}
        settings |= {"edition": get_dataset("people").edition}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
