"""A strict reading of a coordinator's YAML: every field is checked, and all problems are told at once.

Plain YAML 1.1 reads `no` as false, `12:30` as 750, `0123` as 83 and a field given twice as the last one, all in
silence. Here only `true`, `false`, `null` and ordinary numbers are more than text, and twice is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from skinclip.study.errors import ProtocolError

SLUG = re.compile(r"[a-z][a-z0-9_]*(?:-[a-z0-9_]+)*")  # names of studies, arms, questions: safe in files and columns


class _StrictLoader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  (filled below; the inherited ones guess too much)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|false|False)$", "tTfF"),
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", "-0123456789"),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises ProtocolError for a file that is missing, not UTF-8 or not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except OSError as error:
        raise ProtocolError(
            [f"the file cannot be read ({error.strerror}); give the path of a study's YAML"], str(path)
        ) from error
    except UnicodeDecodeError as error:
        raise ProtocolError(
            [f"byte {error.start} is not UTF-8; save the file with that encoding"], str(path)
        ) from error
    except yaml.MarkedYAMLError as error:
        raise ProtocolError([_syntax_problem(error)], str(path)) from error
    except yaml.YAMLError as error:
        raise ProtocolError([f"not YAML: {error}"], str(path)) from error


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    hint = "; indent with spaces, not tabs" if "\\t" in str(error.problem) else ""
    return f"{place}{error.problem or error.context}{hint}"


class Fields:
    """One mapping of the YAML while it is read.

    Each method takes one field by name, notes in `problems` what is wrong with it, and then returns a stand-in, so
    that reading goes on and the coordinator hears of everything at once. A field without `default` must be given.
    """

    def __init__(self, values: Any, path: str, problems: list[str], names: Sequence[str]) -> None:
        self.path, self.problems = path, problems
        self.values: Mapping[str, Any] = values if isinstance(values, Mapping) else {}
        if values is not None and not isinstance(values, Mapping):
            self.note("", f"must hold fields (name: value), not {shown(values)}")
            self.problems = []  # said once: its fields are not each missed as well
        for name in self.values:
            if name not in names:
                self.note(name, f"is not a field here{_nearest(str(name), names)}")

    def at(self, name: object) -> str:
        return ".".join(part for part in (self.path, str(name)) if part) or "the file"

    def note(self, name: object, what: str) -> None:
        self.problems.append(f"{self.at(name)}: {what}")

    def nested(self, name: str, names: Sequence[str]) -> Fields:
        """The mapping under `name`; an empty one where it is left out, so that its own fields say what they miss."""
        return Fields(self.values.get(name), self.at(name), self.problems, names)

    def each(self, name: str, what: str) -> Iterator[tuple[str, Any]]:
        """(path, value) for each entry of a list of at least one; `what` says in words what it lists."""
        value = self.values.get(name)
        if not isinstance(value, (list, tuple)) or not value:
            self.note(name, f"must be a list of {what}, not {shown(value)}")
            return
        for i, entry in enumerate(value):
            yield f"{self.at(name)}[{i}]", entry

    def text(self, name: str, default: str | None = None, max_length: int = 20_000) -> str:
        value = self.values.get(name)
        if value in (None, "") and default is not None:
            return default
        if isinstance(value, (int, float)):
            self.note(name, f"must be text; put {value} in quotes")
        elif not isinstance(value, str) or not value.strip():
            self.note(name, f"must be text, not {shown(value)}")
        elif len(value.strip()) > max_length:
            self.note(name, f"has {len(value.strip())} characters; at most {max_length} are allowed")
        else:
            return value.strip()
        return ""

    def slug(self, name: str) -> str:
        value = self.text(name, max_length=60)
        if value and not SLUG.fullmatch(value):
            self.note(name, f"must be small letters, digits, _ and -, beginning with a letter, not {shown(value)}")
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.note(name, f"must be a number from {low:g} to {high:g}, not {shown(value)}")
            return low
        return float(value)

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.note(name, f"must be a whole number from {low} to {high}, not {shown(value)}")
            return low
        return value

    def boolean(self, name: str, default: bool) -> bool:
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            self.note(name, f"must be true or false, not {shown(value)}")
            return default
        return value

    def one_of(self, name: str, allowed: Sequence[str], default: str | None = None) -> str:
        value = self.values.get(name, default)
        if value not in allowed:
            self.note(
                name, f"must be one of {', '.join(allowed)}, not {shown(value)}{_nearest(str(value), allowed, '')}"
            )
            return allowed[0]
        return str(value)


def shown(value: Any) -> str:
    """A value as a message quotes it, shortened.

    >>> shown(None)
    'nothing'
    """
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _nearest(name: str, names: Sequence[str], otherwise: str | None = None) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are: {', '.join(names)}" if otherwise is None else otherwise
