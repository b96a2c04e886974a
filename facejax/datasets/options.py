"""Reader options from the command line: parses text into the types that `records` or `clips` declares."""

import inspect
import math
import pathlib
import types
import typing
from collections.abc import Mapping

from facejax.datasets.registry import Dataset
from facejax.naming import did_you_mean

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_options(reader: Dataset, texts: Mapping[str, str]) -> dict[str, object]:
    """Keyword arguments for the reader's `records` (for a video dataset, `clips`).

    Args:
        reader: Its annotations give the type of each option: bool, int, float, text, path, one of some literals, or a
            tuple of numbers (written ``21,60``). ``none`` is None where the option allows it.
        texts: Text of each option, by name.

    Raises:
        ValueError: The reader has no such option, or the text is not a valid value.
    """
    method = reader.clips if reader.kind == "video" else reader.records
    parameters = inspect.signature(method).parameters.values()
    known = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    hints = typing.get_type_hints(method)
    parsed = {}
    for name, text in texts.items():
        if name not in known:
            raise ValueError(f"{reader.name} has no option {name!r}{did_you_mean(name, known)}")
        try:
            parsed[name] = _value(text, hints[name])
        except ValueError as error:
            raise ValueError(f"{reader.name}: option {name}={text!r} is not {_words(hints[name])}") from error
    return parsed


def _value(text: str, hint: object) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        return _value(text, next(argument for argument in arguments if argument is not type(None)))
    if origin is typing.Literal:
        if text not in arguments:
            raise ValueError(text)
        return text
    if origin is tuple:
        parts = text.split(",")
        if len(parts) != len(arguments):
            raise ValueError(text)
        return tuple(_value(part.strip(), argument) for part, argument in zip(parts, arguments, strict=True))
    if hint is bool:
        if text.lower() not in _TRUTH:
            raise ValueError(text)
        return _TRUTH[text.lower()]
    if hint in (int, float, str, pathlib.Path):
        value = typing.cast(type, hint)(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(text)
        return value
    raise ValueError(text)


def _words(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("pathlib.", "")
