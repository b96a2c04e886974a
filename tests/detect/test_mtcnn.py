import concurrent.futures
import copy
import itertools
import json
import pickle
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
import skimage.data

from facejax.detect import MTCNN, Detections, boxes, cascade, mtcnn, sampling, strip

# facenet-pytorch 2.6.0, MTCNN(keep_all=True, min_face_size=20, select_largest=False), on scikit-image's astronaut, and
# on its mirror image.
ASTRONAUT = {
    "bbox": [181.0514, 62.1561, 267.7473, 172.0502],
    "score": 1.0,
    "landmarks": [
        [205.0109, 101.7275],
        [246.7626, 103.7141],
        [224.6714, 128.9650],
        [201.7161, 139.2462],
        [245.2655, 141.8570],
    ],
}
MIRRORED = {
    "bbox": [244.3378, 67.0216, 330.5923, 174.3071],
    "score": 0.9993,
    "landmarks": [
        [266.0279, 103.8962],
        [308.3958, 101.3673],
        [287.9991, 129.3529],
        [266.2858, 141.9070],
        [310.1009, 140.0564],
    ],
}


@pytest.fixture(scope="module")
def detector():
    return MTCNN()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()  # shipped in the package


def assert_close(got: Detections, expected: Detections, atol: float = 2e-3):
    assert len(got) == len(expected)
    np.testing.assert_allclose(got.bboxes, expected.bboxes, atol=atol)
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(got.landmarks, expected.landmarks, atol=atol)


def as_detections(face):
    parts = (np.array([face[name]], np.float32) for name in ("bbox", "score", "landmarks"))
    return Detections(*parts)


def test_finds_the_reference_face_in_a_batch_of_mixed_sizes(detector, astronaut):
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    blank = np.full((90, 200, 3), 60, np.uint8)
    got = detector.detect([mirrored, blank, astronaut])
    assert_close(got[0], as_detections(MIRRORED))
    assert len(got[1]) == 0
    assert_close(got[2], as_detections(ASTRONAUT))
    assert got[2].bboxes.dtype == got[2].scores.dtype == got[2].landmarks.dtype == np.float32


def test_result_does_not_depend_on_the_batch(detector, astronaut):
    photos = [astronaut[:300, 100:400], astronaut[:201, 120:340], cv2.resize(astronaut, (230, 170))]
    for got, photo in zip(detector.detect(photos), photos, strict=True):
        assert_close(got, detector.detect([photo])[0])


@pytest.mark.parametrize("passing", [256, 1], ids=["few windows pass", "more than fit"])
def test_an_accelerator_finds_the_same(detector, astronaut, monkeypatch, passing):
    """The accelerator's code path on the host: sums on the device, its batch sizes, its compact output of P-Net."""
    monkeypatch.setattr(cascade, "_PASSING", passing)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    cascade._passing_windows.clear_cache()
    photos = [astronaut, astronaut[:300, 100:400], np.zeros((5, 9, 3), np.uint8), astronaut[40:200, 150:300]]
    accelerated = MTCNN()
    accelerated.detect(photos[::-1])  # so that the next photos use memory that was used before
    for got, expected in zip(accelerated.detect(photos), detector.detect(photos), strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("passing", [256, 1], ids=["few windows pass", "more than fit"])
def test_an_accelerator_proposes_the_same_windows(detector, astronaut, monkeypatch, passing):
    monkeypatch.setattr(cascade, "_PASSING", passing)
    cascade._passing_windows.clear_cache()
    photos = [astronaut, astronaut[:300, 100:400]]
    buffer = sampling.integral_buffer(photos, None)
    tiles = strip.Strip.of_photos(buffer, 20.0, 0.709)
    expected = detector._cascade.propose(buffer.sums, tiles)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    got = MTCNN()._cascade.propose(sampling.integral_buffer(photos, []).sums, tiles)
    np.testing.assert_array_equal(got[0], expected[0])
    for ours, theirs in zip(got[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_faces_at_one_place_of_two_photos_are_both_found(detector, astronaut, monkeypatch):
    monkeypatch.setattr(detector, "_groups_at_once", 1)
    expected = detector.detect([astronaut])[0]
    for found in detector.detect([astronaut, astronaut]):
        assert_close(found, expected)


def test_crops_are_those_of_facenet_pytorch():
    """Its `pad` and `extract`: ``img[y - 1 : ey, x - 1 : ex]`` with whole numbers, clipped to 1 and to the sides."""
    photo = np.arange(60 * 80 * 3, dtype=np.int64).reshape(60, 80, 3)
    buffer = sampling.integral_buffer([photo.astype(np.uint8)], None)
    found = np.array(
        [[-3.7, -0.5, 30.2, 20.9], [50.5, 40, 99, 99], [1, 1, 80, 60], [81, 10, 99, 20], [2, 3, 5, 9]], np.float32
    )
    _, kept, table = mtcnn._crops(buffer, np.zeros(5, np.int64), found, 24)
    np.testing.assert_array_equal(kept, found[[0, 1, 2, 4]])
    for (x, y, ex, ey), (origin, stride, height, width, *sides) in zip(kept.tolist(), table.tolist(), strict=True):
        x, y, ex, ey = max(int(x), 1), max(int(y), 1), min(int(ex), 80), min(int(ey), 60)
        crop = photo[y - 1 : ey, x - 1 : ex]
        assert (height, width, sides) == (*crop.shape[:2], [24, 24])
        assert photo[origin // stride, origin % stride, 0] == crop[0, 0, 0]


def test_the_last_suppression_counts_both_end_pixels_and_compares_with_the_smaller_box(monkeypatch):
    """The first two share 3 of 4 columns (0.75; without end pixels 2 of 3); the third is within the fourth."""
    detector, photo = MTCNN(), np.zeros((80, 80, 3), np.uint8)
    found = np.array([[10, 10, 13, 13], [11, 10, 14, 13], [50, 50, 60, 60], [40, 40, 70, 70]], np.float32)
    scores = np.array([0.99, 0.98, 0.97, 0.96], np.float32)
    answer = scores, np.zeros((4, 4), np.float32), np.zeros((4, 10), np.float32)
    monkeypatch.setattr(detector._cascade, "refine", lambda *_: answer)
    _, kept, _, _ = detector._finish(sampling.integral_buffer([photo], None), np.zeros(4, np.int64), found)
    np.testing.assert_array_equal(kept, found[[0, 2]])


def test_photos_of_an_iterator_are_not_used_up_by_the_check():
    # In a process of its own, since under pytest the argument's type is checked.
    program = "import numpy, sys; from facejax.detect import MTCNN; photo = numpy.zeros((30, 30, 3), numpy.uint8);"
    program += "print(len(MTCNN().detect(photo for _ in range(3))))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_process_that_enabled_64_bit_numbers_finds_the_same(detector, astronaut, monkeypatch, backend):
    expected = detector.detect([astronaut])[0]
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    jax.config.update("jax_enable_x64", True)  # the context manager would not reach the detector's threads
    try:
        got = MTCNN().detect([astronaut])[0]
    finally:
        jax.config.update("jax_enable_x64", False)
    assert_close(got, expected)
    assert got.bboxes.dtype == got.scores.dtype == got.landmarks.dtype == np.float32


def test_new_sizes_compile_nothing(detector, astronaut):
    for side in (64, 512):
        detector.detect([astronaut[:side, :side]])
    functions = (strip.canvas_pixels, sampling.crop_pixels, cascade._windows, cascade._crops)
    detector.detect([cv2.resize(astronaut, (200, 130))])
    before = [function._cache_size() for function in functions]
    for width, height in ((190, 151), (163, 177), (171, 160)):
        detector.detect([cv2.resize(astronaut, (width, height))])
    assert [function._cache_size() for function in functions] == before


@pytest.mark.parametrize("min_face", [12.0, 20.0, 64.0, 301.5])
@pytest.mark.parametrize("factor", [0.5, 0.709, 0.78, 0.85, 0.95])
def test_levels_clash_where_their_windows_can_share_more_than_the_suppression_allows(min_face, factor):
    """Rounded sides of P-Net's boxes at all positions of the first levels; at most, the smaller lies in the larger."""
    x, sides = np.arange(20000, dtype=np.float32), []
    for level in range(4):
        scale = np.float32(12 / min_face * factor**level)
        sides.append(np.unique(np.floor((2 * x + 12) / scale) - np.floor((2 * x + 1) / scale)))
    shared = max((small[-1] / large[0]) ** 2 for small, large in itertools.pairwise(sides))
    clash = mtcnn._levels_clash(min_face, factor)
    assert clash or shared <= 0.7
    assert not clash or shared > 0.55


def test_no_box_of_another_level_is_suppressed_where_levels_do_not_clash(detector, astronaut, monkeypatch):
    expected = detector.detect([astronaut])
    monkeypatch.setattr(detector, "_levels_clash", True)
    for got, face in zip(detector.detect([astronaut]), expected, strict=True):
        np.testing.assert_array_equal(got.bboxes, face.bboxes)
    suppressed = []
    suppress = boxes.nms

    def counted(found, scores, threshold, **settings):
        kept = suppress(found, scores, threshold, **settings)
        suppressed.append(len(scores) - len(kept))
        return kept

    monkeypatch.setattr(boxes, "nms", counted)
    MTCNN(factor=0.9).detect([astronaut])
    assert len(suppressed) == 4
    assert min(suppressed) > 0


def test_the_largest():
    faces = Detections(
        np.array([[0, 0, 50, 5], [0, 0, 30, 20], [5, 5, 25, 25]], np.float32),  # the first has the longest edge
        np.array([0.99, 0.95, 0.9], np.float32),
        np.arange(30, dtype=np.float32).reshape(3, 5, 2),
    )
    assert faces.largest().scores.tolist() == faces[1:2].scores.tolist()
    assert len(faces[:0].largest()) == 0


def test_scores_descend(detector, astronaut):
    small = cv2.resize(astronaut, (400, 400))
    both = np.concatenate([cv2.GaussianBlur(small, (0, 0), 3), small], axis=1)
    found = detector.detect([both])[0]
    assert len(found) >= 2
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (19, 19), (20, 20), (25, 9000), (3, 40_000)])
def test_odd_shapes_hold_no_face(detector, shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = detector.detect([photo])[0]
    assert found.bboxes.shape[1:] == (4,)
    assert found.landmarks.shape[1:] == (5, 2)
    assert len(found) == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda detector: pickle.loads(pickle.dumps(detector))])
def test_copies_find_the_same(astronaut, copied):
    detector = MTCNN(min_face=40, thresholds=(0.6, 0.7, 0.8), factor=0.8)
    expected = detector.detect([astronaut])[0]
    found = copied(detector).detect([astronaut])[0]
    assert len(found) > 0
    np.testing.assert_array_equal(found.bboxes, expected.bboxes)
    np.testing.assert_array_equal(found.landmarks, expected.landmarks)


def test_threads_share_a_detector(detector, astronaut):
    expected = detector.detect([astronaut])[0]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for found in pool.map(detector.detect, [[astronaut, astronaut[:200]]] * 6):
            np.testing.assert_array_equal(found[0].bboxes, expected.bboxes)


def test_no_photos(detector):
    assert detector.detect([]) == []


def test_huge_photo_is_shrunk_and_its_boxes_are_in_its_own_pixels(astronaut):
    """A photo of 100 megapixels, its face 1000 pixels tall."""
    huge = np.zeros((10_000, 10_000, 3), np.uint8)
    huge[4000:8608, 3000:7608] = cv2.resize(astronaut, None, fx=9, fy=9, interpolation=cv2.INTER_LINEAR)
    found = MTCNN(min_face=200).detect([huge])[0]
    expected = np.array([ASTRONAUT["bbox"]], np.float32) * 9 + np.array([3000, 4000, 3000, 4000], np.float32)
    assert len(found) == 1
    assert boxes.overlap(found.bboxes, expected)[0, 0] > 0.85
    points = np.array(ASTRONAUT["landmarks"], np.float32) * 9 + np.array([3000, 4000], np.float32)
    assert np.abs(found.landmarks[0] - points).max() < 40


def test_smallest_face(detector, astronaut):
    """The face of the quarter-size photo is 25 pixels: found from min_face 20, not from 60."""
    small = cv2.resize(astronaut, (144, 144), interpolation=cv2.INTER_AREA)
    assert len(detector.detect([small])[0]) == 1
    assert len(MTCNN(min_face=60).detect([small])[0]) == 0


@pytest.mark.parametrize("thresholds", [(0.6, 1.0, 0.0), (0.6, 0.0, 1.0)])
def test_the_second_and_the_third_network_have_thresholds_of_their_own(astronaut, thresholds):
    """No probability is above 1, and nearly all are above 0."""
    assert len(MTCNN(thresholds=thresholds).detect([astronaut[:201, 120:340]])[0]) == 0


def test_the_first_network_has_its_threshold(astronaut):
    few, many = (len(MTCNN(thresholds=(t, 0.0, 0.0)).detect([astronaut[:201, 120:340]])[0]) for t in (0.99, 0.3))
    assert 0 < few < many


def test_a_photo_that_is_too_long_is_shrunk():
    assert mtcnn._shrink(np.zeros((3, 40_000, 3), np.uint8)).shape == (2, sampling.MAX_SIDE, 3)
    assert mtcnn._shrink(np.zeros((3, sampling.MAX_SIDE, 3), np.uint8)).shape == (3, sampling.MAX_SIDE, 3)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((30, 30), np.uint8),
        np.zeros((30, 30, 4), np.uint8),
        np.zeros((30, 30, 3), np.float32),
        np.zeros((0, 30, 3), np.uint8),
    ],
)
def test_other_images_are_refused_by_index(detector, image):
    with pytest.raises(ValueError, match=r"uint8 RGB|non-empty photo") as caught:
        detector.detect([np.zeros((30, 30, 3), np.uint8), image])
    assert "index 1" in str(caught.value)


def test_a_single_photo_is_refused(detector):
    with pytest.raises(ValueError, match="index 0"):
        detector.detect(list(np.zeros((30, 30, 3), np.uint8)))


@pytest.mark.parametrize(
    "options", [{"min_face": 8}, {"min_face": float("nan")}, {"factor": 1.2}, {"thresholds": (0.6, 0.7, 1.7)}], ids=str
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        MTCNN(**options)


@pytest.mark.parametrize(
    ("photos", "lengths"), [(1, [1]), (19, [19]), (24, [12, 12]), (36, [12] * 3), (106, [35, 36, 35]), (120, [30] * 4)]
)
def test_groups_are_alike_in_size(photos, lengths):
    """At most three at once, of 10 to 36 photos each where there are that many."""
    image = np.zeros((9, 9, 3), np.uint8)
    groups = mtcnn._groups([image] * photos, 3, 1000, 3600)
    assert [len(group) for group in groups] == lengths


def test_only_expected_shapes_are_compiled():
    assert cascade._batches(0, (16, 64), round_up=False) == cascade._batches(0, (16, 64), round_up=True) == []
    assert cascade._batches(5, (16, 64), round_up=False) == cascade._batches(5, (16, 64), round_up=True) == [(0, 5, 16)]
    lean = [(0, 64, 64), (64, 128, 64), (128, 144, 16), (144, 150, 16)]
    assert cascade._batches(150, (16, 64), round_up=False) == lean
    assert cascade._batches(150, (16, 64), round_up=True) == [(0, 64, 64), (64, 128, 64), (128, 150, 64)]


def test_of_candidates_that_onet_likes_equally_the_last_of_rnet_stays(monkeypatch):
    """As in facenet-pytorch, whose suppression prefers the last of equal scores: NumPy's argsort, read from its end."""
    detector, photo = MTCNN(), np.zeros((80, 80, 3), np.uint8)
    found = np.array([[10, 10, 50, 50], [11, 10, 51, 50], [12, 10, 52, 50]], np.float32)
    scores = np.array([1, 1, 0.9], np.float32)
    answer = scores, np.zeros((3, 4), np.float32), np.zeros((3, 10), np.float32)
    monkeypatch.setattr(detector._cascade, "refine", lambda *_: answer)
    _, kept, _, _ = detector._finish(sampling.integral_buffer([photo], None), np.zeros(3, np.int64), found)
    assert np.argsort(scores, kind="stable")[-1] == 1
    np.testing.assert_array_equal(kept, found[1:2])


@pytest.mark.parametrize("name", ["Holly_Hunter_0007", "Roberto_Marinho_0001"])
def test_equal_scores_on_photos(name, detector, shared_dir):
    """Two photos for which the other order gives a box with the same score, 52 and 25 pixels away."""
    path = f"facial_expressions/images/{name}.jpg"
    expected = json.loads((shared_dir / "data" / "mtcnn_reference.json").read_text())[path]
    assert expected["scale"] == 1
    found = detector.detect([cv2.imread(str(shared_dir / "data" / path))[..., ::-1]])[0]
    np.testing.assert_allclose(found.bboxes, expected["boxes"], atol=0.5)
    np.testing.assert_allclose(found.scores, expected["probs"], atol=1e-4)


@pytest.mark.slow
def test_parity_with_facenet_pytorch(detector, shared_dir):
    """138 real photos: >= 99 % of the reference's faces found, <= 1 % extra."""
    reference = json.loads((shared_dir / "data" / "mtcnn_reference.json").read_text())
    photos = []
    for name, entry in reference.items():
        photo = cv2.cvtColor(cv2.imread(str(shared_dir / "data" / name)), cv2.COLOR_BGR2RGB)
        if entry["scale"] != 1:
            photo = cv2.resize(photo, None, fx=entry["scale"], fy=entry["scale"], interpolation=cv2.INTER_AREA)
        photos.append(photo)
    total = hits = extra = 0
    for entry, found in zip(reference.values(), detector.detect(photos), strict=True):
        expected = np.array(entry["boxes"], np.float32).reshape(-1, 4)
        total += len(expected)
        matched = set()
        for bbox, score, points in zip(expected, entry["probs"], entry["landmarks"], strict=True):
            iou = boxes.overlap(bbox[None], found.bboxes)[0] if len(found) else np.zeros(1)
            best = int(iou.argmax())
            if iou[best] < 0.9 or best in matched:
                continue
            matched.add(best)
            near = np.abs(found.landmarks[best] - np.array(points)).max() <= 0.02 * (bbox[2:] - bbox[:2]).max()
            hits += abs(found.scores[best] - score) <= 0.02 and near
        extra += len(found) - len(matched)
    assert total == 202
    assert hits >= 0.99 * total
    assert extra <= 0.01 * total
