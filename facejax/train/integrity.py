"""Integrity of checkpoints: the hash of every file, stored in the checkpoint before it gets its final name."""

import hashlib
import json
import logging
import pathlib
import shutil

logger = logging.getLogger(__name__)

MANIFEST = "sha256.json"


class CheckpointError(RuntimeError):
    """There are checkpoints, but none of them can be used."""


def _hashes(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file in the subfolders; Orbax still changes the files next to these when it renames."""
    hashes = {}
    for path in sorted(folder.glob("*/**/*")):
        if path.is_file():
            with path.open("rb") as file:
                hashes[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def write_manifest(folder: pathlib.Path) -> None:
    """Writes ``sha256.json`` into a checkpoint that is complete but does not have its final name yet."""
    (folder / MANIFEST).write_text(json.dumps(_hashes(folder), indent=1) + "\n")


def damage(folder: pathlib.Path) -> str | None:
    """Describes what is wrong with a checkpoint; None if every file contains what was written."""
    try:
        written, found = dict(json.loads((folder / MANIFEST).read_text())), _hashes(folder)
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, TypeError) as error:
        return f"it cannot be read: {error}"
    if missing := written.keys() - found.keys():
        return f"{min(missing)} is missing"
    if added := found.keys() - written.keys():
        return f"{min(added)} is not in {MANIFEST}"
    if changed := [name for name, value in written.items() if found[name] != value]:
        return f"{changed[0]} has changed since it was written"
    return None


def set_damaged_aside(directory: pathlib.Path) -> None:
    """Moves the checkpoints newer than the newest undamaged one to ``DIRECTORY_damaged``, with a warning for each.

    Args:
        directory: Contains one folder per checkpoint, named by its step.

    Raises:
        CheckpointError: There are checkpoints and all are damaged; they are left where they are.
    """
    folders = sorted((path for path in directory.glob("*") if path.name.isdigit()), key=lambda path: -int(path.name))
    found: list[tuple[pathlib.Path, str]] = []
    for folder in folders:
        if not (reason := damage(folder)):
            break
        found.append((folder, reason))
    if found and len(found) == len(folders):
        reasons = "; ".join(f"{folder.name}: {reason}" for folder, reason in found)
        raise CheckpointError(
            f"every checkpoint in {directory} is damaged ({reasons}). Restore the folder from a backup, "
            "or remove it and run again to train from scratch"
        )
    for folder, reason in found:
        aside = directory.with_name(f"{directory.name}_damaged") / folder.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        folder.rename(aside)
        logger.warning(
            "CHECKPOINT %s IS DAMAGED (%s). It was moved to %s; the run resumes from checkpoint %s",
            folder.name,
            reason,
            aside,
            folders[len(found)].name,
        )
