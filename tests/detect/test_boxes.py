import numpy as np
import pytest

from facejax.detect import boxes


def greedy(found, scores, threshold, relative_to, end_pixel):
    """Suppression one pair at a time, as defined."""

    def area(box):
        return (box[2] - box[0] + end_pixel) * (box[3] - box[1] + end_pixel)

    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        for k in kept:
            width = min(found[i][2], found[k][2]) - max(found[i][0], found[k][0]) + end_pixel
            height = min(found[i][3], found[k][3]) - max(found[i][1], found[k][1]) + end_pixel
            both = max(width, 0) * max(height, 0)
            a, b = area(found[i]), area(found[k])
            whole = min(a, b) if relative_to == "smaller" else a + b - both
            if whole > 0 and both / whole > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize(("relative_to", "end_pixel"), [("union", 0.0), ("union", 1.0), ("smaller", 1.0)])
@pytest.mark.parametrize("count", [0, 1, 40, 700])
def test_nms_equals_greedy_definition(relative_to, end_pixel, count):
    rng = np.random.default_rng(count)
    corner = rng.uniform(0, 300, (count, 2))
    found = np.concatenate([corner, corner + rng.uniform(10, 80, (count, 2))], axis=1).astype(np.float32)
    scores = (rng.integers(0, 50, count) / 50).astype(np.float32)  # with ties
    key = np.zeros(count, np.int64)
    kept = boxes.nms(found, scores, 0.4, key=key, relative_to=relative_to, end_pixel=end_pixel)
    assert kept.tolist() == greedy(found, scores, 0.4, relative_to, end_pixel)


@pytest.mark.parametrize(("relative_to", "end_pixel"), [("union", 0.0), ("smaller", 1.0)])
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_nms_by_key_equals_greedy_definition_key_by_key(relative_to, end_pixel, threshold, monkeypatch):
    """Boxes of a few whole pixels, some without area: overlaps of exactly the threshold, equal boxes, equal scores."""
    rng = np.random.default_rng(0)
    key, corner = rng.integers(0, 7, 500) * 3, rng.integers(0, 12, (500, 2))
    found = np.concatenate([corner, corner + rng.integers(0, 11, (500, 2))], axis=1).astype(np.float32)
    scores = rng.integers(0, 9, 500).astype(np.float32) / 9
    expected = []
    for value in range(0, 21, 3):
        mine = np.flatnonzero(key == value)
        expected += mine[greedy(found[mine], scores[mine], np.float32(threshold), relative_to, end_pixel)].tolist()
    assert len(expected) < len(scores)
    for pairs in (1, 50, 10**6):
        monkeypatch.setattr(boxes, "_PAIRS", pairs)
        kept = boxes.nms(found, scores, threshold, key=key, relative_to=relative_to, end_pixel=end_pixel)
        assert kept.tolist() == expected


@pytest.mark.parametrize("keys", [1, 5, 2**31])
def test_best_first_is_by_key_then_score_then_place(keys):
    rng = np.random.default_rng(keys)
    key, scores = rng.integers(0, keys, 300), (rng.integers(0, 30, 300) / 29).astype(np.float32)
    scores[::7] = np.nextafter(scores[::7], np.float32(2))  # neighbouring floats
    scores[::11] = rng.uniform(0, 1e-40, len(scores[::11]))
    expected = sorted(range(300), key=lambda i: (key[i], -scores[i], i))
    assert boxes.best_first(scores, key).tolist() == expected


def test_overlap_of_known_boxes():
    a = np.array([[0.0, 0.0, 10.0, 10.0]])
    others = np.array([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [10.0, 0.0, 20.0, 10.0], [2.0, 2.0, 4.0, 4.0]])
    np.testing.assert_allclose(boxes.overlap(a, others), [[1, 50 / 150, 0, 4 / 100]])


def test_overlap_of_boxes_without_area_is_zero():
    point = np.zeros((1, 4))
    assert boxes.overlap(point, point) == 0


def test_calibrate_and_squares():
    found = np.array([[10.0, 20.0, 30.0, 60.0]], np.float32)
    offsets = np.array([[0.5, -0.25, 0.1, 0.0]], np.float32)
    np.testing.assert_allclose(boxes.calibrate(found, offsets, end_pixel=0.0), [[20, 10, 32, 60]])
    np.testing.assert_allclose(boxes.calibrate(found, offsets, end_pixel=1.0), [[20.5, 9.75, 32.1, 60]], rtol=1e-6)
    np.testing.assert_allclose(boxes.squares(found), [[0, 20, 40, 60]])
