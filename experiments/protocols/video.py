"""AFEW and VGAF: emotion of a clip from features of its frames (paper section 3.3, Tables 4 and 5), with extensions."""

import collections
import dataclasses
import functools
import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.protocols.cache import cached_file, records_digest
from experiments.protocols.faces import ClipSet, clip_label, faces_of_clips, open_clips
from experiments.protocols.network import load_network
from experiments.protocols.results import accuracy, percent, write_results
from facejax.config import ConfigError
from facejax.datasets import get_dataset
from facejax.evals.classification import ClassificationResult, classify
from facejax.protocol_config import DetectionConfig, VideoConfig
from facejax.video.attention import SequenceRecipe
from facejax.video.classifiers import ClipClassifier, Fitted, Recipe, fit, stratified
from facejax.video.descriptors import Descriptor, describe_clips
from facejax.video.features import FeatureTable, embed_clips
from facejax.video.fusion import fuse
from facejax.video.sequences import FittedSequence, fit_sequence

logger = logging.getLogger("facejax")


def run(config: VideoConfig, workdir: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Runs the protocol.

    Writes ``features.npz`` and ``features.parquet``, ``<classifier>.skops`` and ``<network>.npz``, ``report.json`` and
    ``report.md``. Features that were made before from the same clips and weights are reused.
    """
    for name in config.sequence.names:
        sequence_recipe(config, name)
    clips = open_clips(config.clips)
    least = DetectionConfig().min_face
    if clips.name != config.clips.name and config.detection.min_face > least:
        logger.info("rendered frames are small, and so are their faces: detecting faces from %g px", least)
        config = dataclasses.replace(config, detection=dataclasses.replace(config.detection, min_face=least))
    labels = np.array([clip_label(config.clips, record) for record in clips.records])
    train = np.array([record.split == "train" for record in clips.records])
    check_classes(config, clips.labels, labels, train)
    model, network = load_network(config.network, config.seed, workdir)
    logger.info("%d clips of %s; features by %s", len(clips.records), clips.description, network)

    def make(path: pathlib.Path) -> None:
        found = faces_of_clips(config.clips, config.detection, clips, data_dir)
        embed_clips(found, model.features, network).save(path)

    path = workdir / "features.npz"
    made_from = {"data": clips.description, "clips": records_digest(clips.records), "network": network}
    made_from["labels"] = labels.tolist()  # they are stored with the features
    cached_file(path, made_from, make)
    table = FeatureTable.load(path)
    with_faces = np.where(table.has_faces, table.labels, -1)
    check_classes(config, clips.labels, with_faces, table.of_split("train"), " with a face")
    taught = clips_by_class(clips.labels, with_faces[table.of_split("train")])
    untaught = [name for name in clips.labels if name not in taught]
    if untaught:
        logger.warning("no training clip of %s shows a face: no classifier can predict it", ", ".join(untaught))
    table.save_parquet(workdir / "features.parquet")
    report: dict[str, Any] = {
        "protocol": "video",
        "data": clips.description,
        "comparable": clips.name == config.paper.dataset and as_published(clips),
        "network": table.source,
        "clips": {
            split: {"n": int(part.sum()), "with_faces": int((part & table.has_faces).sum())}
            for split in ("train", "validation")
            for part in [table.of_split(split)]
        },
        "faces": len(table.clip),
        "unreadable": sum(clip.num_frames == 0 for clip in table.clips),
        "untaught": untaught,
        "paper": dataclasses.asdict(config.paper),
    }
    protocol = Protocol(config, table, clips.labels)
    report["results"] = protocol.results(workdir)
    if config.compare_folds:
        report["comparison"] = protocol.compare()
    write_results(workdir, report, _markdown(config, report))


def as_published(clips: ClipSet) -> bool:
    """Whether each split has as many clips as were published; a partial dataset has fewer."""
    counts = collections.Counter(record.split for record in clips.records)
    return counts == dict(get_dataset(clips.name).expected_counts)


def sequence_recipe(config: VideoConfig, name: str) -> SequenceRecipe:
    """The recipe of one of the config's networks over frames.

    Raises:
        ConfigError: There is no such network, e.g. because its width does not fit its heads.
    """
    fields = dataclasses.asdict(config.sequence) | {"name": name, "seed": config.seed}
    del fields["names"]
    try:
        return SequenceRecipe(**fields)
    except ValueError as error:
        raise ConfigError(f"--config.sequence: {error}") from error


def check_classes(
    config: VideoConfig, names: Sequence[str], labels: np.ndarray, train: np.ndarray, kind: str = ""
) -> None:
    """Rejects up front what would fail halfway through. Classes without any clip are not an error.

    Args:
        config: Config of the run.
        names: Names of the classes.
        labels: (clips,) classes, -1 for clips that do not count.
        train: (clips,) bool: whether each is in the train split.
        kind: What the error messages add to "clip": " with a face".

    Raises:
        ConfigError: A class has too few clips for what the config asks for.
    """
    of = config.classifier
    chooses = len(of.costs) > 1 and any(name != "random_forest" for name in of.names)
    taught = clips_by_class(names, labels[train])
    if len(taught) < 2:
        count = f"{len(taught)} class{'es' * (len(taught) != 1)}"
        raise ConfigError(f"the training clips{kind} show {count}, at least two are needed")
    rarest = min(taught, key=taught.__getitem__)
    if chooses and of.choose_by == "cross_validation" and taught[rarest] < 2:
        raise ConfigError(
            f"{rarest} has only one training clip{kind}, too few to choose C: give one C, --config.classifier.costs=1.0"
        )
    if config.compare_folds:
        by_class = clips_by_class(names, labels)
        rarest, counts = min(by_class, key=by_class.__getitem__), np.array(list(by_class.values()))
        folds = min(config.compare_folds, by_class[rarest])
        if folds < 2 or (chooses and (counts - -(-counts // folds)).min() < 2):  # what is left if a fold takes the most
            clips = "1 clip" if by_class[rarest] == 1 else f"{by_class[rarest]} clips"
            raise ConfigError(
                f"{rarest} has {clips}{kind} in all, too few for --config.compare_folds={config.compare_folds}: "
                "set it to 0, which skips the comparison, or to more folds"
                + (", or give one C, --config.classifier.costs=1.0" if chooses else "")
            )


def clips_by_class(names: Sequence[str], labels: np.ndarray) -> dict[str, int]:
    """Number of clips of each class that has any."""
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The paper's protocol for one table of features: which clips are used for training, which are scored, and by what.

    Attributes:
        config: Config of the run.
        table: Features of all faces of all clips.
        labels: Names of the classes.
    """

    config: VideoConfig
    table: FeatureTable
    labels: tuple[str, ...]

    @property
    def descriptor(self) -> Descriptor:
        """How a clip's vector is computed."""
        return Descriptor(self.config.descriptor.levels, self.config.descriptor.statistics)

    @functools.cached_property
    def clips(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Features and frame numbers of each clip's faces."""
        return list(self.table.per_clip())

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """(clips, descriptor) vectors; zeros for clips without a face."""
        return describe_clips(self.clips, self.descriptor)

    def names(self) -> tuple[str, ...]:
        """All classifiers and networks of the config."""
        return (*self.config.classifier.names, *self.config.sequence.names)

    def fitted(self, name: str, train: np.ndarray, peek: np.ndarray | None = None) -> Fitted | FittedSequence:
        """A classifier or network, fitted on the clips of `train` (indices) that have a face.

        With `peek`, C is chosen to be best on those clips: the flaw of the published code, only on request.
        """
        config, table = self.config, self.table
        train = train[table.has_faces[train] & (table.labels[train] >= 0)]
        if name in config.sequence.names:
            recipe = sequence_recipe(config, name)
            return fit_sequence(recipe, [self.clips[i] for i in train], table.labels[train], len(self.labels))
        of = config.classifier
        recipe = Recipe(name, of.costs, of.folds, of.trees, of.max_depth, seed=config.seed)
        known = None if peek is None else (self.vectors[peek], table.labels[peek])
        return fit(recipe, self.vectors[train], table.labels[train], len(self.labels), peek=known)

    def scores(self, fitted: Fitted | FittedSequence, chosen: np.ndarray) -> np.ndarray:
        """Scores of the chosen clips; those without a face are scored too, from zeros."""
        if isinstance(fitted, FittedSequence):
            return fitted.scores([self.clips[index] for index in chosen])
        return fitted.scores(self.vectors[chosen])

    def results(self, workdir: pathlib.Path) -> dict[str, Any]:
        """Trains on the training clips, scores the validation clips: all, and those with faces (Tables 4 and 5)."""
        table = self.table
        train = np.flatnonzero(table.of_split("train"))
        validation = np.flatnonzero(table.of_split("validation") & (table.labels >= 0))
        truth, seen = table.labels[validation], table.has_faces[validation]
        peek = validation if self.config.classifier.choose_by == "peeking_at_validation" else None
        found, members = {}, []
        for name in self.names():
            started = time.process_time()
            fitted = self.fitted(name, train, peek)
            scores = self.scores(fitted, validation)
            members.append(scores)
            found[name] = {
                "all": classify(scores, truth, self.labels).to_dict(),
                "with_faces": classify(scores[seen], truth[seen], self.labels).to_dict(),
                "fit_cpu_seconds": round(time.process_time() - started, 1),
            }
            if isinstance(fitted, Fitted):
                found[name] |= {"cost": fitted.cost, "chosen_by": fitted.chosen_by}
                found[name] |= {"cost_accuracy": {str(c): a for c, a in fitted.cost_accuracy.items()}}
                classifier = ClipClassifier(fitted, self.config.detection, self.descriptor, self.labels, table.source)
                classifier.save(workdir / f"{name}.skops")
            else:
                fitted.save(workdir / f"{name}.npz")
            logger.info("%s: %s", name, percent(found[name]["all"]["accuracy"], found[name]["all"]["interval95"]))
        if len(members) > 1:
            fused = fuse(members)
            peeked = any(one.get("chosen_by") == "peeking_at_validation" for one in found.values())
            found["fusion of all"] = {
                "all": classify(fused, truth, self.labels).to_dict(),
                "with_faces": classify(fused[seen], truth[seen], self.labels).to_dict(),
                **({"chosen_by": "peeking_at_validation"} if peeked else {}),
            }
        return found

    def compare(self) -> dict[str, Any]:
        """Every classifier, cross-validated on the same folds of all clips with faces, against linear_svc clip by clip.

        C is chosen inside each training part. ``better`` and ``worse`` count the clips on which only one of the two is
        right; ``p`` is from McNemar's exact two-sided test on them.
        """
        from scipy.stats import binomtest

        table = self.table
        usable = np.flatnonzero(table.has_faces & (table.labels >= 0))
        truth = table.labels[usable]
        folds = list(stratified(truth, self.config.compare_folds, self.config.seed).split(usable, truth))
        scores = {}
        for name in self.names():
            out = np.zeros((len(usable), len(self.labels)))
            for train, test in folds:
                out[test] = self.scores(self.fitted(name, usable[train]), usable[test])
            scores[name] = out
            logger.info("%s, cross-validated: %s", name, percent(classify(out, truth, self.labels).accuracy))
        if len(scores) > 1:
            scores["fusion of all"] = fuse(list(scores.values()))
        right = {name: out.argmax(axis=1) == truth for name, out in scores.items()}
        base = right.get("linear_svc")
        compared = {}
        for name, out in scores.items():
            result: ClassificationResult = classify(out, truth, self.labels)
            compared[name] = {"accuracy": result.accuracy, "interval95": list(result.interval), "n": result.n}
            if base is not None and name != "linear_svc":
                better, worse = int((right[name] & ~base).sum()), int((base & ~right[name]).sum())
                p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
                compared[name] |= {"better": better, "worse": worse, "p": p}
        return compared


def _markdown(config: VideoConfig, report: dict[str, Any]) -> list[str]:
    clips, paper = report["clips"], report["paper"]
    unreadable = ""
    if report["unreadable"]:
        unreadable = f" **{report['unreadable']} clips cannot be read** and count as clips without a face."
    untaught = []
    if report["untaught"]:
        untaught = [f"**No training clip of {', '.join(report['untaught'])} shows a face**: it is never predicted.", ""]
    lines = [
        f"# Emotion of clips: {report['network']}",
        "",
        f"On **{report['data']}**: {clips['train']['n']} training clips ({clips['train']['with_faces']} with faces), "
        f"{clips['validation']['n']} validation clips ({clips['validation']['with_faces']} with faces), "
        f"{report['faces']} faces.{unreadable}",
        "",
        *untaught,
        "| classifier | C | accuracy % on all validation clips [95 % interval] | on clips with faces | balanced |",
        "|---|---|---|---|---|",
    ]
    for name, found in report["results"].items():
        cost = "-" if found.get("cost") is None else f"{found['cost']:g}"
        if found.get("chosen_by") == "peeking_at_validation":
            cost += ", chosen on these clips"
        both = [accuracy(found[part]) for part in ("all", "with_faces")]
        lines.append(f"| {name} | {cost} | {both[0]} | {both[1]} | {percent(found['all']['balanced_accuracy'])} |")
    if paper["row"]:
        with_faces = (
            f", {paper['accuracy_with_faces']:.2f} % of clips with faces" if paper["accuracy_with_faces"] else ""
        )
        lines += ["", f"Paper, {paper['table']}, {paper['row']}: {paper['accuracy']:.2f} %{with_faces}."]
    if not report["comparable"]:
        lines.append(f"**Not on {paper['dataset']} as published: the numbers cannot be compared.**")
    if "comparison" in report:
        lines += [
            "",
            f"All clips with faces, {config.compare_folds} folds, C chosen inside each training part; against "
            "linear_svc clip by clip (McNemar's exact test; with several comparisons, interpret p with care):",
            "",
            "| classifier | n | accuracy % [95 % interval] | only it is right | only linear_svc is right | p |",
            "|---|---|---|---|---|---|",
        ]
        for name, found in report["comparison"].items():
            versus = f"{found['better']} | {found['worse']} | {found['p']:.3f}" if "p" in found else "- | - | -"
            lines.append(f"| {name} | {found['n']} | {accuracy(found)} | {versus} |")
    return lines
