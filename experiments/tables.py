"""Prints every table of the paper next to our results: ``python experiments/tables.py [--results DIR ...]``.

Each of our cells has its data, n, 95 % interval and command. A result is a ``report.json``: in a workdir
(workdirs/*/report.json) or stored in experiments/results (*.json). Its config is the one in its command; without a
command, the one that its workdir or file is named after (NAME.json, or NAME@what.json for several of one config).
Reports that are damaged or of no config are listed on standard error.

Numbers on data other than the paper's, or on a part of it, are marked "not comparable" in the table. Rows that the
paper quotes from others' work (Table 2; DEX in Table 6) are left out.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # the repository's own facejax, installed or not

from experiments.protocols.results import accuracy, accuracy_and_std, percent  # noqa: E402
from experiments.run import list_configs, load_config  # noqa: E402
from facejax.cli.broken_pipe import ignore_broken_pipe  # noqa: E402
from facejax.evals.tasks import format_interval  # noqa: E402
from facejax.protocol_config import AttributesConfig, LfwConfig, VideoConfig  # noqa: E402

TITLES = {
    "Table 1": "LFW, rank-1 identification %, mean ± std of 10 repeats",
    "Table 2": "AffectNet, accuracy % of 8 classes / 7 classes",
    "Table 3": "Size, and time for one face",
    "Table 4": "AFEW, accuracy % on all validation clips / on those with faces",
    "Table 5": "VGAF, accuracy % on all validation clips / on those with faces",
    "Table 6": "UTKFace in the wild, gender accuracy % / age error in years (all; aged 21-60)",
    "Table 7": "UTKFace aligned, ethnicity accuracy %",
    "section 3": "Networks mentioned in the text",
    "EmotiEffLib": "The successor, not in the paper: its authors' numbers",
}
GATED = {
    "lfw": "needs LFW",
    "affectnet": "needs AffectNet (licence-gated)",
    "afew": "needs AFEW (licence-gated)",
    "vgaf": "needs VGAF (licence-gated)",
    "utkface": "needs UTKFace (for research)",
    "vggface2": "needs VGGFace2 (licence-gated)",
    "imdb_wiki+adience": "needs IMDB-Wiki and Adience",
}
# Table 3: ms on an i7-8750H, parameters in millions, our name of the network.
SIZES = (
    ("VGG-16", 224.7, 134.3, "vgg16"),
    ("ResNet-18", 58.7, 11.7, "resnet18"),
    ("Inception-v3", 160.4, 19.7, "inception_v3"),
    ("NFNet-F0", 621.1, 66.4, "nfnet_f0"),
    ("SENet-50", 128.4, 25.5, "senet50"),
    ("MobileNet-v1", 40.6, 3.2, "mobilenet_v1"),
    ("EfficientNet-B0", 54.8, 4.3, "tf_efficientnet_b0"),
    ("RexNet-150", 104.0, 8.3, "rexnet_150"),
)
# Networks whose time for one face is in docs/performance.md.
TIMED = ("mobilenet_v1", "tf_efficientnet_b0", "rexnet_150")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One of our numbers.

    Attributes:
        row: Row of the table, and which number it is if the row has several.
        paper: The paper's number, with its unit.
        ours: Our number with its interval, or why there is none.
        n: Number of records, clips or photos.
        data: What it was measured on.
        command: The command that measures it.
    """

    row: str
    paper: str
    ours: str
    n: str = ""
    data: str = ""
    command: str = ""


def find_reports(folders: Iterable[pathlib.Path]) -> dict[str, list[dict[str, Any]]]:
    """Reports by config name; those that cannot be shown are listed on standard error, with the reason."""
    found: dict[str, list[dict[str, Any]]] = {}
    configs = list_configs()
    paths = [sorted([*folder.glob("*/report.json"), *folder.glob("*.json")]) for folder in folders]
    for path in itertools.chain.from_iterable(paths):
        try:
            report = json.loads(path.read_text("utf-8"))
            if path.name != "report.json" and not (isinstance(report, dict) and isinstance(report.get("data"), str)):
                continue  # another file, such as a config.json
            name = _config_name(report, path)
            if name in configs:
                list(cells(name, load_config(name), [report]))  # raises if something is missing
                found.setdefault(name, []).append(report)
            else:
                print(f"not shown: {path} (no config of that name: {name})", file=sys.stderr)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            print(f"not shown: {path} (damaged, or not a report: {error!r}); run its config again", file=sys.stderr)
    return found


def _config_name(report: dict[str, Any], path: pathlib.Path) -> str:
    """The config in the report's command, or, for a report without one, that of its workdir's or file's name."""
    if named := re.search(r" --config[= ](\w+)", report.get("command", "")):
        return named[1]
    return (path.parent.name if path.name == "report.json" else path.stem).split("@")[0]


def cells(name: str, config: Any, reports: list[dict[str, Any]]) -> Iterator[Cell]:
    """The cells of a config: the paper's numbers, each next to ours from every report, or why there is none."""
    numbers, told = dict(_paper_numbers(config)), set()
    for report in reports:
        with_what = report["network"] if "network" in report else f"{report.get('profile', 'unknown')} profile"
        command = f"`{report['command']}`" if report.get("command") else "not recorded"
        for what, (ours, n) in _our_numbers(config, report).items():
            told.add(what)
            on = f"{report['data']}; {with_what}" + ("" if _is_comparable(report) else "; not comparable")
            yield Cell(_row(config, what), numbers.get(what, "-"), ours, str(n), on, command)
    why = "in no report" if reports else f"not run: {GATED.get(config.paper.dataset, f'needs {config.paper.dataset}')}"
    for what, number in (numbers or {"": "-"}).items():  # some configs have no number in the paper
        if what not in told and (what or not reports):
            yield Cell(_row(config, what), number, why, command=f"`--config {name}`")


def _is_comparable(report: dict[str, Any]) -> bool:
    """Whether a run was evaluated on the complete data of the paper's row; reports of older versions do not say."""
    return report["comparable"] if "comparable" in report else report.get("paper", {}).get("comparable", False)


def _row(config: Any, what: str) -> str:
    return f"{config.paper.row}, {what}" if what else config.paper.row


def _paper_numbers(config: Any) -> Iterator[tuple[str, str]]:
    """(what, the paper's number) of a config."""
    paper = config.paper
    if isinstance(config, LfwConfig):
        yield "centre crop", f"{paper.centre:.2f} ± {paper.centre_std:.2f}"
        yield "MTCNN crop", f"{paper.mtcnn:.2f} ± {paper.mtcnn_std:.2f}"
        return
    if isinstance(config, VideoConfig):
        numbers = {"all clips": paper.accuracy, "clips with faces": paper.accuracy_with_faces}
    elif isinstance(config, AttributesConfig):
        numbers = {
            "gender": paper.gender,
            "age": paper.age_mae,
            "gender, aged 21-60": paper.gender_21_60,
            "age, aged 21-60": paper.age_mae_21_60,
            **{name: getattr(paper, name) for name in ("logistic", "random_forest", "svc_rbf", "linear_svc")},
        }
    else:
        first = config.model.tasks[0]
        numbers = {first: paper.accuracy, "7 classes": paper.accuracy7, "age class": paper.age_class}
        if first == "emotion7":
            numbers = {first: paper.accuracy7}
        numbers |= {"CCC of valence": paper.ccc_valence, "CCC of arousal": paper.ccc_arousal}
    yield from ((what, f"{number:.{3 if 'CCC' in what else 2}f}") for what, number in numbers.items() if number)


def _our_numbers(config: Any, report: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """(number with interval, n), by what the number measures."""
    if isinstance(config, LfwConfig):
        found = {}
        for crop, label in (("centre", "centre crop"), ("mtcnn", "MTCNN crop"), ("whole", "photo as it is")):
            if crop in report["crops"]:
                one = report["crops"][crop]["identification"]
                found[label] = (f"{accuracy_and_std(one)}, {one['persons']} people", one["n"])
        return found
    if isinstance(config, VideoConfig):
        # The paper's rows are the best of its classifiers on the validation clips. None of ours is chosen on these:
        # linear_svc is shown next to the paper's number, the others below it.
        found = {}
        for name, result in report["results"].items():
            by = "" if name == "linear_svc" else f" ({name})"
            flaw = ", C chosen on these clips" if result.get("chosen_by") == "peeking_at_validation" else ""
            for part, label in (("all", "all clips"), ("with_faces", "clips with faces")):
                found[label + by] = (accuracy(result[part]) + flaw, result[part]["n"])
        return found
    if isinstance(config, AttributesConfig):
        found = {
            head: (accuracy(result), result["n"]) for head, result in report["heads"].items() if "accuracy" in result
        }
        for label, key in (("age", "0-200"), ("age, aged 21-60", "21-60")):
            ages = report["ages"].get(key, {"n": 0})
            if ages["n"]:
                found[label] = (format_interval(ages["mae"], ages["interval95"]), ages["n"])
        of = report.get("fit", config.fit)
        label = "" if of == config.fit else f"{of}, "  # not the task of the row
        return found | {label + name: (accuracy(result), result["n"]) for name, result in report["fitted"].items()}
    found = {}
    for task, result in report["last"]["tasks"].items():
        if "accuracy" in result and "interval95" in result:
            found[task] = (f"{accuracy(result)} (last epoch)", result["n"])
        if "seven_from_eight" in result:
            seven = result["seven_from_eight"]
            found["7 classes"] = (f"{accuracy(seven)} (last epoch, from 8)", seven["n"])
        if "mae" in result and result["n"]:
            years = format_interval(result["mae"], result.get("interval95"))  # a single record has no interval
            found[task] = (f"{years} years (last epoch)", result["n"])
            ours = percent(result["class_accuracy"], result.get("class_interval95"))  # older reports have none
            found[f"{task} class"] = (f"{ours} (last epoch)", result["n"])
        for name in ("valence", "arousal"):
            if result["n"] and (ccc := f"ccc_{name}") in result:
                ours = format_interval(result[ccc], result.get(f"{ccc}_interval95"), decimals=3)
                found[f"CCC of {name}"] = (f"{ours} (last epoch)", result["n"])
    return found


def parameters(name: str) -> float:
    """Parameters of a network without heads, in millions."""
    import jax

    from facejax.models import create_model
    from facejax.models.face_model import abstract_variables

    return sum(leaf.size for leaf in jax.tree.leaves(abstract_variables(create_model(name), 224)["params"])) / 1e6


def markdown(table: str, rows: list[Cell]) -> list[str]:
    """Lines of one table."""
    lines = [
        f"## {table}: {TITLES.get(table, '')}",
        "",
        "| row | paper | ours | n | on | command |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {c.row} | {c.paper} | {c.ours} | {c.n} | {c.data} | {c.command} |" for c in rows]
    return [*lines, ""]


def main(arguments: list[str]) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [REPOSITORY / "experiments" / "results", REPOSITORY / "workdirs"]
    parser.add_argument("--results", type=pathlib.Path, nargs="*", default=default, help="folders with reports")
    parser.add_argument("--table", choices=TITLES, help='print only this one, e.g. "Table 4"')
    named = parser.parse_args(arguments)
    missing = [str(folder) for folder in named.results if not folder.is_dir()]
    if missing and named.results is not default:
        parser.error(f"no folder {', '.join(missing)}")
    reports = find_reports(folder for folder in named.results if folder.is_dir())
    tables: dict[str, list[Cell]] = {}
    for name in list_configs():
        config = load_config(name)
        if config.paper.table:
            table = config.paper.table if config.paper.table in TITLES else "section 3"
            tables.setdefault(table, []).extend(cells(name, config, reports.get(name, [])))
    if named.table in (None, "Table 3"):
        tables["Table 3"] = [
            Cell(
                row,
                f"{ms} ms, {size} M",
                f"{parameters(name):.1f} M without heads; "
                + ("times: docs/performance.md" if name in TIMED else "not timed"),
                "1",
            )
            for row, ms, size, name in SIZES
        ]
    for table in TITLES:
        if table in tables and named.table in (None, table):
            print("\n".join(markdown(table, tables[table])))


if __name__ == "__main__":
    with ignore_broken_pipe():
        main(sys.argv[1:])
