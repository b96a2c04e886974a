"""The analyzer against the same steps done by hand, and edge cases: no face, a thousand faces, 100 megapixels."""

import dataclasses
import hashlib
import json
import pathlib

import jax
import numpy as np
import pandas
import pytest

from facejax.detect import crop_face
from facejax.inference import Classification, Face, FaceAnalyzer, LoadedModel, PhotoResult
from facejax.inference import analyzer as module
from facejax.inference.drawing import COLOURS
from facejax.tasks import EMOTION8
from tests.inference.toy import FixedDetector, noise, toy_model

BOXES = [[10, 12, 60, 70], [55.5, 20.2, 99.7, 80.1], [-5, 50, 30, 105]]


@pytest.fixture(scope="module")
def models() -> list[LoadedModel]:
    return [
        toy_model("age", "gender", "ethnicity"),
        toy_model("emotion8", "valence_arousal", seed=1, channel_order="bgr"),
    ]


@pytest.fixture(scope="module")
def analyzer(models) -> FaceAnalyzer:
    return FaceAnalyzer(models, FixedDetector(BOXES))


def test_every_attribute_is_what_its_network_says_of_the_crop(analyzer, models):
    photo = noise(100, 120)
    result = analyzer.analyze(photo)
    detections = analyzer.detector.detect([photo])[0]
    crops = [crop_face(photo, box, points) for box, points in zip(detections.bboxes, detections.landmarks, strict=True)]
    first, second = (model.predict(crops) for model in models)
    features = models[0].features(crops)
    assert (len(result.faces), result.width, result.height) == (len(BOXES), 120, 100)
    for index, face in enumerate(result.faces):
        np.testing.assert_array_equal(face.box, np.float32(BOXES[index]))
        assert face.age == pytest.approx(first["age"][index], rel=1e-5)
        assert [*face.gender.probabilities] == ["female", "male"]
        assert [*face.ethnicity.probabilities.values()] == pytest.approx(first["ethnicity"][index], abs=1e-6)
        assert face.emotion.label == EMOTION8[int(second["emotion8"][index].argmax())]
        assert (face.valence, face.arousal) == pytest.approx(tuple(second["valence_arousal"][index]), abs=1e-5)
        np.testing.assert_allclose(face.embedding, features[index] / np.linalg.norm(features[index]), atol=1e-6)


def test_crops_and_words_are_those_of_the_weights():
    model = toy_model("gender", margin=0.4)
    model = LoadedModel(dataclasses.replace(model.cfg, labels={"gender": ("woman", "man")}), model.variables)
    photo, seen = noise(100, 120), []
    for align in (True, False):
        analyzer = FaceAnalyzer([model], FixedDetector(BOXES[:1]), align=align)
        (found,) = analyzer.detector.detect([photo])
        crop = crop_face(photo, found.bboxes[0], found.landmarks[0], margin=0.4, align=align)
        (face,) = analyzer.analyze(photo).faces
        np.testing.assert_allclose(face.features, model.features([crop])[0], rtol=1e-4, atol=1e-5)
        assert [*face.gender.probabilities] == ["woman", "man"]
        seen.append(face.features)
    assert not np.allclose(*seen, rtol=1e-2)


def test_photos_are_worked_on_in_groups_of_bounded_size(monkeypatch):
    monkeypatch.setattr(module, "_GROUP_PHOTOS", 3)
    monkeypatch.setattr(module, "_GROUP_PIXELS", 500)
    sides = (10, 10, 10, 10, 20, 20, 30, 5)  # 100 pixels, ..., 400, 400, 900, 25
    groups = module._groups(("", noise(side, side)) for side in sides)
    assert [[image.shape[0] for _, image in group] for group in groups] == [[10, 10, 10], [10, 20], [20, 30], [5]]


def test_photos_of_mixed_sizes_in_a_list_and_one_by_one(analyzer):
    photos = [noise(100 + 7 * i, 130 - 3 * i, seed=i) for i in range(5)]
    for alone, together in zip(map(analyzer.analyze, photos), analyzer.analyze(photos), strict=True):
        assert (alone.width, alone.height) == (together.width, together.height)
        for one, other in zip(alone.faces, together.faces, strict=True):
            assert one.emotion.probabilities == pytest.approx(other.emotion.probabilities, abs=1e-5)


def test_red_and_blue_are_not_confused(analyzer):
    photo = noise(100, 120)
    one, other = analyzer.analyze([photo, photo[..., ::-1]])
    assert one.faces[0].emotion.probabilities != pytest.approx(other.faces[0].emotion.probabilities, abs=1e-6)


def test_no_face_and_no_photo(analyzer):
    assert analyzer.analyze(noise(8, 8)).faces == ()
    assert analyzer.analyze(noise(1, 1)).to_dict() == {"width": 1, "height": 1, "faces": []}
    assert analyzer.analyze([]) == []


def test_a_thousand_faces_compile_no_new_shape(models):
    models = models[:1]
    boxes = [[x, y, x + 30, y + 40] for x in range(0, 1000, 25) for y in range(0, 1000, 40)]
    photo = noise(1040, 1030)
    for count in (1, 2, 16, 64):
        FaceAnalyzer(models, FixedDetector(boxes[:count])).analyze(photo)
    before = [model._outputs._cache_size() for model in models]
    for count in (3, 11, 29, 1000):
        assert len(FaceAnalyzer(models, FixedDetector(boxes[:count])).analyze(photo).faces) == count
    assert [model._outputs._cache_size() for model in models] == before


def test_a_photo_of_100_megapixels(models):
    huge = np.zeros((10_000, 10_000, 3), np.uint8)
    result = FaceAnalyzer(models, FixedDetector([[2000, 2000, 8000, 9000]])).analyze(huge)
    assert (result.width, len(result.faces)) == (10_000, 1)


def test_a_box_outside_the_photo_is_dropped(models):
    boxes = [[200, 10, 240, 40], [10, 10, 40, 40], [-30, 0, 0.4, 20]]
    assert len(FaceAnalyzer(models, FixedDetector(boxes)).analyze(noise(60, 80)).faces) == 1


def test_memory_does_not_grow_with_the_number_of_photos(analyzer):
    alive = 0

    def photos():
        nonlocal alive
        for index in range(200):
            alive = index
            yield noise(30, 30, seed=index)

    for done, result in enumerate(analyzer.photos(photos())):
        assert len(result.faces) <= 3
        assert alive - done < 40


def test_a_photo_that_cannot_be_read_is_named(analyzer, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        analyzer.analyze([noise(40, 40), tmp_path / "broken.jpg"])


@pytest.mark.parametrize("single", ["a.jpg", noise(40, 40), noise(40, 40)[..., 0]])
def test_a_single_photo_is_not_taken_apart(analyzer, single):
    """The letters of a path and the rows of an array would be photos of their own."""
    with pytest.raises(ValueError, match=r"takes several photos, such as a list; for a single one, call analyze"):
        analyzer.photos(single)
    assert [photo.width for photo in analyzer.photos(np.stack([noise(40, 30, 1), noise(40, 30, 2)]))] == [30, 30]


def test_two_networks_for_one_task_are_refused(models):
    with pytest.raises(ValueError, match="two networks predict the emotion"):
        FaceAnalyzer([*models, toy_model("emotion7")], FixedDetector([]))
    with pytest.raises(ValueError, match="at least one network"):
        FaceAnalyzer([], FixedDetector([]))


def test_a_crop_without_pixels_and_an_unknown_task_are_named(models):
    with pytest.raises(ValueError, match="crop 1 has shape \\(0, 5, 3\\)"):
        models[0].predict([noise(9, 9), noise(0, 5)])
    with pytest.raises(KeyError, match="no task 'agee'; did you mean 'age'"):
        models[0].class_names("agee")


@pytest.fixture
def face() -> Face:
    return Face(
        np.array([10, 20, 60, 90.123], np.float32),
        np.array([[20, 40], [45, 41], [33, 55], [22, 70], [44, 70]], np.float32),
        0.999,
        age=34.4,
        gender=Classification({"female": 0.25, "male": 0.75}),
        ethnicity=Classification({"white": 0.1, "latino_middle_eastern": 0.9}),
        emotion=Classification({"anger": 0.75, "neutral": 0.25}),
        valence=-0.5,
        arousal=0.25,
        features=np.array([3, 4], np.float32),
    )


def test_dict_row_and_caption_say_perceived_and_expression(face):
    result = PhotoResult((face, face), 100, 120, "a.jpg")
    as_dict = json.loads(json.dumps(result.to_dict(embedding=True)))
    assert as_dict["photo"] == "a.jpg"
    told = as_dict["faces"][0]
    assert told["perceived_gender"] == {
        "label": "male",
        "probability": 0.75,
        "probabilities": {"female": 0.25, "male": 0.75},
    }
    assert told["expression"]["label"] == "anger"
    assert told["landmarks"]["nose"] == [33, 55]
    assert told["embedding"] == pytest.approx([0.6, 0.8])
    assert "embedding" not in face.to_dict()
    nothing = dataclasses.replace(face, features=np.zeros(2, np.float32))
    assert nothing.embedding.tolist() == [0, 0]
    row = result.to_rows()[1]
    assert (row["face"], row["x1"], row["expression"], row["expression_neutral"]) == (1, 10, "anger", 0.25)
    assert face.caption() == [
        "perceived male 75%, latino middle eastern 90%, age 34",
        "expression: anger 75%",
        "valence -0.50, arousal +0.25",
    ]


class _OfPath:
    def __fspath__(self) -> str:
        return "a.jpg"


@pytest.mark.parametrize(
    ("source", "photo"),
    [("a.jpg", "a.jpg"), (pathlib.Path("a.jpg"), "a.jpg"), (_OfPath(), "a.jpg"), (b"x", None), (noise(2, 2), None)],
)
def test_a_photo_is_named_by_its_path_alone(source, photo, face):
    result = PhotoResult((face,), 2, 2, source)
    assert result.to_dict().get("photo") == result.to_rows()[0].get("photo") == photo


def test_faces_and_results_can_be_found_in_lists_and_sets(face):
    other = dataclasses.replace(face)
    results = [PhotoResult(faces, 100, 120, noise(120, 100)) for faces in ((face, other), (other,))]
    assert results[0].faces.index(other) == 1
    assert results.index(results[1]) == 1
    assert len({*results, *results[0].faces}) == 4
    assert "features" not in repr(face)


def test_pandas_on_request(face):
    frame = PhotoResult((face,), 100, 120, "a.jpg").to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc[0, "perceived_age"] == pytest.approx(34.4)


def test_drawing_leaves_the_photo_alone_and_marks_the_face(face):
    photo = np.full((120, 100, 3), 128, np.uint8)
    drawn = PhotoResult((face,), 100, 120, photo).draw()
    assert (photo == 128).all()
    assert (drawn.shape, drawn.dtype) == (photo.shape, np.uint8)
    changed = (drawn != photo).any(axis=2)
    assert changed[50, 10]
    assert changed[40, 20]
    assert not changed[110, 90]
    with pytest.raises(ValueError, match="to draw on"):
        PhotoResult((face,), 100, 120, photo).draw(photo[:50])


def test_a_face_far_along_a_panorama_is_marked_where_it_is():
    """Beyond pixel 16,384, at which coordinates were once clipped; without a caption, which would cover the box."""
    for shape, (left, top) in (((900, 20_000, 3), (18_000, 400)), ((20_000, 900, 3), (400, 18_000))):
        photo = np.full(shape, 90, np.uint8)
        box = np.array([left, top, left + 400, top + 400], np.float32)
        drawn = PhotoResult((Face(box, np.zeros((5, 2), np.float32), 0.9),), shape[1], shape[0], photo).draw()
        for y, x in ((top + 300, left), (top + 300, left + 400), (top, left + 200), (top + 400, left + 200)):
            assert drawn[y, x].tolist() == list(COLOURS[0]), (y, x)


def test_drawing_a_face_beyond_the_edges_of_a_tiny_photo(face):
    assert PhotoResult((face,), 3, 2, noise(2, 3)).draw().shape == (2, 3, 3)


def test_a_network_has_the_digest_that_it_had_before_there_were_other_poolings():
    model = toy_model("gender")
    cfg = model.cfg.to_dict()
    assert cfg.pop("global_pool") == "avg"
    for words in ("source", "licence", "training_data", "notes"):
        del cfg[words]
    expected = hashlib.sha256(json.dumps(cfg, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(model.variables):
        expected.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    assert model.digest() == expected.hexdigest()[:12]
    assert LoadedModel(dataclasses.replace(model.cfg, global_pool="max"), model.variables).digest() != model.digest()
