"""Networks over the frame features of a clip, beyond the paper: attention pooling and a small transformer (Flax)."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

SEQUENCE_NETWORKS = ("attention", "transformer")
_MASKED_LOGIT = -1e9  # logit of masked frames: their softmax is 0, and finite where all frames are masked
_SLOWEST_FRAMES = 256.0  # longest wavelength of the time code, in units of 2 pi frames


@dataclasses.dataclass(frozen=True)
class SequenceRecipe:
    """Network and training; see `facejax.protocol_config.SequenceConfig` for the fields that both have.

    Attributes:
        name: ``attention`` (mean of the frames, weighted by their content) or ``transformer`` (self-attention between
            the frames).
        width: Width of the projected features; for the transformer a multiple of 2 x `heads`.
        heads: Attention heads of the transformer.
        layers: Blocks of the transformer.
        dropout: Dropout on the projected features and in the blocks.
        epochs: Passes over the training clips.
        lr: Peak learning rate of AdamW; linear warm-up over a tenth of the steps, then a cosine to zero.
        weight_decay: Weight decay of AdamW.
        batch_size: Clips per step.
        max_frames: Most faces of a clip that are used, evenly spaced.
        repeats: Number of networks with different seeds whose probabilities are averaged.
        seed: Seed of weights, order and dropout.
    """

    name: Literal["attention", "transformer"] = "attention"
    width: int = 64
    heads: int = 4
    layers: int = 1
    dropout: float = 0.3
    epochs: int = 60
    lr: float = 1e-3
    weight_decay: float = 0.05
    batch_size: int = 32
    max_frames: int = 64
    repeats: int = 1
    seed: int = 0

    def __post_init__(self):
        if self.name not in SEQUENCE_NETWORKS:
            raise ValueError(f"expected one of {', '.join(SEQUENCE_NETWORKS)}, got {self.name!r}")
        if self.name == "transformer" and self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 2 x heads = {2 * self.heads}")

    def network(self, num_classes: int) -> "FrameAttention | FrameTransformer":
        """The network without weights."""
        if self.name == "attention":
            return FrameAttention(num_classes, self.width, self.dropout)
        return FrameTransformer(num_classes, self.width, self.heads, self.layers, self.dropout)


class FrameAttention(nn.Module):
    """Logits of a clip from a weighted mean of its frames; the weights are a softmax over frames (Ilse et al. 2018).

    Attributes:
        num_classes: Number of logits.
        width: Width of the projected features and of the network that weights them.
        dropout: Dropout on the projected features and on their mean.
    """

    num_classes: int
    width: int
    dropout: float

    @nn.compact
    def __call__(
        self,
        features: Float[Array | np.ndarray, "clips frames features"],
        frames: Int[Array | np.ndarray, "clips frames"],
        mask: Bool[Array | np.ndarray, "clips frames"],
        train: bool,
    ) -> Float[Array, "clips classes"]:
        """Logits, float32.

        Args:
            features: Standardised features; any finite values where the mask is False.
            frames: Frame numbers; not used, since attention pooling ignores order.
            mask: Whether there is a face.
            train: Whether dropout is active (rng ``dropout``).
        """
        drop = nn.Dropout(self.dropout, deterministic=not train)
        tokens = drop(nn.gelu(nn.Dense(self.width, name="project")(features)))
        relevance = nn.Dense(1, name="relevance")(jnp.tanh(nn.Dense(self.width, name="look")(tokens)))
        weights = nn.softmax(jnp.where(mask, relevance[..., 0], _MASKED_LOGIT), axis=1)
        self.sow("intermediates", "frame_weights", weights)
        return nn.Dense(self.num_classes, name="logits")(drop(jnp.einsum("ct,ctf->cf", weights, tokens)))


class FrameTransformer(nn.Module):
    """Logits of a clip from the mean of its frames after pre-norm transformer blocks (Vaswani et al. 2017).

    Attributes:
        num_classes: Number of logits.
        width: Width of the tokens.
        heads: Number of attention heads.
        layers: Number of blocks.
        dropout: Dropout on tokens, attention outputs and MLPs.
    """

    num_classes: int
    width: int
    heads: int
    layers: int
    dropout: float

    @nn.compact
    def __call__(
        self,
        features: Float[Array | np.ndarray, "clips frames features"],
        frames: Int[Array | np.ndarray, "clips frames"],
        mask: Bool[Array | np.ndarray, "clips frames"],
        train: bool,
    ) -> Float[Array, "clips classes"]:
        """Logits, float32; arguments as in `FrameAttention`, except that `frames` give the tokens their time."""
        drop = nn.Dropout(self.dropout, deterministic=not train)
        tokens = drop(nn.Dense(self.width, name="project")(features) + time_code(frames, self.width))
        visible = mask[:, None, None, :]
        for layer in range(self.layers):
            attended = nn.MultiHeadDotProductAttention(self.heads, name=f"attention_{layer}")(
                nn.LayerNorm(name=f"norm_attention_{layer}")(tokens), mask=visible
            )
            tokens = tokens + drop(attended)
            hidden = nn.gelu(
                nn.Dense(2 * self.width, name=f"mlp_in_{layer}")(nn.LayerNorm(name=f"norm_mlp_{layer}")(tokens))
            )
            tokens = tokens + drop(nn.Dense(self.width, name=f"mlp_out_{layer}")(hidden))
        weights = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
        mean = jnp.einsum("ct,ctf->cf", weights, nn.LayerNorm(name="norm")(tokens))
        return nn.Dense(self.num_classes, name="logits")(mean)


def time_code(frames: Int[Array | np.ndarray, "clips frames"], width: int) -> Float[Array, "clips frames width"]:
    """Sines and cosines of the frame number, wavelengths from 2 pi to 2 pi `_SLOWEST_FRAMES` (Vaswani et al. 2017)."""
    speeds = jnp.exp(-math.log(_SLOWEST_FRAMES) * jnp.arange(width // 2) / max(width // 2 - 1, 1))
    angles = frames[..., None] * speeds[None, None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _adamw_without_lr(weight_decay: float) -> Any:
    """AdamW without its learning rate, which is passed to each step."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(weight_decay))


# Network and weight decay are static: the folds of a cross-validation share one compiled step.
@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def train_step(
    network: FrameAttention | FrameTransformer,
    weight_decay: float,
    params: Any,
    optimizer_state: Any,
    batch: Mapping[str, Any],
    rate: Any,
    rng: Array,
):
    """(params, optimizer state, loss) after one step of AdamW on softmax cross-entropy."""

    def loss_fn(params):
        logits = network.apply(
            {"params": params}, batch["features"], batch["frames"], batch["mask"], True, rngs={"dropout": rng}
        )
        assert isinstance(logits, jax.Array)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()

    loss, gradient = jax.value_and_grad(loss_fn)(params)
    updates, optimizer_state = _adamw_without_lr(weight_decay).update(gradient, optimizer_state, params)
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), optimizer_state, loss


@functools.partial(jax.jit, static_argnums=0)
def apply(
    network: FrameAttention | FrameTransformer, params: Any, batch: Mapping[str, Any]
) -> Float[Array, "clips classes"]:
    """Class probabilities."""
    logits = network.apply({"params": params}, batch["features"], batch["frames"], batch["mask"], False)
    assert isinstance(logits, jax.Array)
    return nn.softmax(logits)


def initial_state(
    network: FrameAttention | FrameTransformer, weight_decay: float, batch: Mapping[str, Any], seed: int
) -> tuple[Any, Any]:
    """Fresh (params, optimizer state)."""
    inputs = (batch[name] for name in ("features", "frames", "mask"))
    return _initial_state(network, weight_decay, jax.random.key(seed), *inputs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initial_state(
    network: FrameAttention | FrameTransformer, weight_decay: float, key: Array, features: Any, frames: Any, mask: Any
) -> tuple[Any, Any]:
    params = network.init(key, features, frames, mask, train=False)["params"]
    return params, _adamw_without_lr(weight_decay).init(params)
