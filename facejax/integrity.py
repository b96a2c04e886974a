"""Integrity of checkpoints: the hash of every file, stored in the checkpoint before it gets its final name."""

import hashlib
import json
import pathlib

MANIFEST = "sha256.json"


def _hashes(folder: pathlib.Path, part: str) -> dict[str, str]:
    hashes = {}
    for path in sorted(folder.glob(f"{part}/**/*")):
        if path.is_file():
            with path.open("rb") as file:
                hashes[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def write_manifest(folder: pathlib.Path, part: str = "*") -> None:
    """Writes ``sha256.json`` into a checkpoint that is complete but does not have its final name yet.

    Args:
        folder: The checkpoint.
        part: Name of the subfolder whose files are hashed; by default all subfolders. Files directly in `folder` are
            left out: Orbax changes some of them when it renames the folder, and people may edit others.
    """
    (folder / MANIFEST).write_text(json.dumps(_hashes(folder, part), indent=1) + "\n")


def find_damage(folder: pathlib.Path, part: str = "*") -> str | None:
    """Describes what is wrong with a checkpoint; None if every file contains what `write_manifest` saw."""
    try:
        written, found = dict(json.loads((folder / MANIFEST).read_text())), _hashes(folder, part)
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
