"""Saving and resuming a run: state, data position and progress as one unit, with Orbax."""

import contextlib
import logging
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from facejax.full_disk import explain_full_disk
from facejax.integrity import find_damage, write_manifest
from facejax.train.distributed import first_process_first
from facejax.train.state import TrainState

logger = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """There are checkpoints, but none of them can be used."""


class Checkpointer:
    """The checkpoints of a run, one folder per saved step; folders are complete or absent (Orbax renames them).

    Progress is a dict of plain values: the stage, the index of the next batch within it (the position in the data,
    which is all that the loader needs), and the best result so far. All processes must call all methods alike.
    """

    def __init__(self, directory: pathlib.Path, keep: int = 2):
        """Opens (or creates) the folder; `keep` is the number of newest checkpoints to keep.

        Checkpoints that were damaged since they were written are set aside, and unfinished ones of a killed process
        are removed.

        Raises:
            ValueError: `keep` is below 2: there would be no older checkpoint if the newest is damaged.
            CheckpointError: All checkpoints are damaged.
        """
        if keep < 2:
            raise ValueError(f"--config.checkpoint.keep={keep}: expected 2 or more, in case the newest is damaged")
        self._directory = directory.absolute()
        with first_process_first("checkpoints are verified"):
            if jax.process_index() == 0:
                quarantine_damaged(self._directory)
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
            preservation_policy=preservation_policy.LatestN(keep),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        with space_needed(self._directory):
            self._manager = ocp.CheckpointManager(self._directory, options=options)

    def _seal(self) -> None:
        """Called by Orbax, in the process that finishes a checkpoint, after everything is written, before renaming."""
        (unfinished,) = self._directory.glob("*.orbax-checkpoint-tmp*")
        write_manifest(unfinished)

    def save(self, step: int, state: TrainState, progress: dict[str, Any]) -> None:
        """Starts saving; returns once the state is copied off the devices, so that its buffers may be donated.

        Raises:
            ValueError: The newest checkpoint is of this step or a later one.
            DiskFullError: There was no space for this checkpoint or the previous one.
        """
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress))
        with space_needed(self._directory):
            if not self._manager.save(step, args=items):
                raise ValueError(
                    f"step {step} is already saved; the newest checkpoint is {self._manager.latest_step()}"
                )

    def latest_progress(self) -> dict[str, Any] | None:
        """The progress of the newest checkpoint; None if there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        items: Any = self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))
        return items.progress

    def restore_latest(self, template: TrainState) -> TrainState:
        """The newest state, with the shapes, types and placement of the template (a state, or its shapes)."""
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), template
        )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        items: Any = self._manager.restore(self._manager.latest_step(), args=args)
        return items.state

    def wait(self) -> None:
        """Waits until everything saved so far is on disk.

        Raises:
            DiskFullError: There was no space for it.
        """
        with space_needed(self._directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then closes the checkpoint manager; raises the same errors as `wait`."""
        with space_needed(self._directory):
            self._manager.close()


def space_needed(directory: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Explains a full disk (`explain_full_disk`) with the newest complete checkpoint in the folder `directory`."""

    def kept() -> str:
        whole = [int(path.name) for path in directory.glob("*") if path.name.isdigit()]
        return f"The checkpoint of step {max(whole)} is complete" if whole else "There is no complete checkpoint yet"

    return explain_full_disk(directory.parent, kept)


def quarantine_damaged(directory: pathlib.Path) -> None:
    """Moves the checkpoints newer than the newest undamaged one to ``DIRECTORY_damaged``, with a warning for each.

    Args:
        directory: Contains one folder per checkpoint, named by its step.

    Raises:
        CheckpointError: There are checkpoints and all are damaged; they are left where they are.
    """
    folders = sorted((path for path in directory.glob("*") if path.name.isdigit()), key=lambda path: -int(path.name))
    found: list[tuple[pathlib.Path, str]] = []
    for folder in folders:
        if not (reason := find_damage(folder)):
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
