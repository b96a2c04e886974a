"""A toy model with the interface of `FaceModel`: convolution, BatchNorm, pooling and one head."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from facejax.config import LossConfig, SamConfig, StageConfig
from facejax.preprocessing import Preprocessing
from facejax.tasks import TASKS
from facejax.train.state import TrainState, split_params
from facejax.train.step import make_step_functions

PREPROCESSING = Preprocessing(image_size=8)
TASK = TASKS["emotion8"]


class Backbone(nn.Module):
    sync_norm: str | None = None

    @nn.compact
    def __call__(self, x, use_running_average):
        x = nn.Conv(6, (3, 3), padding="SAME", use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=use_running_average, momentum=0.9, epsilon=1e-3, axis_name=self.sync_norm)(
            x
        )
        return nn.relu(x).mean(axis=(1, 2))


class ToyModel(nn.Module):
    dropout_rate: float = 0.0
    sync_norm: str | None = None

    def setup(self):
        self.backbone = Backbone(self.sync_norm)
        self.head_emotion8 = nn.Dense(8)
        self.dropout = nn.Dropout(self.dropout_rate)

    def features(self, images, train=False, use_running_average=None):
        return self.backbone(images, not train if use_running_average is None else use_running_average)

    def heads(self, features, train=False):
        return {"emotion8": self.head_emotion8(self.dropout(features, deterministic=not train))}

    def __call__(self, images, train=False, use_running_average=None):
        features = self.features(images, train, use_running_average)
        return {"features": features, **self.heads(features, train)}


initial_variables = jax.jit(ToyModel().init)


@functools.partial(jax.jit, static_argnames="n")
def make_batch(n=16, seed=0):
    key = jax.random.key(seed)
    labels = jax.random.randint(jax.random.fold_in(key, 1), (n,), 0, 8)
    images = jax.random.randint(key, (n, 8, 8, 3), 0, 200) + 6 * labels[:, None, None, None]
    return {"image": images.astype(jnp.uint8), "emotion": labels.astype(jnp.int32), "mask": jnp.ones(n)}


def setup(
    stage=None,
    sam=None,
    loss=None,
    tx=None,
    axis_name=None,
    dropout_rate=0.0,
    accumulate=1,
    sync_norm=None,
    join=False,
):
    """(functions, state) of a stage on the toy model."""
    stage = stage or StageConfig(lr=1e-2)
    model = ToyModel(dropout_rate, sync_norm)
    variables = initial_variables(jax.random.key(7), jnp.zeros((1, 8, 8, 3)))
    tx = tx or optax.adam(stage.lr)
    functions = make_step_functions(
        model,
        [TASK],
        PREPROCESSING,
        tx,
        {TASK.name: jnp.linspace(1.0, 3.0, 8)},
        stage,
        sam or SamConfig(),
        loss or LossConfig(),
        axis_name,
        accumulate,
        join,
    )
    trainable, _ = split_params(variables["params"], stage.trainable)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(trainable),
        rng=jax.random.key(3),
    )
    return functions, state
