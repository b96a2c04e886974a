"""Networks by name: ``tf_efficientnet_b0`` names one, ``tf_efficientnet_b0.ns_jft_in1k`` its weights as well."""

import fnmatch
from collections.abc import Callable

from facejax.models.layers import Backbone
from facejax.models.pretrained import CFGS, PretrainedCfg
from facejax.naming import nearest

_CONSTRUCTORS: dict[str, Callable[..., Backbone]] = {}


def register_model(*cfgs: PretrainedCfg) -> Callable[[Callable[..., Backbone]], Callable[..., Backbone]]:
    """Decorator that enters a constructor of a backbone under its own name.

    Args:
        *cfgs: The configuration without tag, which a new training run starts from, and those of published weights.

    Raises:
        ValueError: If a configuration names another architecture, one is there twice, or the untagged one is missing.
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
        pattern: Shell-style pattern such as ``tf_efficientnet_*``; all of them when left out.
        pretrained: List ``architecture.tag`` of the weights that have a source instead.
    """
    names = [name for name, cfg in CFGS.items() if cfg.tag] if pretrained else list(_CONSTRUCTORS)
    return sorted(fnmatch.filter(names, pattern) if pattern else names)


def create_backbone(name: str, **kwargs) -> Backbone:
    """The backbone called `name` (a tag after a dot is accepted and ignored: it names weights, not a network).

    Args:
        name: ``architecture`` or ``architecture.tag``.
        **kwargs: Fields of the network (`facejax.models.layers.Backbone`: ``dtype``, ``depthwise``, ``global_pool``).

    Raises:
        ValueError: If there is no such network, with the nearest name.
    """
    architecture = name.partition(".")[0]
    if architecture not in _CONSTRUCTORS:
        raise ValueError(f"no model called {architecture!r}{nearest(architecture, _CONSTRUCTORS)}")
    return _CONSTRUCTORS[architecture](**kwargs)
