import io
import struct
import subprocess
import sys
import threading
from unittest import mock

import cv2
import numpy as np
import PIL.Image
import pytest

from facejax.video.frames import VideoError, _frame, array_frames, mean_rate, read_frames
from tests.conftest import REPOSITORY
from tests.video.webm import write_webm


def write_video(path, count, size=(48, 64), fps=25.0):
    """Frames of one grey level each, 10 apart, so that a decoded frame reveals its number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size[::-1])
    for index in range(count):
        image = np.full((*size, 3), 10 * (index % 25), np.uint8)
        image[..., 2] = 255  # red, in OpenCV's order
        writer.write(image)
    writer.release()


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "clip.avi", 24)
    return tmp_path / "clip.avi"


def numbers(frames):
    return [round(float(frame.image[..., 2].mean()) / 10) for frame in frames]


def test_all_frames_in_order_as_rgb_with_times(video):
    frames = list(read_frames(video))
    assert numbers(frames) == list(range(24))
    assert [frame.index for frame in frames] == list(range(24))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(24) / 25)
    assert frames[3].image.shape == (48, 64, 3)
    assert frames[3].image[..., 0].mean() > 245  # red first


def test_every_nth_frame_keeps_its_number_and_time(video):
    frames = list(read_frames(video, every=5, max_frames=3))
    assert numbers(frames) == [0, 5, 10]
    assert [frame.index for frame in frames] == [0, 5, 10]
    assert frames[2].time == pytest.approx(0.4)


def test_reduced_frames_are_averaged():
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::3] = 150  # the pixel in the middle of each three, which a kernel of two would take, is black
    reduced = _frame(0, 0.0, stripes, 30)
    assert reduced.scale == pytest.approx(1 / 3)
    assert (reduced.image == 50).all()
    for side in range(31, 200):  # whatever is rounded
        assert _frame(0, 0.0, np.zeros((side, 9, 3), np.uint8), 30).image.shape[0] == 30


def capture_of(grabbed, image, stated=0):
    """A `cv2.VideoCapture` that repeats one image, reports no times, and grabs frames as instructed."""
    capture, told = mock.Mock(spec=cv2.VideoCapture), iter(grabbed)
    capture.grab.side_effect = lambda: next(told, False)
    capture.retrieve.return_value = True, image
    capture.get.side_effect = lambda name: stated if name == cv2.CAP_PROP_FRAME_COUNT else 0
    return lambda *_: capture


def test_large_frames_are_reduced(video, monkeypatch):
    frame = next(read_frames(video, max_side=32))
    assert frame.image.shape == (24, 32, 3)
    assert frame.scale == 0.5
    assert next(read_frames(video, max_side=100)).scale == 1
    stripes = np.tile(np.uint8([[[0]], [[200]]]), (24, 64, 3))  # which only averaging over the area makes grey
    monkeypatch.setattr(cv2, "VideoCapture", capture_of([True], stripes))
    assert np.unique(next(read_frames(video, max_side=32)).image).tolist() == [100]


def test_the_thread_ends_with_its_consumer_and_never_runs_far_ahead(video):
    before = threading.active_count()
    frames = read_frames(video, ahead=2)
    next(frames)
    assert threading.active_count() == before + 1
    frames.close()
    assert threading.active_count() == before


def test_a_programme_may_end_with_a_clip_half_read(video):
    """The decoder's thread, which is in the middle of a frame, does not crash the process."""
    code = (
        "import pathlib, sys\n"
        "from facejax.video.frames import read_frames\n"
        "frames = read_frames(pathlib.Path(sys.argv[1]))\n"
        "next(iter(frames))\n"
    )
    command = [sys.executable, "-c", code, str(video)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_files_that_are_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        list(read_frames(tmp_path / "text.mp4"))
    # OpenCV's other readers accept a picture too, and decode all of it before they report its size.
    stream = io.BytesIO()
    PIL.Image.new("RGB", (64, 64)).save(stream, "avif")
    damaged = b"\xff" * 4
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        damaged = struct.pack(">I", len(damaged) + 8) + kind + damaged
    (tmp_path / "picture.mp4").write_bytes(stream.getvalue() + damaged)
    with pytest.raises(VideoError, match=r"picture\.mp4 is not a video"):
        list(read_frames(tmp_path / "picture.mp4"))
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_frames(tmp_path / "nothing.mp4")
    with pytest.raises(ValueError, match="every >= 1"):
        read_frames(tmp_path / "text.mp4", every=0)
    with pytest.raises(ValueError, match="max_side >= 0"):
        read_frames(tmp_path / "text.mp4", max_side=-5)


@pytest.mark.parametrize(("fps", "told"), [(5, True), (25, False)])  # more than a second is missing, and less
def test_a_cut_off_file_gives_what_is_whole(tmp_path, caplog, fps, told):
    video = tmp_path / "clip.avi"
    write_video(video, 24, fps=fps)
    assert len(list(read_frames(video))) == 24
    assert not caplog.text
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 7 // 10])
    kept = numbers(read_frames(video))
    assert 5 < len(kept) < 24
    assert kept == list(range(len(kept)))
    last, stated = (len(kept) - 1) / fps, 23 / fps
    expected = f"{video} ends with a frame at {last:.1f} s, by its header at {stated:.1f}: it may be cut off"
    assert caplog.messages == [expected] * told
    assert len(list(read_frames(video, max_frames=3))) == 3  # stopped on purpose
    assert len(caplog.messages) == told


def test_a_slow_clip_is_not_taken_for_cut_off(tmp_path, caplog):
    write_video(tmp_path / "clip.avi", 4, fps=0.5)
    assert [frame.time for frame in read_frames(tmp_path / "clip.avi")] == [0, 2, 4, 6]
    assert not caplog.text


def test_broken_frames_in_the_middle_are_left_out(video, monkeypatch):
    grabbed = [True, *[False] * 29, True, *[False] * 29, True]
    monkeypatch.setattr(cv2, "VideoCapture", capture_of(grabbed, np.zeros((4, 4, 3), np.uint8)))
    assert [frame.index for frame in read_frames(video)] == [0, 30, 60]


def test_a_long_damage_in_the_middle_does_not_end_the_clip(video, monkeypatch, caplog):
    """As OpenCV reports an mp4 that lacks three seconds; beyond the stated length, thirty failures are the end."""
    grabbed = [True, *[False] * 90, True, *[False] * 40, True]
    capture = capture_of(grabbed, np.zeros((4, 4, 3), np.uint8), stated=95)
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    assert [frame.index for frame in read_frames(video)] == [0, 91]
    assert f"90 damaged frames in the middle of {video} were skipped" in caplog.text


def test_frames_of_arrays():
    images = np.zeros((7, 4, 4, 3), np.uint8)
    frames = list(array_frames(images, fps=10, every=3))
    assert [(frame.index, frame.time) for frame in frames] == [(0, 0.0), (3, 0.3), (6, 0.6)]


# A second at 25 frames per second, then three at 5, and one late frame: as a browser records in low light.
TIMES = [*range(0, 1000, 40), *range(1000, 4000, 200), 4500]


@pytest.fixture
def recorded(tmp_path):
    write_webm(tmp_path / "recorded.webm", [np.full((48, 64, 3), 5 * i, np.uint8) for i in range(len(TIMES))], TIMES)
    return tmp_path / "recorded.webm"


def test_times_are_those_of_the_file_and_not_of_its_rate(recorded):
    frames = list(read_frames(recorded))
    np.testing.assert_allclose([frame.time for frame in frames], np.array(TIMES) / 1000)
    assert [frame.time for frame in read_frames(recorded, every=10)] == pytest.approx([0, 0.4, 0.8, 2, 4.5])


def test_frames_are_chosen_by_time(recorded, video):
    frames = list(read_frames(recorded, per_second=2.5))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2, 2.4, 2.8, 3.2, 3.6, 4.5])
    assert [frame.index for frame in read_frames(recorded, per_second=1000)] == list(range(len(TIMES)))
    # Of files of one rate, every n-th, n rounded: 25 / 6.
    assert numbers(read_frames(video, per_second=6)) == list(range(0, 24, 4))
    with pytest.raises(ValueError, match="per_second >= 0"):
        read_frames(video, per_second=-1)


def test_the_mean_rate_of_a_clip_that_begins_late(video, monkeypatch):
    capture, told = mock.Mock(spec=cv2.VideoCapture), iter((2000, 2500, 3000))
    capture.grab.side_effect = lambda: capture.grab.call_count <= 3
    capture.get.side_effect = lambda name: 0 if name in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT) else next(told)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    assert mean_rate(video) == 2


def test_mean_rate(recorded, video, tmp_path):
    assert mean_rate(recorded) == pytest.approx((len(TIMES) - 1) / 4.5)
    assert mean_rate(recorded, every=5, seconds=0.9) == pytest.approx(5)
    assert mean_rate(video, every=4) == pytest.approx(25 / 4)
    write_video(tmp_path / "one.avi", 1)
    assert mean_rate(tmp_path / "one.avi") == 25
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        mean_rate(tmp_path / "text.mp4")


@pytest.mark.parametrize(
    ("fps", "milliseconds", "times"),
    [
        (10, [0, 0, 0, 0], [0, 0.1, 0.2, 0.3]),
        (0, [0, 0, 0], [0, 0.04, 0.08]),
        (0, [0, 500, 2000], [0, 0.5, 2]),
        (30, [0, 33, 67, 100], [0, 1 / 30, 2 / 30, 0.1]),
        (25, [0, 900, 300, 1000], [0, 0.9, 0.9, 1]),
    ],
    ids=["no times", "neither", "no rate", "rounded times", "a time that goes back"],
)
def test_times_where_a_file_tells_too_little(fps, milliseconds, times, video, monkeypatch):
    capture, told = mock.Mock(spec=cv2.VideoCapture), iter(milliseconds)
    capture.grab.side_effect = lambda: capture.grab.call_count <= len(milliseconds)
    capture.retrieve.return_value = True, np.zeros((4, 4, 3), np.uint8)
    capture.get.side_effect = lambda name: (
        {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: 0}[name] if name != cv2.CAP_PROP_POS_MSEC else next(told)
    )
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    assert [frame.time for frame in read_frames(video)] == pytest.approx(times, abs=1e-12)
