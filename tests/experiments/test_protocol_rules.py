"""The rules of the protocols against scikit-learn and NumPy: what is trained on, what is scored, what is compared."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from experiments.protocols import attributes, faces, lfw, video
from experiments.protocols.network import load_network
from facejax.data.records import Record
from facejax.datasets import get_dataset
from facejax.evals.verification import draw_pairs
from facejax.inference.video import VideoWriter
from facejax.overrides import override
from facejax.protocol_config import (
    AttributesConfig,
    ClassifierConfig,
    ClipsConfig,
    DescriptorConfig,
    DetectionConfig,
    LfwConfig,
    NetworkConfig,
    PhotosConfig,
    VideoConfig,
)
from facejax.tasks import EMOTION7, EMOTION8
from facejax.video.descriptors import AFEW, describe_clips
from facejax.video.features import Clip, FeatureTable
from tests.inference.toy import FixedDetector, noise

TINY = NetworkConfig(backbone="mobilenet_v1", image_size=32)


@pytest.fixture
def protocol() -> video.Protocol:
    """Ninety clips of three classes that their features hardly separate; some have no face, some no class."""
    rng = np.random.default_rng(1)
    labels, counts = np.arange(90) % 3, rng.integers(1, 6, 90)
    counts[[4, 65, 70]], labels[[7, 30, 66]] = 0, -1
    clips = [Clip(str(n), "train" if n < 60 else "validation", int(labels[n]), 5) for n in range(90)]
    clip = np.repeat(np.arange(90), counts)
    rows = rng.normal(size=(len(clip), 6)).astype(np.float32) + 0.4 * np.eye(6, dtype=np.float32)[labels[clip]]
    frame, zeros = np.concatenate([np.arange(n) for n in counts]), np.zeros(len(clip))
    box = np.zeros((len(clip), 4), np.float32)
    table = FeatureTable(tuple(clips), clip, frame, zeros, box, zeros.astype(np.float32), rows, "toy")
    config = VideoConfig(compare_folds=4, classifier=ClassifierConfig(("linear_svc", "logistic"), costs=(1.0,)))
    descriptor = DescriptorConfig(AFEW.levels, AFEW.statistics)
    return video.Protocol(dataclasses.replace(config, descriptor=descriptor, seed=3), table, ("a", "b", "c"))


ESTIMATORS = {
    "linear_svc": LinearSVC(C=1.0, random_state=3, max_iter=20000),
    "logistic": LogisticRegression(C=1.0, max_iter=5000),
}


def test_train_clips_teach_and_validation_clips_are_answered(protocol, tmp_path):
    table = protocol.table
    vectors, labels = describe_clips(list(table.per_clip()), AFEW), table.labels
    teach = [n for n in range(60) if n != 4 and labels[n] >= 0]
    asked = np.array([n for n in range(60, 90) if labels[n] >= 0])
    seen = np.isin(asked, [65, 70], invert=True)
    found = protocol.results(tmp_path)
    for name, estimator in ESTIMATORS.items():
        said = estimator.fit(vectors[teach], labels[teach]).predict(vectors[asked])
        for part, chosen in (("all", seen | True), ("with_faces", seen)):
            assert found[name][part]["n"] == chosen.sum()
            assert found[name][part]["accuracy"] == pytest.approx(accuracy_score(labels[asked][chosen], said[chosen]))
    assert [found["fusion of all"][part]["n"] for part in ("all", "with_faces")] == [29, 27]


def test_folds_are_answered_by_the_others_and_compared_clip_by_clip(protocol):
    table = protocol.table
    usable = np.flatnonzero(table.has_faces & (table.labels >= 0))
    vectors, truth = describe_clips(list(table.per_clip()), AFEW)[usable], table.labels[usable]
    folds = StratifiedKFold(4, shuffle=True, random_state=3)
    right = {name: cross_val_predict(e, vectors, truth, cv=folds) == truth for name, e in ESTIMATORS.items()}
    found = protocol.compare()
    for name, hits in right.items():
        assert (found[name]["n"], found[name]["accuracy"]) == (len(usable), pytest.approx(hits.mean()))
    better = (right["logistic"] & ~right["linear_svc"]).sum()
    worse = (~right["logistic"] & right["linear_svc"]).sum()
    assert better != worse
    p = scipy.stats.binomtest(int(better), int(better + worse)).pvalue
    assert (found["logistic"]["better"], found["logistic"]["worse"]) == (better, worse)
    assert found["logistic"]["p"] == pytest.approx(p)


def test_clips_of_afew_have_no_contempt():
    classes = {}
    for index, name in enumerate(EMOTION8):
        classes[name] = faces.clip_label(ClipsConfig(), Record("a", "train", lambda: 0, {"emotion": index}))
    assert classes == {name: index for index, name in enumerate(EMOTION7)} | {"contempt": -1}
    group = Record("a", "train", lambda: 0, {"group_emotion": 2})
    assert faces.clip_label(ClipsConfig(label="group_emotion"), group) == 2


def test_faces_are_kept_apart_by_all_that_they_depend_on():
    clips = faces.ClipSet("people", "", (Record("a", "train", lambda: 0),), EMOTION7)
    config, detection = ClipsConfig(), DetectionConfig()
    digests = [faces._digest(config, detection, clips)]
    for field, value in (("min_face", 40.0), ("thresholds", (0.6, 0.7, 0.95)), ("choose", "all"), ("cut", "eyes")):
        digests.append(faces._digest(config, dataclasses.replace(detection, **{field: value}), clips))
    for field, value in (("every", 3), ("max_side", 100), ("people_frames", 7), ("people_size", 100)):
        digests.append(faces._digest(dataclasses.replace(config, **{field: value}), detection, clips))
    others = (*clips.records, Record("b", "train", lambda: 0))
    digests.append(faces._digest(config, detection, dataclasses.replace(clips, records=others)))
    assert len(set(digests)) == len(digests) == 10


def test_frames_of_a_clip_are_those_that_the_config_wants(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 10) as writer:
        for seed in range(5):
            writer.write(noise(48, 64, seed))
    record = Record("a", "train", tmp_path / "a.mp4")
    frames = list(faces._frames(record, ClipsConfig(every=2, max_side=32)))
    assert [(frame.index, frame.image.shape) for frame in frames] == [(n, (24, 32, 3)) for n in (0, 2, 4)]


def test_table_7_is_of_normed_features_and_balanced_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, -1], [70, 20, 10])
    known = (rng.normal(size=(100, 5)) + 0.6 * labels[:, None]) * rng.uniform(0.5, 9, (100, 1))
    asked, truth = known[::-1] * 3 + 0.1, np.where(np.arange(100) % 9, labels[::-1], -1)
    config = AttributesConfig(fit="gender", classifier=ClassifierConfig(("logistic",), costs=(1.0,)))
    results, predicted = attributes._fit(config, known, labels, asked, truth)
    by_hand = LogisticRegression(C=1.0, class_weight="balanced", max_iter=5000)
    said = by_hand.fit(normalize(known[labels >= 0]), labels[labels >= 0]).predict(normalize(asked))
    np.testing.assert_array_equal(predicted["logistic"], said)
    found = results["logistic"]
    assert (found["n"], found["train_photos"]) == ((truth >= 0).sum(), 90)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth[truth >= 0], said[truth >= 0]))


def test_a_network_of_another_input_size_says_so(tmp_path):
    model, words = load_network(TINY, 0, tmp_path)
    assert model.cfg.preprocessing.image_size == 32
    assert words.endswith(", 32 px")


def lfw_records(count: int) -> list[Record]:
    return [
        Record(
            f"A{i // 2}/A{i // 2}_000{1 + i % 2}.jpg", "test", lambda i=i: noise(40, 40, i), {"person": f"A{i // 2}"}
        )
        for i in range(count)
    ]


def test_pairs_are_compared_by_cosine_in_their_folds(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run.py"])
    records = lfw_records(8)
    monkeypatch.setattr(lfw, "open_photos", lambda photos: (records, "lfw", False))
    pairs = [("A0", 1, "A0", 2), ("A0", 1, "A1", 1), ("A2", 1, "A2", 2), ("A2", 2, "A3", 1), ("A3", 1, "A3", 2)]
    pairs.append(("A3", 2, "A9", 1))  # of which one photo is not there
    lines = [f"{a}\t{i}\t{j}" if a == b else f"{a}\t{i}\t{b}\t{j}" for a, i, b, j in pairs]
    (tmp_path / "pairs.txt").write_text("\n".join(["3\t1", *lines]) + "\n")
    config = LfwConfig(crops=("whole",), repeats=2, network=TINY)
    config = dataclasses.replace(config, photos=PhotosConfig(pairs=str(tmp_path / "pairs.txt")))
    ids = [record.id for record in records]
    place, same, fold, words = lfw._pairs(config, records, ids, np.arange(8) // 2)
    assert (place.tolist(), same.tolist()) == ([[0, 1], [0, 2], [4, 5], [5, 6], [6, 7]], [True, False] * 2 + [True])
    assert (fold.tolist(), words) == ([0, 0, 1, 1, 2], "pairs.txt, 5 of 6")
    lfw.run(config, tmp_path, tmp_path)
    with np.load(tmp_path / "features_whole.npz") as stored:
        rows = normalize(stored["features"].astype(np.float64))
    cosines = (rows[place[:, 0]] * rows[place[:, 1]]).sum(axis=1)
    found = json.loads((tmp_path / "report.json").read_text())["crops"]["whole"]["verification"]
    assert (found["n"], found["auc"]) == (5, pytest.approx(roc_auc_score(same, cosines)))
    drawn = lfw._pairs(LfwConfig(folds=2, pairs_per_fold=1, seed=5), records, ids, np.arange(8) // 2)
    for ours, theirs in zip(drawn, draw_pairs(np.arange(8) // 2, 2, 1, 5), strict=False):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("choose", "side"), [("largest", 32), ("probable", 16)])
def test_the_face_of_a_photo_is_the_one_that_the_config_chooses(choose, side, tmp_path, monkeypatch):
    detector = FixedDetector([[4, 4, 20, 20], [4, 4, 36, 36]])  # the first is the most probable
    monkeypatch.setattr(lfw, "make_detector", lambda detection: detector)
    config = override(LfwConfig(), "detection.choose", choose)
    lfw._embed(
        config, "mtcnn", lfw_records(8), lambda crops: np.array([crop.shape for crop in crops]), tmp_path / "f.npz"
    )
    with np.load(tmp_path / "f.npz") as stored:
        assert stored["features"].tolist() == [[side, side, 3]] * 8


def test_subjects_of_another_set_are_named_in_any_case(tmp_path, monkeypatch):
    monkeypatch.setattr(get_dataset("vggface2"), "records", lambda raw: iter(lfw_records(8)))
    (tmp_path / "subjects.txt").write_bytes("a1\nA3 \nJosé\n".encode("latin-1"))
    config = PhotosConfig(name="vggface2", raw=str(tmp_path), subjects=str(tmp_path / "subjects.txt"))
    records, words, comparable = lfw.open_photos(config)
    assert {record.labels["person"] for record in records} == {"A1", "A3"}
    assert (words, comparable) == ("vggface2, subjects of subjects.txt", False)


def test_accuracies_have_intervals_that_draw_persons():
    """Ten people, each always right or always wrong: like ten coin tosses, not a thousand."""
    right, persons = np.repeat(np.arange(10) % 2 == 0, 100), np.repeat(np.arange(10), 100)
    known = np.ones(1000, bool)
    assert attributes._by_person(right, known, None, 0) == {}
    low, high = attributes._by_person(right, known, persons, 0)["interval95"]
    expected = scipy.stats.binom(10, 0.5).ppf([0.025, 0.975]) / 10
    np.testing.assert_allclose([low, high], expected, atol=0.1)
    known[persons < 5] = False
    low, high = attributes._by_person(right, known, persons, 0)["interval95"]
    np.testing.assert_allclose([low, high], scipy.stats.binom(5, 0.4).ppf([0.025, 0.975]) / 5, atol=0.2)


def test_all_right_is_as_sure_as_the_number_of_persons():
    """Ten people out of ten: Wilson's over people, since every draw of them is the same."""
    right, persons = np.ones(1000, bool), np.repeat(np.arange(10), 100)
    low, high = attributes._by_person(right, np.ones(1000, bool), persons, 0)["interval95"]
    expected = scipy.stats.binomtest(10, 10).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose([low, high], [expected.low, expected.high])


def test_a_fusion_of_what_peeked_says_so(protocol, tmp_path):
    assert "chosen_by" not in protocol.results(tmp_path)["fusion of all"]
    of = dataclasses.replace(protocol.config.classifier, costs=(0.1, 1.0), choose_by="peeking_at_validation")
    peeking = dataclasses.replace(protocol, config=dataclasses.replace(protocol.config, classifier=of))
    assert peeking.results(tmp_path)["fusion of all"]["chosen_by"] == "peeking_at_validation"


def test_clips_that_are_reported_do_not_choose_c(protocol, tmp_path):
    of = dataclasses.replace(protocol.config.classifier, costs=(0.01, 1.0))
    protocol = dataclasses.replace(protocol, config=dataclasses.replace(protocol.config, classifier=of))
    told = []
    for shift in (0, 1):  # other answers of the validation clips
        clips = tuple(
            dataclasses.replace(clip, label=(clip.label + shift) % 3) if number >= 60 and clip.label >= 0 else clip
            for number, clip in enumerate(protocol.table.clips)
        )
        found = dataclasses.replace(protocol, table=dataclasses.replace(protocol.table, clips=clips)).results(tmp_path)
        told.append({name: (found[name]["chosen_by"], found[name]["cost_accuracy"]) for name in of.names})
    assert told[0] == told[1]
    assert {chosen_by for chosen_by, _ in told[0].values()} == {"cross_validation"}
