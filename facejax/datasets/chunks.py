"""Processing of one chunk, run by workers: reads its photos, finds and crops the faces, and writes the crops."""

import collections
import hashlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, runtime_checkable

from facejax.data.metadata import STORED_FIELDS, Field, class_names
from facejax.data.records import Record
from facejax.data.shards import Chunk, ChunkedShards
from facejax.datasets.crops import CropSettings, Outcome, Photo, cut_face, load_photo


@runtime_checkable
class Detector(Protocol):
    """A face detector, such as `facejax.detect.MTCNN`."""

    def detect(self, images: Sequence[Any]) -> Sequence[Any]:
        """One `Detections` (bboxes, scores, landmarks) for each uint8 RGB photo."""
        ...


def load_photos(records: Sequence[Record], raw: pathlib.Path | None) -> list[Photo]:
    """Loads the photos of some records, to be cropped once their faces are found."""
    return [load_photo(record, raw) for record in records]


def load_and_cut(
    records: Sequence[Record], raw: pathlib.Path | None, fields: Mapping[str, Field], settings: CropSettings
) -> list[Outcome]:
    """Loads and crops the photos of some records, where no face detection is needed."""
    return [cut_face(load_photo(record, raw), fields, settings) for record in records]


def find_and_cut(
    photos: Iterable[Photo],
    fields: Mapping[str, Field],
    settings: CropSettings,
    detector: Detector,
    detect_batch: int,
    threads: Executor,
) -> Iterator[list[Outcome]]:
    """Finds and crops the faces of a chunk's photos; yields their outcomes, one detector batch at a time.

    Raises:
        ValueError: `detect_batch` is below 1; a chunk without its photos would count as done.
    """
    if detect_batch < 1:
        raise ValueError(f"detect_batch must be 1 or more, got {detect_batch}")

    def cut(photo: Photo, detections: Any) -> Outcome:
        return cut_face(photo, fields, settings, detections)

    photos = iter(photos)
    while batch := list(itertools.islice(photos, detect_batch)):
        readable = [photo.image for photo in batch if photo.image is not None]
        found = iter(detector.detect(readable) if readable else ())
        detections = [None if photo.image is None else next(found) for photo in batch]
        yield list(threads.map(cut, batch, detections))


def write_chunk(store: ChunkedShards, chunk: Chunk, outcomes: list[Outcome], fields: Mapping[str, Field]) -> None:
    """Writes the crops of a chunk in a hashed order, and a note with the outcome of every photo."""
    faces = [outcome for outcome in outcomes if outcome.kind == "face"]
    faces.sort(key=lambda face: hashlib.sha256(face.record_id.encode()).digest())
    columns = {key: field.column([face.labels[key] for face in faces]) for key, field in fields.items()}
    columns["num_faces"] = STORED_FIELDS["num_faces"].column([face.num_faces for face in faces])
    classes = {key: collections.Counter(map(str, columns[key].tolist())) for key in _counted(fields)}
    lists = {
        kind: [[o.record_id, o.reason] for o in outcomes if o.kind == kind]
        for kind in ("no_face", "missing", "corrupt")
    }
    lists["several_faces"] = [[o.record_id, f"{o.num_faces} faces"] for o in faces if o.num_faces > 1]
    note = {"photos": len(outcomes), "faces": len(faces), "classes": classes, "lists": lists}
    store.write_chunk(chunk, [face.example for face in faces], columns, note)


def _counted(fields: Mapping[str, Field]) -> list[str]:
    """Labels whose values are worth counting: classes and ages."""
    return [key for key, field in fields.items() if field == Field("int64") and (class_names(key) or key == "age")]
