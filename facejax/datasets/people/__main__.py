"""Draws contact sheets of the dataset, one per task: python -m facejax.datasets.people --out docs/people."""

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from facejax.atomic import write_atomically
from facejax.datasets.people.expression import sample_expression
from facejax.datasets.people.identity import Identity, sample_identity
from facejax.datasets.people.reader import People, PhotoMaker
from facejax.datasets.people.scene import SETTINGS, sample_camera
from facejax.tasks import EMOTION8, ETHNICITY, GENDER

AGES = (2.0, 8.0, 15.0, 25.0, 38.0, 50.0, 65.0, 82.0)


def portrait(identity: Identity, emotion: str, number: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """A photo in which the person fills the frame."""
    rng = np.random.default_rng([2021, number])
    expression = sample_expression(rng, EMOTION8.index(emotion))
    camera = dataclasses.replace(sample_camera(rng, 160, SETTINGS["studio"]), size=84.0, center=(80.0, 80.0))
    return PhotoMaker(identity, expression, camera, (2021, number, 1), 160, "wild")()


def sheets() -> Iterator[tuple[str, list[list[np.ndarray]]]]:
    """Yields name and rows of pictures of each sheet."""
    people = [sample_identity((7, n), ethnicity=n % 5, gender=n // 5 % 2) for n in range(10)]
    photos = [record.image() for record in People().records(num_train=288, num_validation=0, seed=7)][::12]  # type: ignore
    yield "photos", [photos[i : i + 8] for i in range(0, 24, 8)]
    rows = [[portrait(people[(3 * r + c) % 10], name, 8 * r + c) for c, name in enumerate(EMOTION8)] for r in range(4)]
    yield "emotion", rows
    yield (
        "age",
        [
            [
                portrait(dataclasses.replace(people[n], age=age), "neutral", 100 + 8 * n + i)
                for i, age in enumerate(AGES)
            ]
            for n in (0, 6, 2)
        ],
    )
    yield (
        "gender_ethnicity",
        [
            [
                portrait(
                    sample_identity((8, e, k), gender=g, ethnicity=e, age=32.0), "neutral", 200 + 10 * e + 2 * k + g
                )
                for g in range(len(GENDER))
                for k in range(4)
            ]
            for e in range(len(ETHNICITY))
        ],
    )
    shown = ("neutral", "happiness", "neutral", "surprise", "sadness", "happiness", "neutral", "anger")
    yield (
        "identity",
        [[portrait(people[n], name, 300 + 8 * n + i) for i, name in enumerate(shown)] for n in (1, 3, 5, 9)],
    )
    for kind, count in (("solo", 4), ("group", 3)):
        clips = People().clips(kind=kind, num_train=count, num_validation=0, seed=3)  # type: ignore
        yield f"clips_{kind}", [list(clip.image()[::4][:6]) for clip in clips]  # type: ignore


def main() -> None:
    """Reads the command line and writes the sheets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write the sheets to")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in sheets():
        sheet = np.vstack([np.hstack(row) for row in rows])
        width = 960
        sheet = cv2.resize(sheet, (width, round(sheet.shape[0] * width / sheet.shape[1])), interpolation=cv2.INTER_AREA)
        _, jpeg = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 78])
        write_atomically(out / f"{name}.jpg", jpeg.tobytes())
        print(out / f"{name}.jpg")


if __name__ == "__main__":
    main()
