"""Tracks keep their numbers through gaps and crossings; videos are streamed, smoothed and written completely."""

import os
import pathlib
import subprocess
import sys
import time
import weakref
from unittest import mock

import cv2
import numpy as np
import pytest

from facejax.inference import FaceAnalyzer, FaceTracker, video
from facejax.inference.results import Classification, Face
from facejax.inference.tracking import _Track
from facejax.inference.video import VideoWriter, analyze_frames
from facejax.video.frames import array_frames, read_frames
from tests.inference.toy import FixedDetector, noise, toy_model


def box(x: float, y: float, size: float = 40) -> list[float]:
    return [x, y, x + size, y + size * 1.2]


def follow(tracker: FaceTracker, places: list[list[list[float]]], fps: float = 25) -> list[list[int]]:
    return [
        tracker.update(index / fps, np.array(boxes, np.float64).reshape(-1, 4)) for index, boxes in enumerate(places)
    ]


def test_two_walkers_keep_their_numbers_whatever_the_order():
    rng = np.random.default_rng(0)
    places = []
    for step in range(60):
        both = [box(10 + 4 * step, 20), box(400 - 3 * step, 200, 60)]
        places.append(both[:: rng.choice([-1, 1])])
    uppers = {
        numbers[min((0, 1), key=lambda i: boxes[i][1])]
        for boxes, numbers in zip(places, follow(FaceTracker(), places), strict=True)
    }
    assert len(uppers) == 1


def test_a_face_comes_back_after_a_gap_and_a_new_one_later():
    moving = [[box(10 + 3 * step, 50)] for step in range(10)]
    gap = [[]] * 12
    back = [[box(10 + 3 * (step + 22), 52)] for step in range(5)]
    assert follow(FaceTracker(max_gap=1.0), moving + gap + back)[-1] == [1]
    assert follow(FaceTracker(max_gap=0.3), moving + gap + back)[-1] == [2]


def test_a_far_face_and_one_of_another_size_are_new():
    assert follow(FaceTracker(), [[box(10, 10)], [box(300, 10)]])[-1] == [2]
    assert follow(FaceTracker(), [[box(10, 10)], [box(60, 10, 160)]])[-1] == [2]
    assert follow(FaceTracker(), [[box(10, 10)], [box(40, 10, 120)]])[-1] == [2]  # which overlap only slightly
    assert follow(FaceTracker(), [[box(10, 10, 160)], [box(80, 90)]])[-1] == [2]
    assert FaceTracker().update(0.0, np.zeros((0, 4))) == []
    with pytest.raises(ValueError, match="max_gap"):
        FaceTracker(-1)


@pytest.mark.parametrize(("waited", "reach"), [(0.04, 0.64), (0.5, 1.1), (5.0, 1.5)])
def test_the_longer_a_face_was_away_the_farther_off_it_may_come_back(waited, reach):
    """Up to 0.6 box sizes and one more per second, 1.5 at most; all of these boxes overlap too little to count."""
    size = np.sqrt(40 * 48)
    for part, number in ((0.98, 1), (1.02, 2)):
        tracker = FaceTracker(max_gap=10)
        tracker.update(0.0, np.array([box(100, 100)]))
        assert tracker.update(waited, np.array([box(100 + part * reach * size, 100)])) == [number]


def around(size: float) -> list[float]:
    """A box with the centre of ``box(100, 100)``."""
    return box(120 - size / 2, 124 - 0.6 * size, size)


@pytest.mark.parametrize(("growth", "number"), [(1.8, 1), (1 / 1.8, 1), (2.3, 2), (1 / 2.3, 2)])
def test_a_face_that_grows_too_fast_is_another_one(growth, number):
    """Of boxes within each other the IoU is the ratio of their areas: 0.31 and 0.19."""
    assert follow(FaceTracker(), [[box(100, 100)], [around(40 * growth)]])[-1] == [number]


def test_overlap_counts_more_than_nearness():
    tracker = FaceTracker()
    tracker.update(0.0, np.array([box(100, 100)]))
    assert tracker.update(0.5, np.array([box(127.5, 100), around(72)])) == [2, 1]


def test_a_gap_may_be_as_long_as_the_longest():
    for waited, number in ((0.5, 1), (0.51, 2)):
        tracker = FaceTracker(max_gap=0.5)
        for time_, boxes in ((0.0, [box(10, 50)]), (0.25, []), (waited, [box(10, 50)])):
            numbers = tracker.update(time_, np.array(boxes).reshape(-1, 4))
        assert numbers == [number]


def test_a_velocity_is_a_moving_average():
    tracker = FaceTracker()
    follow(tracker, [[box(10 * step, 50)] for step in range(3)], fps=10)
    np.testing.assert_allclose(tracker._tracks[0].velocity, [0.6 * 40 + 0.4 * 100, 0, 64, 0], atol=1e-9)


def test_frames_of_one_time_are_followed():
    assert follow(FaceTracker(), [[box(10, 50)]] * 3, fps=np.inf) == [[1]] * 3


def test_a_track_moves_on_for_a_third_of_a_second():
    track = _Track(1, np.array([10.0, 20, 50, 70]), np.array([30.0, -60, 30, -60]), seen=2.0)
    np.testing.assert_allclose(track.expected(2.1), [13, 14, 53, 64])
    np.testing.assert_allclose(track.expected(9.0), [20, 0, 60, 50])


def test_a_fast_face_is_looked_for_where_it_went():
    moving = [[box(10 + 20 * step, 50)] for step in range(10)]
    back = [[box(10 + 20 * step, 50)] for step in range(16, 19)]
    assert follow(FaceTracker(), moving + [[]] * 6 + back)[-3:] == [[1]] * 3


def test_memory_of_ended_tracks_is_freed():
    tracker = FaceTracker(max_gap=0.1)
    follow(tracker, [[box(1000.0 * step, 0)] for step in range(200)])
    assert len(tracker.alive) <= 4


@pytest.mark.parametrize("max_gap", [0, 1])
def test_a_face_of_frames_that_are_far_apart_keeps_its_number(max_gap):
    here, gone = [box(10, 50)], []
    assert follow(FaceTracker(max_gap), [here] * 4, fps=0.5) == [[1]] * 4
    assert follow(FaceTracker(max_gap), [here, gone, here], fps=0.5) == [[1], [], [2]]


@pytest.fixture(scope="module")
def analyzer() -> FaceAnalyzer:
    return FaceAnalyzer(
        [toy_model("age", "gender", "emotion8", "valence_arousal")], FixedDetector([box(10, 10), box(60, 20)])
    )


def test_smoothing_is_an_average_over_the_track():
    rng = np.random.default_rng(0)

    def face(place):
        classes = (Classification(dict(zip("abc", rng.dirichlet(np.ones(3)).tolist(), strict=True))) for _ in range(3))
        age, valence, arousal = rng.uniform(0, 1, 3).tolist()
        return Face(np.array(place, np.float32), np.zeros((5, 2)), 1.0, age, *classes, valence, arousal)

    here, there = box(10, 10), box(160, 20)
    found = [[face(place) for place in places] for places in ([here, there], [there], [there, here], [here])]
    analyzer = mock.Mock(faces=lambda images: [found[image[0, 0, 0]] for image in images])
    images = [np.full((9, 9, 3), number, np.uint8) for number in range(4)]
    raw = list(analyze_frames(analyzer, array_frames(images), smoothing=0))
    assert [[face.track for face in frame.faces] for frame in raw] == [[1, 2], [2], [2, 1], [1]]
    smooth = list(analyze_frames(analyzer, array_frames(images), smoothing=1e6))
    got, of_track = smooth[-1].faces[0], (found[0][0], found[2][1], found[3][0])
    for name in ("age", "valence", "arousal"):
        assert getattr(got, name) == pytest.approx(np.mean([getattr(face, name) for face in of_track]), abs=1e-5)
    for name in ("gender", "ethnicity", "emotion"):
        for label in "abc":
            mean = np.mean([getattr(face, name).probabilities[label] for face in of_track])
            assert getattr(got, name).probabilities[label] == pytest.approx(mean, abs=1e-5)
    for name in ("age", "emotion"):
        assert getattr(smooth[0].faces[1], name) == getattr(found[0][1], name)


class Blinking(FixedDetector):
    """Finds nothing in dark photos."""

    def _found(self, image):
        return super()._found(image if image.mean() > 60 else image[:1])


def test_a_video_is_followed_as_it_is_asked_for(tmp_path):
    with VideoWriter(tmp_path / "in.mp4", 10) as writer:
        for seed in range(5):
            writer.write(noise(64, 64, seed) // (10 if seed in (2, 3) else 1))
    analyzer = FaceAnalyzer([toy_model("gender")], Blinking([box(10, 10)]))

    def told(frames=None, **options):
        frames = list(frames or analyzer.video(tmp_path / "in.mp4", **options))
        last = frames[-1].faces[0]
        return [face.track for frame in frames for face in frame.faces], last.gender.probabilities["male"]

    kept, smooth = told()
    assert told(smoothing=0.5, max_gap=1.0) == (kept, smooth)
    assert told(analyze_frames(analyzer, read_frames(tmp_path / "in.mp4"))) == (kept, smooth)
    lost, alone = told(max_gap=0.1, smoothing=0)
    assert (kept, lost) == ([1, 1, 1], [1, 1, 2])
    assert smooth != pytest.approx(alone, abs=1e-6)


def test_memory_of_ended_smoothers_is_freed(monkeypatch):
    alive = weakref.WeakSet()

    class Noted(video.ExponentialSmoother):
        def __init__(self, seconds):
            super().__init__(seconds)
            alive.add(self)

    class Jumping(FixedDetector):
        def _found(self, image):
            found = super()._found(image)
            self._boxes = self._boxes + np.float32([100, 0, 100, 0])
            return found

    monkeypatch.setattr(video, "ExponentialSmoother", Noted)
    analyzer = FaceAnalyzer([toy_model("gender")], Jumping([box(10, 10)]))
    images = [noise(64, 1200, seed) for seed in range(12)]
    tracks = set()
    for frame in analyze_frames(analyzer, array_frames(images, fps=0.5)):
        tracks |= {face.track for face in frame.faces}
        assert len(alive) <= 2
    assert tracks == set(range(1, 13))


def test_frames_stream(analyzer):
    asked = 0

    def images():
        nonlocal asked
        for seed in range(100):
            asked = seed
            yield noise(30, 30, seed=seed)

    for done, _ in enumerate(analyze_frames(analyzer, array_frames(images()))):
        assert asked - done <= 8


def test_a_file_is_read_annotated_and_written(analyzer, tmp_path):
    source, out = tmp_path / "in.mp4", tmp_path / "sub" / "out.mp4"
    with VideoWriter(source, 10) as writer:
        for seed in range(6):
            writer.write(noise(96, 128, seed=seed))
    results = analyzer.analyze(source)
    assert [frame.index for frame in results] == list(range(6))
    with VideoWriter(out, 10) as writer:
        for frame in results:
            writer.write(frame.draw())
    assert len(list(read_frames(out))) == 6
    assert [path.name for path in out.parent.iterdir()] == ["out.mp4"]
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    told = results[1].to_dict()
    assert (told["frame"], told["time"], told["width"], told["height"]) == (1, 0.1, 128, 96)
    small = next(analyzer.video(source, max_side=64)).to_dict()
    assert (small["width"], small["height"]) == (64, 48)
    row = results[1].to_rows()[0]
    assert (row["frame"], row["time"], row["track"]) == (1, 0.1, 1)


def test_frames_of_odd_sizes_keep_their_colours(tmp_path):
    colour = np.array((220, 30, 40), np.uint8)
    with VideoWriter(tmp_path / "odd.mp4", 10) as writer:
        for shape in ((97, 129), (128, 96), (40, 50)):  # the others are resized to the first
            writer.write(np.broadcast_to(colour, (*shape, 3)))
    frames = list(read_frames(tmp_path / "odd.mp4"))
    assert len(frames) == 3
    for read in frames:
        assert read.image.shape == (96, 128, 3)
        assert np.abs(read.image.astype(int) - colour).max() < 12


def test_a_camera_tells_seconds_from_its_start_and_is_given_back(monkeypatch):
    blue, camera = np.full((4, 6, 3), (250, 0, 0), np.uint8), mock.Mock(spec=cv2.VideoCapture)
    camera.read.side_effect = [(True, blue), (True, blue), (False, None)]
    clock = iter((1000.0, 1000.5, 1002.0))
    monkeypatch.setattr(cv2, "VideoCapture", lambda device: camera)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    frames = list(video.webcam_frames())
    assert [(frame.index, frame.time, frame.scale) for frame in frames] == [(0, 0.5, 1), (1, 2.0, 1)]
    assert frames[0].image[0, 0].tolist() == [0, 0, 250]
    camera.release.assert_called_once()
    camera.isOpened.return_value = False
    with pytest.raises(ValueError, match="cannot open camera 0"):
        next(video.webcam_frames())


@pytest.mark.parametrize(
    ("fps", "written"), [(0, 0.01), (29.97003, 29.97), (66.1234, 66.12), (119.88, 119.88), (1000, 600)]
)
def test_rates_that_mpeg_4_cannot_say_are_rounded(fps, written, tmp_path):
    with VideoWriter(tmp_path / "out.mp4", fps) as writer:
        for seed in range(3):
            writer.write(noise(32, 32, seed=seed))
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(written)


@pytest.mark.parametrize("name", ["talk: part 1.mp4", "no\udcffutf8.mp4"])
def test_a_video_may_have_any_name(name, tmp_path):
    # In a separate process: OpenCV terminates the process if it cannot encode a name.
    code = """
import pathlib, sys, numpy as np
from facejax.inference.video import VideoWriter
from facejax.video.frames import mean_rate, read_frames
path = pathlib.Path(sys.argv[1])
with VideoWriter(path, 10) as writer:
    for grey in (0, 200):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
print(len(list(read_frames(path))), round(mean_rate(path)))
"""
    done = subprocess.run([sys.executable, "-c", code, name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2 10\n"), done.stderr
    assert os.listdir(tmp_path) == [name]


def test_an_error_leaves_no_video(tmp_path):
    def write():
        with VideoWriter(tmp_path / "out.mp4", 10) as writer:
            writer.write(noise(96, 128))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write()
    assert not list(pathlib.Path(tmp_path).iterdir())
