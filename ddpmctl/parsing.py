"""Strict conversion of plain values, from JSON and TOML, to dataclasses."""

import math
from collections.abc import Mapping
from typing import TypeVar

from ddpmctl.labels import is_displayable

T = TypeVar("T")


def parse(kind: type[T], values: object) -> T:
    """Convert plain values to a dataclass that has exactly these fields, each of its declared type.

    Raises:
        ValueError: naming the field, as in "Expected `int`, got `str` - at `$.training.epochs`".
    """
    import msgspec

    _check_plain(values, "$")
    parsed = msgspec.convert(values, kind)
    _check_fields(values, msgspec.to_builtins(parsed), "$")
    return parsed


def _check_plain(values: object, where: str) -> None:
    """Reject numbers that are not finite, and text with terminal control characters."""
    if isinstance(values, str) and not is_displayable(values):
        raise ValueError(f"it contains characters that cannot be displayed - at `{where}`")
    if isinstance(values, float) and not math.isfinite(values):
        raise ValueError(f"{values} is not a finite number - at `{where}`")
    if isinstance(values, Mapping):
        for name, value in values.items():
            _check_plain(name, where)
            _check_plain(value, f"{where}.{name}")
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            _check_plain(value, f"{where}[{index}]")


def _check_fields(values: object, parsed: object, where: str) -> None:
    """Reject fields that the dataclasses do not have, which `msgspec` ignores."""
    if isinstance(values, Mapping) and isinstance(parsed, dict):
        if unknown := sorted(values.keys() - parsed.keys()):
            raise ValueError(f"unknown field{'s' * (len(unknown) > 1)} {', '.join(unknown)} - at `{where}`")
        for name, value in values.items():
            _check_fields(value, parsed[name], f"{where}.{name}")
    elif isinstance(values, list | tuple) and isinstance(parsed, list | tuple):
        for index, pair in enumerate(zip(values, parsed, strict=True)):
            _check_fields(*pair, f"{where}[{index}]")
