"""The workdir of a run: of one config and one set of photos."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from facejax.atomic import write_atomically
from facejax.config import Config, ConfigError
from facejax.data.metadata import find_set
from facejax.locks import LOCK

# Fields that decide how a run goes, or what --dry_run says, not what comes out of it: others may go on with a run.
OPERATIONAL = (
    "checkpoint.",
    "data.on_corrupt",
    "data.read_threads",
    "data.num_",  # of the published splits
    "eval_batch_size",
    "paper.",
)


def check_config(config: Any, workdir: pathlib.Path) -> None:
    """Writes config.json; a workdir where a run of another config has begun is refused rather than continued.

    A field that is newer than the run has its default, which is what was done without it.

    Raises:
        ConfigError: Names the fields that differ.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    differ = _keep(workdir / "config.json", _plain(config), _plain(type(config)()))
    if differ:
        raise ConfigError(f"{workdir} holds a run of another config (differs in {differ}); choose another --workdir")


def check_data(config: Config, data_dir: pathlib.Path, workdir: pathlib.Path) -> None:
    """Writes data.json, which tells the prepared sets apart; a workdir of other photos is refused.

    Raises:
        ConfigError: Names the sets that were prepared otherwise when the run began.
    """
    now = {name: _set_digest(find_set(data_dir, name)) for name in config.data.name.split("+")}
    differ = _keep(workdir / "data.json", now)
    if differ:
        raise ConfigError(
            f"{workdir} holds a run on other photos ({differ} in {data_dir} is prepared otherwise); "
            "name the --data_dir of that run, or choose another --workdir"
        )


def _set_digest(directory: pathlib.Path) -> str:
    """Short name of a prepared set: of its counts and sizes, and of the records and settings that it was made from.

    Raises:
        ConfigError: Its summary is damaged.
    """
    told = (directory / "dataset_info.json").read_bytes()
    summary = directory / "summary.json"
    if summary.is_file():  # which sets that others prepared lack
        try:
            told += json.dumps(json.loads(summary.read_text())["plan"], sort_keys=True).encode()
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{summary} is damaged ({error!r}): prepare the set again") from error
    return hashlib.sha256(told).hexdigest()[:12]


def _plain(config: Any) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _keep(path: pathlib.Path, now: dict, defaults: dict | None = None) -> str:
    """Writes a file that tells what a workdir's run is of; where one of something else has begun, says what differs."""
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
    """The values, with the defaults of those that are missing, also within groups."""
    within = {
        key: _filled(values[key], group) for key, group in defaults.items() if isinstance(group, dict) and key in values
    }
    return {**defaults, **values, **within}


def has_begun(workdir: pathlib.Path) -> bool:
    """Whether there is more than a run leaves that was refused, or stopped before its first checkpoint."""
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
