import dataclasses
import io
import os

import numpy as np
import pytest
from PIL import Image

from facejax.video import features
from facejax.video.faces import chosen_faces, clip_faces, find_faces
from facejax.video.features import Clip, FeatureTable, embed_clips, embed_faces
from facejax.video.frames import Frame, array_frames


@dataclasses.dataclass
class Found:
    bboxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray


class ToyDetector:
    """As many faces as the first pixel says: side by side, each wider and less probable than the one before."""

    def __init__(self):
        self.seen = []

    def detect(self, images):
        self.seen.append(len(images))
        return [self.one(int(image[0, 0, 0])) for image in images]

    def one(self, count):
        left = np.arange(count, dtype=np.float32) * 10
        boxes = np.stack([left, left * 0, left + 3 + np.arange(count), left * 0 + 8], axis=1)
        return Found(boxes, np.linspace(0.99, 0.9, count).astype(np.float32), np.repeat(boxes[:, None, :2], 5, axis=1))


def cut(image, bbox, landmarks):
    if bbox[0] >= 20:
        raise ValueError("outside")
    left, top, right, bottom = bbox.astype(int)
    return image[top:bottom, left:right]


def images(counts):
    return [np.full((16, 40, 3), count, np.uint8) for count in counts]


def test_choice_of_faces():
    boxes = np.array([[0, 0, 4, 4], [0, 0, 9, 9], [0, 0, 2, 9]], np.float32)
    scores = np.array([0.9, 0.8, 0.95], np.float32)
    assert chosen_faces(boxes, scores, "largest").tolist() == [1]
    assert chosen_faces(boxes, scores, "probable").tolist() == [2]
    assert chosen_faces(boxes, scores, "all").tolist() == [0, 1, 2]
    long = np.array([[0, 0, 9, 9], [0, 0, 20, 3]], np.float32)  # of a smaller area, with a longer edge
    assert chosen_faces(long, scores[:2], "largest").tolist() == [0]
    assert chosen_faces(boxes[:0], scores[:0], "largest").tolist() == []
    with pytest.raises(ValueError, match="largest, probable, all"):
        list(find_faces([], ToyDetector(), cut, choose="best"))


def test_frames_come_in_groups_and_keep_their_faces():
    detector = ToyDetector()
    pairs = list(find_faces(array_frames(images([1, 0, 2, 1, 2])), detector, cut, choose="all", at_once=2))
    assert detector.seen == [2, 2, 1]
    assert [len(faces) for _, faces in pairs] == [1, 0, 2, 1, 2]
    assert [face.frame for _, faces in pairs for face in faces] == [0, 2, 2, 3, 4, 4]
    assert pairs[2][1][1].crop.shape == (8, 4, 3)


def test_a_face_outside_the_frame_is_dropped_and_boxes_are_in_pixels_of_the_file():
    frame = Frame(7, 0.5, images([3])[0], 0.5)
    ((_, faces),) = find_faces([frame], ToyDetector(), cut, choose="all")
    assert [face.bbox.tolist() for face in faces] == [[0, 0, 6, 16], [20, 0, 28, 16]]
    assert (faces[0].frame, faces[0].time) == (7, 0.5)
    assert [face.landmarks[0].tolist() for face in faces] == [[0, 0], [20, 0]]
    assert not np.shares_memory(faces[0].crop, frame.image)  # otherwise every face would keep its whole frame in memory
    ((_, (last,)),) = find_faces([frame], ToyDetector(), lambda image, *_: image, choose="largest")
    assert (last.score, last.landmarks[0].tolist()) == (pytest.approx(0.9), [40, 0])


def test_faces_survive_a_file(tmp_path):
    clip = clip_faces(find_faces(array_frames(images([1, 0, 2])), ToyDetector(), cut, choose="all"))
    clip.save(tmp_path / "clip.npz")
    loaded = type(clip).load(tmp_path / "clip.npz")
    assert (loaded.num_frames, len(loaded)) == (3, 3)
    for name in ("frame", "time", "bbox", "score", "landmarks"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(clip, name))
    assert [crop.shape for crop in loaded.crops] == [crop.shape for crop in clip.crops]
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(loaded.crops, clip.crops, strict=True)) <= 2  # JPEG
    with np.load(tmp_path / "clip.npz") as stored:
        tables = Image.open(io.BytesIO(stored["jpeg"].tobytes())).quantization
    assert tables[0][0] == 2  # of JPEG's 16, at quality 95
    red = dataclasses.replace(clip, crops=[crop * 0 + np.array([250, 0, 0], np.uint8) for crop in clip.crops])
    red.save(tmp_path / "clip.npz")
    for crop in type(clip).load(tmp_path / "clip.npz").crops:
        assert crop[..., 0].min() > 240 > 10 > crop[..., 1:].max()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.npz"]


def test_two_runs_may_save_one_clip_at_once(tmp_path, monkeypatch):
    clip, replace, others = clip_faces([]), os.replace, []

    def slow(*names):  # another run saves the same clip while this one gives its file the name
        if not others:
            others.append(names)
            clip.save(tmp_path / "clip.npz")
        replace(*names)

    monkeypatch.setattr(os, "replace", slow)
    clip.save(tmp_path / "clip.npz")
    assert len(type(clip).load(tmp_path / "clip.npz")) == 0


@pytest.fixture
def table():
    clips = []
    for number, counts in enumerate(([1, 2], [0, 0], [2])):
        faces = clip_faces(find_faces(array_frames(images(counts)), ToyDetector(), cut, choose="all"))
        clips.append(
            (Clip(f"c{number}", "train" if number < 2 else "validation", (1, 2, 0)[number], len(counts)), faces)
        )
    return embed_clips(
        iter(clips), lambda crops: np.array([[c.shape[1], c.mean()] for c in crops]).reshape(-1, 2), "toy"
    )


def test_features_stay_with_their_clip(table):
    assert table.clip.tolist() == [0, 0, 0, 2, 2]
    assert table.features.tolist() == [[3, 1], [3, 2], [4, 2], [3, 2], [4, 2]]
    assert table.has_faces.tolist() == [True, False, True]
    assert table.labels.tolist() == [1, 2, 0]
    assert table.of_split("validation").tolist() == [False, False, True]
    assert [len(features) for features, _ in table.per_clip()] == [3, 0, 2]
    assert [frames.tolist() for _, frames in table.per_clip()] == [[0, 1, 1], [], [0, 0]]


def test_crops_of_several_clips_share_the_batches(monkeypatch):
    monkeypatch.setattr(features, "CROPS_AT_ONCE", 2)
    sizes, toy = [], (ToyDetector(), cut)

    def embed(crops):
        sizes.append(len(crops))
        return np.array([[crop.shape[1]] for crop in crops])

    def clips():
        for number, counts in enumerate(([1, 2], [1, 2], [1])):
            yield Clip(str(number), "train", 0, 1), clip_faces(find_faces(array_frames(images(counts)), *toy))

    table = embed_clips(clips(), embed, "toy")
    assert sizes == [2, 2, 1]
    assert table.features[:, 0].tolist() == [3, 4, 3, 4, 3]  # the only face, and the wider of two
    assert table.clip.tolist() == [0, 0, 1, 1, 2]


def test_crops_of_one_clip_are_embedded_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(features, "CROPS_AT_ONCE", 2)
    sizes, alive = [], []

    def embed(crops):
        sizes.append(len(crops))
        return np.array([[crop.shape[1]] for crop in crops]).reshape(-1, 1)

    def faces():
        for _, of_frame in find_faces(array_frames(images([1, 2, 0, 2])), ToyDetector(), cut, choose="all"):
            alive.append(len(sizes))
            yield from of_frame

    found, frames = embed_faces(faces(), embed)
    assert (found[:, 0].tolist(), frames.tolist()) == ([3, 3, 4, 3, 4], [0, 1, 1, 3, 3])
    assert sizes == [0, 2, 2, 1]
    assert alive[-1] > 1  # before the last frame's were cut out
    found, frames = embed_faces([], embed)
    assert (found.shape, frames.shape) == ((0, 1), (0,))


def test_npz_and_parquet_hold_the_table(table, tmp_path):
    import json

    import pyarrow.parquet

    table.save(tmp_path / "t.npz")
    loaded = FeatureTable.load(tmp_path / "t.npz")
    assert loaded.clips == table.clips
    assert loaded.source == "toy"
    np.testing.assert_array_equal(loaded.features, table.features)
    table.save_parquet(tmp_path / "t.parquet")
    read = pyarrow.parquet.read_table(tmp_path / "t.parquet")
    assert read.column("clip").to_pylist() == ["c0", "c0", "c0", "c2", "c2"]
    assert read.column("feature").to_pylist() == table.features.tolist()
    assert read.column("split").to_pylist() == ["train"] * 3 + ["validation"] * 2
    assert read.column("label").to_pylist() == [1, 1, 1, 0, 0]
    assert read.column("x2").to_pylist() == table.bbox[:, 2].tolist()
    clips = json.loads(read.schema.metadata[b"facejax.clips"])
    assert [clip["id"] for clip in clips] == ["c0", "c1", "c2"]
