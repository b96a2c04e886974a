"""Tracks keep their numbers through gaps and crossings; videos stream, smooth and are written whole."""

import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from facejax.inference import FaceAnalyzer, FaceTracker
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
    assert FaceTracker().update(0.0, np.zeros((0, 4))) == []
    with pytest.raises(ValueError, match="max_gap"):
        FaceTracker(-1)


def test_a_track_moves_on_for_a_third_of_a_second():
    track = _Track(1, np.array([10.0, 20, 50, 70]), np.array([30.0, -60, 30, -60]), seen=2.0)
    np.testing.assert_allclose(track.expected(2.1), [13, 14, 53, 64])
    np.testing.assert_allclose(track.expected(9.0), [20, 0, 60, 50])


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
    return FaceAnalyzer([toy_model("age", "gender", "emotion8")], FixedDetector([box(10, 10), box(60, 20)]))


def test_smoothing_is_an_average_over_the_track(analyzer):
    images = [noise(90, 120, seed=seed) for seed in range(10)]
    raw = list(analyze_frames(analyzer, array_frames(images), smoothing=0))
    smooth = list(analyze_frames(analyzer, array_frames(images), smoothing=1e6))
    assert [face.track for face in raw[-1].faces] == [1, 2]
    expected = np.mean([frame.faces[0].emotion.probabilities["anger"] for frame in raw])
    assert smooth[-1].faces[0].emotion.probabilities["anger"] == pytest.approx(expected, abs=1e-4)
    assert smooth[0].faces[0].age == pytest.approx(raw[0].faces[0].age)
    assert smooth[-1].faces[0].age == pytest.approx(np.mean([frame.faces[0].age for frame in raw]), abs=1e-3)


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


@pytest.mark.parametrize(("fps", "written"), [(29.97003, 29.97), (66.1234, 66.12), (119.88, 119.88), (1000, 600)])
def test_rates_that_mpeg_4_cannot_say_are_rounded(fps, written, tmp_path):
    with VideoWriter(tmp_path / "out.mp4", fps) as writer:
        for seed in range(3):
            writer.write(noise(32, 32, seed=seed))
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(written)


@pytest.mark.parametrize("name", ["talk: part 1.mp4", "no\udcffutf8.mp4"])
def test_a_video_may_have_any_name(name, tmp_path):
    # In a process of its own: OpenCV ends that which gives it a name it cannot encode.
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
