"""LFW: identification with one training photo per person (paper Table 1), verification and 1:N search."""

import collections
import contextlib
import functools
import logging
import pathlib
from collections.abc import Callable, Container, Iterator, Sequence

import numpy as np

from experiments.protocols.cache import cached_file, records_digest
from experiments.protocols.faces import config_errors, make_detector
from experiments.protocols.network import load_network
from experiments.protocols.results import accuracy_and_std, percent, write_results
from facejax.atomic import atomic_file
from facejax.config import ConfigError
from facejax.data.records import Record
from facejax.datasets import get_dataset, list_datasets
from facejax.datasets.crops import choose_face, load_photo
from facejax.datasets.layout import Skips, chosen
from facejax.datasets.lfw import Pair
from facejax.detect import centre_crop, make_cropper
from facejax.evals.identification import identify, normalize, search
from facejax.evals.verification import draw_pairs, verify
from facejax.naming import did_you_mean
from facejax.protocol_config import LfwConfig, PhotosConfig

logger = logging.getLogger("facejax")
_PHOTOS_AT_ONCE = 64
SUBJECTS = 596  # in the paper's list
PERSONS = 4  # two folds of pairs, with two people each


def run(config: LfwConfig, workdir: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Runs the protocol with each crop and writes ``report.json``, ``report.md``, ``roc.png`` and the features."""
    if config.detection.choose == "all":
        raise ConfigError("--config.detection.choose=all: a photo has one face here; choose largest or probable")
    records, description, comparable = open_photos(config.photos)
    _check_persons(records, description)
    if config.photos.pairs:
        listed, known = _listed_pairs(config, {record.id for record in records})
        if len({pair.fold for pair in known}) < 2 or len({pair.same for pair in known}) < 2:
            raise ConfigError(
                f"--config.photos.pairs={config.photos.pairs}: {len(known)} of {len(listed)} pairs have both photos "
                f"in {description}; verification needs pairs of one person and of different people, in two folds or "
                "more. The file names photos by person and number, so it needs the published folder "
                "(--config.photos.raw=LFW, with Name/Name_0001.jpg): TensorFlow Datasets keeps no photo numbers. "
                "Without --config.photos.pairs, the pairs are drawn at random"
            )
    model, network = load_network(config.network, config.seed, workdir)
    logger.info("%d photos of %s; features by %s", len(records), description, network)
    report = {"protocol": "lfw", "data": description, "network": network, "comparable": comparable, "crops": {}}
    curves = {}
    made_from = {"data": description, "photos": records_digest(records), "network": network}
    made_from |= {"cut": config.detection.cut}  # five_points used to be cropped as boxes
    for crop in config.crops:
        path = workdir / f"features_{crop}.npz"
        cached_file(path, made_from, functools.partial(_embed, config, crop, records, model.features))
        with np.load(path) as stored:
            features, ids, missed = stored["features"], stored["ids"].tolist(), int(stored["without_face"])
        person = {record.id: str(record.labels["person"]) for record in records}
        names, identities = np.unique([person[photo] for photo in ids], return_inverse=True)
        unreadable = len(records) - len(ids)
        identified = identify(features, identities, config.repeats, config.seed)
        report["comparable"] &= not unreadable and identified.persons == SUBJECTS
        pairs, same, fold, whose = _pairs(config, records, ids, identities)
        rows = normalize(features)
        verified = verify((rows[pairs[:, 0]] * rows[pairs[:, 1]]).sum(axis=1), same, fold)
        found = search(features, identities, config.repeats, config.seed)
        curves[crop] = verified
        report["crops"][crop] = {
            "photos": len(ids),
            "unreadable": unreadable,
            "persons_in_all": len(names),
            "without_face": missed,
            "identification": identified.to_dict(),
            "verification": {"pairs": whose, **verified.to_dict()},
            "search": found.to_dict(),
        }
    report["paper"] = _paper(config)
    _draw(workdir / "roc.png", curves)
    write_results(workdir, report, _markdown(config, report))


def _check_persons(records: Sequence[Record], description: str) -> None:
    several = sum(count > 1 for count in collections.Counter(str(r.labels["person"]) for r in records).values())
    if several < PERSONS:
        raise ConfigError(
            f"{description} has {several} people with two photos or more; identification and drawn pairs need "
            f"{PERSONS}: give more photos (--config.photos.people_photos, --config.photos.subjects)"
        )


def open_photos(config: PhotosConfig) -> tuple[list[Record], str, bool]:
    """Records with a ``person`` label, their description, and whether they are what the paper measured on.

    Raises:
        ConfigError: There is no such photo dataset, or it does not identify people.
        FileNotFoundError: The folder does not contain the dataset, or has none of the subjects.
    """
    if config.name not in list_datasets():
        raise ConfigError(
            f"--config.photos.name={config.name}: no such dataset{did_you_mean(config.name, list_datasets())}"
        )
    reader = get_dataset(config.name)
    if not config.raw or config.name == "people":
        if config.name != "people":
            logger.info(
                "%s is not given (--config.photos.raw=DIR; see docs/datasets.md for where to get it). Using the "
                "built-in dataset `people` instead: rendered heads, not photos of real people.",
                config.name,
            )
        options = {"num_train": 0, "num_validation": 0, "num_test": config.people_photos}
        records = list(get_dataset("people").records(None, **options))
        return records, "people (built-in, rendered)", False
    raw = pathlib.Path(config.raw)
    if config.name == "lfw":
        subjects = pathlib.Path(config.subjects) if config.subjects else None
        with config_errors("photos.raw", config.raw):
            records = list(get_dataset("lfw").records(raw, subjects=subjects))
        listed = bool(subjects) and len({record.labels["person"] for record in records}) == SUBJECTS
        return records, "lfw" + (f", subjects of {subjects.name}" if subjects else ""), listed
    with config_errors("photos.raw", config.raw):
        records = [] if reader.kind == "video" else list(reader.records(raw))
    if reader.kind == "video" or any("person" not in record.labels for record in records):
        raise ConfigError(f"--config.photos.name={config.name} is not a photo dataset that identifies people")
    description = config.name
    if config.subjects:
        wanted = {name.lower() for name in chosen(pathlib.Path(config.subjects), Skips(reader)) or ()}
        records = [record for record in records if str(record.labels["person"]).lower() in wanted]
        description += f", subjects of {pathlib.Path(config.subjects).name}"
    if not records:
        raise FileNotFoundError(f"{config.name} in {raw} has no photo of the subjects in {config.subjects}")
    return records, description, False


def _embed(
    config: LfwConfig,
    crop: str,
    records: list[Record],
    embed: Callable[[list[np.ndarray]], np.ndarray],
    path: pathlib.Path,
) -> None:
    """Writes features of all readable photos.

    A photo without a detected face, or whose face cannot be cropped, uses its centre crop: the protocol has to score
    every photo.

    Raises:
        ConfigError: The photos that can be read show too few people.
    """
    detector = make_detector(config.detection) if crop == "mtcnn" else None
    cut = make_cropper(config.detection.cut)
    rule = "probable" if config.detection.choose == "probable" else "largest"
    features, read, missed = [], [], 0
    for group in _groups(records, config):
        if detector is None:
            crops = [centre_crop(image) if crop == "centre" else image for _, image in group]
        else:
            crops = []
            for (_, image), found in zip(group, detector.detect([image for _, image in group]), strict=True):
                height, width = image.shape[:2]
                chosen = choose_face(found.bboxes, found.scores, height, width, rule)
                face = None
                if chosen is not None:
                    # The box may be entirely outside the photo, or all landmarks may be on one point.
                    with contextlib.suppress(ValueError):
                        face = cut(image, found.bboxes[chosen], found.landmarks[chosen])
                missed += face is None
                crops.append(centre_crop(image) if face is None else face)
        features.append(embed(crops))
        read += [record for record, _ in group]
    _check_persons(read, f"the readable part of {config.photos.name}")
    ids = [record.id for record in read]
    with atomic_file(path) as file:
        np.savez(file, features=np.concatenate(features), ids=np.array(ids), without_face=missed)


def _groups(records: list[Record], config: LfwConfig) -> Iterator[list[tuple[Record, np.ndarray]]]:
    raw = pathlib.Path(config.photos.raw) if config.photos.raw else None
    group, problems = [], []
    for number, record in enumerate(records):
        photo = load_photo(record, raw)
        if photo.image is None:
            kind, reason = photo.problem or ("corrupt", "")
            problems.append(f"{record.id} ({kind}: {reason})")
            continue
        group.append((record, photo.image))
        if len(group) == _PHOTOS_AT_ONCE:
            yield group
            group = []
            if number % 512 < _PHOTOS_AT_ONCE:
                logger.info("photo %d of %d", number + 1, len(records))
    if problems:
        logger.warning("%d of %d photos left out, the first is %s", len(problems), len(records), problems[0])
    if group:
        yield group


def _pairs(config: LfwConfig, records: list[Record], ids: list[str], identities: np.ndarray):
    """(pairs of indices in `ids`, same, fold, description): from pairs.txt, or drawn in the same way."""
    if not config.photos.pairs:
        # A fold with a single person would have no pair of different people.
        folds = min(config.folds, int((np.bincount(identities) >= 2).sum()) // 2)
        pairs, same, fold = draw_pairs(identities, folds, config.pairs_per_fold, config.seed)
        return pairs, same, fold, f"drawn (seed {config.seed}), nobody in two folds"
    place = {photo: index for index, photo in enumerate(ids)}
    listed, known = _listed_pairs(config, place)
    pairs = np.array([(place[pair.first], place[pair.second]) for pair in known], np.int64).reshape(-1, 2)
    same = np.array([pair.same for pair in known], bool)
    return pairs, same, np.array([pair.fold for pair in known], np.int64), f"pairs.txt, {len(known)} of {len(listed)}"


def _listed_pairs(config: LfwConfig, ids: Container[str]) -> tuple[list[Pair], list[Pair]]:
    """All pairs of pairs.txt, and those of which both photos are among `ids`."""
    with config_errors("photos.pairs", config.photos.pairs):
        listed = get_dataset("lfw").pairs(pathlib.Path(config.photos.pairs))  # pyright: ignore[reportAttributeAccessIssue]
    return listed, [pair for pair in listed if pair.first in ids and pair.second in ids]


def _paper(config: LfwConfig) -> dict:
    paper = config.paper
    return {
        "table": paper.table,
        "row": paper.row,
        "dataset": paper.dataset,
        "centre": {"accuracy": paper.centre / 100, "std": paper.centre_std / 100},
        "mtcnn": {"accuracy": paper.mtcnn / 100, "std": paper.mtcnn_std / 100},
    }


def _markdown(config: LfwConfig, report: dict) -> list[str]:
    lines = [
        f"# Identification: {report['network']}",
        "",
        f"On **{report['data']}**. One random training photo per person, all others for testing; 1-NN, Euclidean, "
        f"L2-normed; {config.repeats} repeats.",
        "",
        "| crop | people | test photos | rank 1 %, mean ± std of repeats [95 % interval over people] | rank 5 % | "
        "paper, rank 1 % | photos without a detected face |",
        "|---|---|---|---|---|---|---|",
    ]
    for crop, found in report["crops"].items():
        one, paper = found["identification"], report["paper"].get(crop, {"accuracy": 0, "std": 0})
        theirs = f"{100 * paper['accuracy']:.2f} ± {100 * paper['std']:.2f}" if paper["accuracy"] else "-"
        missed = found["without_face"] if crop == "mtcnn" else "-"
        lines.append(
            f"| {crop} | {one['persons']} | {one['n']} | {accuracy_and_std(one)} | {percent(one['rank5'])} | "
            f"{theirs} | {missed} |"
        )
    if unreadable := max(found["unreadable"] for found in report["crops"].values()):
        lines += ["", f"**{unreadable} photos cannot be read** and are excluded."]
    if not report["comparable"]:
        photos = f"all of its {SUBJECTS} subjects in {report['paper']['dataset']}"
        lines += ["", f"**Not the paper's photos ({photos}): the numbers cannot be compared.**"]
    lines += [
        "",
        "| crop | pairs | verification accuracy %, mean ± std of folds | AUC | equal error % | true acceptance % at "
        "false acceptance 0.1 / 1 / 10 % | search: found % at false alarm 1 / 10 % (people enrolled) |",
        "|---|---|---|---|---|---|---|",
    ]
    for crop, found in report["crops"].items():
        pair, one = found["verification"], found["search"]
        tar = " / ".join("too few pairs" if rate is None else percent(rate) for rate in pair["tar_at_far"].values())
        rates = " / ".join(percent(rate) for rate in one["rates"].values())
        lines.append(
            f"| {crop} | {pair['n']} ({pair['pairs']}) | {100 * pair['accuracy']:.2f} ± {100 * pair['std']:.2f} | "
            f"{pair['auc']:.4f} | {percent(pair['equal_error'])} | {tar} | {rates} ({one['enrolled']}) |"
        )
    return [*lines, "", "![ROC](roc.png)"]


def _draw(path: pathlib.Path, curves: dict) -> None:
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for crop, result in curves.items():
        axes.plot(result.false_acceptance, result.true_acceptance, label=f"{crop}, AUC {result.auc:.4f}")
    rates = np.concatenate([result.false_acceptance for result in curves.values()])
    lowest = rates[rates > 0].min()  # one pair of different people; the axes leave room for curves along their ends
    axes.set(
        xscale="log", xlim=(lowest / 1.1, 1.05), ylim=(0, 1.02), xlabel="false acceptance", ylabel="true acceptance"
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
