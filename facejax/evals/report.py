"""The report of a run: report.json, report.md and figures, for the best and for the last epoch."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facejax.atomic import whole_file, write_atomically
from facejax.config import Config
from facejax.data.source import FaceSource
from facejax.decoding import expected_age
from facejax.evals.bootstrap import accuracy_interval, interval95, person_clusters, resample
from facejax.evals.calibration import CalibrationResult, draw_reliability, reliability
from facejax.evals.classification import ClassificationResult, seven_from_eight, without_contempt
from facejax.evals.fairness import FairnessResult, attribute_groups, by_group, plain
from facejax.evals.tasks import AgeResult, RankResult, RegressionResult, TaskResult, evaluate_task, in_words
from facejax.tasks import EMOTION8, Task

CROPS = 48


def write_report(
    workdir: pathlib.Path,
    config: Config,
    tasks: Sequence[Task],
    source: FaceSource,
    history: list[dict[str, Any]],
    data_description: str,
    command: str = "",
    comparable: bool = False,
) -> dict[str, Any]:
    """Writes ``report.json``, ``report.md``, ``curves.png`` and, for each task, ``<task>.png``, ``<task>_crops.png``
    and, if it has classes, ``<task>_calibration.png``.

    Args:
        workdir: Contains ``scores_best.npz`` and ``scores_last.npz``, each with ``scores/<task>`` as returned by
            `facejax.train.step.scores` (rows of nan for records that could not be read), ``labels/<task>``, ``epoch``
            and ``step``.
        config: Config of the run.
        tasks: The tasks that were trained.
        source: The evaluation split, in the order of the scores, for the contact sheets.
        history: Lines of metrics.jsonl.
        data_description: What the run was trained and evaluated on, in words.
        command: The command that started the run, for those who want to repeat it.
        comparable: Whether it was evaluated on the data of the paper's row.

    Returns:
        The contents of report.json. ``best`` and ``last`` have ``epoch``, ``step``, ``dataset``, ``split`` and
        ``tasks``: for each task the result's `to_dict` with ``groups``, the same by groups of people. ``paper`` is the
        row of the paper with its dataset.
    """
    report: dict[str, Any] = {
        "tasks": [task.name for task in tasks],
        "backbone": config.model.backbone,
        "data": data_description,
        "command": command,
        "profile": config.profile,
    }
    results: dict[str, dict[str, TaskResult]] = {}
    calibrations: dict[str, dict[str, CalibrationResult]] = {task.name: {} for task in tasks}
    people = {key: source.labels(key) for key in ("gender", "ethnicity", "age") if key in source.label_keys}
    persons = person_clusters(source.labels("person")) if "person" in source.fields else None
    kept, groups = {}, {}
    for name in ("best", "last"):
        with np.load(workdir / f"scores_{name}.npz") as stored:
            kept[name] = dict(stored)
        results[name], of_tasks = {}, {}
        for task in tasks:
            scores, labels = kept[name][f"scores/{task.name}"], kept[name][f"labels/{task.name}"]
            results[name][task.name] = evaluate_task(task, scores, labels)
            of_tasks[task.name] = results[name][task.name].to_dict()
            if persons is not None:
                of_tasks[task.name] |= _by_person(task, scores, labels, persons)
            if isinstance(results[name][task.name], ClassificationResult):
                readable = np.where(np.isfinite(scores).all(axis=1), labels, -1)
                calibrations[task.name][name] = reliability(scores, readable)
                of_tasks[task.name]["calibration"] = calibrations[task.name][name].to_dict()
            groups[task.name] = _by_groups(task, scores, labels, people, persons)
            of_tasks[task.name]["groups"] = [group.to_dict() for group in groups[task.name]]
            if task.labels == EMOTION8:
                readable = np.where(np.isfinite(scores).all(axis=1), labels, -1)
                seven = seven_from_eight(scores, readable).to_dict()
                if persons is not None:
                    seven |= _by_person(task, *without_contempt(scores, readable), persons)
                of_tasks[task.name]["seven_from_eight"] = seven
        report[name] = {
            "epoch": int(kept[name]["epoch"]),
            "step": int(kept[name]["step"]),
            "dataset": config.data.name,
            "split": config.data.eval_split,
            "tasks": of_tasks,
        }
    report["paper"] = {
        **dataclasses.asdict(config.paper),
        "comparable": comparable,
    }
    write_atomically(workdir / "report.json", (json.dumps(plain(report), indent=2) + "\n").encode())
    write_atomically(workdir / "report.md", _markdown(report, tasks, results, groups, config).encode())
    _draw_curves(workdir / "curves.png", history)
    for task in tasks:
        _draw_result(workdir / f"{task.name}.png", task, {name: results[name][task.name] for name in results})
        if calibrations[task.name]:
            _draw_calibration(workdir / f"{task.name}_calibration.png", calibrations[task.name])
        scores, labels = kept["best"][f"scores/{task.name}"], kept["best"][f"labels/{task.name}"]
        _draw_crops(workdir / f"{task.name}_crops.png", task, source, scores, labels)
    return plain(report)


def _by_groups(
    task: Task,
    scores: np.ndarray,
    labels: np.ndarray,
    people: Mapping[str, np.ndarray],
    persons: np.ndarray | None,
) -> list[FairnessResult]:
    """The task's accuracy, or error in years, by each attribute of people in the dataset; none for other tasks."""
    if task.kind not in ("categorical", "binary", "age"):
        return []
    name, values, readable = _judged(task, scores, labels)
    return [
        by_group(
            name,
            lambda records: float(np.mean(values[records])),
            attribute,
            np.where(readable, group, -1),
            names,
            clusters=persons,
            higher_is_better=task.kind != "age",
        )
        for attribute, (group, names) in attribute_groups(people).items()
    ]


def _judged(task: Task, scores: np.ndarray, labels: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
    """(name of the metric, its value for each record, which records count)."""
    readable = np.isfinite(scores).all(axis=1) & (labels >= 0)
    scores = np.where(readable[:, None], scores, 1)
    if task.kind == "age":
        return f"{task.name}, mean absolute error in years", np.abs(expected_age(scores) - labels), readable
    return f"{task.name} accuracy", scores.argmax(axis=1) == labels, readable


def _by_person(task: Task, scores: np.ndarray, labels: np.ndarray, persons: np.ndarray) -> dict[str, Any]:
    """Interval of the accuracy, or error in years, by bootstrap over people, whose photos are not independent."""
    if task.kind not in ("categorical", "binary", "age"):
        return {}
    _, values, readable = _judged(task, scores, labels)
    records, whose = np.flatnonzero(readable), persons[readable]
    if task.kind == "age":
        interval = interval95(resample(lambda drawn: float(values[drawn].mean()), records, whose))
    else:
        interval = accuracy_interval(values, records, whose)
    return {"interval95": list(interval), "draws": "persons"}


def _percent(result: dict[str, Any]) -> str:
    low, high = result["interval95"]
    interval = "" if math.isnan(low) else f" [{100 * low:.2f}, {100 * high:.2f}]"
    return f"{100 * result['accuracy']:.2f}{interval}"


def _markdown(
    report: dict[str, Any],
    tasks: Sequence[Task],
    results: dict[str, dict[str, TaskResult]],
    groups: Mapping[str, Sequence[FairnessResult]],
    config: Config,
) -> str:
    paper, first = report["paper"], tasks[0]
    chosen_by = {"age": "error in years", "regression": "concordance"}.get(first.kind, config.select.replace("_", " "))
    lines = [
        f"# {', '.join(report['tasks'])} with {report['backbone']}",
        "",
        f"Trained and evaluated on: **{report['data']}**.",
        "",
        "| task | epoch | n | result |",
        "|---|---|---|---|",
    ]
    for task in tasks:
        for name in ("best", "last"):
            result = results[name][task.name]
            lines.append(f"| {task.name} | {name} ({report[name]['epoch']}) | {result.n} | {in_words(result)} |")
    lines += [
        "",
        f"The best epoch was selected by the best {chosen_by} of {first.name} on this same split, so its results are "
        "optimistic; those of the last epoch are not.",
        "",
        *_constant(tasks, results),
    ]
    if paper["row"]:
        numbers = [f"{first.name} {paper['accuracy']:.2f} %"] if paper["accuracy"] else []
        numbers += [f"7 classes {paper['accuracy7']:.2f} %"] if paper["accuracy7"] else []
        numbers += [f"age class {paper['age_class']:.2f} %"] if paper["age_class"] else []
        if numbers:
            where = paper["table"] if paper["table"] == "EmotiEffLib" else f"Paper, {paper['table']}"
            lines.append(f"{where}, {paper['row']}, on {paper['dataset']}: {', '.join(numbers)}.")
        if numbers and not paper["comparable"]:
            part = config.data.name == paper["dataset"]
            where = f"a part of {paper['dataset']}" if part else f"{config.data.name}, not on {paper['dataset']}"
            lines.append(f"**This run is on {where}: the numbers cannot be compared.**")
    for task in tasks:
        lines += ["", f"## {task.name}", ""]
        of_task = {name: report[name]["tasks"][task.name] for name in ("best", "last")}
        if "per_class" in of_task["best"]:
            lines += _class_table(of_task)
        lines += ["", f"![{task.name}]({task.name}.png)"]
        if "calibration" in of_task["best"]:
            errors = [f"{100 * of_task[name]['calibration']['ece']:.1f} %" for name in ("best", "last")]
            lines += [f"![Calibration]({task.name}_calibration.png)", ""]
            lines += [f"Expected calibration error (15 bins): best epoch {errors[0]}, last {errors[1]}.", ""]
        lines += [f"![Crops]({task.name}_crops.png)"]
        for result in groups[task.name]:
            lines += ["", f"By {result.attribute}, last epoch:", "", *result.markdown(result.higher_is_better)]
    lines += ["", "## Training", "", "![Curves](curves.png)", ""]
    return "\n".join(lines)


def _constant(tasks: Sequence[Task], results: dict[str, dict[str, TaskResult]]) -> list[str]:
    """A warning for each epoch that predicts one class for every record, which looks like skill if it is frequent."""
    lines = []
    for task in tasks:
        for name in ("best", "last"):
            result = results[name][task.name]
            if isinstance(result, ClassificationResult) and result.n and result.confusion.sum(axis=0).max() == result.n:
                said = task.labels[int(result.confusion.sum(axis=0).argmax())]
                lines += [
                    f"**The {name} epoch predicts `{said}` for every record.** Its accuracy is that class's share; "
                    "`--config.select=balanced_accuracy` selects the epoch by the mean over the classes.",
                    "",
                ]
    return lines


def _class_table(of_task: dict[str, dict[str, Any]]) -> list[str]:
    by = ", bootstrap over people" if of_task["best"].get("draws") == "persons" else ""
    both = f"best epoch {_percent(of_task['best'])}, last {_percent(of_task['last'])}"
    lines = [f"Accuracy % [95 % interval{by}]: {both}."]
    if "seven_from_eight" in of_task["best"]:
        seven = {name: _percent(result["seven_from_eight"]) for name, result in of_task.items()}
        lines.append(f"7 classes from these 8: best epoch {seven['best']}, last {seven['last']}.")
    lines += ["", "| class | n | recall %, best | recall %, last |", "|---|---|---|---|"]
    for label, best in of_task["best"]["per_class"].items():
        recalls = [of_task[name]["per_class"][label]["recall"] for name in ("best", "last")]
        cells = ["-" if recall is None else f"{100 * recall:.1f}" for recall in recalls]
        lines.append(f"| {label} | {best['n']} | {cells[0]} | {cells[1]} |")
    return lines


def _draw_result(path: pathlib.Path, task: Task, results: dict[str, TaskResult]) -> None:
    """The best and the last epoch side by side: confusion matrices, or predicted against true values, or ranks."""
    import matplotlib.figure  # not pyplot: no global state, no display

    figure = matplotlib.figure.Figure(figsize=(13, 6), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(1, 2), results.items(), strict=True):
        axes.set_title(f"{name} epoch: {in_words(result)}", fontsize=9)
        if isinstance(result, ClassificationResult):
            _draw_confusion(axes, task, result)
        elif isinstance(result, RankResult):
            axes.bar(range(1, len(result.hits) + 1), result.hits / max(result.n, 1))
            axes.set(xlabel="rank", ylabel="fraction of records, true person within rank", ylim=(0, 1))
        elif isinstance(result, AgeResult):
            axes.plot(result.ages, result.ages + result.errors, ".", alpha=0.4)
            axes.axline((0, 0), slope=1, color="grey")
            axes.set(xlabel="true age, years", ylabel="predicted age, years", xlim=(0, 100), ylim=(0, 100))
        elif isinstance(result, RegressionResult):
            for index, label in enumerate(result.names):
                axes.plot(result.target[:, index], result.predicted[:, index], ".", alpha=0.4, label=label)
            axes.axline((0, 0), slope=1, color="grey")
            axes.set(xlabel="true", ylabel="predicted", xlim=(-1, 1), ylim=(-1, 1))
            axes.legend()
    _save(figure, path)


def _draw_calibration(path: pathlib.Path, results: dict[str, CalibrationResult]) -> None:
    """Reliability diagrams of the best and the last epoch."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(11, 5), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(1, 2), results.items(), strict=True):
        draw_reliability(axes, result, f"{name} epoch")
    _save(figure, path)


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


def _draw_curves(path: pathlib.Path, history: list[dict[str, Any]]) -> None:
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


def _draw_crops(path: pathlib.Path, task: Task, source: FaceSource, scores: np.ndarray, labels: np.ndarray) -> None:
    """A sample of the evaluation split with the true labels and the predictions of the best epoch."""
    import matplotlib.figure

    labelled = np.isfinite(labels).all(axis=1) if labels.ndim > 1 else labels >= 0
    known = np.flatnonzero(labelled & np.isfinite(scores).all(axis=1))
    figure = matplotlib.figure.Figure(figsize=(14, 1.95 * -(-CROPS // 12)), layout="constrained")
    grid = figure.subplots(-(-CROPS // 12), 12)
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, np.random.default_rng(0).permutation(known)[:CROPS], strict=False):
        text, right = _caption(task, scores[index], labels[index])
        axes.imshow(source.read(int(index))["image"])
        axes.set_title(text, fontsize=7, color="green" if right else "red")
    _save(figure, path)


def _caption(task: Task, scores: np.ndarray, label: Any) -> tuple[str, bool]:
    """(truth and prediction in words, whether they agree; ages within five years, values within a quarter)."""
    if task.kind == "regression":
        words = [" ".join(f"{value:+.2f}" for value in values) for values in (label, scores)]
        return f"{words[0]}\n→ {words[1]}", bool(np.abs(scores - label).max() <= 0.25)
    if task.kind == "age":
        years = float(expected_age(scores[None])[0])
        return f"{label}\n→ {years:.0f}", bool(abs(years - label) <= 5)
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
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
