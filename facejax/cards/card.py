"""A network's model card in Markdown, from its `PretrainedCfg` and, if facejax trained it, the run's report."""

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from facejax.atomic import write_atomically
from facejax.cards.published import MEASURED, Measured
from facejax.cards.terms import CONSEQUENCES, Commercial, data_terms, register_table
from facejax.cards.use import INTENDED, LIMITS, PROHIBITED, PROHIBITED_BY_TASK
from facejax.evals.tasks import format_interval
from facejax.models import PretrainedCfg

CARD = "MODEL_CARD.md"
# Left behind by an interrupted `write_card`.
PARTIAL_CARD = f"{CARD}.*.tmp"
# A card is about a page long; a longer file is not a card.
_MAX_BYTES = 1 << 20
# Datasets of object photos: a network trained only on these predicts nothing about faces, whatever its head is called.
_OBJECT_DATASETS = frozenset({"imagenet_1k", "jft_300m"})
_POOLS = {"avg": "mean", "max": "maximum"}
_GENERAL_LIMITS = (
    "Accuracy drops on small, blurred, turned, occluded or badly lit faces, and on people unlike the training data.",
    "Confidence intervals cover sampling error only, not the difference between your photos and the test photos.",
)


def model_card(cfg: PretrainedCfg, report: Mapping[str, Any] | None = None, epoch: str = "best") -> str:
    """Returns the card as Markdown.

    Args:
        cfg: The configuration stored with the weights.
        report: The return value of `facejax.evals.report.write_report`, for weights trained with facejax.
        epoch: Which of the run's two models this is, ``best`` or ``last``.
    """
    lines = [f"# Model card: {cfg.name}", "", *_facts(cfg), ""]
    lines += ["## Use", "", "For:", "", *_bullets(INTENDED), "", "Not for, whatever the accuracy:", ""]
    lines += [*_bullets((*PROHIBITED, *_prohibited_by_task(cfg))), ""]
    lines += ["## Data", "", *_data(cfg), ""]
    lines += ["## Measured", "", *_measured(cfg, report, epoch), ""]
    lines += ["## Limits", "", *_bullets((*_limits(cfg, report, epoch), *_GENERAL_LIMITS)), ""]
    return "\n".join(lines)


def summary_sections(cfg: PretrainedCfg) -> list[str]:
    """The sections of a card that differ between networks, for a page that lists many cards."""
    lines = [
        *_facts(cfg),
        f"| trained on | {', '.join(f'`{name}`' for name in cfg.training_data)} |",
        "",
        cfg.notes,
        "",
    ]
    lines += ["Measured:", "", *_measured(cfg, None, ""), ""] if cfg.name in MEASURED else ["Measured: nothing.", ""]
    own = (*_prohibited_by_task(cfg), *_limits(cfg, None, ""))
    return [*lines, *_bullets(own), ""] if own else lines


def write_card(directory: pathlib.Path, card: str) -> None:
    """Writes ``DIRECTORY/MODEL_CARD.md``."""
    write_atomically(directory / CARD, card.encode())


def read_card(directory: pathlib.Path) -> str | None:
    """Returns the card in a model's folder, or None if there is none."""
    path = directory / CARD
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return None
    return path.read_text(encoding="utf-8", errors="replace")


def measured_table(rows: Iterable[Measured]) -> list[str]:
    """Markdown table of measured results."""
    lines = ["| what | data | n | value [95 % interval] |", "|---|---|---|---|"]
    return lines + [f"| {row.what} | {row.data} | {row.n} | {row.value} |" for row in rows]


def describe_outputs(cfg: PretrainedCfg) -> str:
    """Describes the outputs of the network's heads."""
    if cfg.training_data and set(cfg.training_data) <= _OBJECT_DATASETS:
        return "nothing about faces: a base for fine-tuning, with the classes of ImageNet"
    words = {"age": "perceived age", "gender": "perceived gender", "ethnicity": "perceived ethnicity"}
    words |= {"emotion8": "expression (8)", "emotion7": "expression (7)", "identity": "identities of the training set"}
    return ", ".join(words.get(task, task.replace("_", " and ")) for task in cfg.tasks) or "features only"


def commercial(cfg: PretrainedCfg) -> tuple[Commercial, str]:
    """Whether the terms of all the training data allow commercial use (no, unclear, yes), and what that implies."""
    found: set[Commercial] = {data_terms(name).commercial for name in cfg.training_data} or {"unclear"}
    worst = min(found, key=list(CONSEQUENCES).index)
    return worst, CONSEQUENCES[worst]


def _facts(cfg: PretrainedCfg) -> list[str]:
    preprocessing = cfg.preprocessing
    unpublished = "converted from a file, source not recorded" if cfg.sha256 else "trained with facejax"
    facts = {
        "network": cfg.architecture,
        "outputs": describe_outputs(cfg),
        "input": f"RGB face crop, {preprocessing.image_size} px; resizing and normalisation come with the weights",
        "features": f"{cfg.num_features}, the spatial {_POOLS[cfg.global_pool]} of the last feature maps",
        "source": f"<{cfg.source}>" if cfg.source else unpublished,
        "SHA-256 of the published file": cfg.sha256 and f"`{cfg.sha256}`",
        "licence as stated": cfg.licence or "none stated",
        "commercial use": "{}: {}".format(*commercial(cfg)),
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items() if value)]


def _prohibited_by_task(cfg: PretrainedCfg) -> tuple[str, ...]:
    return tuple(dict.fromkeys(PROHIBITED_BY_TASK[task] for task in cfg.tasks if task in PROHIBITED_BY_TASK))


def _data(cfg: PretrainedCfg) -> list[str]:
    if not cfg.training_data:
        return ["Not recorded: treat the weights as unlicensed until you know."]
    lines = [*register_table(list(cfg.training_data)), ""]
    return [
        *lines,
        "A licence for photos or weights does not clear the rights of the people in the photos.",
        "",
        cfg.notes,
    ]


def _measured(cfg: PretrainedCfg, report: Mapping[str, Any] | None, epoch: str) -> list[str]:
    if report is not None:
        lines = measured_table(_from_report(report, epoch))
        data = f"Trained and evaluated on: {report['data']}. Epoch {report[epoch]['epoch']} ({epoch})."
        return [data, "", *lines]
    if cfg.name in MEASURED:
        return measured_table(MEASURED[cfg.name])
    return ["Nothing: facejax has not measured the accuracy of these weights. Measure it on your own data before use."]


def _from_report(report: Mapping[str, Any], epoch: str) -> Iterator[Measured]:
    """Rows from a run's report: overall results of each task, then by class and by group of people."""
    of_epoch = report[epoch]
    data = f"{of_epoch['dataset']}, {of_epoch['split']}"
    for task, result in of_epoch["tasks"].items():
        n = str(result["n"])
        if "accuracy" in result and "mae" not in result:
            yield Measured(f"{task} accuracy %", data, n, _percent(result["accuracy"], result.get("interval95")))
        if "balanced_accuracy" in result:
            yield Measured(f"{task} balanced accuracy %", data, n, _percent(result["balanced_accuracy"]))
        if "calibration" in result:
            yield Measured(f"{task} expected calibration error %", data, n, _percent(result["calibration"]["ece"]))
        if "mae" in result:
            error = _figure(result["mae"], result.get("interval95"))
            yield Measured(f"{task}, mean absolute error in years", data, n, error)
        for name, value in result.items():
            if name.startswith("ccc") and isinstance(value, float):
                shown = _figure(value, result.get(f"{name}_interval95"), decimals=3)
                yield Measured(f"{task} {name.replace('_', ' ')}", data, n, shown)
        for label, of_class in result.get("per_class", {}).items():
            yield Measured(f"{task} recall %, {label}", data, str(of_class["n"]), _percent(of_class["recall"]))
        for found in result.get("groups", ()):
            figure = _percent if found["higher_is_better"] else _figure
            for group in found["groups"]:
                name = f"{found['metric']}, {found['attribute']} {group['name']}"
                photos = f"{group['n']} photos"
                if group["clusters"] is not None:  # the dataset identifies people
                    photos += f" of {group['clusters']} people"
                note = "" if group.get("counted", True) else " (not compared)"  # older reports lack the key
                yield Measured(name, data, photos, figure(group["value"], group["interval95"]) + note)
            if found["worst"]:
                value = f"{figure(found['gap'], found['gap_interval95'])}, worst group: {found['worst']}"
                known = str(sum(group["n"] for group in found["groups"] if group.get("counted", True)))
                yield Measured(f"{found['metric']}, gap by {found['attribute']}", data, known, value)


def _figure(value: float | None, interval: Sequence[float | None] | None = None, **style: Any) -> str:
    """See `format_interval`; ``-`` for None, which stands for nan in a report."""
    return "-" if value is None else format_interval(value, interval, **style)


def _percent(value: float | None, interval: Sequence[float | None] | None = None) -> str:
    return _figure(value, interval, scale=100.0)


def _limits(cfg: PretrainedCfg, report: Mapping[str, Any] | None, epoch: str) -> Iterator[str]:
    yield from dict.fromkeys(LIMITS[task] for task in cfg.tasks if task in LIMITS)
    sets = report["data"].partition(" ")[0].split("+") if report is not None else []
    if sets == ["people"]:
        yield "Trained on rendered heads: the figures say nothing about photos of real people."
    elif "people" in sets:
        yield "Partly trained on rendered heads: what was learned from them may not transfer to photos of real people."
    if report is not None and epoch == "best":
        yield "The best epoch was selected on the same split as it is evaluated on, so its figures are optimistic."


def _bullets(lines: Any) -> list[str]:
    return [f"- {line}" for line in lines]
