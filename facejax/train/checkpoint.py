"""Saving and resuming a run: state, data position and progress as one unit, with Orbax."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from facejax.train.state import TrainState


class Checkpointer:
    """The checkpoints of a run, one folder a saved step; a folder is there whole or not at all (Orbax renames it).

    Progress is a dict of plain values: which stage, the batch within the stage that comes next (the position of the
    data, which is all that the loader needs), and the best result so far.
    """

    def __init__(self, directory: pathlib.Path, keep: int = 2):
        """Opens (or makes) the folder; `keep` is how many of the newest checkpoints stay."""
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=True, preservation_policy=preservation_policy.LatestN(keep)
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, state: TrainState, progress: dict[str, Any]) -> None:
        """Starts to save; returns when the state is copied off the devices, so that its buffers may be donated."""
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress))
        self._manager.save(step, args=items)

    def latest_progress(self) -> dict[str, Any] | None:
        """The progress of the newest checkpoint; None where there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        items: Any = self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))
        return items.progress

    def restore_latest(self, template: TrainState) -> TrainState:
        """The newest state, in the shapes, types and placement of the template (a state, or its shapes)."""
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), template
        )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        items: Any = self._manager.restore(self._manager.latest_step(), args=args)
        return items.state

    def wait(self) -> None:
        """Waits until what was saved is on the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self._manager.close()
