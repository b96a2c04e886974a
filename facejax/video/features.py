"""Features of all faces of all clips as one table that other tools can read (npz, Parquet)."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from facejax.atomic import atomic_file
from facejax.video.faces import ClipFaces, Face

# Crops embedded at once; `LoadedModel` splits them into batches for the device.
CROPS_AT_ONCE = 256

# Crops, uint8 RGB of any size -> (n, D) float32: `facejax.inference.LoadedModel.features`.
Embed = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Clip:
    """What is known about a clip besides its faces.

    Attributes:
        id: Unique in its dataset.
        split: ``train`` or ``validation``.
        label: Index of its class, -1 for unknown.
        num_frames: Number of frames examined.
    """

    id: str
    split: str
    label: int
    num_frames: int


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """One row per face, ordered by clip and frame; clips without a face have no row.

    Attributes:
        clips: All clips.
        clip: Index in `clips` of each face, ascending.
        frame: Frame number of each face.
        time: Seconds from the start of the clip.
        bbox: [x1, y1, x2, y2] in pixels of the frame.
        score: The detector's probability.
        features: Outputs of the network's penultimate layer.
        source: Which network and weights made them, in words.
    """

    clips: tuple[Clip, ...]
    clip: Int[np.ndarray, " n"]
    frame: Int[np.ndarray, " n"]
    time: Float[np.ndarray, " n"]
    bbox: Float[np.ndarray, "n 4"]
    score: Float[np.ndarray, " n"]
    features: Float[np.ndarray, "n features"]
    source: str

    @property
    def labels(self) -> Int[np.ndarray, " clips"]:
        """Class index of each clip."""
        return np.array([clip.label for clip in self.clips], np.int64)

    @property
    def has_faces(self) -> np.ndarray:
        """(clips,) bool: whether a face was found in the clip."""
        return np.isin(np.arange(len(self.clips)), self.clip)

    def of_split(self, split: str) -> np.ndarray:
        """(clips,) bool: whether the clip is in the split."""
        return np.array([clip.split == split for clip in self.clips], bool)

    def per_clip(self) -> Iterator[tuple[Float[np.ndarray, "k features"], Int[np.ndarray, " k"]]]:
        """Yields features and frame numbers of each clip's faces, in the order of `clips`; k may be 0."""
        starts = np.searchsorted(self.clip, np.arange(len(self.clips) + 1))
        for start, end in itertools.pairwise(starts):
            yield self.features[start:end], self.frame[start:end]

    def save(self, path: pathlib.Path) -> None:
        """Writes the whole table as ``.npz`` (arrays and text, no pickle), atomically."""
        with atomic_file(path) as file:
            np.savez(
                file,
                **{name: getattr(self, name) for name in _COLUMNS},
                clips=np.array(json.dumps([dataclasses.asdict(clip) for clip in self.clips])),
                source=np.array(self.source),
            )

    @classmethod
    def load(cls, path: pathlib.Path) -> "FeatureTable":
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            clips = tuple(Clip(**clip) for clip in json.loads(str(stored["clips"])))
            return cls(clips, **{name: stored[name] for name in _COLUMNS}, source=str(stored["source"]))

    def save_parquet(self, path: pathlib.Path) -> None:
        """Writes one row per face: clip, split, label, frame, time, x1, y1, x2, y2, score, feature (list of float).

        The file's metadata contain ``facejax.source`` and ``facejax.clips`` (JSON: all clips, even without a face).
        """
        import pyarrow as pa
        import pyarrow.parquet

        width = self.features.shape[1]
        columns = {
            "clip": pa.array([self.clips[index].id for index in self.clip], pa.string()),
            "split": pa.array([self.clips[index].split for index in self.clip], pa.string()),
            "label": pa.array(self.labels[self.clip]),
            "frame": pa.array(self.frame),
            "time": pa.array(self.time),
            **{name: pa.array(self.bbox[:, side]) for side, name in enumerate(("x1", "y1", "x2", "y2"))},
            "score": pa.array(self.score),
            "feature": pa.FixedSizeListArray.from_arrays(pa.array(self.features.ravel()), width),
        }
        clips = json.dumps([dataclasses.asdict(clip) for clip in self.clips])
        table = pa.table(columns).replace_schema_metadata({"facejax.source": self.source, "facejax.clips": clips})
        with atomic_file(path) as file:
            pyarrow.parquet.write_table(table, file)


_COLUMNS = ("clip", "frame", "time", "bbox", "score", "features")


def embed_faces(faces: Iterable[Face], embed: Embed) -> tuple[Float[np.ndarray, "n features"], Int[np.ndarray, " n"]]:
    """Features of one clip's faces and their frame numbers, as a `ClipClassifier` takes them.

    Args:
        faces: Read a few at a time, so that the crops of a long clip are never all in memory.
        embed: Features of crops, e.g. `facejax.load_model(...).features`.
    """
    iterator = iter(faces)
    features, frames = [np.asarray(embed([]), np.float32)], []
    while some := list(itertools.islice(iterator, CROPS_AT_ONCE)):
        features.append(np.asarray(embed([face.crop for face in some]), np.float32))
        frames += [face.frame for face in some]
    return np.concatenate(features), np.array(frames, np.int64)


def embed_clips(clips: Iterable[tuple[Clip, ClipFaces]], embed: Embed, source: str) -> FeatureTable:
    """Features of all faces of all clips; crops of short clips share the device's batches.

    Args:
        clips: Clips with their faces; consumed one by one, so that a generator of any length works.
        embed: Features of crops, e.g. `facejax.load_model(...).features`.
        source: Which network and weights that is, in words.

    Raises:
        ValueError: There are no clips.
    """
    known: list[Clip] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    waiting: list[np.ndarray] = []

    def flush() -> None:
        columns["features"].append(np.asarray(embed(waiting), np.float32))
        waiting.clear()

    for clip, faces in clips:
        columns["clip"].append(np.full(len(faces), len(known), np.int64))
        known.append(clip)
        for name in ("frame", "time", "bbox", "score"):
            columns[name].append(getattr(faces, name))
        for crop in faces.crops:
            waiting.append(crop)
            if len(waiting) == CROPS_AT_ONCE:
                flush()
    if waiting or not columns["features"]:
        flush()
    if not known:
        raise ValueError("expected at least one clip, got none")
    return FeatureTable(tuple(known), **{name: _joined(parts) for name, parts in columns.items()}, source=source)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenates the parts, freeing each once it is copied: a dataset's features take gigabytes."""
    joined = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    parts.reverse()
    start = 0
    while parts:
        part = parts.pop()
        joined[start : start + len(part)] = part
        start += len(part)
    return joined
