"""Runs an experiment: ``python experiments/run.py --config emotion_b2``.

Running the same command again resumes where the last run stopped. If the config's dataset is not prepared, the built-in
dataset `people` (rendered heads, made on the spot) is used instead, and every report says so.
"""

import argparse
import contextlib
import dataclasses
import errno
import importlib
import logging
import pathlib
import signal
import sys
import time
from typing import Any

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # the repository's own facejax, installed or not

from experiments.allocator import use_huge_pages  # noqa: E402

if __name__ == "__main__":
    use_huge_pages()

import jax  # noqa: E402

from experiments.inputs import choose_data, is_comparable, resolve_initial_weights  # noqa: E402
from experiments.workdir import check_config, check_data  # noqa: E402
from facejax.cli.broken_pipe import ignore_broken_pipe  # noqa: E402
from facejax.config import Config, ConfigError, PaperResult, StagesConfig, apply_cpu_profile  # noqa: E402
from facejax.locks import exclusive_lock  # noqa: E402
from facejax.naming import did_you_mean  # noqa: E402
from facejax.overrides import flatten, override  # noqa: E402
from facejax.protocol_config import AttributesConfig, LfwConfig, VideoConfig  # noqa: E402

logger = logging.getLogger("facejax")


def list_configs() -> list[str]:
    """Names of the files in experiments/configs."""
    return sorted(path.stem for path in (REPOSITORY / "experiments" / "configs").glob("[!_]*.py"))


def load_config(name: str) -> Any:
    """The config of a file in experiments/configs: a `Config`, or one of `facejax.protocol_config`.

    Raises:
        ConfigError: There is none of this name; the message suggests the nearest.
    """
    if name not in list_configs():
        raise ConfigError(f"no config {name!r} in experiments/configs{did_you_mean(name, list_configs())}")
    return importlib.import_module(f"experiments.configs.{name}").get_config()


def parse_overrides(arguments: list[str]) -> list[tuple[str, str]]:
    """(path, text) of each ``--config.path=text`` or ``--config.path text``.

    Raises:
        ConfigError: An argument is none of these, or its value is missing.
    """
    overrides, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.partition("=")
        if not name.startswith("--config."):
            flags = ["--config", "--workdir", "--data_dir", "--dry_run", "--list", "--help"]
            flags += ["--profile", "--distributed", "--coordinator", "--num_processes", "--process_id"]
            raise ConfigError(f"unknown argument {argument!r}{did_you_mean(name, flags)}")
        if not equals:
            if not rest:
                raise ConfigError(f"{name} needs a value: {name}=VALUE")
            text = rest.pop(0)
        overrides.append((name.removeprefix("--config."), text))
    return overrides


def resolve(name: str, overrides: list[tuple[str, str]]) -> Any:
    """The config with this machine's profile (if it trains a network) and then the overrides applied."""
    config = load_config(name)
    if isinstance(config, Config):
        of_profile = [(path, text) for path, text in overrides if path == "profile" or path.startswith("cpu.")]
        for path, text in of_profile:
            config = override(config, path, text)
        if config.profile == "cpu" or (config.profile == "auto" and jax.default_backend() == "cpu"):
            config = apply_cpu_profile(config)
        overrides = [one for one in overrides if one not in of_profile]
    for path, text in overrides:
        config = override(config, path, text)
    if isinstance(config, Config):
        of_row, model = load_config(name).model, config.model
        if (model.backbone, model.tasks[:1]) != (of_row.backbone, of_row.tasks[:1]):
            config = dataclasses.replace(config, paper=PaperResult())  # of another network, or for another task
    if isinstance(config, AttributesConfig) and config.fit != load_config(name).fit:
        paper = dataclasses.replace(config.paper, logistic=0.0, random_forest=0.0, svc_rbf=0.0, linear_svc=0.0)
        config = dataclasses.replace(config, paper=paper)
    return config


def parse_arguments(arguments: list[str]) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """Named arguments, and the overrides of the config."""
    parser = argparse.ArgumentParser(
        prog="experiments/run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Any field of the config: --config.stages.full.lr=3e-5 (see --config NAME --list for all of them).",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="NAME", help=f"one of: {', '.join(list_configs())}")
    parser.add_argument("--workdir", type=pathlib.Path, help="folder to write the run to (default: workdirs/NAME)")
    parser.add_argument(
        "--data_dir", type=pathlib.Path, default=REPOSITORY / "data", help="folder of prepared datasets (default: data)"
    )
    parser.add_argument("--dry_run", action="store_true", help="describe the run and exit; needs no data")
    parser.add_argument("--list", action="store_true", help="list the configs, or with --config its fields, and exit")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="write an XProf trace of N steps")
    several = parser.add_argument_group("several processes (docs/devices.md)")
    several.add_argument("--distributed", action="store_true", help="join the processes that JAX detects automatically")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, if JAX cannot detect it")
    several.add_argument("--num_processes", type=int, metavar="N", help="number of processes of the whole run")
    several.add_argument("--process_id", type=int, metavar="I", help="number of this process, from 0")
    known, rest = parser.parse_known_args(arguments)
    if not known.config and not known.list:
        parser.error(f"--config NAME is missing; there are: {', '.join(list_configs())}")
    if (known.num_processes, known.process_id) != (None, None) and not (known.coordinator or known.distributed):
        parser.error("--num_processes and --process_id need --coordinator HOST:PORT, or --distributed")
    if known.profile < 0:
        parser.error(f"--profile {known.profile}: expected a number of steps")
    return known, parse_overrides(rest)


def print_list(name: str | None, overrides: list[tuple[str, str]]) -> None:
    """Prints the configs with their first lines, or the fields of one with their values on this machine."""
    if name:
        for path, value in flatten(resolve(name, overrides)).items():
            print(f"--config.{path}={value}")
        return
    width = max(map(len, list_configs()))
    for config_name in list_configs():
        module = importlib.import_module(f"experiments.configs.{config_name}")
        print(f"{config_name:{width}} {(module.__doc__ or '').strip().splitlines()[0]}")


def print_plan(name: str, config: Config, data_dir: pathlib.Path) -> None:
    """Prints what a run would be: shapes, parameters, compute, memory, steps, time.

    Raises:
        ConfigError: A prepared dataset has no such train split, or no label for a task.
    """
    from facejax.train import dry_run
    from facejax.train.setup import open_split

    data = config.data
    if data.name != "people" and _is_prepared(data.name, data_dir):  # `people` is rendered when a run begins
        num_train, of = len(open_split(config, data_dir, data.train_split)[0]), f"{data.name}, prepared"
    elif data.name == "people" or config.profile == "cpu":
        num_train, of = data.people_train, "the built-in dataset `people`"
        of += "" if data.name == "people" else f", as {data.name} is not prepared in {data_dir}"
        of += "; those without a label for the tasks are left out" if "emotion7" in config.model.tasks else ""
    else:
        num_train, of = data.num_train, f"{data.name}, as published"
    rate = dry_run.matmul_rate(config.model.dtype)
    print(f"config {name} ({config.profile} profile) on {of}")
    print(dry_run.format_plan(dry_run.plan(config, num_train, rate), num_train, rate))


def _is_prepared(name: str, data_dir: pathlib.Path) -> bool:
    """Whether the dataset, or all those of a mixture, are in the data folder."""
    from facejax.data.metadata import find_set

    try:
        for part in name.split("+"):
            find_set(data_dir, part)
    except FileNotFoundError:
        return False
    return True


def print_header(name: str, config: Config, data: str, workdir: pathlib.Path) -> None:
    """Logs what is trained, on what, at which size, and why."""
    device = jax.devices()[0]
    logger.info("config %s on %d x %s (%s)", name, jax.device_count(), device.device_kind, device.platform)
    logger.info("trains on: %s; writes to %s", data, workdir)
    if config.profile == "cpu":
        logger.info(
            "CPU profile%s: %d px input, %s, instead of the recipe's %s at the network's own size. The full recipe: "
            "--config.profile=full",
            ", because there is no accelerator here" if device.platform == "cpu" else "",
            config.model.image_size,
            _describe_stages(config.stages),
            _describe_stages(load_config(name).stages),
        )


def _describe_stages(stages: StagesConfig) -> str:
    """``3 epochs of the head at learning rate 0.001, 10 epochs of ...``: of the stages that have epochs."""
    of = {"head": "the head", "full": "all weights"}
    return ", ".join(
        f"{stage.epochs} epoch{'s' * (stage.epochs != 1)} of {of[name]} at learning rate {stage.lr:g}"
        for name, stage in stages.active()
    )


def check(config: Any, named: argparse.Namespace) -> None:
    """Rejects invalid settings before any work.

    Raises:
        ConfigError: The option is for training only, there is no such network or dataset, or settings do not fit
            together.
    """
    from facejax.datasets import list_datasets
    from facejax.models import list_models
    from facejax.train.setup import check_settings

    if not isinstance(config, Config):
        if named.dry_run or named.profile:
            option = "--dry_run" if named.dry_run else "--profile"
            raise ConfigError(f"{option} is for training; {named.config} trains no network: --list shows its fields")
    elif config.model.backbone not in list_models():
        wrong = config.model.backbone
        raise ConfigError(f"--config.model.backbone={wrong}: no such network{did_you_mean(wrong, list_models())}")
    else:
        for name in config.data.name.split("+"):
            if name not in list_datasets():
                raise ConfigError(f"--config.data.name={name}: no such dataset{did_you_mean(name, list_datasets())}")
        check_settings(config)


def run_protocol(config: Any, workdir: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Runs the protocol of a config that trains no network."""
    from experiments.protocols import attributes, lfw, video

    protocols = {VideoConfig: video.run, LfwConfig: lfw.run, AttributesConfig: attributes.run}
    protocols[type(config)](config, workdir, data_dir)


def main(arguments: list[str]) -> None:
    """Runs the command line."""
    named, overrides = parse_arguments(arguments)
    if named.list:
        with ignore_broken_pipe():
            print_list(named.config, overrides)
        return
    from facejax.train import distributed

    started = time.monotonic()
    # Forced, since Orbax set a handler of its own when it was imported.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout, force=True)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    if named.distributed or named.coordinator:
        distributed.join(named.coordinator, named.num_processes, named.process_id)
        if jax.process_index() > 0:
            logger.setLevel(logging.WARNING)
    config = resolve(named.config, overrides)
    check(config, named)
    workdir = (named.workdir or REPOSITORY / "workdirs" / named.config).resolve()
    jax.config.update("jax_compilation_cache_dir", str(workdir.parent / ".jax_cache"))
    if named.dry_run:
        with ignore_broken_pipe():
            print_plan(named.config, config, named.data_dir.resolve())
        return
    if not isinstance(config, Config):
        with exclusive_lock(workdir):
            check_config(config, workdir)
            run_protocol(config, workdir, named.data_dir.resolve())
        print((workdir / "report.md").read_text("utf-8"))
        logger.info("%.0f s in all; report: %s", time.monotonic() - started, workdir / "report.md")
        return
    with contextlib.ExitStack() as stack:
        with distributed.first_process_first("data and workdir"):
            if jax.process_index() == 0:
                stack.enter_context(exclusive_lock(workdir))
            config, data_dir, data = choose_data(config, overrides, named.data_dir.resolve())
            config = resolve_initial_weights(config, overrides, workdir)
            print_header(named.config, config, data, workdir)
            check_config(config, workdir)
            check_data(config, data_dir, workdir)
        train_network(config, data_dir, data, workdir, named.profile)
    logger.info("%.0f s in all; report: %s", time.monotonic() - started, workdir / "report.md")


def train_network(config: Config, data_dir: pathlib.Path, data: str, workdir: pathlib.Path, profile: int) -> None:
    """Trains, and writes the report and the cards; `data` describes what it is trained on."""
    from experiments.protocols.results import command
    from facejax.cards.card import model_card, write_card
    from facejax.data.tfrecord import CorruptRecordError
    from facejax.evals.report import write_report
    from facejax.full_disk import DiskFullError
    from facejax.train import loop
    from facejax.train.checkpoint import CheckpointError
    from facejax.train.metrics_log import read_metrics
    from facejax.train.preemption import EXIT_CODE, PreemptedError
    from facejax.train.setup import set_up

    setup = set_up(config, data_dir, workdir)
    try:
        loop.train(setup, profile)
    except PreemptedError as error:
        logger.warning("%s", error)
        sys.exit(EXIT_CODE)
    except (DiskFullError, CheckpointError, CorruptRecordError, loop.NonFiniteLossError) as error:
        sys.exit(f"error: {error}")
    if jax.process_index() > 0:
        return
    for written in ("best", "last", "scores_best.npz", "scores_last.npz"):
        if not (workdir / written).exists():
            sys.exit(f"error: {workdir / written} was deleted; restore it, or run again with another --workdir")
    report = write_report(
        workdir,
        config,
        setup.tasks,
        setup.eval_source,
        read_metrics(workdir),
        data,
        command(),
        is_comparable(config, data_dir),
    )
    for name in ("best", "last"):
        write_card(workdir / name, model_card(setup.cfg, report, name))
    print((workdir / "report.md").read_text("utf-8"))
    logger.info("trained on %s", data)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, except that training saves first
    try:
        main(sys.argv[1:])
    except (ConfigError, OSError) as error:
        refused = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        hint = "; choose writable folders with --workdir and --data_dir" if refused else ""
        sys.exit(f"error: {error}{hint}")
    except KeyboardInterrupt:
        logger.warning("interrupted; the same command resumes from the last checkpoint or from cached results")
        sys.exit(128 + signal.SIGINT)
