"""A backbone with one head per task, all computed in a single forward pass."""

import functools
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jaxtyping import Array, Float

from facejax.models.depthwise import Implementation
from facejax.models.layers import Backbone, Dtype, GlobalPool, kernel_init, kernel_std
from facejax.models.pretrained import PretrainedCfg
from facejax.models.registry import create_backbone
from facejax.naming import did_you_mean
from facejax.tasks import TASKS


class Head(nn.Module):
    """The last layers of one task: ``hidden`` with ReLU and dropout if the task has it, then ``logits``.

    Attributes:
        num_outputs: Number of logits.
        hidden: Width of the hidden layer, 0 for none.
        dropout_rate: Dropout after the hidden layer.
    """

    num_outputs: int
    hidden: int
    dropout_rate: float

    @nn.compact
    def __call__(self, features: Float[Array, "batch features"], train: bool) -> Float[Array, "batch outputs"]:
        """Logits in float32."""
        if self.hidden:
            features = nn.relu(nn.Dense(self.hidden, kernel_init=kernel_init, name="hidden")(features))
            features = nn.Dropout(self.dropout_rate, deterministic=not train)(features)
        return nn.Dense(self.num_outputs, kernel_init=kernel_init, name="logits")(features)


class FaceModel(nn.Module):
    """Backbone and named heads (paper section 3: every task is a new head on the features of the identity network).

    Variables: ``params = {"backbone": ..., "head_<task>": {["hidden"], "logits"}}``, with ``"head_shared": {"kernel",
    "bias"}`` if `shared_hidden` names tasks; ``batch_stats = {"backbone": ...}`` if the backbone has BatchNorm.

    Attributes:
        backbone: Network that computes the features.
        tasks: Names of the heads, in `facejax.tasks.TASKS`.
        num_classes: Number of outputs by task, for tasks where it depends on the dataset (identity).
        shared_hidden: Tasks that share one hidden layer instead of having their own, as age and gender do in the
            paper's published code (256 wide). Its width is the largest `hidden` among these tasks in `TASKS`.
        dropout_rate: Dropout on the features before the heads, and after hidden layers (rng collection ``dropout``).
    """

    backbone: Backbone
    tasks: tuple[str, ...] = ()
    num_classes: Mapping[str, int] = FrozenDict()
    shared_hidden: tuple[str, ...] = ()
    dropout_rate: float = 0.0

    def __post_init__(self):
        """Makes the module hashable for any type of mapping."""
        self.num_classes = FrozenDict(self.num_classes)
        super().__post_init__()

    def setup(self):
        """Creates the heads."""
        self.dropout = nn.Dropout(self.dropout_rate)
        if self.shared_hidden:
            self.head_shared = nn.Dense(max(TASKS[task].hidden for task in self.shared_hidden), kernel_init=kernel_init)
        for name in self.tasks:
            hidden = 0 if name in self.shared_hidden else TASKS[name].hidden
            outputs = self.num_classes.get(name, TASKS[name].num_outputs)
            setattr(self, f"head_{name}", Head(outputs, hidden, self.dropout_rate))

    def __call__(
        self,
        images: Float[Array | np.ndarray, "batch height width 3"],
        train: bool = False,
        use_running_average: bool | None = None,
    ) -> dict[str, Float[Array, "batch _"]]:
        """Features and logits of normalised photos.

        Args:
            images: Photos as `Preprocessing.normalize` returns them.
            train: Whether dropout is active (needs an rng ``dropout`` when its rate is not 0).
            use_running_average: Whether BatchNorm uses its running statistics; None for ``not train``. Otherwise it
                uses those of the batch and updates the collection ``batch_stats`` (which must be mutable).

        Returns:
            ``{"features": (batch, num_features), <task>: (batch, outputs)}``, float32.
        """
        features = self.features(images, train, use_running_average)
        return {"features": features, **self.heads(features, train)}

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width 3"],
        train: bool = False,
        use_running_average: bool | None = None,
    ) -> Float[Array, "batch features"]:
        """The features only, before dropout; arguments as in `__call__`."""
        if use_running_average is None:
            use_running_average = not train
        return self.backbone(jnp.asarray(images), use_running_average)

    def heads(
        self, features: Float[Array | np.ndarray, "batch features"], train: bool = False
    ) -> dict[str, Float[Array, "batch _"]]:
        """Logits by task from precomputed features, so that heads can be trained on cached features."""
        features = self.dropout(jnp.asarray(features, jnp.float32), deterministic=not train)
        shared = None
        if self.shared_hidden:
            shared = self.dropout(nn.relu(self.head_shared(features)), deterministic=not train)
        return {
            name: getattr(self, f"head_{name}")(shared if name in self.shared_hidden else features, train)
            for name in self.tasks
        }


def create_model(
    name: str,
    tasks: Iterable[str] = (),
    num_classes: Mapping[str, int] | None = None,
    *,
    shared_hidden: Iterable[str] = (),
    dropout_rate: float = 0.0,
    dtype: Dtype = jnp.float32,
    depthwise: Implementation = "auto",
    global_pool: GlobalPool = "avg",
) -> FaceModel:
    """Creates a registered network with heads, e.g. ``create_model("tf_efficientnet_b0", tasks=("emotion8",))``.

    Args:
        name: ``architecture`` or ``architecture.tag`` (`facejax.models.list_models`).
        tasks: Names of the heads, in `facejax.tasks.TASKS`.
        num_classes: Number of outputs by task if the task does not fix it: ``{"identity": 9131}``. Tasks named only
            here get heads too, after those of `tasks`.
        shared_hidden: See `FaceModel`.
        dropout_rate: See `FaceModel`.
        dtype: Compute type, float32 or bfloat16.
        depthwise: See `facejax.models.layers.Backbone`; ``conv`` for export to ONNX or LiteRT.
        global_pool: See `facejax.models.layers.Backbone`.

    Raises:
        ValueError: For an unknown network, task or pooling, or a task without a number of outputs.
    """
    if global_pool not in get_args(GlobalPool):
        raise ValueError(f"no pooling called {global_pool!r}{did_you_mean(global_pool, get_args(GlobalPool))}")
    num_classes = dict(num_classes or {})
    tasks = tuple(dict.fromkeys((*tasks, *num_classes)))
    shared_hidden = tuple(shared_hidden)
    for task in (*tasks, *shared_hidden):
        if task not in TASKS:
            raise ValueError(f"no task called {task!r}{did_you_mean(task, TASKS)}")
        fixed = TASKS[task].num_outputs
        if fixed and num_classes.get(task, fixed) != fixed:
            raise ValueError(f"task {task!r} has {fixed} outputs, got num_classes={{{task!r}: {num_classes[task]}}}")
        if num_classes.get(task, fixed) < 1:
            raise ValueError(f"task {task!r} has no fixed number of outputs: pass num_classes={{{task!r}: n}}")
    if shared_hidden and not (set(shared_hidden) <= set(tasks) and any(TASKS[task].hidden for task in shared_hidden)):
        raise ValueError(f"shared_hidden must name heads, one of them with a hidden layer; got {shared_hidden}")
    backbone = create_backbone(name, dtype=dtype, depthwise=depthwise, global_pool=global_pool)
    return FaceModel(backbone, tasks, FrozenDict(num_classes), shared_hidden, dropout_rate)


def model_from_cfg(cfg: PretrainedCfg, **kwargs) -> FaceModel:
    """Creates the model that a `PretrainedCfg` describes; `kwargs` as for `create_model` (``dtype``, ...)."""
    return create_model(
        cfg.architecture,
        cfg.tasks,
        cfg.num_classes,
        shared_hidden=cfg.shared_hidden,
        global_pool=cfg.global_pool,
        **kwargs,
    )


def abstract_variables(model: FaceModel, image_size: int) -> dict[str, Any]:
    """Shapes and types of the model's variables: ``{"params": ..., "batch_stats": ...}`` of `jax.ShapeDtypeStruct`.

    Only traces the model (once per size), without computing anything. ``batch_stats`` is included even if it is empty.
    """
    return {"batch_stats": {}, **jax.tree.map(lambda leaf: leaf, _traced_init(model, image_size))}  # pyright: ignore


@functools.lru_cache(maxsize=16)
def _traced_init(model: FaceModel, image_size: int) -> Any:
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def init_variables(model: FaceModel, seed: int, image_size: int) -> dict[str, Any]:
    """Randomly initialised variables, as NumPy float32 arrays: ``{"params": ..., "batch_stats": ...}``.

    Kernels are normal with `kernel_std`, other leaves are initialised as in the layers (scales and variances 1, all
    others 0; see also `Backbone.starts_at_zero`). Values are drawn on the host, with a separate random stream for each
    leaf. ``model.init`` draws from the same distributions (except that leaves that start at zero here may be ones), but
    spends a minute compiling a generator for each of about a hundred shapes.

    Args:
        model: The model.
        seed: The same seed gives the same values on every platform; the values of a leaf do not depend on other leaves.
        image_size: Side of the input in pixels.
    """

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if model.backbone.starts_at_zero(tuple(key.key for key in path[2:])):
            return np.zeros(leaf.shape, np.float32)
        if name in ("scale", "var", "gain"):
            return np.ones(leaf.shape, np.float32)
        if name == "kernel":
            rng = np.random.default_rng([seed, zlib.crc32(jax.tree_util.keystr(path).encode())])
            return np.float32(kernel_std(leaf.shape)) * rng.standard_normal(leaf.shape, np.float32)
        return np.zeros(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_variables(model, image_size))
