"""Config fields as text: the ``--config.path.to.field=value`` overrides of the command line."""

import dataclasses
import math
import typing
from typing import Annotated, Any, Literal, TypeVar

from facejax.config import ConfigError
from facejax.naming import did_you_mean

T = TypeVar("T")


def override(config: T, path: str, text: str) -> T:
    """Returns the config with one field replaced by a value given as text.

    Args:
        config: A frozen dataclass.
        path: Dotted path of the field, such as ``stages.full.lr``.
        text: The value: tuples are written ``a,b``, booleans ``true`` or ``false``.

    Raises:
        ConfigError: There is no such field, or the text is not a valid value of its type.
    """
    return _replace(config, path.split("."), text, path)


def _replace(config: Any, names: list[str], text: str, path: str) -> Any:
    fields = {field.name for field in dataclasses.fields(config)}
    name, *rest = names
    if name not in fields:
        raise ConfigError(f"--config.{path}: {type(config).__name__} has no field {name!r}{did_you_mean(name, fields)}")
    value = getattr(config, name)
    if dataclasses.is_dataclass(value):
        if not rest:
            inner = ", ".join(field.name for field in dataclasses.fields(value))
            raise ConfigError(f"--config.{path} is a group; name one of its fields: {inner}")
        return dataclasses.replace(config, **{name: _replace(value, rest, text, path)})
    if rest:
        raise ConfigError(f"--config.{path}: {name!r} is a value and has no field {rest[0]!r}")
    annotation = typing.get_type_hints(type(config), include_extras=True)[name]
    return dataclasses.replace(config, **{name: _parse(text, annotation, path)})


def _parse(text: str, annotation: Any, path: str) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        value, bounds = _parse(text, args[0], path), args[1]
        if not bounds.least <= (len(value) if isinstance(value, tuple) else value) <= bounds.most:
            most = "or more" if bounds.most == math.inf else f"to {bounds.most}"
            raise ConfigError(f"--config.{path}={text}: expected {bounds.least} {most}")
        return value
    if origin is Literal:
        if text not in args:
            raise ConfigError(f"--config.{path}={text}: no such choice{did_you_mean(text, args)}")
        return text
    if origin is tuple:
        parts = [part for part in text.split(",") if part]
        if Ellipsis not in args and len(parts) != len(args):
            raise ConfigError(f"--config.{path}={text}: expected {len(args)} values")
        return tuple(_parse(part, args[0], path) for part in parts)
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"--config.{path}={text}: expected true or false")
        return text.lower() == "true"
    try:
        value = annotation(text)
    except ValueError:
        raise ConfigError(f"--config.{path}={text}: expected a value of type {annotation.__name__}") from None
    if annotation is float and not math.isfinite(value):
        raise ConfigError(f"--config.{path}={text}: expected a finite number")
    return value


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """Maps the dotted path of every field to its value as text, in the form that `override` parses."""
    flat = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat.update(flatten(value, f"{prefix}{field.name}."))
        else:
            flat[prefix + field.name] = _as_text(value)
    return flat


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
