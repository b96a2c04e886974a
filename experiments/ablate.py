r"""Measures what each part of the paper's recipe contributes: ``python experiments/ablate.py sam --seeds 0,1,2``.

    python experiments/ablate.py all --config emotion_mobilenet --data_dir data --workdir workdirs/ablations \
        --config.data.name=facial_expressions --config.model.init_from=weights/age_gender

Every ablation trains the config as it is and with one change, for each seed, through ``experiments/run.py`` (so that an
interrupted run resumes, and a finished one is not repeated). It reports the last epoch's result: mean over the seeds,
95 % interval by Student's t, and the interval of the difference within a seed. Overrides (``--config.field=value``)
apply to all runs. `people` shows all expressions equally often, so it says something about class weights only with
``--config.data.people_imbalance=affectnet``. Centre crops of another dataset must be prepared beforehand, in
``DATA_DIR/centre`` (tools/prepare_dataset.py NAME --crop centre --out DATA_DIR/centre). The run that the config starts
from is looked for next to the folder of the ablations, as it is next to any workdir.
"""

import argparse
import dataclasses
import json
import pathlib
import shlex
import signal
import subprocess
import sys

import jax
import numpy as np
import scipy.stats

EXPERIMENTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(EXPERIMENTS.parent))  # the repository's own facejax, installed or not

from experiments.run import load_config, parse_overrides  # noqa: E402
from experiments.workdir import has_begun  # noqa: E402
from facejax.atomic import write_atomically  # noqa: E402
from facejax.config import Config, ConfigError  # noqa: E402
from facejax.overrides import override  # noqa: E402
from facejax.train.initial import load_initial, saved_model  # noqa: E402
from facejax.train.setup import trained_tasks  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One ablation.

    Attributes:
        question: The question that it answers.
        baseline: What the recipe does, in a few words.
        variant: What the changed run does.
        changes: Overrides of the changed run.
        crop: Subfolder of the data folder with the changed run's photos, if they are cropped differently.
        figures: Where the metrics are in ``last`` of report.json, for the baseline and for the changed run;
            ``{first}`` is the config's first task.
    """

    question: str
    baseline: str
    variant: str
    changes: tuple[str, ...] = ()
    crop: str = ""
    figures: tuple[str, str] = ("tasks.{first}", "tasks.{first}")


ABLATIONS = {
    "crop": Ablation(
        "Does the detected face beat the photo's middle (Table 1)?",
        "MTCNN crop",
        "centre crop",
        ("--config.data.people_crop=centre",),
        crop="centre",
    ),
    "init": Ablation(
        "Does pre-training on identities help?", "identity weights", "random weights", ("--config.model.init_from=",)
    ),
    "head_only": Ablation(
        "Do all weights beat the head alone (Table 2)?", "all weights", "head only", ("--config.stages.full.epochs=0",)
    ),
    "sam": Ablation("Does SAM beat plain Adam?", "SAM", "Adam", ("--config.sam.rho=0",)),
    "class_weights": Ablation(
        "Do class weights help?", "weighted", "unweighted", ("--config.loss.class_weights=none",)
    ),
    "seven": Ablation(
        "Is training on 7 classes better than 7 of 8?",
        "7 of 8",
        "trained on 7",
        ("--config.model.tasks=emotion7",),
        figures=("tasks.emotion8.seven_from_eight", "tasks.emotion7"),
    ),
}
METRICS = ("accuracy", "balanced_accuracy")


def run(arguments: argparse.Namespace, overrides: list[str], arm: str, seed: int, crop: str, changes: tuple[str, ...]):
    """Trains one arm with one seed unless that is done; returns ``last`` of its report.

    The arguments are recorded next to the workdir: a run of another command is refused, not reported or continued.
    """
    workdir = arguments.workdir / f"{arm}_{seed}"
    asked = ["--config", arguments.config, "--data_dir", str((arguments.data_dir / crop).resolve())]
    asked += [*overrides, *changes, f"--config.seed={seed}"]
    note = workdir.parent / f"{workdir.name}.json"
    before = json.loads(note.read_text()) if note.exists() else None
    if before != asked and workdir.exists() and has_begun(workdir):
        of = shlex.join(before) if before else "something else"
        sys.exit(f"error: {workdir} contains the run of {of}; choose another --workdir")
    if not (workdir / "report.json").exists():
        print(f"{arm}, seed {seed}: {workdir}", flush=True)
        command = [sys.executable, str(EXPERIMENTS / "run.py"), *asked, "--workdir", str(workdir)]
        workdir.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(asked))
        with open(workdir.parent / f"{workdir.name}.log", "w") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            sys.exit(f"error: {' '.join(command)} ended with {done.returncode}; see {workdir}.log")
    return json.loads((workdir / "report.json").read_text())["last"]


def overridden(config_name: str, overrides: list[str]) -> Config:
    """The config to ablate.

    Raises:
        ConfigError: There is no such config or field.
    """
    config: Config = load_config(config_name)
    for path, text in parse_overrides(overrides):
        config = override(config, path, text)
    return config


def from_start(arguments: argparse.Namespace, config: Config, overrides: list[str], names: list[str]) -> list[str]:
    """The overrides, with the folder of the run that the config starts from, which is not next to the arms.

    Raises:
        ConfigError: `init` is requested but there are no weights: both of its arms would start from random ones.
        FileNotFoundError: Weights named on the command line do not exist.
    """
    start = config.model.init_from
    if directory := saved_model(start, arguments.workdir) if start else None:
        return [*overrides, f"--config.model.init_from={directory}"]
    try:
        if start:
            load_initial(start, arguments.workdir)  # published weights, which are downloaded once
            return overrides
    except FileNotFoundError as error:
        if "model.init_from" in dict(parse_overrides(overrides)):
            raise
        print(f"{error}\nAll arms start from RANDOM WEIGHTS.", flush=True)
    if "init" in names:
        raise ConfigError(
            "`init` compares weights with random ones, and there are none: give some with "
            "--config.model.init_from=FOLDER_OR_NAME, train what the config starts from, or choose another ablation"
        )
    return overrides


def check_arms(config_name: str, config: Config, overrides: list[str], names: list[str]) -> None:
    """Refuses arms that cannot be compared.

    Raises:
        ConfigError: There is no such task, its results are no accuracies of the classes that an ablation compares, or
            the config already has what it changes.
    """
    task = trained_tasks(config)[0]
    if task.kind not in ("categorical", "binary"):
        raise ConfigError(f"{config_name} learns {task.name} first, but ablations compare classification accuracies")
    if "seven" in names and task.name != "emotion8":
        raise ConfigError(
            f"`seven` compares 7 of 8 classes, but {config_name} learns {task.name}; choose another ablation"
        )
    for name in names:
        changes = ABLATIONS[name].changes
        if not other_crops(config, name) and overridden(config_name, [*overrides, *changes]) == config:
            raise ConfigError(
                f"`{name}` changes nothing: {config_name} has {' '.join(changes)} already; choose another"
            )


def other_crops(config: Config, name: str) -> str:
    """The subfolder with the changed run's photos, if they are cropped differently and not rendered for it."""
    return "" if config.data.name == "people" else ABLATIONS[name].crop


def interval(values: np.ndarray) -> tuple[float, float]:
    """(mean, half width of Student's 95 % interval; nan for a single value)."""
    if len(values) < 2:
        return float(values.mean()), float("nan")
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def ablate(arguments: argparse.Namespace, overrides: list[str], name: str) -> dict:
    """Result of one ablation: each metric of both arms, in percent for each seed."""
    ablation, by_arm, sets = ABLATIONS[name], {}, {}
    config = overridden(arguments.config, overrides)
    for arm, crop, changes, path in (
        ("baseline", "", (), ablation.figures[0]),
        (name, other_crops(config, name), ablation.changes, ablation.figures[1]),
    ):
        by_arm[arm] = {metric: [] for metric in METRICS}
        for seed in arguments.seeds:
            figures = run(arguments, overrides, arm, seed, crop, changes)
            sets[figures["dataset"]] = arm
            for key in path.format(first=config.model.tasks[0]).split("."):
                figures = figures[key]
            for metric in METRICS:
                by_arm[arm][metric].append(100 * figures[metric])
            by_arm[arm]["n"] = figures["n"]
    if len(sets) > 1:
        told = ", ".join(f"{arm} on {dataset}" for dataset, arm in sets.items())
        sys.exit(f"error: {name}: the two arms were not trained on the same dataset ({told})")
    return {"question": ablation.question, "baseline": by_arm["baseline"], "variant": by_arm[name]}


def format_results(results: dict[str, dict]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| question | arm | n | accuracy % | balanced accuracy % |",
        "|---|---|---|---|---|",
    ]
    for name, result in results.items():
        ablation = ABLATIONS[name]
        rows = {ablation.baseline: result["baseline"], ablation.variant: result["variant"]}
        for index, (arm, figures) in enumerate(rows.items()):
            cells = [_plus_minus(np.array(figures[metric])) for metric in METRICS]
            question = ablation.question if index == 0 else ""
            lines.append(f"| {question} | {arm} | {figures['n']} | {' | '.join(cells)} |")
        gains = [_plus_minus(np.subtract(result["baseline"][m], result["variant"][m]), sign="+") for m in METRICS]
        lines.append(f"| | *difference* | | {' | '.join(gains)} |")
    return "\n".join(lines)


def _plus_minus(values: np.ndarray, sign: str = "") -> str:
    mean, half = interval(values)
    return f"{mean:{sign}.2f}" + (f" ± {half:.2f}" if len(values) > 1 else " (one seed)")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=(*ABLATIONS, "all"), help="the ablation to run")
    parser.add_argument("--config", default="emotion_mobilenet", help="the config to ablate (default: %(default)s)")
    parser.add_argument(
        "--seeds", type=lambda text: tuple(map(int, text.split(","))), default=(0, 1, 2), help="(default: 0,1,2)"
    )
    data_dir, workdir = EXPERIMENTS.parent / "data", EXPERIMENTS.parent / "workdirs" / "ablations"
    parser.add_argument("--data_dir", type=pathlib.Path, default=data_dir, help="prepared datasets (default: data)")
    parser.add_argument("--workdir", type=pathlib.Path, default=workdir, help="(default: workdirs/ablations)")
    parser.add_argument("--out", type=pathlib.Path, metavar="PATH", help="also write PATH.json and PATH.md")
    arguments, overrides = parser.parse_known_args()
    if len(set(arguments.seeds)) < len(arguments.seeds):
        parser.error(f"--seeds {','.join(map(str, arguments.seeds))}: a seed is given twice")
    wrong = [override for override in overrides if not override.startswith("--config.")]
    if wrong:
        parser.error(f"unknown arguments: {' '.join(wrong)} (overrides are written --config.field=value)")
    names = list(ABLATIONS) if arguments.name == "all" else [arguments.name]
    try:
        config = overridden(arguments.config, overrides)
        check_arms(arguments.config, config, overrides, names)
        overrides = from_start(arguments, config, overrides, names)
    except (ConfigError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    results = {name: ablate(arguments, overrides, name) for name in names}
    print(format_results(results))
    if arguments.out:
        record = {"config": arguments.config, "overrides": overrides, "seeds": arguments.seeds, "results": results}
        write_atomically(arguments.out.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
        write_atomically(arguments.out.with_suffix(".md"), (format_results(results) + "\n").encode())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the running arm is stopped too
    jax.config.update("jax_platforms", "cpu")  # an accelerator's memory is for the arms, which are other processes
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; run the same command again to resume")
