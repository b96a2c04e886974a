"""Model registry: ``tf_efficientnet_b0`` names a network, ``tf_efficientnet_b0.ns_jft_in1k`` one with its weights."""

import fnmatch
from collections.abc import Callable

from facejax.models.layers import Backbone
from facejax.models.pretrained import CFGS, PretrainedCfg
from facejax.naming import did_you_mean

_CONSTRUCTORS: dict[str, Callable[..., Backbone]] = {}


def register_model(*cfgs: PretrainedCfg) -> Callable[[Callable[..., Backbone]], Callable[..., Backbone]]:
    """Decorator that registers a backbone constructor under its function name.

    Args:
        *cfgs: The untagged configuration, which a new training run starts from, and those of published weights.

    Raises:
        ValueError: If a configuration names another architecture or is a duplicate, or the untagged one is missing.
    """

    def register(constructor: Callable[..., Backbone]) -> Callable[..., Backbone]:
        name = constructor.__name__
        if name not in {cfg.name for cfg in cfgs}:
            raise ValueError(f"model {name!r} needs a PretrainedCfg without tag, got {[cfg.name for cfg in cfgs]}")
        for cfg in cfgs:
            if cfg.architecture != name or cfg.name in CFGS:
                raise ValueError(f"PretrainedCfg {cfg.name!r} is registered twice, or not of model {name!r}")
            CFGS[cfg.name] = cfg
        _CONSTRUCTORS[name] = constructor
        return constructor

    return register


def list_models(pattern: str | None = None, *, pretrained: bool = False) -> list[str]:
    """Sorted names of the registered networks.

    Args:
        pattern: Shell-style pattern such as ``tf_efficientnet_*``; None lists all of them.
        pretrained: List the published weights (``architecture.tag``) instead.
    """
    names = [name for name, cfg in CFGS.items() if cfg.tag] if pretrained else list(_CONSTRUCTORS)
    return sorted(fnmatch.filter(names, pattern) if pattern else names)


def create_backbone(name: str, **kwargs) -> Backbone:
    """Creates the backbone called `name` (a tag after a dot is accepted but ignored: it names weights, not a network).

    Args:
        name: ``architecture`` or ``architecture.tag``.
        **kwargs: Fields of the network (`facejax.models.layers.Backbone`: ``dtype``, ``depthwise``, ``global_pool``).

    Raises:
        ValueError: If there is no such network; the message suggests the closest name.
    """
    architecture = name.partition(".")[0]
    if architecture not in _CONSTRUCTORS:
        raise ValueError(f"no model called {architecture!r}{did_you_mean(architecture, _CONSTRUCTORS)}")
    return _CONSTRUCTORS[architecture](**kwargs)
