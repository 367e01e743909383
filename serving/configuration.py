"""Reads a typed configuration (`config_schema`) from a YAML text and environment variables.

The environment wins over the text. All problems are found in one go, each named by its key, its
place, and for an unknown key the nearest known one; the text itself is not quoted where it may hold
a secret. Nothing here knows which keys there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from difflib import get_close_matches
from typing import Any, Final, Generic, TypeVar, cast, get_args, get_origin

import yaml

from serving.config_schema import (
    DRIVER,
    LATER,
    Key,
    Range,
    all_paths,
    check_range,
    joined,
    keys_of,
    scalar,
    variable_of,
)

T = TypeVar("T")

PATH_VARIABLE: Final = "CONFIGURATION_PATH"
"""what stands after the prefix in the variable that names the file, and so is no key"""


class ConfigError(Exception):
    """The configuration is wrong; `problems` has a sentence for each thing that is."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """`given` has the dotted paths of all keys and sections that the text or a variable gave."""

    config: T
    warnings: tuple[str, ...]
    given: frozenset[str]


def load(
    section: type[T],
    text: str | None,
    environ: Mapping[str, str],
    prefix: str = "REGISTRY",
    *,
    strict: bool = False,
) -> Loaded[T]:
    """The configuration of type `section` out of the YAML `text` and the variables `<prefix>_...`.

    Raises ConfigError. A variable that is no key is only warned of: Kubernetes makes such itself
    (`REGISTRY_PORT` for a Service called `registry`). With `strict` it is an error too.
    """
    reader = _Reader(section, prefix)
    if text is not None:
        reader.read_text(text)
    reader.read_variables(environ)
    config = reader.result()
    problems = reader.problems + (reader.unknown if strict else [])
    if problems:
        raise ConfigError(*problems)
    warnings = (*reader.unknown, *reader.warnings)
    return Loaded(cast(T, config), warnings, frozenset(reader.given))


Draft = dict[str, Any]
"""what was given for a section: values, and drafts of the sections in it"""


class _Reader:
    """Collects drafts from text and variables, then builds the dataclasses."""

    def __init__(self, section: type[Any], prefix: str) -> None:
        self.problems: list[str] = []
        self.unknown: list[str] = []
        self.warnings: list[str] = []
        self.given: set[str] = set()
        self._section = section
        self._prefix = prefix
        self._draft: Draft = {}
        self._chosen: dict[str, str] = {}
        """by path of a section: the driver that was named"""
        self._variable = ""
        """the variable that is being read; empty while the text is"""
        self._touched: list[tuple[str, str]] = []
        """variables with the paths of the keys they gave"""

    def read_text(self, text: str) -> None:
        node = self._parse(text, "the file")
        if node is not None:
            self._read_section(self._section, node, self._draft, "")

    def read_variables(self, environ: Mapping[str, str]) -> None:
        """Sections before what is in them, so that the more exact variable wins."""
        names = [name for name in environ if name.startswith(f"{self._prefix}_")]
        for name in sorted(names, key=lambda name: (name.count("_"), name)):
            ending = name[len(self._prefix) + 1 :]
            if ending == PATH_VARIABLE:
                continue
            found = self._find(ending.lower().split("_"))
            if found is None:
                self._note_unknown(name)
            else:
                self._variable = name
                self._read_variable(*found, environ[name])

    def result(self) -> object:
        """The configuration; of no use where there are problems."""
        for path, driver in self._chosen.items():
            self._drop_other_drivers(path, driver)
        return self._build(self._section, self._draft, "")

    def _parse(self, text: str, what: str) -> yaml.Node | None:
        try:
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError) as error:
            # Only the place: the library's own words quote the text, which may hold a secret.
            mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
            where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            self.problems.append(f"{what} is not valid YAML{where}")
            return None

    def _find(self, words: list[str]) -> tuple[list[Key], str] | None:
        """The keys down to the one that a variable names, and the entry where it is a mapping."""
        section: type[Any] | None = self._section
        trail: list[Key] = []
        for index, word in enumerate(words):
            key = keys_of(section).get(word) if section is not None else None
            if key is None:
                is_entry = bool(trail) and get_origin(trail[-1].type) is Mapping
                return (trail, "_".join(words[index:])) if is_entry else None
            trail.append(key)
            section = key.section
        return trail, ""

    def _read_variable(self, trail: list[Key], entry: str, text: str) -> None:
        draft = self._draft
        for outer in trail[:-1]:
            draft = draft.setdefault(outer.name, {})
        key = trail[-1]
        path = ".".join(part.name for part in trail)
        self._touched.append((self._variable, path))
        if entry:
            entries = draft.setdefault(key.name, dict(cast(Mapping[str, object], key.default)))
            self._read_value(get_args(key.type)[1], (), text, entries, entry, path)
        elif key.section is None:
            self._read_value(key.type, key.marks, text, draft, key.name, path)
        else:
            node = self._parse(text, self._variable)
            if node is not None:
                self._read_section(key.section, node, draft.setdefault(key.name, {}), path)

    def _read_value(
        self,
        kind: Any,
        marks: tuple[object, ...],
        given: str | yaml.Node,
        into: Draft,
        name: str,
        path: str,
    ) -> None:
        """Puts the value of type `kind` under `name`; `given` is a variable's text, or a node."""
        node: yaml.Node | None
        if not isinstance(given, str):
            node = given
        elif get_origin(kind) in (tuple, Mapping):
            node = self._parse(given, self._variable)
        else:
            node = yaml.ScalarNode("", given, style="'")
        if node is None or _is_empty(node):
            return
        try:
            value = self._value(kind, node, path)
            for mark in marks:
                if isinstance(mark, Range):
                    check_range(mark, value)
        except ValueError as error:
            self._complain(node, path, str(error))
        else:
            into[name] = value

    def _read_section(self, section: type[Any], node: yaml.Node, draft: Draft, path: str) -> None:
        if _is_empty(node):
            return
        keys = keys_of(section)
        drivers = [key.name for key in keys.values() if DRIVER in key.marks]
        if isinstance(node, yaml.ScalarNode) and drivers:
            if node.value in drivers:
                self._chosen[path] = node.value
                draft.setdefault(node.value, {})
            else:
                self._complain(node, path, f"must be one of {', '.join(drivers)}")
            return
        for name, value in self._pairs(node, path):
            key = keys.get(name)
            if key is None:
                hint = self._nearest(name, path, keys)
                self._complain(value, joined(path, name), f"is no known key; the nearest is {hint}")
            elif key.section is None:
                self._read_value(key.type, key.marks, value, draft, name, joined(path, name))
            else:
                inner = draft.setdefault(name, {})
                self._read_section(key.section, value, inner, joined(path, name))

    def _pairs(self, node: yaml.Node, path: str) -> Iterator[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._complain(node, path or "the file", "must be a mapping of keys to values")
            return
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._complain(key, path or "the file", "has a key that is not a name")
            elif key.value in seen:
                self._complain(key, joined(path, key.value), "is there twice")
            else:
                seen.add(key.value)
                yield key.value, value

    def _value(self, kind: Any, node: yaml.Node, path: str) -> object:
        """The value of type `kind` that `node` holds. Raises ValueError."""
        if is_dataclass(kind):
            draft: Draft = {}
            self._read_section(cast(type[Any], kind), node, draft, path)
            return self._build(cast(type[Any], kind), draft, path)
        origin = get_origin(kind)
        if origin is tuple:
            if not isinstance(node, yaml.SequenceNode):
                raise ValueError("must be a list, such as [a, b]")
            return tuple(self._value(get_args(kind)[0], item, path) for item in node.value)
        if origin is Mapping:
            pairs = self._pairs(node, path)
            return {name: self._value(get_args(kind)[1], value, path) for name, value in pairs}
        if not isinstance(node, yaml.ScalarNode):
            raise ValueError("must be a single value")
        return scalar(kind, node.value)

    def _build(
        self, section: type[Any], draft: Draft, path: str, *, is_later: bool = False
    ) -> object:
        values: dict[str, object] = {}
        drivers = []
        for key in keys_of(section).values():
            where = joined(path, key.name)
            later = is_later or LATER in key.marks
            if key.name not in draft:
                if key.default is MISSING:
                    self.problems.append(f"{where} is required")
                    values[key.name] = None
                continue
            self.given.add(where)
            if DRIVER in key.marks:
                drivers.append(key.name)
            value = draft[key.name]
            if key.section is not None:
                value = self._build(key.section, value, where, is_later=later)
            elif later and value != key.default:
                self.warnings.append(f"{where} is set, but has no effect in this build")
            values[key.name] = value
        if len(drivers) > 1:
            self.problems.append(
                f"{path} has more than one of {', '.join(drivers)}; "
                f"{variable_of(path, self._prefix)}={drivers[0]} would choose one"
            )
        return section(**values)

    def _drop_other_drivers(self, path: str, driver: str) -> None:
        section, draft = self._section, self._draft
        for name in path.split("."):
            section, draft = cast(type[Any], keys_of(section)[name].section), draft[name]
        for key in keys_of(section).values():
            if DRIVER in key.marks and key.name != driver and draft.pop(key.name, None) is not None:
                inside = joined(path, key.name)
                self.warnings += [
                    f"{variable} has no effect: {path} is {driver}"
                    for variable, touched in self._touched
                    if touched == inside or touched.startswith(f"{inside}.")
                ]

    def _complain(self, node: yaml.Node, path: str, message: str) -> None:
        where = self._variable or f"line {node.start_mark.line + 1}"
        self.problems.append(f"{path} {message} ({where})")

    def _note_unknown(self, name: str) -> None:
        known = [variable_of(path, self._prefix) for path in all_paths(self._section)]
        (nearest,) = get_close_matches(name, known, 1, 0.0)
        self.unknown.append(f"the variable {name} is no known key; the nearest is {nearest}")

    def _nearest(self, name: str, path: str, siblings: Mapping[str, Key]) -> str:
        """The known key that was meant: one beside it, one of that name elsewhere, any other."""
        plain = re.sub("[^a-z0-9]", "", name.lower())
        if close := get_close_matches(plain, siblings, 1):
            return joined(path, close[0])
        paths = list(all_paths(self._section))
        elsewhere = [known for known in paths if known.rpartition(".")[2] == plain]
        return (elsewhere or get_close_matches(joined(path, plain), paths, 1, 0.0))[0]


def _is_empty(node: yaml.Node) -> bool:
    """`key:` without a value, or with YAML's null: the key is not given."""
    return (
        isinstance(node, yaml.ScalarNode)
        and node.style is None
        and node.value in ("", "~", "null", "Null", "NULL")
    )
