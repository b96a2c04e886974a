"""The report of a run: report.json, report.md and figures, for the best and for the last epoch."""

import dataclasses
import json
import math
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
from facejax.evals.fairness import FairnessResult, attribute_groups, by_group, to_jsonable
from facejax.evals.figures import draw_calibration, draw_crops, draw_curves, draw_result
from facejax.evals.tasks import TaskResult, evaluate_task, format_result
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
    write_atomically(workdir / "report.json", (json.dumps(to_jsonable(report), indent=2) + "\n").encode())
    write_atomically(workdir / "report.md", _markdown(report, tasks, results, groups, config).encode())
    draw_curves(workdir / "curves.png", history)
    for task in tasks:
        draw_result(workdir / f"{task.name}.png", task, {name: results[name][task.name] for name in results})
        if calibrations[task.name]:
            draw_calibration(workdir / f"{task.name}_calibration.png", calibrations[task.name])
        scores, labels = kept["best"][f"scores/{task.name}"], kept["best"][f"labels/{task.name}"]
        draw_crops(workdir / f"{task.name}_crops.png", task, source, scores, labels)
    return to_jsonable(report)


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


def _metric_values(task: Task, scores: np.ndarray, labels: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
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
    _, values, readable = _metric_values(task, scores, labels)
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
            lines.append(f"| {task.name} | {name} ({report[name]['epoch']}) | {result.n} | {format_result(result)} |")
    lines += [
        "",
        f"The best epoch was selected by the best {chosen_by} of {first.name} on this same split, so its results are "
        "optimistic; those of the last epoch are not.",
        "",
        *_constant_predictions(tasks, results),
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
            lines += [f"Expected calibration error (15 bins): best epoch {errors[0]}, last {errors[1]}."]
        lines += ["", "Crops with their labels and the predictions of the best epoch:", ""]
        lines += [f"![Crops]({task.name}_crops.png)"]
        for result in groups[task.name]:
            lines += ["", f"By {result.attribute}, last epoch:", "", *result.markdown(result.higher_is_better)]
    lines += ["", "## Training", "", "![Curves](curves.png)", ""]
    return "\n".join(lines)


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
