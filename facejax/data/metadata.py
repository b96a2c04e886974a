"""Metadata of a prepared dataset: dataset_info.json and features.json in TFDS's format, so that TFDS can open it too.

They are written as plain JSON, because tensorflow_datasets can only write them with TensorFlow installed (it reads the
new files back) and takes a second to import. The layout was compared with that of TFDS 4.9.10 for the same features.

    DATA/<name>/<version>/
        <name>-<split>.tfrecord-00000-of-00004    tf.train.Example records
        <name>-<split>.tfrecord-00000-of-00004.index
        dataset_info.json  features.json  <key>.labels.txt
        summary.json  no_face.txt  corrupt.txt  ...  sheets/*.png
"""

import contextlib
import dataclasses
import json
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from facejax.atomic import write_atomically
from facejax.naming import did_you_mean
from facejax.tasks import TASKS

VERSION = "1.0.0"
_FEATURES = "tensorflow_datasets.core.features"


def class_names(label_key: str) -> tuple[str, ...]:
    """Names of a label field's classes in the order of their indices; empty if it has none (age, identity)."""
    named = (t.labels for t in TASKS.values() if t.label_key == label_key and t.kind in ("categorical", "binary"))
    return max(named, key=len, default=())


@dataclasses.dataclass(frozen=True)
class Field:
    """Type of one label field.

    Attributes:
        dtype: ``int64`` (missing: -1), ``float32`` (missing: NaN) or ``text`` (missing: empty).
        length: 0 for a single value, otherwise the number of values per record.
    """

    dtype: str
    length: int = 0

    @property
    def missing(self) -> object:
        """The value that is stored if a record has no such label."""
        value = {"int64": -1, "float32": float("nan"), "text": ""}[self.dtype]
        return [value] * self.length if self.length else value

    def in_batch(self, value: object) -> np.ndarray:
        """One record's value of a numeric field as in a batch: int32 or float32, () or (length,)."""
        return np.asarray(value, np.int32 if self.dtype == "int64" else np.float32)

    def column(self, values: Sequence) -> np.ndarray:
        """The values of many records as one array: int64, float32 or text, (records,) or (records, length)."""
        shape = (len(values), self.length) if self.length else (len(values),)
        dtype = np.str_ if self.dtype == "text" else np.dtype(self.dtype)
        return np.array(values, dtype).reshape(shape)

    def joined(self, other: "Field") -> "Field | None":
        """The type that can represent both: int64 and float32 give float32; None if there is none."""
        if self == other:
            return self
        if self.length != other.length or "text" in (self.dtype, other.dtype):
            return None
        return Field("float32", self.length)


# Fields of every record in addition to its image and the dataset's labels.
STORED_FIELDS = {
    "id": Field("text"),  # of the photo: `Record.id`
    "bbox": Field("float32", 4),  # [x1, y1, x2, y2] in the photo's pixels; NaN if the crop is not a box
    "score": Field("float32"),  # the detector's probability; NaN if no detector was used
    "num_faces": Field("int64"),  # faces found in the photo; -1 if no detector was used
}


def infer_field(key: str, value: object, known: Field | None = None) -> Field:
    """Type of a label value, joined with that of earlier records, so that int and float give float.

    Raises:
        TypeError: The type is not supported, or is incompatible with earlier records.
    """
    length = 0
    if isinstance(value, np.ndarray | list | tuple):
        array = np.ravel(np.asarray(value))
        length, kind = len(array), array.dtype.kind
    else:
        kind = "U" if isinstance(value, str) else np.asarray(value).dtype.kind
    names = {"i": "int64", "u": "int64", "b": "int64", "f": "float32", "U": "text"}
    if kind not in names or (kind == "U" and length):
        raise TypeError(f"label {key!r}: expected numbers or text, got {value!r}")
    field = Field(names[kind], length)
    joined = field if known is None else known.joined(field)
    if joined is None:
        raise TypeError(f"label {key!r}: records disagree on its type: {known} and {field}")
    return joined


def _tensor(kind: str, dtype: str, length: int) -> dict:
    shape = {"dimensions": [str(length)]} if length else {}
    tensor = {"dtype": dtype, "encoding": "none", "shape": shape}
    return {"pythonClassName": f"{_FEATURES}.{kind}", "tensor": tensor}


def _label_feature(key: str, field: Field) -> dict:
    names = class_names(key)
    if names and field == Field("int64"):
        label = {"numClasses": str(len(names))}
        return {"classLabel": label, "pythonClassName": f"{_FEATURES}.class_label_feature.ClassLabel"}
    if field.dtype == "text":
        return {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}}
    kind = "tensor_feature.Tensor" if field.length else "scalar.Scalar"
    return _tensor(kind, field.dtype, field.length)


def _to_json(content: object) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def write_metadata(
    directory: pathlib.Path,
    name: str,
    fields: Mapping[str, Field],
    image_format: str,
    splits: Mapping[str, tuple[Sequence[int], int]],
    description: str,
    url: str,
    licence: str,
) -> None:
    """Writes features.json, dataset_info.json and the label names of a prepared dataset.

    Args:
        directory: The dataset's versioned folder.
        name: Name of the dataset and prefix of its shards' names.
        fields: All features except ``image``, by name.
        image_format: ``jpeg`` or ``bmp``.
        splits: By name: the number of records in each shard, and the total number of bytes.
        description: Description of the dataset, for `info.description`.
        url: Homepage.
        licence: Licence or terms of use.
    """
    image = {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}}
    if image_format == "jpeg":  # TFDS only knows jpeg and png; without a format it decodes whatever TensorFlow can
        image["encodingFormat"] = "jpeg"
    features: dict[str, dict] = {key: _label_feature(key, field) for key, field in fields.items()}
    features["image"] = {"image": image, "pythonClassName": f"{_FEATURES}.image_feature.Image"}
    for key, feature in features.items():
        if "classLabel" in feature:
            write_atomically(directory / f"{key}.labels.txt", "\n".join((*class_names(key), "")).encode())
    dictionary = {"featuresDict": {"features": features}, "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict"}
    write_atomically(directory / "features.json", _to_json(dictionary))
    info = {
        "description": description,
        "fileFormat": "tfrecord",
        "location": {"urls": [url]},
        "name": name,
        "redistributionInfo": {"license": licence},
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(num_bytes),
                "shardLengths": [str(length) for length in lengths],
            }
            for split, (lengths, num_bytes) in splits.items()
        ],
        "version": VERSION,
    }
    write_atomically(directory / "dataset_info.json", _to_json(info))


def read_fields(directory: pathlib.Path) -> dict[str, Field]:
    """Types of a prepared dataset's features except ``image``, from its features.json.

    Raises:
        ValueError: The file is damaged.
    """
    fields = {}
    with _errors_name_file(directory / "features.json") as path:
        for key, feature in json.loads(path.read_text())["featuresDict"]["features"].items():
            if "classLabel" in feature:
                fields[key] = Field("int64")
            elif "text" in feature:
                fields[key] = Field("text")
            elif "tensor" in feature:
                dimensions = feature["tensor"]["shape"].get("dimensions", [])
                length = int(np.prod([int(d) for d in dimensions])) if dimensions else 0
                fields[key] = Field(feature["tensor"]["dtype"], length)
    return fields


@contextlib.contextmanager
def _errors_name_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Converts any error from reading a damaged file into one that names the file."""
    try:
        yield path
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): copy it again, or delete its folder and run "
            "tools/prepare_dataset.py again"
        ) from error


def find_set(data_dir: str | pathlib.Path, name: str) -> pathlib.Path:
    """The versioned folder of a prepared dataset.

    Raises:
        FileNotFoundError: It is not prepared there; the message lists those that are, and the command to prepare it.
    """
    directory = pathlib.Path(data_dir) / name / VERSION
    if (directory / "dataset_info.json").exists():
        return directory
    prepared = sorted(path.parent.parent.name for path in pathlib.Path(data_dir).glob(f"*/{VERSION}/dataset_info.json"))
    raise FileNotFoundError(
        f"no prepared dataset {name!r} in {data_dir}{did_you_mean(name, prepared)}. "
        f"To prepare it: python tools/prepare_dataset.py {name} --raw DIR --out {shlex.quote(str(data_dir))}"
    )


def read_splits(directory: pathlib.Path) -> dict[str, list[tuple[pathlib.Path, int]]]:
    """Shards of each split of a prepared dataset, with the number of records in each.

    Raises:
        ValueError: The file is damaged.
    """
    splits = {}
    with _errors_name_file(directory / "dataset_info.json") as path:
        info = json.loads(path.read_text())
        for split in info["splits"]:
            lengths = [int(length) for length in split["shardLengths"]]
            splits[split["name"]] = [
                (directory / shard_name(info["name"], split["name"], shard, len(lengths)), length)
                for shard, length in enumerate(lengths)
            ]
    return splits


def count_records(directory: pathlib.Path) -> dict[str, int]:
    """Number of records in each split of a prepared dataset; see `read_splits`."""
    return {split: sum(length for _, length in shards) for split, shards in read_splits(directory).items()}


def shard_name(name: str, split: str, shard: int, num_shards: int) -> str:
    """File name of a shard, following TFDS."""
    return f"{name}-{split}.tfrecord-{shard:05d}-of-{num_shards:05d}"
