"""Face detection in photos of mixed sizes: facejax's batched MTCNN against facenet-pytorch, one by one and batched.

facenet-pytorch only accepts batches of photos of the same size, so its photos are grouped by size.
"""

import argparse
import pathlib
from collections.abc import Callable

from benchmarks.harness import Side
from benchmarks.torch_nets import DEVICES, import_facenet, set_threads

GOAL = "photos/s, mixed sizes: >= 2x facenet-pytorch on a CPU, >= 10x on a GPU"
UNIT = "photo"
SIDES = (200, 256, 320, 450)  # sides of the rendered photos, pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the photos and the detector."""
    parser.add_argument("--photos", type=pathlib.Path, help="folder of photos (default: the built-in rendered ones)")
    parser.add_argument("--count", type=int, default=24, help="photos per round (default: %(default)s)")
    parser.add_argument(
        "--max_side", type=int, default=640, help="downscale larger photos to this side (default: %(default)s)"
    )
    parser.add_argument("--min_face", type=int, default=20, help="smallest face, pixels (default: %(default)s)")


def sides(args: argparse.Namespace) -> list[Side]:
    """Sides for facejax, and for facenet-pytorch in both modes."""
    photos = None if args.photos is None else str(args.photos.resolve())
    shared = {"photos": photos, "count": args.count, "max_side": args.max_side, "min_face": args.min_face}
    peer = {**shared, "device": DEVICES[args.device]}
    return [
        Side("facejax", "mtcnn.facejax", shared),
        Side("facenet-pytorch one by one", "mtcnn.facenet", {**peer, "batched": False}),
        Side("facenet-pytorch batched", "mtcnn.facenet", {**peer, "batched": True}),
    ]


def load_photos(photos: str | None, count: int, max_side: int) -> list:
    """uint8 RGB photos of mixed sizes, the same in every process.

    Raises:
        FileNotFoundError: The folder contains fewer photos.
    """
    from facejax.data.decode import decode_image
    from facejax.datasets import get_dataset
    from facejax.datasets.crops import fit_image

    if photos is None:
        found = []
        for number in range(count):
            records = get_dataset("people").records(None, num_train=1, seed=number, size=SIDES[number % len(SIDES)])
            found.append(next(iter(records)).image())  # pyright: ignore
        return found
    suffixes = {".jpg", ".jpeg", ".png"}
    paths = sorted(path for path in pathlib.Path(photos).rglob("*") if path.suffix.lower() in suffixes)
    if len(paths) < count:
        raise FileNotFoundError(f"{photos} contains {len(paths)} photos, expected at least {count}; see --count")
    return [fit_image(decode_image(path.read_bytes()), max_side)[0] for path in paths[:count]]


def facejax(photos: str | None, count: int, max_side: int, min_face: int) -> Callable[[], dict]:
    """All photos in one call."""
    from facejax.detect import MTCNN

    detector, images = MTCNN(min_face), load_photos(photos, count, max_side)

    def work() -> dict:
        found = detector.detect(images)
        return {"items": count, "faces": sum(len(photo) for photo in found)}

    return work


def facenet(
    photos: str | None, count: int, max_side: int, min_face: int, device: str, batched: bool
) -> Callable[[], dict]:
    """All photos, with one call per photo or per size."""
    import numpy as np

    images = load_photos(photos, count, max_side)
    set_threads()
    detector = import_facenet().MTCNN(min_face_size=min_face, keep_all=True, device=device)
    groups: dict[tuple, list] = {}
    for number, image in enumerate(images):
        groups.setdefault(image.shape if batched else (number,), []).append(image)
    calls = [np.stack(group) for group in groups.values()]

    def work() -> dict:
        faces = 0
        for call in calls:
            boxes, _, _ = detector.detect(call, landmarks=True)
            faces += sum(0 if found is None else len(found) for found in boxes)
        return {"items": count, "faces": faces}

    return work
