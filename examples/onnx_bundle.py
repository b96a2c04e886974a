"""Runs an exported bundle on a photo with only onnxruntime, OpenCV and NumPy: no JAX, no facejax.

    pip install onnxruntime opencv-python-headless numpy
    facejax export mobilenet_v1.vggface2_age_gender --to onnx --out bundles
    python examples/onnx_bundle.py bundles/onnx photo.jpg --out annotated.png

This shows all that an app has to do around the files: MTCNN's cascade (pyramid, P-Net, R-Net, O-Net), the crop with
level eyes, and the resize. Everything else, including channel order and normalisation, is inside the files.
(facejax downscales photos of more than 8 megapixels to that size before it detects faces; this example does not.)
"""

import argparse
import json
import pathlib

import cv2
import numpy as np
import onnxruntime

# Interpolation names in the manifest -> OpenCV flags.
RESIZE = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


class Bundle:
    """The networks of a bundle."""

    def __init__(self, folder):
        """Opens ``manifest.json`` and every file it names; names that point outside the folder are rejected."""
        self.folder = pathlib.Path(folder)
        manifest = json.loads((self.folder / "manifest.json").read_text())
        self.cascade = manifest["detector"]["cascade"]
        self.pnet, self.rnet, self.onet = (self._open(manifest["detector"][name]) for name in ("pnet", "rnet", "onet"))
        self.models = [(entry, self._open(entry)) for entry in manifest["models"]]

    def _open(self, entry):
        if pathlib.PurePath(entry["file"]).name != entry["file"]:
            raise ValueError(f"the files of a bundle must be in its folder, not at {entry['file']!r}")
        session = onnxruntime.InferenceSession(str(self.folder / entry["file"]), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))

    def analyze(self, photo):
        """Returns a dict per face of a photo (uint8 RGB), best first: box, score, landmarks, network outputs."""
        boxes, scores, landmarks = self.detect(photo)
        # O-Net's regression may push a box out of the photo.
        low, high = np.trunc(np.maximum(boxes[:, :2], 0)), np.trunc(np.minimum(boxes[:, 2:], photo.shape[1::-1]))
        faces = [
            {"box": box, "score": score, "landmarks": points}
            for box, score, points, inside in zip(boxes, scores, landmarks, (low < high).all(axis=1), strict=True)
            if inside
        ]
        for entry, run in self.models if faces else ():
            size, kernel = entry["input"]["shape"][1], RESIZE[entry["input"]["resize"]]
            crops = [crop(photo, face["box"], face["landmarks"], entry["input"]["margin"]) for face in faces]
            crops = [cv2.resize(face, (size, size), interpolation=kernel) for face in crops]
            for name, values in run(np.stack(crops)).items():
                for face, value in zip(faces, values, strict=True):
                    face[name] = value
        return faces

    def detect(self, photo):
        """Detects faces with MTCNN; returns boxes [x1, y1, x2, y2], scores and five landmarks each."""
        limits, suppression = self.cascade["thresholds"], self.cascade["suppression"]
        boxes = self._propose(photo, limits[0], suppression)
        boxes, out = self._refine(self.rnet, photo, boxes, self.cascade["sides"][0], limits[1])
        kept = nms(boxes, out["probability"], suppression[2])
        boxes = square(move(boxes[kept], out["offsets"][kept], 1))
        boxes, out = self._refine(self.onet, photo, boxes, self.cascade["sides"][1], limits[2])
        size = boxes[:, None, 2:] - boxes[:, None, :2] + 1
        points = out["landmarks"].reshape(-1, 2, 5).transpose(0, 2, 1) * size + boxes[:, None, :2] - 1
        boxes, scores = move(boxes, out["offsets"], 1), out["probability"]
        kept = nms(boxes, scores, suppression[3], smaller=True)
        return boxes[kept], scores[kept], points[kept]

    def _propose(self, photo, limit, suppression):
        """Square candidates from P-Net on the image pyramid."""
        window, stride = self.cascade["window"], self.cascade["stride"]
        scale = window / self.cascade["min_face"]
        found, scores = [np.zeros((0, 8))], [np.zeros(0)]
        while min(photo.shape[:2]) * scale >= window:
            level = area_resize(photo, int(photo.shape[0] * scale + 1), int(photo.shape[1] * scale + 1))
            out = self.pnet(level[None])
            row, column = np.nonzero(out["probability"][0] >= limit)
            score, offsets = out["probability"][0, row, column], out["offsets"][0, row, column]
            corner = np.stack([column, row], axis=1).astype(np.float32) * stride
            # In float32, as in the detector: many quotients are whole numbers but for rounding.
            boxes = np.floor(np.concatenate([corner + 1, corner + window], axis=1) / np.float32(scale))
            kept = nms(boxes, score, suppression[0])
            found.append(np.concatenate([boxes, offsets], axis=1)[kept])
            scores.append(score[kept])
            scale *= self.cascade["factor"]
        found = np.concatenate(found)
        kept = nms(found[:, :4], np.concatenate(scores), suppression[1])
        return square(move(found[kept, :4], found[kept, 4:], 0))

    def _refine(self, network, photo, boxes, side, limit):
        """Runs R- or O-Net on the candidates; returns the boxes above the limit and their outputs."""
        low = np.maximum(np.trunc(boxes[:, :2]).astype(int), 1) - 1
        high = np.minimum(np.trunc(boxes[:, 2:]).astype(int), photo.shape[1::-1])
        inside = (high > low).all(axis=1)
        boxes, low, high = boxes[inside], low[inside], high[inside]
        crops = [area_resize(photo[y1:y2, x1:x2], side, side) for (x1, y1), (x2, y2) in zip(low, high, strict=True)]
        out = network(np.array(crops, np.float32).reshape(-1, side, side, 3))
        # Several candidates of a clear face reach exactly 1: among equal scores the last one wins.
        kept = np.flatnonzero(out["probability"] > limit)[::-1]
        return boxes[kept], {name: values[kept] for name, values in out.items()}


def area_resize(image, height, width):
    """Means over whole-pixel windows, float32: row y is the mean of rows floor(y H / h) to ceil((y + 1) H / h)."""
    sums = cv2.integral(image, sdepth=cv2.CV_64F)
    y, x = np.arange(height) * image.shape[0], np.arange(width) * image.shape[1]
    top, bottom = y // height, -(-(y + image.shape[0]) // height)
    left, right = x // width, -(-(x + image.shape[1]) // width)
    total = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    return (total / ((bottom - top)[:, None, None] * (right - left)[None, :, None])).astype(np.float32)


def nms(boxes, scores, limit, smaller=False):
    """Indices of the boxes that non-maximum suppression keeps, best first."""
    end = 1 if smaller else 0
    area = np.prod(boxes[:, 2:] - boxes[:, :2] + end, axis=1)
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        low, high = np.maximum(boxes[first, :2], boxes[order, :2]), np.minimum(boxes[first, 2:], boxes[order, 2:])
        shared = np.prod(np.maximum(high - low + end, 0), axis=1)
        whole = np.minimum(area[first], area[order]) if smaller else area[first] + area[order] - shared
        order = order[shared <= limit * whole]
    return np.array(kept, int)


def move(boxes, offsets, end):
    """Boxes moved by a network's regression."""
    return boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2] + end, 2)


def square(boxes):
    """Squares with the same centres and the longer sides."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + (size - side) / 2
    return np.concatenate([corner, corner + side], axis=1)


def crop(photo, box, landmarks, margin):
    """Crops a face, with a margin of this fraction of the box on every side, rotated so that the eyes are level."""
    extra = margin * (box[2:] - box[:2])
    box = np.concatenate([box[:2] - extra, box[2:] + extra])
    left, top = np.maximum(box[:2], 0).astype(int)
    right, bottom = np.minimum(box[2:], photo.shape[1::-1]).astype(int)
    face = photo[top:bottom, left:right]
    dx, dy = landmarks[1] - landmarks[0]
    height, width = face.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(np.degrees(np.arctan2(dy, dx))), 1.0)
    return cv2.warpAffine(face, turn, (width, height))


def main():
    """Prints the faces that were found, and draws them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("photo")
    parser.add_argument("--out", help="annotated photo")
    args = parser.parse_args()
    if next(pathlib.Path(args.bundle).glob("*.onnx"), None) is None:
        parser.error(f"{args.bundle} contains no ONNX files: give the folder written by `facejax export --to onnx`")
    bundle = Bundle(args.bundle)
    photo = cv2.imread(args.photo, cv2.IMREAD_COLOR_RGB)
    if photo is None:
        parser.error(f"cannot read {args.photo}")
    outputs = {
        name: output for entry, _ in bundle.models for name, output in entry["outputs"].items() if "labels" in output
    }
    for face in bundle.analyze(photo):
        words = [f"perceived age {face['age']:.0f}"] if "age" in face else []
        for name, output in outputs.items():
            if output["meaning"] == "probabilities":
                best = int(np.argmax(face[name]))
                words.append(f"{name}: {output['labels'][best]} {face[name][best]:.0%}")
            else:
                words += [f"{label} {value:+.2f}" for label, value in zip(output["labels"], face[name], strict=True)]
        print([round(float(edge)) for edge in face["box"]], f"{face['score']:.3f}", "; ".join(words))
        x1, y1, x2, y2 = (int(edge) for edge in face["box"])
        cv2.rectangle(photo, (x1, y1), (x2, y2), (0, 200, 120), 2)
        font = cv2.FONT_HERSHEY_SIMPLEX, 0.5
        (width, height), below = cv2.getTextSize("; ".join(words), *font, 1)
        y = max(y1 - 8, height)
        cv2.rectangle(photo, (x1, y - height), (x1 + width, y + below), (0, 0, 0), cv2.FILLED)
        cv2.putText(photo, "; ".join(words), (x1, y), *font, (255, 255, 255), 1, cv2.LINE_AA)
    if args.out and not cv2.imwrite(args.out, photo[..., ::-1]):
        parser.error(f"cannot write {args.out}: does its folder exist?")


if __name__ == "__main__":
    main()
