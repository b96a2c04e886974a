"""The dataset: labels, splits, determinism in any order and process, identity against expression."""

import collections
import dataclasses
import itertools
import multiprocessing
import pickle

import cv2
import numpy as np
import pytest

from facejax.datasets import get_dataset
from facejax.datasets.people.clip import envelope, moments
from facejax.datasets.people.identity import sample_identity
from facejax.datasets.people.reader import AFFECTNET_COUNTS
from facejax.tasks import EMOTION7, EMOTION8, ETHNICITY, GENDER

SIZE = 128


@pytest.fixture(scope="module")
def records():
    return list(get_dataset("people").records(num_train=120, num_validation=60, size=SIZE))


def image(record):
    return record.image()


def test_records_carry_every_label(records):
    assert len({record.id for record in records}) == len(records) == 180
    for record in records:
        labels = record.labels
        assert 0 <= labels["gender"] < len(GENDER)
        assert 0 <= labels["ethnicity"] < len(ETHNICITY)
        assert 0 <= labels["emotion"] < len(EMOTION8)
        assert 1 <= labels["age"] <= 100
        assert 0 <= labels["intensity"] <= 1
        assert all(-1 <= v <= 1 for v in labels["valence_arousal"])
        assert (labels["intensity"] == 0) == (EMOTION8[labels["emotion"]] == "neutral")
        x1, y1, x2, y2 = record.bbox
        assert x1 < x2
        assert y1 < y2
        assert record.landmarks.shape == (5, 2)
        assert (record.landmarks > 0).all()
        assert (record.landmarks < SIZE).all()


def test_identities_count_from_zero_and_nobody_is_in_two_splits(records):
    by_split = {s: {r.labels["identity"] for r in records if r.split == s} for s in ("train", "validation")}
    assert by_split["train"] == set(range(20))
    assert by_split["validation"] == set(range(20, 30))
    people = {s: {r.labels["person"] for r in records if r.split == s} for s in by_split}
    assert not people["train"] & people["validation"]
    assert collections.Counter(r.labels["identity"] for r in records)[0] == 6


def test_same_people_shows_them_again_in_other_photos():
    both = list(get_dataset("people").records(num_train=12, num_validation=12, same_people=True))
    train, validation = both[:12], both[12:]
    assert [r.labels["person"] for r in train] == [r.labels["person"] for r in validation]
    assert not {r.image.key for r in train} & {r.image.key for r in validation}


def test_same_people_shows_all_of_them_however_few_photos():
    options = {"num_train": 40, "num_validation": 8, "photos_per_person": 10, "same_people": True}
    both = list(get_dataset("people").records(**options))
    assert [r.labels["identity"] for r in both[:40]] == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10
    assert [r.labels["identity"] for r in both[40:]] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [r.labels["person"] for r in both[40::2]] == [r.labels["person"] for r in both[:40:10]]


def test_more_photos_do_not_change_the_first_ones(records):
    more = list(get_dataset("people").records(num_train=18, num_validation=6, size=SIZE))
    assert [r.image for r in more[:18]] == [r.image for r in records[:18]]
    assert [r.image for r in more[18:]] == [r.image for r in records[120:126]]


def test_another_seed_is_another_world(records):
    other = next(iter(get_dataset("people").records(num_train=1, num_validation=0, seed=1)))
    assert other.image.identity != records[0].image.identity


def test_photos_do_not_depend_on_order_or_process(records):
    chosen = [records[i] for i in (0, 7, 30, 121)]
    first = [image(r) for r in chosen]
    for picture in first:
        assert picture.shape == (SIZE, SIZE, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 5
    backwards = [image(pickle.loads(pickle.dumps(r))) for r in reversed(chosen)][::-1]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.map(image, chosen)
    cv2.setNumThreads(threads)
    for here, again, there in zip(first, backwards, elsewhere, strict=True):
        assert (here == again).all()
        assert (here == there).all()


def test_balance():
    def shares(**options):
        records = get_dataset("people").records(num_train=240, num_validation=0, **options)
        return np.bincount([r.labels["emotion"] for r in records], minlength=8) / 240

    equal = shares()
    np.testing.assert_allclose(equal, 1 / 8, atol=0.08)
    wanted = np.array(AFFECTNET_COUNTS) / sum(AFFECTNET_COUNTS)
    np.testing.assert_allclose(shares(imbalance="affectnet"), wanted, atol=0.1)
    validation = list(get_dataset("people").records(num_train=0, num_validation=240, imbalance="affectnet"))
    assert [r.image for r in validation] == [
        r.image for r in get_dataset("people").records(num_train=0, num_validation=240)
    ]
    assert sum(AFFECTNET_COUNTS) == 287651  # the paper's training photos


def test_attributes_are_spread():
    people = [sample_identity((0, 1, 0, n)) for n in range(600)]
    gender = np.bincount([p.gender for p in people]) / 600
    ethnicity = np.bincount([p.ethnicity for p in people]) / 600
    np.testing.assert_allclose(gender, 0.5, atol=0.08)
    np.testing.assert_allclose(ethnicity, 0.2, atol=0.06)
    ages = np.array([p.age for p in people])
    assert (ages < 12).mean() > 0.01
    assert (ages > 65).mean() > 0.03
    assert 0.4 < ((ages > 20) & (ages < 50)).mean() < 0.9


def test_the_person_stays_while_the_face_moves():
    """Landmarks of one person's photos, with the pose removed, differ less than those of different people."""
    records = list(get_dataset("people").records(num_train=6, num_validation=0))
    assert len({r.image.identity for r in records}) == 1
    assert len({r.labels["emotion"] for r in records}) > 1
    older = dataclasses.replace(records[0].image.identity, age=80.0)
    assert older.sliders == records[0].image.identity.sliders


def test_unknown_options_are_errors():
    with pytest.raises((ValueError, TypeError), match="imbalance"):
        next(iter(get_dataset("people").records(imbalance="vggface")))
    with pytest.raises((ValueError, TypeError), match="kind"):
        next(iter(get_dataset("people").clips(kind="crowd")))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("records", {"num_train": -5}, "num_train must be at least 0, got -5"),
        ("records", {"size": 0}, "size must be at least 1, got 0"),
        ("records", {"photos_per_person": 0}, "photos_per_person must be at least 1, got 0"),
        ("clips", {"num_validation": -1}, "num_validation must be at least 0, got -1"),
        ("clips", {"num_frames": 0}, "num_frames must be at least 1, got 0"),
    ],
)
def test_numbers_that_cannot_be(method, options, message):
    with pytest.raises(ValueError, match=message):
        next(iter(getattr(get_dataset("people"), method)(**options)))


def test_solo_clips():
    clips = list(get_dataset("people").clips(num_train=14, num_validation=7, size=96, num_frames=6))
    train = [EMOTION8[c.labels["emotion"]] for c in clips if c.split == "train"]
    assert collections.Counter(train) == dict.fromkeys(EMOTION7, 2)
    frames = clips[0].image()
    assert frames.shape == (6, 96, 96, 3)
    assert (frames == clips[0].image()).all()
    moving = np.abs(np.diff(frames.astype(int), axis=0)).mean()
    assert 0.3 < moving < 40


def test_group_clips_show_several_people():
    clips = list(get_dataset("people").clips(kind="group", num_train=3, num_validation=3, size=96, num_frames=2))
    assert [c.labels["group_emotion"] for c in clips] == [0, 1, 2, 0, 1, 2]
    assert all(3 <= c.labels["num_people"] <= 7 for c in clips)
    assert clips[0].image().shape == (2, 96, 128, 3)


def test_expressions_come_and_go():
    rng = np.random.default_rng(0)
    for _ in range(20):
        strength = envelope(30, rng)
        peak = int(strength.argmax())
        assert strength.min() >= 0
        assert strength.max() == pytest.approx(1, abs=1e-6)
        assert (np.diff(strength[: peak + 1]) >= -1e-9).all()
        assert np.abs(np.diff(strength)).max() < 0.7
    clip = next(iter(get_dataset("people").clips(num_train=1, num_validation=0)))
    track = moments(clip.image.actors[-1], 30, np.random.default_rng(1))
    drift = [abs(b.yaw - a.yaw) for (_, a), (_, b) in itertools.pairwise(track)]
    assert 0 < max(drift) < 0.2


def test_identification_photos_show_other_people_mostly_calm():
    records = list(get_dataset("people").records(num_train=12, num_validation=6, num_test=120))
    test = [r for r in records if r.split == "test"]
    assert {r.labels["identity"] for r in test} == set(range(3, 23))
    assert not {r.labels["person"] for r in test} & {r.labels["person"] for r in records if r.split != "test"}
    calm = [EMOTION8[r.labels["emotion"]] in ("neutral", "happiness") for r in test]
    assert sum(calm) > 0.7 * len(calm)


def test_studio_photos_are_frontal_and_strong():
    studio = list(get_dataset("people").records(num_train=96, num_validation=0, setting="studio"))
    strong = [r.labels["intensity"] for r in studio if EMOTION8[r.labels["emotion"]] != "neutral"]
    assert min(strong) >= 0.85
    assert max(abs(r.labels["head_pose"][0]) for r in studio) < 35
    with pytest.raises((ValueError, TypeError), match="setting"):
        next(iter(get_dataset("people").records(setting="sketch")))


def test_the_pose_of_a_head_is_seen_in_its_landmarks():
    """Turned to the right and down, the nose moves right and down between eyes and mouth; tilt is that of the eyes."""
    records = list(get_dataset("people").records(num_train=60, num_validation=0, size=64, photos_per_person=1))
    yaw, pitch, roll = np.array([record.labels["head_pose"] for record in records]).T
    left, right, nose, *mouth = np.array([record.landmarks for record in records], np.float64).transpose(1, 0, 2)
    across = (right - left) / np.linalg.norm(right - left, axis=1, keepdims=True)
    down = np.stack([-across[:, 1], across[:, 0]], axis=1)
    middle = (left + right) / 2
    aside = ((nose - middle) * across).sum(axis=1) / np.linalg.norm(right - left, axis=1)
    below = ((nose - middle) * down).sum(axis=1) / ((sum(mouth) / 2 - middle) * down).sum(axis=1)
    assert np.corrcoef(aside, yaw)[0, 1] > 0.9
    assert np.corrcoef(below, pitch)[0, 1] > 0.3
    assert np.corrcoef(-across[:, 1], roll)[0, 1] > 0.85  # anticlockwise as seen, and rows are counted downwards
