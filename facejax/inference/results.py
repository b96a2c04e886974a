"""Results of an analysis: typed, immutable, independent of the networks.

Wording matters. A network reads the *look* of an expression and the *perceived* age, gender and ethnicity, and every
output names them so. It cannot know what a person feels or is (docs/responsible_use.md).
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from facejax.inference.drawing import draw_faces
from facejax.inference.images import Source, read_image

if TYPE_CHECKING:
    import pandas

LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
# Attribute of a face -> its name in dicts and tables.
OUTPUT_NAMES = {
    "age": "perceived_age",
    "gender": "perceived_gender",
    "ethnicity": "perceived_ethnicity",
    "emotion": "expression",
    "valence": "valence",
    "arousal": "arousal",
}


@dataclasses.dataclass(frozen=True)
class Classification:
    """Probabilities of the classes of one task.

    Attributes:
        probabilities: Label -> probability, in the order of the network's outputs; they sum to 1.
    """

    probabilities: Mapping[str, float]

    @property
    def label(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def probability(self) -> float:
        """The probability of that class."""
        return self.probabilities[self.label]

    def to_dict(self) -> dict[str, Any]:
        """``{"label", "probability", "probabilities": {label: probability}}``."""
        return {"label": self.label, "probability": self.probability, "probabilities": dict(self.probabilities)}


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """One face, equal only to itself. Attributes that no loaded network predicts are None.

    Attributes:
        box: [x1, y1, x2, y2] in pixels of the photo; not square, and may extend beyond the photo.
        landmarks: x and y in pixels of the left eye, right eye, nose, left and right mouth corner as seen in the photo.
        score: The detector's probability of a face.
        age: Perceived age in years (paper eq. 1).
        gender: Perceived gender.
        ethnicity: Perceived ethnicity.
        emotion: The look of the expression, 8 or 7 classes.
        valence: -1 (unpleasant) to 1 (pleasant), as the expression looks.
        arousal: -1 (calm) to 1 (excited), as the expression looks.
        features: The first network's features, as used by clip classifiers and the paper's protocols.
        track: Track number, shared by the faces of one person in a video; None in photos.
    """

    box: Float[np.ndarray, "4"]
    landmarks: Float[np.ndarray, "5 2"]
    score: float
    age: float | None = None
    gender: Classification | None = None
    ethnicity: Classification | None = None
    emotion: Classification | None = None
    valence: float | None = None
    arousal: float | None = None
    features: Float[np.ndarray, " features"] | None = dataclasses.field(default=None, repr=False)
    track: int | None = None

    @property
    def embedding(self) -> Float[np.ndarray, " features"] | None:
        """The L2-normalised features, for comparing faces by cosine similarity."""
        if self.features is None:
            return None
        return self.features / max(float(np.linalg.norm(self.features)), 1e-12)

    def to_dict(self, *, embedding: bool = False) -> dict[str, Any]:
        """A JSON-serialisable dict; names as in `OUTPUT_NAMES`, fields that are None are omitted.

        Args:
            embedding: Whether to include the embedding, as a list of numbers. It identifies a person: leave it out
                unless it is needed.
        """
        result: dict[str, Any] = {
            "box": [round(float(edge), 2) for edge in self.box],
            "landmarks": {
                name: [round(float(x), 2), round(float(y), 2)]
                for name, (x, y) in zip(LANDMARKS, self.landmarks, strict=True)
            },
            "score": self.score,
        }
        for field, word in OUTPUT_NAMES.items():
            value = getattr(self, field)
            if value is not None:
                result[word] = value.to_dict() if isinstance(value, Classification) else value
        if self.track is not None:
            result["track"] = self.track
        if embedding and self.embedding is not None:
            result["embedding"] = [float(value) for value in self.embedding]
        return result

    def to_row(self) -> dict[str, Any]:
        """The same as a flat table row: ``x1`` ... ``expression``, ``expression_anger`` ...; no embedding."""
        return flat_row(self.to_dict())

    def caption(self) -> list[str]:
        """Short lines for a picture or a terminal: ``perceived male 98 %, age 34``, ``expression: happiness 87 %``."""
        lines, person = [], []
        if self.gender is not None:
            person.append(f"{self.gender.label} {self.gender.probability:.0%}")
        if self.ethnicity is not None:
            person.append(f"{self.ethnicity.label.replace('_', ' ')} {self.ethnicity.probability:.0%}")
        if self.age is not None:
            person.append(f"age {self.age:.0f}")
        if person:
            lines.append(f"perceived {', '.join(person)}")
        if self.emotion is not None:
            lines.append(f"expression: {self.emotion.label} {self.emotion.probability:.0%}")
        if self.valence is not None and self.arousal is not None:
            lines.append(f"valence {self.valence:+.2f}, arousal {self.arousal:+.2f}")
        return lines


def flat_row(face: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the result of `Face.to_dict`, also after a JSON round trip, to that of `Face.to_row`."""
    row = {"track": face["track"]} if "track" in face else {}
    row |= zip(("x1", "y1", "x2", "y2"), face["box"], strict=True)
    row["score"] = face["score"]
    for name, (x, y) in face["landmarks"].items():
        row |= {f"{name}_x": x, f"{name}_y": y}
    for word in OUTPUT_NAMES.values():
        value = face.get(word)
        if isinstance(value, Mapping):
            row[word] = value["label"]
            row |= {f"{word}_{label}": probability for label, probability in value["probabilities"].items()}
        elif value is not None:
            row[word] = value
    return row


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoResult:
    """The faces of one photo; a result is equal only to itself.

    Attributes:
        faces: Highest score first.
        width: Width of the photo in pixels, after rotation by its EXIF orientation.
        height: Its height, likewise.
        source: The input: a path, bytes, or the array itself (not copied).
    """

    faces: tuple[Face, ...]
    width: int
    height: int
    source: Source = dataclasses.field(repr=False)

    def to_dict(self, *, embedding: bool = False) -> dict[str, Any]:
        """A JSON-serialisable dict, with ``photo`` if the source is a path."""
        faces = [face.to_dict(embedding=embedding) for face in self.faces]
        return {**self._named(), "width": self.width, "height": self.height, "faces": faces}

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row per face (`Face.to_row`), after ``photo`` (if the source is a path) and ``face``, from 0."""
        return [{**self._named(), "face": index, **face.to_row()} for index, face in enumerate(self.faces)]

    def _named(self) -> dict[str, Any]:
        return {"photo": os.fspath(self.source)} if isinstance(self.source, str | os.PathLike) else {}

    def to_pandas(self) -> "pandas.DataFrame":
        """`to_rows` as a pandas DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install 'facejax[tables]'") from error
        return pandas.DataFrame(self.to_rows())

    def draw(self, image: np.ndarray | None = None) -> UInt8[np.ndarray, "height width 3"]:
        """The photo with boxes, landmarks and captions, as a new uint8 RGB array.

        Args:
            image: RGB image of this size to draw on; None for the photo itself (a path is read again).

        Raises:
            ValueError: The image has a different size, or the photo cannot be read.
        """
        canvas = read_image(self.source if image is None else image)
        if canvas.shape[:2] != (self.height, self.width):
            raise ValueError(
                f"expected a photo of {self.width}x{self.height} pixels to draw on, "
                f"got {canvas.shape[1]}x{canvas.shape[0]}"
            )
        return draw_faces(canvas, self.faces)
