"""The report of a run: report.json, report.md and pictures, of the best and of the last epoch."""

import json
import os
import pathlib
from typing import Any

import numpy as np

from facejax.config import Config
from facejax.data.source import FaceSource
from facejax.evals.classification import ClassificationResult, classify, seven_from_eight
from facejax.tasks import EMOTION8, Task

CROPS = 48


def write_report(
    workdir: pathlib.Path,
    config: Config,
    task: Task,
    source: FaceSource,
    history: list[dict[str, Any]],
    data_description: str,
) -> dict[str, Any]:
    """Writes ``report.json``, ``report.md``, ``confusion.png``, ``curves.png`` and ``crops.png`` to the workdir.

    Args:
        workdir: Holds ``scores_best.npz`` and ``scores_last.npz``: ``scores`` (n, classes) with nan rows for records
            that could not be read, ``labels`` (n,), ``epoch`` and ``step``.
        config: Of the run.
        task: The categorical task that was trained.
        source: The evaluation split, in the order of the scores, for the contact sheet.
        history: Lines of metrics.jsonl.
        data_description: What the run was trained and evaluated on, in words.

    Returns:
        What report.json holds. For ``best`` and ``last``: ``accuracy``, ``balanced_accuracy``, ``n``, ``dataset``,
        ``epoch`` and more; and ``paper``, the row of the paper with the data set that it is about.
    """
    report: dict[str, Any] = {"task": task.name, "backbone": config.model.backbone, "data": data_description}
    kept = {name: _load_scores(workdir / f"scores_{name}.npz") for name in ("best", "last")}
    results = {}
    for name, stored in kept.items():
        results[name] = classify(stored["scores"], stored["labels"], task.labels)
        report[name] = {
            "epoch": int(stored["epoch"]),
            "step": int(stored["step"]),
            "dataset": config.data.name,
            "split": config.data.eval_split,
            **results[name].to_dict(),
        }
        if task.labels == EMOTION8:
            report[name]["seven_from_eight"] = seven_from_eight(stored["scores"], stored["labels"]).to_dict()
    paper = config.paper
    report["paper"] = {
        "table": paper.table,
        "row": paper.row,
        "dataset": paper.dataset,
        "accuracy": paper.accuracy / 100,
        "accuracy7": paper.accuracy7 / 100,
        "comparable": config.data.name == paper.dataset,
    }
    _write(workdir / "report.json", json.dumps(report, indent=2) + "\n")
    _write(workdir / "report.md", _markdown(report, results, config))
    _draw(workdir, task, source, results, kept, history)
    return report


def _load_scores(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        values = dict(stored)
    values["labels"] = np.where(np.isfinite(values["scores"]).all(axis=1), values["labels"], -1)
    return values


def _write(path: pathlib.Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def _percent(result: dict[str, Any]) -> str:
    low, high = result["interval95"]
    return f"{100 * result['accuracy']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _markdown(report: dict[str, Any], results: dict[str, ClassificationResult], config: Config) -> str:
    paper = report["paper"]
    lines = [
        f"# {report['task']} with {report['backbone']}",
        "",
        f"Trained and evaluated on: **{report['data']}**.",
        "",
        "| epoch | n | accuracy % [95 % interval] | balanced accuracy % | 7 from 8, accuracy % [95 % interval] |",
        "|---|---|---|---|---|",
    ]
    for name in ("best", "last"):
        result = report[name]
        seven = result.get("seven_from_eight")
        lines.append(
            f"| {name} ({result['epoch']}) | {result['n']} | {_percent(result)} | "
            f"{100 * result['balanced_accuracy']:.2f} | {_percent(seven) if seven else '-'} |"
        )
    lines += [
        "",
        f"The best epoch is the one with the highest {config.select.replace('_', ' ')} on this very split, so it "
        "flatters; the last epoch does not.",
        "",
    ]
    if paper["row"]:
        numbers = f"{100 * paper['accuracy']:.2f} %" if paper["accuracy"] else "-"
        seven = f"{100 * paper['accuracy7']:.2f} %" if paper["accuracy7"] else "-"
        lines.append(
            f"Paper, {paper['table']}, {paper['row']}, on {paper['dataset']}: 8 classes {numbers}, 7: {seven}."
        )
        if not paper["comparable"]:
            lines.append(
                f"**This run is on {report['best']['dataset']}, not on {paper['dataset']}: "
                "the two numbers cannot be compared.**"
            )
    lines += ["", "| class | n | recall %, best | recall %, last |", "|---|---|---|---|"]
    for label, best in report["best"]["per_class"].items():
        last = report["last"]["per_class"][label]
        cells = ["-" if r["recall"] is None else f"{100 * r['recall']:.1f}" for r in (best, last)]
        lines.append(f"| {label} | {best['n']} | {cells[0]} | {cells[1]} |")
    lines += ["", "![Confusion matrices](confusion.png)", "![Curves](curves.png)", "![Crops](crops.png)", ""]
    return "\n".join(lines)


def _draw(
    workdir: pathlib.Path,
    task: Task,
    source: FaceSource,
    results: dict[str, ClassificationResult],
    kept: dict[str, dict[str, np.ndarray]],
    history: list[dict[str, Any]],
) -> None:
    import matplotlib.figure  # not pyplot: no global state, no display

    figure = matplotlib.figure.Figure(figsize=(13, 6), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(1, 2), results.items(), strict=True):
        rates = result.confusion / np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
        axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
        ticks = range(len(task.labels))
        axes.set_xticks(ticks, task.labels, rotation=45, ha="right")
        axes.set_yticks(ticks, task.labels)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"{name} epoch {int(kept[name]['epoch'])}: accuracy {100 * result.accuracy:.1f} %, n={result.n}")
        for (row, column), count in np.ndenumerate(result.confusion):
            axes.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color="white" if rates[row, column] > 0.5 else "black",
            )
    _save(figure, workdir / "confusion.png")

    train = [line for line in history if line.get("phase") == "train"]
    evaluated = [line for line in history if line.get("phase") == "eval"]
    figure = matplotlib.figure.Figure(figsize=(13, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for stage in dict.fromkeys(line["stage"] for line in train):
        lines = [line for line in train if line["stage"] == stage]
        steps = np.array([line["step"] for line in lines])
        width = max(len(lines) // 100, 1)
        left.plot(steps, _smooth([line["loss"] for line in lines], width), label=f"{stage} stage")
        right.plot(
            steps, _smooth([line["accuracy"] for line in lines], width), alpha=0.6, label=f"train, {stage} stage"
        )
    for key in ("accuracy", "balanced_accuracy"):
        right.plot(
            [line["step"] for line in evaluated], [line[key] for line in evaluated], "o-", label=key.replace("_", " ")
        )
    left.set(xlabel="step", ylabel="training loss")
    right.set(xlabel="step", ylabel="accuracy", ylim=(0, 1))
    left.legend()
    right.legend()
    _save(figure, workdir / "curves.png")

    stored = kept["best"]
    known = np.flatnonzero(stored["labels"] >= 0)
    chosen = np.random.default_rng(0).permutation(known)[:CROPS]
    figure = matplotlib.figure.Figure(figsize=(14, 1.95 * -(-CROPS // 12)), layout="constrained")
    for axes in (grid := figure.subplots(-(-CROPS // 12), 12)).flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, chosen, strict=False):
        predicted = int(stored["scores"][index].argmax())
        truth = int(stored["labels"][index])
        axes.imshow(source.read(int(index))["image"])
        axes.set_title(
            f"{task.labels[truth]}\n→ {task.labels[predicted]} {stored['scores'][index, predicted]:.2f}",
            fontsize=7,
            color="green" if predicted == truth else "red",
        )
    _save(figure, workdir / "crops.png")


def _smooth(values: list[float], width: int) -> np.ndarray:
    """Running mean over the last `width` values."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _save(figure: Any, path: pathlib.Path) -> None:
    partial = path.with_name(path.stem + ".partial.png")
    figure.savefig(partial, dpi=110)
    os.replace(partial, path)
