"""The paper's classifiers on clip descriptors (scikit-learn), the choice of C, and files for them (no pickle)."""

import dataclasses
import pathlib
import typing
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facejax.atomic import atomic_file
from facejax.naming import did_you_mean
from facejax.protocol_config import Classifier, DetectionConfig
from facejax.video.descriptors import Descriptor, describe_clips

CLASSIFIERS = typing.get_args(Classifier)
_FORMAT = 2
# Contains only arrays, but follows the indices in them unchecked: `_check_tree` checks them.
_TREE = "sklearn.tree._tree.Tree"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a classifier is fitted.

    Attributes:
        name: ``linear_svc``, ``svc_rbf``, ``random_forest`` (the paper's three) or ``logistic``: softmax regression,
            i.e. a new fully connected layer trained to the optimum.
        costs: Values of C to choose from; not used by the forest.
        folds: Folds of the cross-validation that chooses C; fewer if a class has fewer examples.
        trees: Number of trees of the forest.
        max_depth: Maximum depth of its trees, 0 for no limit.
        balanced: Weights classes inversely to their frequency (as the paper does for ethnicity).
        seed: Seed of folds and forest.
    """

    name: str = "linear_svc"
    costs: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    folds: int = 5
    trees: int = 1000
    max_depth: int = 0
    balanced: bool = False
    seed: int = 0

    def estimator(self, cost: float | None = None) -> Any:
        """An unfitted scikit-learn classifier, with C = `cost` where it has a C.

        Raises:
            ValueError: There is no classifier of this name.
        """
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import SVC, LinearSVC

        weight: Any = "balanced" if self.balanced else None
        cost = 1.0 if cost is None else cost
        if self.name == "linear_svc":
            return LinearSVC(C=cost, class_weight=weight, random_state=self.seed, max_iter=20000)
        if self.name == "svc_rbf":
            # Ties are broken by `decision_function`, as in `Fitted.scores`: scikit-learn's default (and the published
            # code) returns the first of the classes with equal votes.
            return SVC(C=cost, kernel="rbf", class_weight=weight, break_ties=True, random_state=self.seed)
        if self.name == "logistic":
            return LogisticRegression(C=cost, class_weight=weight, max_iter=5000)
        if self.name == "random_forest":
            depth = self.max_depth or None
            return RandomForestClassifier(
                self.trees, max_depth=depth, class_weight=weight, random_state=self.seed, n_jobs=-1
            )
        raise ValueError(f"no classifier {self.name!r}{did_you_mean(self.name, CLASSIFIERS)}")


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted classifier.

    Attributes:
        estimator: The scikit-learn estimator.
        num_classes: Classes of the task; those without a training example have score -inf.
        cost: The chosen C, None for the forest.
        chosen_by: ``cross_validation``, ``peeking_at_validation``, or ``fixed`` if there was nothing to choose.
        cost_accuracy: Accuracy of each C on which the choice is based.
    """

    estimator: Any
    num_classes: int
    cost: float | None
    chosen_by: str
    cost_accuracy: dict[float, float]

    def scores(self, vectors: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n classes"]:
        """Higher is likelier: probabilities of forest and logistic regression, decision values of the SVMs."""
        if not len(vectors):
            return np.zeros((0, self.num_classes))
        probabilistic = hasattr(self.estimator, "predict_proba")
        found = self.estimator.predict_proba(vectors) if probabilistic else self.estimator.decision_function(vectors)
        if found.ndim == 1:  # two classes: one value, of the second
            found = np.stack([-found, found], axis=1)
        scores = np.full((len(vectors), self.num_classes), -np.inf)
        scores[:, self.estimator.classes_] = found
        return scores


def fit(
    recipe: Recipe,
    vectors: Float[np.ndarray, "n features"],
    labels: Int[np.ndarray, " n"],
    num_classes: int,
    *,
    peek: tuple[np.ndarray, np.ndarray] | None = None,
) -> Fitted:
    """Fits a classifier; C is chosen by cross-validation on these same examples, the smallest among equals.

    Args:
        recipe: Which classifier, and how to fit it.
        vectors: Training examples.
        labels: Their classes, 0 <= label < num_classes.
        num_classes: Classes of the task.
        peek: Vectors and labels of the validation split, to choose the C that is best *on them*, as the published
            code's constants were chosen. The accuracy on that split is then not a valid estimate.

    Raises:
        ValueError: Fewer than two classes, or a class with a single example where C must be cross-validated.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError(f"expected training examples of two classes or more, got labels {np.unique(labels).tolist()}")
    if recipe.name == "random_forest" or len(recipe.costs) == 1:
        cost = None if recipe.name == "random_forest" else recipe.costs[0]
        return Fitted(recipe.estimator(cost).fit(vectors, labels), num_classes, cost, "fixed", {})
    if peek is not None:
        fitted = {cost: recipe.estimator(cost).fit(vectors, labels) for cost in recipe.costs}
        accuracy = {cost: float(estimator.score(*peek)) for cost, estimator in fitted.items()}
        best = max(sorted(accuracy), key=lambda cost: accuracy[cost])
        return Fitted(fitted[best], num_classes, best, "peeking_at_validation", accuracy)
    accuracy = cross_validated_costs(recipe, vectors, labels)
    best = max(sorted(accuracy), key=lambda cost: accuracy[cost])
    estimator = recipe.estimator(best).fit(vectors, labels)
    return Fitted(estimator, num_classes, best, "cross_validation", accuracy)


def cross_validated_costs(
    recipe: Recipe, vectors: Float[np.ndarray, "n features"], labels: Int[np.ndarray, " n"]
) -> dict[float, float]:
    """Accuracy of each C by stratified cross-validation, averaged over the folds."""
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(
        recipe.estimator(), {"C": list(recipe.costs)}, cv=stratified(labels, recipe.folds, recipe.seed)
    )
    search.fit(vectors, labels)
    return dict(zip(recipe.costs, map(float, search.cv_results_["mean_test_score"]), strict=True))


def stratified(labels: Int[np.ndarray, " n"], folds: int, seed: int) -> Any:
    """Shuffled stratified folds: the requested number, but at most as many as the rarest class has examples.

    Raises:
        ValueError: A class has only one example.
    """
    from sklearn.model_selection import StratifiedKFold

    values, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        rare = int(values[counts.argmin()])
        raise ValueError(f"class {rare} has one training example, too few for cross-validation; give one C (costs=1.0)")
    return StratifiedKFold(min(folds, int(counts.min())), shuffle=True, random_state=seed)


@dataclasses.dataclass(frozen=True)
class ClipClassifier:
    """Maps the features of a clip's faces to a class; what a file contains.

    Attributes:
        fitted: The classifier.
        detection: How the faces of its clips were found and cropped; other clips must be processed the same way.
        descriptor: How a clip's vector is computed.
        labels: Class names.
        source: Which network and weights made the features; the scores mean nothing for those of another one. If it
            has the network's digest in brackets (`LoadedModel.digest`), as the protocols write it, others are refused.
    """

    fitted: Fitted
    detection: DetectionConfig
    descriptor: Descriptor
    labels: tuple[str, ...]
    source: str

    def scores(self, clips: Iterable[tuple[np.ndarray, np.ndarray]]) -> Float[np.ndarray, "clips classes"]:
        """Scores of clips, each given as (features (n, D), frame numbers (n,)); n may be 0."""
        return self.fitted.scores(describe_clips(clips, self.descriptor))

    def predict(self, clips: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[str]:
        """Name of each clip's class."""
        return [self.labels[index] for index in self.scores(clips).argmax(axis=1)]

    def save(self, path: pathlib.Path | str) -> None:
        """Writes a ``.skops`` file (zip of JSON and arrays), atomically."""
        import skops.io

        content = {
            "format": _FORMAT,
            "estimator": self.fitted.estimator,
            "num_classes": self.fitted.num_classes,
            "cost": self.fitted.cost,
            "chosen_by": self.fitted.chosen_by,
            "cost_accuracy": [[cost, value] for cost, value in self.fitted.cost_accuracy.items()],
            "detection": dataclasses.asdict(self.detection) | {"thresholds": list(self.detection.thresholds)},
            "levels": self.descriptor.levels,
            "statistics": list(self.descriptor.statistics),
            "labels": list(self.labels),
            "source": self.source,
        }
        with atomic_file(pathlib.Path(path)) as file:
            skops.io.dump(content, file)

    @classmethod
    def load(cls, path: pathlib.Path | str) -> "ClipClassifier":
        """Reads what `save` wrote. Runs no code from the file: types beyond scikit-learn's own are refused.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It contains something else.
        """
        import skops.io

        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no clip classifier {path}: experiments/run.py --config video_afew_b0 writes one")
        try:
            foreign = set(skops.io.get_untrusted_types(file=path)) - {_TREE}
            if foreign:
                raise ValueError(f"it contains types that are not trusted: {', '.join(sorted(foreign))}")
            content = skops.io.load(path, trusted=[_TREE])
            if content["format"] != _FORMAT:
                raise ValueError(f"it is of format {content['format']}, expected {_FORMAT}")
            told = content["detection"]
            detection = DetectionConfig(**{**told, "thresholds": tuple(told["thresholds"])})
            descriptor = Descriptor(content["levels"], tuple(content["statistics"]))
            _check_estimator(content["estimator"], descriptor)
        except Exception as error:
            raise ValueError(f"{path} is not a facejax clip classifier: {error}") from error
        fitted = Fitted(
            content["estimator"],
            content["num_classes"],
            content["cost"],
            content["chosen_by"],
            dict(content["cost_accuracy"]),
        )
        return cls(fitted, detection, descriptor, tuple(content["labels"]), content["source"])


def _check_estimator(estimator: Any, descriptor: Descriptor) -> None:
    """Raises ValueError if the estimator of a file is not one that a `Recipe` makes, or if its trees are damaged."""
    from sklearn.tree import DecisionTreeClassifier

    if type(estimator) not in [type(Recipe(name).estimator()) for name in CLASSIFIERS]:
        raise ValueError(f"it contains a {type(estimator).__name__}, which is not a clip classifier")
    if estimator.n_features_in_ % descriptor.size(1):
        raise ValueError(f"a vector of {estimator.n_features_in_} numbers does not fit its descriptor")
    for member in getattr(estimator, "estimators_", ()):
        if type(member) is not DecisionTreeClassifier or member.tree_.n_features != estimator.n_features_in_:
            raise ValueError("a tree of its forest is for other vectors")
        _check_tree(member.tree_)


def _check_tree(tree: Any) -> None:
    """Raises ValueError if a tree of a file has cycles or indices out of range."""
    count, place = tree.node_count, np.arange(tree.node_count)
    left, right = tree.children_left, tree.children_right
    leaf = left == -1
    inside = (left > place) & (left < count) & (right > place) & (right < count)
    features = (tree.feature >= 0) & (tree.feature < tree.n_features)
    if count < 1 or not (np.where(leaf, right == -1, inside & features)).all():
        raise ValueError("a tree of its forest is damaged")
