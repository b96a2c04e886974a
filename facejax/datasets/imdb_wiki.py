"""IMDB-Wiki (Rothe, Timofte and Van Gool, 2015): 523,051 photos of celebrities with a date of birth and a year.

Published layout (from the dataset's page; nesting of the .mat files from yu4u/age-gender-estimation)::

    imdb_crop/imdb.mat, imdb_crop/00/nm0000100_rm12818688_1899-5-10_1968.jpg ...      460,723 faces, margin 40 %
    wiki_crop/wiki.mat, wiki_crop/17/10000217_1981-05-05_2009.jpg ...                  62,328 faces

or the same under ``imdb/`` and ``wiki/`` with whole photos. A .mat file contains one struct, named after its source,
whose fields have equal length: ``dob`` (Matlab datenum), ``photo_taken`` (year), ``full_path``, ``gender`` (0 female,
1 male, NaN), ``name``, ``face_location`` ([x1 y1 x2 y2], 1-based, in the whole photo), ``face_score`` (-Inf: no face
found), ``second_face_score`` (NaN: no second face).
"""

import datetime
import math
import pathlib
import zlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from facejax.data.records import Record
from facejax.datasets.layout import Skips, find
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import GENDER

_FIELDS = ("dob", "photo_taken", "full_path", "gender", "name", "face_location", "face_score", "second_face_score")
_GENDER = {0.0: GENDER.index("female"), 1.0: GENDER.index("male")}
# Matlab counts days from year 0, Python from year 1; year 0 is a leap year.
_DATENUM_OF_ORDINAL_0 = 366
OLDEST = 100


@register_dataset
class ImdbWiki(Dataset):
    """Age and gender (paper section 3: 300K frontal crops).

    The paper does not say how its 300K were selected. Here a photo is kept if it has exactly one face, scored at least
    `min_score` by the dataset's own detector (which was run upright and rotated), a known gender and an age of 1 to 100
    years: the usual rule in public code. `min_score` controls how many remain. The files contain no pose.
    """

    name = "imdb_wiki"
    description = "photos of celebrities from IMDb and Wikipedia with age and gender; 10 % of the people are held out"
    licence = "for academic research only (photos remain their owners')"
    url = "https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/"
    tasks = ("age", "gender")
    expected_counts: ClassVar = {"train": None, "validation": None}
    default_crop = "mtcnn"

    def records(self, raw: pathlib.Path | None, *, min_score: float = 1.0, validation: float = 0.1) -> Iterator[Record]:
        """Yields the photos in the order of the .mat files, IMDb first; either of the two may be missing.

        Args:
            raw: Folder with ``imdb_crop`` and ``wiki_crop``, or ``imdb`` and ``wiki``; only the latter have boxes.
            min_score: Minimum face score.
            validation: Fraction of the people (by name) to hold out.

        Raises:
            ValueError: `validation` is not in [0, 1], or a .mat file is not the published one.
        """
        if not 0 <= validation <= 1:
            raise ValueError(f"validation must be a fraction from 0 to 1, got {validation}")
        skip = Skips(self)
        found = find(self, raw, "imdb_crop/imdb.mat", "imdb/imdb.mat", "wiki_crop/wiki.mat", "wiki/wiki.mat")
        for source in ("imdb", "wiki"):
            for folder in (f"{source}_crop", source):
                path = found.parents[1] / folder / f"{source}.mat"
                if path.is_file():
                    yield from self._source(path, source, min_score, validation, skip)
                    break

    def _source(
        self, path: pathlib.Path, source: str, min_score: float, validation: float, skip: Skips
    ) -> Iterator[Record]:
        columns = _read_mat(path, source)
        for row in range(len(columns["dob"])):
            values = {field: column[row] for field, column in columns.items()}
            name = _text(values["full_path"])
            image = skip.listed(path.parent, name)
            if image is None:
                continue
            if reason := _unusable(values, min_score):
                skip(reason, name)
                continue
            person = _text(values["name"])
            labels: dict[str, object] = {"age": _age(values), "gender": _GENDER[_number(values["gender"])]}
            if person:
                labels["person"] = person
            # Photos without a person's name are held out individually.
            held_out = zlib.crc32((person or name).encode()) % 1000 < 1000 * validation
            yield Record(
                id=f"{path.parent.name}/{name}",
                split="validation" if held_out else "train",
                image=image,
                labels=labels,
                bbox=None if path.parent.name.endswith("_crop") else _box(values["face_location"]),
            )


def _unusable(values: dict[str, object], min_score: float) -> str | None:
    """Reason to skip a row; None if it is used."""
    score, age = _number(values["face_score"]), _age(values)
    if not math.isfinite(score):
        return "no face found by the set's authors"
    if score < min_score:
        return "face score below min_score"
    if not math.isnan(_number(values["second_face_score"])):
        return "second face"
    if _number(values["gender"]) not in _GENDER:
        return "no gender"
    if age is None:
        return "no usable date of birth"
    return None if 1 <= age <= OLDEST else f"age outside 1-{OLDEST}"


def _age(values: dict[str, object]) -> int | None:
    return age_at(_number(values["dob"]), _number(values["photo_taken"]))


def age_at(birth_datenum: float, year_taken: float) -> int | None:
    """Age in full years on 1 July of the year in which a photo was taken, the best estimate that the dataset allows.

    The dataset's page takes the year of the time span (``datevec(datenum(year, 7, 1) - dob)``), which differs by at
    most a day around the birthday. None if the date is invalid: several hundred rows have a datenum in year 0.
    """
    if not (math.isfinite(birth_datenum) and math.isfinite(year_taken)):
        return None
    ordinal = math.floor(birth_datenum) - _DATENUM_OF_ORDINAL_0
    if not 1 <= ordinal <= datetime.date.max.toordinal():
        return None
    birth = datetime.date.fromordinal(ordinal)
    return int(year_taken) - birth.year - ((birth.month, birth.day) > (7, 1))


def _read_mat(path: pathlib.Path, source: str) -> dict[str, np.ndarray]:
    """Columns of the struct, by field.

    Raises:
        ValueError: It is not a Matlab file, or does not contain the published struct.
    """
    import scipy.io

    try:
        # Only the named variable is unpacked, whatever else the file contains.
        content = scipy.io.loadmat(path, variable_names=[source])
    except Exception as error:  # a damaged file makes SciPy raise anything, from TypeError to MemoryError
        raise ValueError(f"{path}: not a readable Matlab (version 5) file: {error!a}") from error
    struct = content.get(source)
    names = getattr(getattr(struct, "dtype", None), "names", None)
    if struct is None or names is None or struct.size != 1 or (missing := sorted(set(_FIELDS) - set(names))):
        what = f"it lacks {', '.join(missing)}" if names and struct is not None and struct.size == 1 else "it has none"
        raise ValueError(f"{path}: expected a 1x1 struct {source!r} with the published fields, but {what}")
    columns = {field: np.ravel(struct.flat[0][field]) for field in _FIELDS}
    if len({len(column) for column in columns.values()}) != 1:
        counts = {field: len(column) for field, column in columns.items()}
        raise ValueError(f"{path}: the fields of {source!r} differ in length: {counts}")
    return columns


def _number(value: object) -> float:
    """The number in a Matlab cell or array element; NaN where there is none."""
    flat = np.ravel(np.asarray(value))
    return float(flat[0]) if flat.size and flat.dtype.kind in "fiub" else math.nan


def _text(value: object) -> str:
    """The text in a Matlab cell; empty where there is none."""
    while isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    return str(value).encode(errors="replace").decode()


def _box(value: object) -> tuple[float, float, float, float] | None:
    """[x1, y1, x2, y2] from Matlab's [x1 y1 x2 y2] of first and last pixels, which are 1-based."""
    flat = np.ravel(np.asarray(value))
    if flat.dtype.kind == "O" and flat.size == 1:
        flat = np.ravel(np.asarray(flat[0]))
    if flat.size != 4 or flat.dtype.kind not in "fiu" or not np.isfinite(flat).all():
        return None
    x1, y1, x2, y2 = map(float, flat)
    return x1 - 1, y1 - 1, x2, y2
