import threading

import cv2
import numpy as np
import pytest

from facejax.video.frames import VideoError, array_frames, read_frames


def write_video(path, count, size=(48, 64), fps=25.0):
    """Frames of one grey each, 10 steps apart, so that a decoded frame says its number."""
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


def test_large_frames_are_reduced(video):
    frame = next(read_frames(video, max_side=32))
    assert frame.image.shape == (24, 32, 3)
    assert frame.scale == 0.5
    assert next(read_frames(video, max_side=100)).scale == 1


def test_the_thread_ends_with_its_consumer_and_never_runs_far_ahead(video):
    before = threading.active_count()
    frames = read_frames(video, ahead=2)
    next(frames)
    assert threading.active_count() == before + 1
    frames.close()
    assert threading.active_count() == before


def test_files_that_are_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        list(read_frames(tmp_path / "text.mp4"))
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_frames(tmp_path / "nothing.mp4")
    with pytest.raises(ValueError, match="every >= 1"):
        read_frames(tmp_path / "text.mp4", every=0)


def test_a_cut_off_file_gives_what_is_whole(video):
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 7 // 10])
    kept = numbers(read_frames(video))
    assert 5 < len(kept) < 24
    assert kept == list(range(len(kept)))


def test_frames_of_arrays():
    images = np.zeros((7, 4, 4, 3), np.uint8)
    frames = list(array_frames(images, fps=10, every=3))
    assert [(frame.index, frame.time) for frame in frames] == [(0, 0.0), (3, 0.3), (6, 0.6)]
