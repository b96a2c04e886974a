"""The workdir of a run, which belongs to one config and one set of photos."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from facejax.atomic import write_atomically
from facejax.config import Config, ConfigError
from facejax.data.metadata import find_set
from facejax.locks import LOCK

# Fields that affect how a run proceeds, or what --dry_run prints, but not its results: a run may resume with others.
OPERATIONAL = (
    "checkpoint.",
    "data.on_corrupt",
    "data.read_threads",
    "data.num_",  # of the published splits
    "eval_batch_size",
    "paper.",
)


def check_config(config: Any, workdir: pathlib.Path) -> None:
    """Writes config.json; refuses a workdir in which a run of another config has begun.

    A field that is newer than the run takes its default, which is how runs behaved before it existed.

    Raises:
        ConfigError: The workdir has a run of another config; the message names the fields that differ. Or it has
            checkpoints of an unknown config.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    if any((workdir / "checkpoints").glob("*")) and not (workdir / "config.json").exists():
        raise ConfigError(
            f"{workdir} contains checkpoints without their config.json: restore it, or choose another --workdir"
        )
    differ = _keep(workdir / "config.json", _plain(config), _plain(type(config)()))
    if differ:
        raise ConfigError(f"{workdir} contains a run of another config (differs in {differ}); choose another --workdir")


def check_data(config: Config, data_dir: pathlib.Path, workdir: pathlib.Path) -> None:
    """Writes data.json, which identifies the prepared datasets; refuses a workdir of other photos.

    Raises:
        ConfigError: The run began on other photos; the message names the datasets that differ.
    """
    now = {name: _set_digest(find_set(data_dir, name)) for name in config.data.name.split("+")}
    differ = _keep(workdir / "data.json", now)
    if differ:
        raise ConfigError(
            f"{workdir} contains a run on other photos ({differ} in {data_dir} is different); "
            "give the --data_dir of that run, or choose another --workdir"
        )


def _set_digest(directory: pathlib.Path) -> str:
    """Digest of a prepared dataset: its counts and sizes, and the records and settings that it was made from.

    Raises:
        ConfigError: Its summary is damaged.
    """
    told = (directory / "dataset_info.json").read_bytes()
    summary = directory / "summary.json"
    if summary.is_file():  # absent from datasets prepared by other tools
        try:
            told += json.dumps(json.loads(summary.read_text())["plan"], sort_keys=True).encode()
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{summary} is damaged ({error!r}): prepare the dataset again") from error
    return hashlib.sha256(told).hexdigest()[:12]


def _plain(config: Any) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _keep(path: pathlib.Path, now: dict, defaults: dict | None = None) -> str:
    """Writes a file that identifies a workdir's run; if another one has begun there, returns what differs instead."""
    try:
        before = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}): restore it, or choose another --workdir") from error
    if before == now:
        return ""
    if before and has_begun(path.parent):
        before = _filled(before, defaults or {})
        differ = sorted(name for name in _difference(before, now) if not name.startswith(OPERATIONAL))
        if differ:
            return ", ".join(differ)
    write_atomically(path, (json.dumps(now, indent=2) + "\n").encode())
    return ""


def _filled(values: dict, defaults: dict) -> dict:
    """The values, with defaults for those that are missing, also within groups."""
    within = {
        key: _filled(values[key], group) for key, group in defaults.items() if isinstance(group, dict) and key in values
    }
    return {**defaults, **values, **within}


def has_begun(workdir: pathlib.Path) -> bool:
    """Whether there is more than what a run leaves that was refused or stopped before its first checkpoint."""
    of_a_start = {"config.json", "data.json", LOCK, "metrics.jsonl", "tensorboard", "profile", "checkpoints"}
    if any((workdir / "checkpoints").glob("*")):
        return True
    return any(path.name not in of_a_start and path.suffix != ".tmp" for path in workdir.iterdir())


def _difference(before: dict, now: dict, prefix: str = "") -> set[str]:
    names = set()
    for key in {*before, *now}:
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names |= _difference(a, b, f"{prefix}{key}.")
        elif a != b:
            names.add(prefix + key)
    return names
