"""The figures of a report: confusion matrices, calibration, training curves and a sample of crops."""

import pathlib
import textwrap
from typing import Any

import numpy as np

from facejax.atomic import atomic_file
from facejax.data.source import FaceSource
from facejax.decoding import expected_age
from facejax.evals.calibration import CalibrationResult
from facejax.evals.classification import ClassificationResult
from facejax.evals.tasks import AgeResult, RankResult, RegressionResult, TaskResult, format_result
from facejax.tasks import Task

CROPS, COLUMNS = 48, 12
AGE_TOLERANCE, VALUE_TOLERANCE = 5, 0.25  # up to which a crop's prediction counts as right


def draw_result(path: pathlib.Path, task: Task, results: dict[str, TaskResult]) -> None:
    """The best and the last epoch side by side: confusion matrices, or predicted against true values, or ranks."""
    import matplotlib.figure  # not pyplot: no global state, no display

    figure = matplotlib.figure.Figure(figsize=(13, 6), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(1, 2), results.items(), strict=True):
        axes.set_title(textwrap.fill(f"{name} epoch: {format_result(result)}", 78), fontsize=9)  # as wide as a panel
        if isinstance(result, ClassificationResult):
            _draw_confusion(axes, task, result)
        elif isinstance(result, RankResult):
            axes.bar(range(1, len(result.hits) + 1), result.hits / max(result.n, 1))
            axes.set(xlabel="rank", ylabel="fraction of records, true person within rank", ylim=(0, 1))
        elif isinstance(result, AgeResult):
            predicted = result.ages + result.errors
            limit = max(100, 1.02 * max(result.ages.max(initial=0), predicted.max(initial=0)))
            axes.plot(result.ages, predicted, ".", alpha=0.4)
            axes.axline((0, 0), slope=1, color="grey")
            axes.set(xlabel="true age, years", ylabel="predicted age, years", xlim=(0, limit), ylim=(0, limit))
        elif isinstance(result, RegressionResult):
            for index, label in enumerate(result.names):
                axes.plot(result.target[:, index], result.predicted[:, index], ".", alpha=0.4, label=label)
            axes.axline((0, 0), slope=1, color="grey")
            limit = np.abs(result.predicted).max(initial=1)
            axes.set(xlabel="true", ylabel="predicted", xlim=(-1, 1), ylim=(-limit, limit))
            axes.legend()
    _save(figure, path)


def draw_calibration(path: pathlib.Path, results: dict[str, CalibrationResult]) -> None:
    """Reliability diagrams of the best and the last epoch."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(11, 5), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(1, 2), results.items(), strict=True):
        _draw_reliability(axes, result, f"{name} epoch")
    _save(figure, path)


def _draw_reliability(axes: Any, result: CalibrationResult, title: str) -> None:
    """Accuracy by confidence, share of records, and the ideal diagonal."""
    width = result.edges[1] - result.edges[0]
    middle = result.edges[:-1] + width / 2
    axes.bar(middle, np.nan_to_num(result.accuracy), width, color="tab:blue", edgecolor="white", label="accuracy")
    axes.plot(result.confidence, result.confidence, "_", color="tab:red", markersize=12, label="mean confidence")
    axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    if result.n:
        axes.stairs(result.counts / result.n, result.edges, color="black", linewidth=1.5, label="fraction of records")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"{title}: ECE {100 * result.ece:.1f} %, n={result.n}")
    axes.legend(loc="upper left", fontsize=8)


def _draw_confusion(axes: Any, task: Task, result: ClassificationResult) -> None:
    rates = result.confusion / np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(task.labels))
    axes.set_xticks(ticks, task.labels, rotation=45, ha="right")
    axes.set_yticks(ticks, task.labels)
    axes.set(xlabel="predicted", ylabel="true")
    for (row, column), count in np.ndenumerate(result.confusion):
        colour = "white" if rates[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour)


def draw_curves(path: pathlib.Path, history: list[dict[str, Any]]) -> None:
    """The training loss, and one panel per task with its metrics at every evaluation and during training.

    Age has only the error in years, which training does not log.
    """
    import matplotlib.figure

    train = [line for line in history if line.get("phase") == "train"]
    evaluated = [line for line in history if line.get("phase") == "eval"]
    keys = [*dict.fromkeys(key for line in evaluated for key in line if "/" in key and not key.endswith("/n"))]
    tasks = list(dict.fromkeys(key.split("/")[0] for key in keys))
    columns = min(1 + len(tasks), 3)
    rows = -(-(1 + len(tasks)) // columns)
    figure = matplotlib.figure.Figure(figsize=(6.5 * columns, 4.5 * rows), layout="constrained")
    loss, *panels = figure.subplots(rows, columns, squeeze=False).flat
    for stage in dict.fromkeys(line["stage"] for line in train):
        lines = [line for line in train if line["stage"] == stage]
        steps = np.array([line["step"] for line in lines])
        width = max(len(lines) // 100, 1)
        loss.plot(steps, _smooth([line["loss"] for line in lines], width), label=f"{stage} stage")
        for task, axes in zip(tasks, panels, strict=False):
            for name in ("accuracy", "ccc"):
                if (key := f"{task}/{name}") in lines[0] and f"{task}/mae" not in keys:
                    values = _smooth([line[key] for line in lines], width)
                    axes.plot(steps, values, alpha=0.6, label=f"{name} in training, {stage} stage")
    loss.set(xlabel="step", ylabel="training loss")
    loss.legend()
    for task, axes in zip(tasks, panels, strict=False):
        is_age, is_concordance = f"{task}/mae" in keys, any(key.startswith(f"{task}/ccc") for key in keys)
        for key in (key for key in keys if key.startswith(f"{task}/") and "rmse" not in key):
            if is_age != key.endswith("/mae"):  # one panel, one unit
                continue
            points = [(line["step"], line[key]) for line in evaluated if key in line]
            axes.plot(*zip(*points, strict=True), "o-", label=key.split("/")[1].replace("_", " "))
        unit = "mean absolute error, years" if is_age else "concordance" if is_concordance else "fraction"
        axes.set(xlabel="step", ylabel=unit, title=task)
        axes.set_ylim(None if is_concordance else 0, None if is_age else 1)  # a concordance may be negative
        axes.legend(fontsize=8)
    for axes in panels[len(tasks) :]:
        axes.axis("off")
    _save(figure, path)


def draw_crops(path: pathlib.Path, task: Task, source: FaceSource, scores: np.ndarray, labels: np.ndarray) -> None:
    """A sample of the evaluation split with the true labels and the predictions of the best epoch."""
    import matplotlib.figure

    labelled = np.isfinite(labels).all(axis=1) if labels.ndim > 1 else labels >= 0
    known = np.flatnonzero(labelled & np.isfinite(scores).all(axis=1))
    shown = np.random.default_rng(0).permutation(known)[:CROPS]
    rows = max(-(-len(shown) // COLUMNS), 1)
    figure = matplotlib.figure.Figure(figsize=(14, 1.95 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    if not len(shown):
        figure.suptitle("no photo with a label and a prediction")
    for axes, index in zip(grid.flat, shown, strict=False):
        text, right = _caption(task, scores[index], labels[index])
        axes.imshow(source.read(int(index))["image"])
        axes.set_title(text, fontsize=7, color="green" if right else "red")
    _save(figure, path)


def _caption(task: Task, scores: np.ndarray, label: Any) -> tuple[str, bool]:
    """(truth and prediction in words, whether they agree; ages and values within a tolerance)."""
    if task.kind == "regression":
        words = [" ".join(f"{value:+z.2f}" for value in values) for values in (label, scores)]
        return f"{words[0]}\n→ {words[1]}", bool(np.abs(scores - label).max() <= VALUE_TOLERANCE)
    if task.kind == "age":
        years = float(expected_age(scores[None])[0])
        return f"{label}\n→ {years:.0f}", bool(abs(years - label) <= AGE_TOLERANCE)
    predicted = int(scores[0]) if task.kind == "identity" else int(scores.argmax())
    names = [task.labels[value] if task.labels else f"person {value}" for value in (int(label), predicted)]
    probability = "" if task.kind == "identity" else f" {scores[predicted]:.2f}"
    return f"{names[0]}\n→ {names[1]}{probability}", predicted == int(label)


def _smooth(values: list[float], width: int) -> np.ndarray:
    """Running mean over the last `width` values."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _save(figure: Any, path: pathlib.Path) -> None:
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
