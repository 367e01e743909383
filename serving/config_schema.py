"""What a typed configuration is made of: sections, their keys, and values read from text.

A section is a frozen dataclass and a key one of its fields. Names are lower case without
underscores, so that the variable `PREFIX_A_B` can only mean key `b` of section `a`. Types are
stated by the fields and values are read from their text, so that YAML's guesses (`no`, `1:30`,
`010`) do not matter.

Types: str, Secret, int, float, bool, Duration, Literal of texts, sections, tuple[T, ...] and
Mapping[str, T] of these, and `T | None`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from math import inf
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from serving.durations import Duration


class Secret(str):
    """A text that must not be shown: its repr hides it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')" if self else "Secret('')"


@dataclass(frozen=True, slots=True)
class Range:
    """Marks a number or duration (in seconds) that has to lie between these, both included."""

    least: float
    most: float = inf


@dataclass(frozen=True, slots=True)
class Mark:
    """Marks a key, as `Annotated[type, mark]`."""

    meaning: str


DRIVER: Final = Mark("of the section's keys so marked one may be given; naming it is enough")
LATER: Final = Mark("without effect in this build; a value that is not the default is warned of")


@dataclass(frozen=True, slots=True)
class Key:
    """One field of a section. `section` is its dataclass where the key is a section itself."""

    name: str
    type: Any
    marks: tuple[object, ...]
    default: object
    section: type[Any] | None


def keys_of(section: type[Any]) -> Mapping[str, Key]:
    """The keys of `section` by name, in their order."""
    return _keys_of(cast(Hashable, section))


@cache
def _keys_of(section: Any) -> Mapping[str, Key]:
    hints = get_type_hints(section, include_extras=True)
    keys = {}
    for field in fields(section):
        kind = hints[field.name]
        marks: tuple[object, ...] = ()
        if get_origin(kind) is Annotated:
            kind, *rest = get_args(kind)
            marks = tuple(rest)
        if get_origin(kind) in (Union, UnionType):
            (kind,) = (part for part in get_args(kind) if part is not NoneType)
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        inner = kind if is_dataclass(kind) else None
        keys[field.name] = Key(field.name, kind, marks, default, inner)
    return keys


def leaves(section: type[Any], path: str = "") -> Iterator[tuple[str, Key]]:
    """All keys below `section` that are not sections, with dotted paths, in their order."""
    for key in keys_of(section).values():
        if key.section is None:
            yield path + key.name, key
        else:
            yield from leaves(key.section, f"{path}{key.name}.")


def variable_of(path: str, prefix: str = "REGISTRY") -> str:
    """The environment variable for the key or section with the dotted `path`."""
    return f"{prefix}_{path.upper().replace('.', '_')}"


def all_paths(section: type[Any], path: str = "") -> Iterator[str]:
    """The dotted paths of all keys and sections below `section`."""
    for key in keys_of(section).values():
        yield path + key.name
        if key.section is not None:
            yield from all_paths(key.section, f"{path}{key.name}.")


def joined(path: str, name: str) -> str:
    """The dotted path of the key `name` of the section at `path`."""
    return f"{path}.{name}" if path else name


def check_range(mark: Range, value: Any) -> None:
    """Raises ValueError for a value outside of the range."""
    if not mark.least <= value <= mark.most:
        upper = f" and at most {mark.most:.15g}" if mark.most < inf else ""
        raise ValueError(f"must be at least {mark.least:.15g}{upper}")


_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def scalar(kind: Any, text: str) -> object:
    """The value of type `kind` that `text` spells. Raises ValueError."""
    if kind is str or kind is Secret:
        return kind(text)
    text = text.strip()
    if get_origin(kind) is Literal:
        if text in get_args(kind):
            return text
        raise ValueError(f"must be {' or '.join(get_args(kind))}, not {text[:40]!r}")
    if kind is Duration:
        return Duration.parse(text)
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError(f"must be true or false, not {text[:40]!r}")
    if kind is int:
        if _WHOLE.fullmatch(text):
            return int(text)
        raise ValueError(f"must be a whole number, not {text[:40]!r}")
    if kind is float:
        if _NUMBER.fullmatch(text):
            return float(text)
        raise ValueError(f"must be a number, not {text[:40]!r}")
    raise TypeError(f"no key can be of type {kind}")
