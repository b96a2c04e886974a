"""The report of a run: report.json, report.md and figures, for the best and for the last epoch."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facejax.atomic import write_atomically
from facejax.config import Config
from facejax.data.source import FaceSource
from facejax.decoding import expected_age
from facejax.evals.bootstrap import accuracy_interval, interval95, person_clusters, resample
from facejax.evals.calibration import CalibrationResult, reliability
from facejax.evals.classification import ClassificationResult, seven_from_eight, without_contempt
from facejax.evals.fairness import FairnessResult, mean_by_attribute, to_jsonable
from facejax.evals.figures import AGE_TOLERANCE, VALUE_TOLERANCE, draw_calibration, draw_crops, draw_curves, draw_result
from facejax.evals.tasks import TaskResult, concordance, evaluate_task, format_interval, format_result
from facejax.tasks import EMOTION8, Task


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
        ``tasks``: for each task the result's `to_dict` with its 95 % intervals (by bootstrap over people if the dataset
        identifies them) and ``groups``, the same by groups of people. ``paper`` is the row of the paper with its
        dataset.
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
            result = results[name][task.name] = evaluate_task(task, scores, labels)
            of_task = of_tasks[task.name] = result.to_dict() | _intervals(task, scores, labels, persons)
            groups[task.name] = _by_groups(task, scores, labels, people, persons)
            of_task["groups"] = [group.to_dict() for group in groups[task.name]]
            if isinstance(result, ClassificationResult):
                readable = np.where(np.isfinite(scores).all(axis=1), labels, -1)
                calibrations[task.name][name] = reliability(scores, readable)
                of_task["calibration"] = calibrations[task.name][name].to_dict()
                if task.labels == EMOTION8:
                    of_task["seven_from_eight"] = seven_from_eight(scores, readable).to_dict() | _intervals(
                        task, *without_contempt(scores, readable), persons
                    )
        report[name] = {
            "epoch": int(kept[name]["epoch"]),
            "step": int(kept[name]["step"]),
            "dataset": config.data.name,
            "split": config.data.eval_split,
            "tasks": of_tasks,
        }
    report["paper"] = {**dataclasses.asdict(config.paper), "comparable": comparable}
    jsonable = to_jsonable(report)
    write_atomically(workdir / "report.json", (json.dumps(jsonable, indent=2) + "\n").encode())
    write_atomically(workdir / "report.md", _markdown(report, tasks, results, groups, config).encode())
    draw_curves(workdir / "curves.png", history)
    for task in tasks:
        draw_result(workdir / f"{task.name}.png", task, {name: results[name][task.name] for name in results})
        if calibrations[task.name]:
            draw_calibration(workdir / f"{task.name}_calibration.png", calibrations[task.name])
        scores, labels = kept["best"][f"scores/{task.name}"], kept["best"][f"labels/{task.name}"]
        draw_crops(workdir / f"{task.name}_crops.png", task, source, scores, labels)
    return jsonable


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
    name, values, readable = _metric_values(task, scores, labels)
    return mean_by_attribute(name, values, readable, people, clusters=persons, higher_is_better=task.kind != "age")


def _metric_values(task: Task, scores: np.ndarray, labels: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
    """(name of the metric, its value for each record, which records count)."""
    readable = np.isfinite(scores).all(axis=1) & (labels >= 0)
    scores = np.where(readable[:, None], scores, 1)
    if task.kind == "age":
        return f"{task.name}, mean absolute error in years", np.abs(expected_age(scores) - labels), readable
    predicted = scores[:, 0] if task.kind == "identity" else scores.argmax(axis=1)  # identity: the first few classes
    return f"{task.name} accuracy", predicted == labels, readable


def _intervals(task: Task, scores: np.ndarray, labels: np.ndarray, persons: np.ndarray | None) -> dict[str, Any]:
    """Intervals of the task's main metrics by bootstrap over people, whose photos are not independent.

    Where people are unknown, photos are drawn for a concordance; the other results have an interval in closed form.
    """
    draws: dict[str, Any] = {} if persons is None else {"draws": "persons"}
    if task.kind == "regression":
        records = np.flatnonzero(np.isfinite(scores).all(axis=1) & np.isfinite(labels).all(axis=1))
        whose = None if persons is None else persons[records]
        for column, name in enumerate(task.labels):
            x, y = scores[:, column], labels[:, column]
            drawn = resample(lambda some, x=x, y=y: float(concordance(x[some], y[some])), records, whose)
            draws[f"ccc_{name}_interval95"] = list(interval95(drawn))
        return draws
    if persons is None:
        return {}
    _, values, readable = _metric_values(task, scores, labels)
    records, whose = np.flatnonzero(readable), persons[readable]
    if task.kind == "age":
        interval = interval95(resample(lambda drawn: float(values[drawn].mean()), records, whose))
    else:
        interval = accuracy_interval(values, records, whose)
    return {"interval95": list(interval), **draws}


def _markdown(
    report: dict[str, Any],
    tasks: Sequence[Task],
    results: dict[str, dict[str, TaskResult]],
    groups: Mapping[str, Sequence[FairnessResult]],
    config: Config,
) -> str:
    first = tasks[0]
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
            lines.append(f"| {task.name} | {name} ({report[name]['epoch']}) | {result.n} | {format_result(result)} |")
    lines += [
        "",
        f"The best epoch was selected by the best {chosen_by} of {first.name} on this same split, so its results are "
        "optimistic; those of the last epoch are not.",
        "",
        *_constant_predictions(tasks, results),
    ]
    lines += _paper_lines(report["paper"], first, config.data.name)
    for task in tasks:
        lines += ["", f"## {task.name}", ""]
        of_task = {name: report[name]["tasks"][task.name] for name in ("best", "last")}
        if of_task["best"]["n"]:
            lines += _interval_lines(task, of_task)
        if "per_class" in of_task["best"]:
            lines += _class_table(of_task)
        lines += ["", f"![{task.name}]({task.name}.png)"]
        if "calibration" in of_task["best"]:
            errors = [f"{100 * of_task[name]['calibration']['ece']:.1f} %" for name in ("best", "last")]
            lines += [f"![Calibration]({task.name}_calibration.png)", ""]
            lines += [f"Expected calibration error (15 bins): best epoch {errors[0]}, last {errors[1]}."]
        agree = {"age": f" within {AGE_TOLERANCE} years", "regression": f" within {VALUE_TOLERANCE}"}.get(task.kind, "")
        lines += ["", "Crops with their labels and the predictions of the best epoch,"]
        lines += [f"green where the two agree{agree}, red where they do not:", ""]
        lines += [f"![Crops]({task.name}_crops.png)"]
        for result in groups[task.name]:
            lines += ["", f"By {result.attribute}, last epoch:", "", *result.markdown()]
    lines += ["", "## Training", "", "![Curves](curves.png)", ""]
    return "\n".join(lines)


def _paper_lines(paper: Mapping[str, Any], first: Task, dataset: str) -> list[str]:
    """The numbers of the paper's row, if it has any, and whether those of a run on `dataset` can be compared."""
    figures = {
        f"{first.name} {paper['accuracy']:.2f} %": paper["accuracy"],
        f"7 classes {paper['accuracy7']:.2f} %": paper["accuracy7"],
        f"age class {paper['age_class']:.2f} %": paper["age_class"],
        f"CCC of valence {paper['ccc_valence']:.3f}": paper["ccc_valence"],
        f"CCC of arousal {paper['ccc_arousal']:.3f}": paper["ccc_arousal"],
    }
    numbers = [words for words, number in figures.items() if number]
    if not (paper["row"] and numbers):
        return []
    where = paper["table"] if paper["table"] == "EmotiEffLib" else f"Paper, {paper['table']}"
    lines = [f"{where}, {paper['row']}, on {paper['dataset']}: {', '.join(numbers)}."]
    if not paper["comparable"]:
        part = dataset == paper["dataset"]
        where = f"a part of {paper['dataset']}" if part else f"{dataset}, not on {paper['dataset']}"
        lines.append(f"**This run is on {where}: the numbers cannot be compared.**")
    return lines


def _constant_predictions(tasks: Sequence[Task], results: dict[str, dict[str, TaskResult]]) -> list[str]:
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


def _interval_lines(task: Task, of_task: dict[str, dict[str, Any]]) -> list[str]:
    """The task's main metrics with their intervals, one line each."""
    interval = "[95 % interval" + (", bootstrap over people]" if of_task["best"].get("draws") == "persons" else "]")
    if task.kind == "regression":
        return [
            f"Concordance of {name} {interval}: "
            + _both_epochs(of_task, f"ccc_{name}", f"ccc_{name}_interval95", decimals=3)
            for name in task.labels
        ]
    if task.kind == "age":
        return [f"Mean absolute error in years {interval}: {_both_epochs(of_task, 'mae')}"]
    rank = "Rank-1 accuracy" if task.kind == "identity" else "Accuracy"
    lines = [f"{rank} % {interval}: {_both_epochs(of_task, 'accuracy', scale=100.0)}"]
    if "seven_from_eight" in of_task["best"]:
        seven = {name: result["seven_from_eight"] for name, result in of_task.items()}
        lines.append(f"7 classes from these 8: {_both_epochs(seven, 'accuracy', scale=100.0)}")
    return lines


def _both_epochs(of_epochs: dict[str, dict[str, Any]], metric: str, interval: str = "interval95", **style: Any) -> str:
    best, last = (format_interval(found[metric], found.get(interval), **style) for found in of_epochs.values())
    return f"best epoch {best}, last {last}."


def _class_table(of_task: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["", "| class | n | recall %, best | recall %, last |", "|---|---|---|---|"]
    for label, best in of_task["best"]["per_class"].items():
        recalls = [of_task[name]["per_class"][label]["recall"] for name in ("best", "last")]
        cells = ["-" if recall is None else f"{100 * recall:.1f}" for recall in recalls]
        lines.append(f"| {label} | {best['n']} | {cells[0]} | {cells[1]} |")
    return lines
