"""The training state: one pytree with everything that a step reads and writes."""

from typing import Any, Literal

import flax.struct
import optax

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; saved and restored as one unit.

    Attributes:
        step: int32 scalar, number of steps since the start of the run, over all stages.
        params: All parameters, float32.
        batch_stats: BatchNorm running statistics, float32.
        opt_state: Optimiser state of the trainable parameters of the current stage.
        rng: Base key that each step is folded into, for dropout.
    """

    step: PyTree
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    rng: PyTree


def split_params(params: dict, trainable: Literal["heads", "all"]) -> tuple[dict, dict]:
    """Splits the top level of a `FaceModel`'s parameters into (trainable, frozen); `{**trainable, **frozen}` merges."""
    if trainable == "all":
        return dict(params), {}
    frozen = {name: value for name, value in params.items() if name == "backbone"}
    return {name: value for name, value in params.items() if name not in frozen}, frozen
