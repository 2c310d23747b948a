"""Class names and indices: how a typed label is resolved to a class."""

import difflib
import operator
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

from ddpmctl.errors import UsageError

_NOT_SHOWN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_JOINERS = "\u200c\u200d"

SHOWN = 12
"""Classes that an error message lists."""


def label_key(name: str) -> str:
    """The normalized form of a class name for comparison.

    Ignores case, the composition of accents (NFC), and differences between runs of spaces, ``-``, ``_`` and ``/``.
    """
    composed = unicodedata.normalize("NFC", name.strip())
    folded = unicodedata.normalize("NFC", composed.casefold())
    return re.sub(r"[-_/\s]+", " ", folded)


def find_clash(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two names that are equal after normalization, in the order given; None if there are none."""
    first: dict[str, str] = {}
    for name in names:
        key = label_key(name)
        if key in first:
            return first[key], name
        first[key] = name
    return None


def is_displayable(text: str) -> bool:
    """Whether text can be shown in a terminal: no control, format or surrogate characters, no line separators.

    The joiners of emoji and of Indic and Persian scripts are allowed.
    """
    return all(char in _JOINERS or unicodedata.category(char) not in _NOT_SHOWN for char in text)


def class_names_problem(names: Sequence[str]) -> str | None:
    """What is wrong with the class names of a dataset, archive or checkpoint, as a sentence; None if nothing is."""
    for name in names:
        if not label_key(name):
            return "a class has an empty name"
        if not is_displayable(name):
            return f"the class name {name!r} contains characters that cannot be displayed"
    clash = find_clash(names)
    if clash:
        names = f"'{clash[0]}' and '{clash[1]}'"
        return f"the class names {names} are ambiguous: they differ only in case, accents or separators"
    return None


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that puts ``2`` before ``10`` and ``class2`` before ``class10``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part.casefold()) for part in parts], name


def resolve_label(label: SupportsIndex | str, classes: tuple[str, ...]) -> int:
    """The index of a class.

    An integer (Python's or NumPy's) is an index and nothing else. Text is a class name, compared by `label_key`; else a
    number that is equal to exactly one numeric name (``7`` finds ``007``); else an index.
    """
    if not isinstance(label, str):
        return _checked_index(label, classes)
    keys, typed = [label_key(name) for name in classes], label_key(label)
    if typed in keys:
        return keys.index(typed)
    if _is_number(typed):
        equal = [index for index, key in enumerate(keys) if _is_number(key) and int(key) == int(typed)]
        if len(equal) > 1:
            named = ", ".join(classes[index] for index in equal)
            raise UsageError(f"the label '{label}' is ambiguous: {named}", "use the full class name")
        if equal:
            return equal[0]
        if int(typed) < len(classes):
            return int(typed)
    close = difflib.get_close_matches(typed, keys, n=1)
    hint = f"did you mean {classes[keys.index(close[0])]}?" if close else f"labels of this model: {_known(classes)}"
    raise UsageError(f"unknown label '{label}'", hint)


def resolves_to_index(label: str, classes: tuple[str, ...]) -> bool:
    """Whether `resolve_label` resolves this text to an index although some classes are named by numbers."""
    typed, keys = label_key(label), [label_key(name) for name in classes]
    numbers = {int(key) for key in keys if _is_number(key)}
    return typed not in keys and _is_number(typed) and bool(numbers) and int(typed) not in numbers


def typed_label(index: int, classes: tuple[str, ...]) -> str:
    """The name of a class as it is typed on a command line."""
    name = classes[index]
    # A leading "-" would be parsed as an option; "_" is the same to `label_key`.
    return f"_{name[1:]}" if name.startswith("-") else name


def _checked_index(label: SupportsIndex, classes: tuple[str, ...]) -> int:
    try:
        index = operator.index(label)
    except TypeError as error:
        raise UsageError(f"unknown label '{label}'", f"an index is an int, not {type(label).__name__}") from error
    if isinstance(label, bool) or not 0 <= index < len(classes):
        raise UsageError(f"unknown label '{label}'", f"labels of this model: {_known(classes)}")
    return index


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) <= 18


def _known(classes: tuple[str, ...]) -> str:
    """The classes for a hint; names that are numbers are listed with their index."""
    more = ", .." if len(classes) > SHOWN else ""
    if any(_is_number(key) and int(key) != index for index, key in enumerate(map(label_key, classes))):
        pairs = ", ".join(f"{name} (index {index})" for index, name in enumerate(classes[:SHOWN]))
        return f"{pairs}{more}"
    return f"0 to {len(classes) - 1}, or {', '.join(classes[:SHOWN])}{more}"
