"""Age, gender, ethnicity and expression of prepared photos (paper Tables 6 and 7), each by group of people."""

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import numpy as np

from experiments.inputs import prepare_people
from experiments.protocols.cache import cached_file, files_digest
from experiments.protocols.network import load_network
from experiments.protocols.results import accuracy, percent, write_results
from facejax.atomic import atomic_file
from facejax.config import Config, ConfigError, DataConfig
from facejax.data.metadata import count_records, find_set, read_splits
from facejax.data.source import FaceSource
from facejax.data.tfrecord import CorruptRecordError
from facejax.datasets import is_complete, list_datasets
from facejax.decoding import expected_age, probabilities
from facejax.evals.age import PAPER_RANGE, age_errors
from facejax.evals.bootstrap import accuracy_interval, person_clusters
from facejax.evals.classification import classify
from facejax.evals.fairness import FairnessResult, mean_by_attribute
from facejax.evals.identification import normalize
from facejax.evals.tasks import evaluate_task, format_interval
from facejax.inference.model import LoadedModel
from facejax.naming import did_you_mean
from facejax.protocol_config import AttributesConfig, FacesConfig
from facejax.tasks import EMOTION8, ETHNICITY, GENDER, TASKS
from facejax.train.labels import class_labels
from facejax.video.classifiers import Recipe, fit

logger = logging.getLogger("facejax")
_PHOTOS_AT_ONCE = 256
_NAMES = {"gender": GENDER, "ethnicity": ETHNICITY, "emotion": EMOTION8}


def run(config: AttributesConfig, workdir: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Runs the protocol and writes ``outputs_<split>.npz``, ``report.json`` and ``report.md``."""
    directory, faces, description = _open(config, data_dir)
    if config.fit and faces.train_split == faces.eval_split:
        raise ConfigError(
            f"--config.faces.train_split={faces.train_split} is the evaluation split: a classifier "
            "must be fitted on other photos"
        )
    source, left_out = _photos(directory, faces, faces.eval_split)
    if faces.person and faces.person not in source.fields:
        raise ConfigError(
            f"--config.faces.person: {source.name} has no {faces.person!r}{did_you_mean(faces.person, source.fields)}"
        )
    model, network = load_network(config.network, config.seed, workdir)
    heads = [head for head in config.heads if head in model.cfg.tasks and TASKS[head].label_key in source.label_keys]
    if config.network.init_from and not heads and config.fit not in source.label_keys:
        raise ConfigError(
            f"--config.network.init_from={config.network.init_from} has heads for "
            f"{', '.join(model.cfg.tasks) or 'nothing'}: no task that {source.name} has labels for and "
            f"--config.heads names ({', '.join(config.heads)})"
        )
    logger.info("%d photos of %s; network: %s", len(source), source.name, network)
    outputs = _outputs(model, network, source, faces.eval_split, workdir)
    readable = _readable(outputs)
    person = faces.person or "person"
    persons = person_clusters(source.labels(person)) if person in source.fields else None
    report: dict[str, Any] = {
        "protocol": "attributes",
        "data": description,
        "photos": len(source),
        "left_out": left_out,
        "corrupt": int((~readable).sum()),
        "draws": "photos" if persons is None else "persons",
        "comparable": (faces.name, faces.eval_split) == (config.paper.dataset, config.paper.split)
        and bool(readable.all())
        and is_complete(faces.name, faces.eval_split, count_records(find_set(directory, faces.name))),
        "network": network,
        "paper": dataclasses.asdict(config.paper),
        "heads": {},
        "ages": {},
        "fit": config.fit,
        "fitted": {},
    }
    people = {attribute: source.labels(attribute) for attribute in config.group_by if attribute in source.label_keys}
    by_attribute = functools.partial(mean_by_attribute, people=people, clusters=persons, seed=config.seed)
    results: list[FairnessResult] = []
    for head in heads:
        task = TASKS[head]
        labels = class_labels(source, task)
        if task.kind == "age":
            labels = source.labels(task.label_key)  # with fractions, where the dataset has them
        labels = np.where(readable, labels, -1)
        scores = probabilities(task, outputs[head])
        report["heads"][head] = evaluate_task(task, scores, labels).to_dict()
        if task.kind == "age":
            years = expected_age(scores)
            for low, high in ((0, 200), PAPER_RANGE):
                found = age_errors(years, labels, low, high, clusters=persons, seed=config.seed)
                report["ages"][f"{low}-{high}"] = found.to_dict()
            error, name = np.abs(years - labels), "age, mean absolute error in years"
            results += by_attribute(name, error, labels >= 0, higher_is_better=False)
        else:
            right = scores.argmax(axis=1) == labels
            results += by_attribute(f"{head} accuracy", right, labels >= 0)
            report["heads"][head] |= _by_person(right, labels >= 0, persons, config.seed)
            if head == "gender" and "age" in source.label_keys:
                ages = source.labels("age")
                chosen = np.where((ages >= PAPER_RANGE[0]) & (ages <= PAPER_RANGE[1]), labels, -1)
                report["heads"]["gender, aged 21-60"] = {
                    **classify(scores, chosen, GENDER).to_dict(),
                    **_by_person(right, chosen >= 0, persons, config.seed),
                }
    if config.fit and config.fit in source.label_keys:
        train, _ = _photos(directory, faces, faces.train_split)
        known = _outputs(model, network, train, faces.train_split, workdir)
        known_labels = np.where(_readable(known), train.labels(config.fit), -1)
        truth = np.where(readable, source.labels(config.fit), -1)
        report["fitted"], predicted = _fit(config, known["features"], known_labels, outputs["features"], truth)
        for name, answers in predicted.items():
            results += by_attribute(f"{config.fit} accuracy, {name}", answers == truth, truth >= 0)
            report["fitted"][name] |= _by_person(answers == truth, truth >= 0, persons, config.seed)
            logger.info("%s by %s: %s", config.fit, name, accuracy(report["fitted"][name]))
    report["fairness"] = [result.to_dict() for result in results]
    write_results(workdir, report, _markdown(config, report, results))


def _open(config: AttributesConfig, data_dir: pathlib.Path) -> tuple[pathlib.Path, FacesConfig, str]:
    """(data folder, dataset and splits, description): those of the config, or of `people` if it is not prepared.

    Raises:
        ConfigError: There is no such dataset.
        FileNotFoundError: It is not prepared, and is not the paper's dataset, which `people` can replace.
    """
    faces = config.faces
    if faces.name != "people":
        try:
            find_set(data_dir, faces.name)
            return data_dir, faces, f"{faces.name}, {faces.eval_split}"
        except FileNotFoundError as error:
            if faces.name not in list_datasets():
                known = did_you_mean(faces.name, list_datasets())
                raise ConfigError(f"--config.faces.name={faces.name}: no such dataset{known}") from error
            if faces.name != config.paper.dataset:
                raise
            logger.info("%s", error)
            logger.info("Using the built-in dataset `people` instead: rendered heads, not photos of real people.")
    rendered = DataConfig(people_train=faces.people_train, people_validation=faces.people_validation)
    directory = prepare_people(Config(data=rendered), data_dir)
    faces = dataclasses.replace(faces, name="people", train_split="train", eval_split="validation", person="")
    return directory, faces, "people, validation (built-in, rendered)"


def _photos(directory: pathlib.Path, faces: FacesConfig, split: str) -> tuple[FaceSource, int | None]:
    """The photos of a split that are used, and how many do not have exactly one face (None: all are used).

    Raises:
        ConfigError: There is no such split, or no photo has exactly one face.
    """
    try:
        source = FaceSource(directory, faces.name, split, on_corrupt="skip")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not faces.single_face or "num_faces" not in source.fields:
        return source, None
    kept = source.select(source.labels("num_faces") == 1)
    if not len(kept):
        raise ConfigError(
            f"--config.faces.single_face: the preparation found exactly one face in none of the {len(source)} photos "
            f"of {source.name}. Prepare it with --crop mtcnn, or take all photos: --config.faces.single_face=false"
        )
    left_out = len(source) - len(kept)
    logger.info("%s: %d of %d photos left out for not having exactly one face", source.name, left_out, len(source))
    return kept, left_out


def _outputs(
    model: LoadedModel, network: str, source: FaceSource, split: str, workdir: pathlib.Path
) -> dict[str, np.ndarray]:
    """Features and raw outputs of all photos of a split; cached ones are reused if they were made from the same inputs.

    Photos that cannot be read have rows of nan, so that rows and labels stay aligned.
    """

    def make(path: pathlib.Path) -> None:
        outputs: dict[str, Any] = {}
        for start in range(0, len(source), _PHOTOS_AT_ONCE):
            indices = range(start, min(start + _PHOTOS_AT_ONCE, len(source)))
            crops = {}
            for index in indices:
                try:
                    crops[index] = source.read(index)["image"]
                except CorruptRecordError as error:
                    source.note_corrupt(index, error)
            for name, rows in model.outputs(list(crops.values())).items():
                outputs.setdefault(name, np.full((len(source), rows.shape[1]), np.nan, np.float32))[list(crops)] = rows
            logger.info("%s: photo %d of %d", source.name, indices[-1] + 1, len(source))
        with atomic_file(path) as file:
            np.savez(file, **outputs)

    path = workdir / f"outputs_{split}.npz"
    made_from = {
        "set": str(source.directory),
        "files": files_digest(shard for shard, _ in read_splits(source.directory)[split]),
        "split": source.name,
        "photos": len(source),
        "network": network,
    }
    cached_file(path, made_from, make)
    with np.load(path) as stored:
        return dict(stored)


def _readable(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """(photos,) bool: whether each could be read."""
    return np.isfinite(outputs["features"][:, 0])


def _fit(
    config: AttributesConfig, known: np.ndarray, known_labels: np.ndarray, features: np.ndarray, truth: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Table 7: classifiers on L2-normed features of the train split; (result, predicted classes) by classifier.

    Classes are weighted inversely to their frequency, as in the paper for ethnicity. Photos with a negative label,
    including those that could not be read, are used neither for fitting nor for evaluation.
    """
    of, names = config.classifier, _NAMES[config.fit]
    results, predicted = {}, {}
    has_label = known_labels >= 0
    train, evaluated = normalize(known[has_label]), normalize(np.nan_to_num(features))
    for name in of.names:
        recipe = Recipe(name, of.costs, of.folds, of.trees, of.max_depth, balanced=True, seed=config.seed)
        try:
            fitted = fit(recipe, train, known_labels[has_label].astype(np.int64), len(names))
        except ValueError as error:
            raise ConfigError(f"--config.fit={config.fit}, --config.classifier.names={name}: {error}") from error
        scores = fitted.scores(evaluated)
        results[name] = {**classify(scores, truth, names).to_dict(), "cost": fitted.cost, "train_photos": len(train)}
        predicted[name] = scores.argmax(axis=1)
    return results, predicted


def _by_person(right: np.ndarray, known: np.ndarray, persons: np.ndarray | None, seed: int) -> dict[str, Any]:
    """Interval of an accuracy by bootstrap over people, replacing Wilson's; empty if people are not known."""
    if persons is None:
        return {}
    return {"interval95": list(accuracy_interval(right, np.flatnonzero(known), persons[known], seed))}


def _markdown(config: AttributesConfig, report: dict[str, Any], results: list[FairnessResult]) -> list[str]:
    paper = report["paper"]
    on = f"On **{report['data']}**, {report['photos']} photos."
    if report["left_out"] is not None:
        on += f" Only those with exactly one face; {report['left_out']} others are left out."
    if report["corrupt"]:
        on += f" {report['corrupt']} of them cannot be read and are excluded."
    if report["draws"] == "persons":
        on += " All intervals are by bootstrap over people."
    lines = [f"# Attributes: {report['network']}", "", on, ""]
    if not report["comparable"]:
        lines += [f"**Not on all of {paper['dataset']}: the paper's numbers cannot be compared.**", ""]
    lines += ["| metric | n | ours [95 % interval] | paper |", "|---|---|---|---|"]
    theirs = {"gender": paper["gender"], "gender, aged 21-60": paper["gender_21_60"]}
    for head, found in report["heads"].items():
        if "accuracy" in found:
            number = theirs.get(head) or "-"
            lines.append(f"| {head} accuracy % | {found['n']} | {accuracy(found)} | {number} |")
    for ages, number in zip(report["ages"].values(), (paper["age_mae"], paper["age_mae_21_60"]), strict=False):
        what = "all ages" if ages["low"] == 0 else f"ages {ages['low']}-{ages['high']}"
        ours = f"{format_interval(ages['mae'], ages['interval95'])}, bias {ages['bias']:+z.2f}" if ages["n"] else "-"
        if ages["n"] and ages["low"] > 0:
            ours += f"; {ages['clipped_mae']:.2f} with predictions clipped to these ages"
        lines.append(f"| age, mean absolute error in years, {what} | {ages['n']} | {ours} | {number or '-'} |")
    for name, found in report["fitted"].items():
        balanced = percent(found["balanced_accuracy"])
        label = f"{config.fit} accuracy %, {name} on features (balanced {balanced})"
        lines.append(f"| {label} | {found['n']} | {accuracy(found)} | {paper[name] or '-'} |")
    if paper["gender_21_60"]:
        lines += ["", "Ages 21-60: the paper has 3,287 listed photos, ours are all photos of that age in this dataset."]
    lines += ["", "## By group", ""]
    lines += [f"Intervals: bootstrap over {report['draws']} (1000 draws).", ""]
    for result in results:
        lines += [f"### {result.metric}, by {result.attribute}", ""]
        lines += [*result.markdown(), ""]
    return lines
