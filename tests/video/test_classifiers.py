import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from facejax.protocol_config import DetectionConfig
from facejax.video import classifiers
from facejax.video.classifiers import CLASSIFIERS, ClipClassifier, Fitted, Recipe, fit
from facejax.video.descriptors import AFEW, describe_clips

DETECTION = DetectionConfig(64.0, (0.6, 0.7, 0.8), "all", "five_points")
BY_HAND = {
    "linear_svc": lambda c: LinearSVC(C=c, random_state=0, max_iter=20000),
    "svc_rbf": lambda c: SVC(C=c, break_ties=True, random_state=0),
    "logistic": lambda c: LogisticRegression(C=c, max_iter=5000),
}


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    centres = rng.normal(size=(3, 6))
    lengths = rng.integers(1, 9, 90)
    return [
        (rng.normal(centres[label], 1.5, (n, 6)).astype(np.float32), np.arange(n))
        for label, n in zip(labels, lengths, strict=True)
    ], labels


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_results_equal_scikit_learn_by_hand(name, clips):
    features, labels = clips
    vectors = describe_clips(features, AFEW)
    recipe = Recipe(name, costs=(1.0, 10.0, 0.1), folds=4, seed=0)
    fitted = fit(recipe, vectors[:60], labels[:60], 3)
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    by_hand = {
        cost: cross_val_score(BY_HAND[name](cost), vectors[:60], labels[:60], cv=folds).mean() for cost in recipe.costs
    }
    assert fitted.cost_accuracy == pytest.approx(by_hand)
    assert fitted.cost == max(sorted(by_hand), key=by_hand.get)
    assert fitted.chosen_by == "cross_validation"
    expected = BY_HAND[name](fitted.cost).fit(vectors[:60], labels[:60]).predict(vectors[60:])
    np.testing.assert_array_equal(fitted.scores(vectors[60:]).argmax(axis=1), expected)


def test_c_is_chosen_by_the_rule_that_answers():
    """Of seven classes that are hard to tell apart, several often have equally many votes."""
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(700, 8)), np.arange(700) % 7
    fitted = fit(Recipe("svc_rbf", costs=(1.0,)), vectors[:350], labels[:350], 7)
    answers = fitted.scores(vectors[350:]).argmax(axis=1)
    assert np.any(answers != SVC(C=1.0).fit(vectors[:350], labels[:350]).predict(vectors[350:]))  # else shows nothing
    assert fitted.estimator.score(vectors[350:], labels[350:]) == np.mean(answers == labels[350:])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes_are_weighed_and_folds_drawn_as_asked(name, clips):
    assert Recipe(name, balanced=True).estimator().class_weight == "balanced"
    assert Recipe(name).estimator().class_weight is None
    features, labels = clips
    vectors, folds = describe_clips(features, AFEW), StratifiedKFold(4, shuffle=True, random_state=5)
    ours = [test.tolist() for _, test in classifiers.stratified(labels, 4, 5).split(vectors, labels)]
    assert ours == [test.tolist() for _, test in folds.split(vectors, labels)]


def test_forest_equals_scikit_learn_by_hand(clips):
    features, labels = clips
    vectors = describe_clips(features, AFEW)
    fitted = fit(Recipe("random_forest", trees=20, max_depth=7, seed=3), vectors[:60], labels[:60], 3)
    by_hand = RandomForestClassifier(20, max_depth=7, random_state=3).fit(vectors[:60], labels[:60])
    np.testing.assert_allclose(fitted.scores(vectors[60:]), by_hand.predict_proba(vectors[60:]))
    assert fitted.cost is None


def test_peeking_takes_the_best_cost_of_the_validation_clips_and_says_so(clips):
    features, labels = clips
    vectors = describe_clips(features, AFEW)
    peek = vectors[60:], labels[60:]
    recipe = Recipe("linear_svc", costs=(0.001, 0.1, 1.0, 100.0))
    fitted = fit(recipe, vectors[:60], labels[:60], 3, peek=peek)
    by_hand = {c: BY_HAND["linear_svc"](c).fit(vectors[:60], labels[:60]).score(*peek) for c in recipe.costs}
    assert fitted.chosen_by == "peeking_at_validation"
    assert fitted.cost == min(cost for cost, value in by_hand.items() if value == max(by_hand.values()))
    assert by_hand[fitted.cost] == max(by_hand.values())


def test_two_classes_and_classes_that_were_never_seen(clips):
    features, labels = clips
    vectors, two = describe_clips(features, AFEW), np.where(labels == 2, 0, 2 * labels)  # 0 and 2 of four
    scores = fit(Recipe("linear_svc", costs=(1.0,)), vectors, two, 4).scores(vectors)
    assert scores.shape == (90, 4)
    assert np.isneginf(scores[:, [1, 3]]).all()
    np.testing.assert_array_equal(scores.argmax(1), BY_HAND["linear_svc"](1.0).fit(vectors, two).predict(vectors))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_saved_classifier_says_the_same(name, clips, tmp_path):
    features, labels = clips
    fitted = fit(Recipe(name, costs=(0.1, 1.0), trees=5), describe_clips(features, AFEW), labels, 3)
    classifier = ClipClassifier(fitted, DETECTION, AFEW, ("a", "b", "c"), "toy network")
    classifier.save(tmp_path / "c.skops")
    loaded = ClipClassifier.load(tmp_path / "c.skops")
    empty = np.zeros((0, 6), np.float32), np.zeros(0, np.int64)
    np.testing.assert_array_equal(loaded.scores([*features, empty]), classifier.scores([*features, empty]))
    assert loaded.detection == DETECTION
    assert (loaded.descriptor, loaded.labels, loaded.source) == (AFEW, ("a", "b", "c"), "toy network")
    assert loaded.fitted.cost_accuracy == fitted.cost_accuracy
    assert set(loaded.predict(features)) <= {"a", "b", "c"}
    assert loaded.fitted.scores(np.zeros((0, 24), np.float32)).shape == (0, 3)


class Foreign(BaseEstimator):
    pass


def test_files_of_others_are_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"video_afew_b0"):
        ClipClassifier.load(tmp_path / "none.skops")
    fitted = fit(Recipe(costs=(1.0,)), np.eye(24, dtype=np.float32)[:4], np.array([0, 0, 1, 1]), 2)
    with monkeypatch.context() as patch:
        patch.setattr(classifiers, "_FORMAT", 1)  # which held other settings of the detector
        ClipClassifier(fitted, DETECTION, AFEW, ("a", "b"), "").save(tmp_path / "old.skops")
    with pytest.raises(ValueError, match="of format 1, expected 2"):
        ClipClassifier.load(tmp_path / "old.skops")
    (tmp_path / "p.skops").write_bytes(pickle.dumps({"estimator": 1}))
    with pytest.raises(ValueError, match="not a facejax clip classifier"):
        ClipClassifier.load(tmp_path / "p.skops")
    ClipClassifier(Fitted(Foreign(), 2, None, "fixed", {}), DETECTION, AFEW, ("a", "b"), "").save(tmp_path / "f.skops")
    with pytest.raises(ValueError, match="not trusted"):
        ClipClassifier.load(tmp_path / "f.skops")


def test_damaged_trees_are_refused(clips):
    features, labels = clips
    fitted = fit(Recipe("random_forest", trees=2), describe_clips(features, AFEW), labels, 3)
    tree = fitted.estimator.estimators_[0].tree_
    classifiers._check_tree(tree)
    for array, value in (
        (tree.children_left, 0),
        (tree.children_right, 0),
        (tree.children_right, tree.node_count),
        (tree.feature, 24),
    ):
        kept, array[0] = array[0], value
        with pytest.raises(ValueError, match="damaged"):
            classifiers._check_tree(tree)
        array[0] = kept


def test_the_smallest_of_equal_costs_is_taken_in_any_order():
    vectors = np.repeat([[-5.0, 0.0], [5.0, 1.0]], 20, axis=0) + np.random.default_rng(0).normal(0, 0.1, (40, 2))
    fitted = fit(Recipe("linear_svc", costs=(10.0, 0.1, 1.0)), vectors, np.repeat([0, 1], 20), 2)
    assert fitted.cost_accuracy == {10.0: 1, 0.1: 1, 1.0: 1}
    assert fitted.cost == 0.1
    peeking = fit(
        Recipe(costs=(10.0, 0.1, 1.0)), vectors, np.repeat([0, 1], 20), 2, peek=(vectors, np.repeat([0, 1], 20))
    )
    assert (peeking.cost, peeking.chosen_by) == (0.1, "peeking_at_validation")


def test_estimators_that_no_recipe_makes_are_refused(clips, tmp_path):
    features, labels = clips
    vectors = describe_clips(features, AFEW)
    lone = DecisionTreeClassifier().fit(vectors, labels)
    wide = RandomForestClassifier(2, random_state=0).fit(np.tile(vectors, 2), labels)
    mixed = RandomForestClassifier(2, random_state=0).fit(vectors, labels)
    mixed.estimators_[1] = wide.estimators_[1]  # which looks for features that a vector of `mixed` does not have
    odd = LinearSVC().fit(vectors[:, :-1], labels)
    for estimator, message in (
        (lone, "DecisionTreeClassifier"),
        (mixed, "for other vectors"),
        (odd, "23 numbers does not fit"),
    ):
        fitted = Fitted(estimator, 3, None, "fixed", {})
        ClipClassifier(fitted, DETECTION, AFEW, ("a", "b", "c"), "").save(tmp_path / "c.skops")
        with pytest.raises(ValueError, match=message):
            ClipClassifier.load(tmp_path / "c.skops")


def test_mistakes(clips):
    features, labels = clips
    vectors = describe_clips(features, AFEW)
    with pytest.raises(ValueError, match="did you mean 'linear_svc'"):
        fit(Recipe("linear_svm"), vectors, labels, 3)
    with pytest.raises(ValueError, match="two classes"):
        fit(Recipe(), vectors, labels * 0, 3)
    with pytest.raises(ValueError, match="class 2 has one"):
        fit(Recipe(), vectors[:10], np.array([0, 1] * 4 + [0, 2]), 3)
    assert classifiers.stratified(np.array([0, 0, 1, 1, 1]), 5, 0).n_splits == 2
