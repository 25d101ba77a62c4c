"""A strict reading of YAML files: one meaning a value, every field given once, each problem with its line.

Plain YAML 1.1 reads `1e-3` as text, `no` as false, `12:30` as 750 and a field given twice as the last one, in silence.
Here only `true`, `false`, `null` and ordinary numbers are more than text; what else may go wrong is an error in words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 20  # levels of nesting; a config has four
LARGEST = 1_000_000  # bytes
FieldPath = tuple[str | int, ...]


class ConfigError(ValueError):
    """A config that cannot be used; the message names the file, the line, the field and the remedy."""


class YamlProblem(ValueError):
    """A fault of a YAML text, and where: `line` and `column` from 1, or None where it has no place."""

    def __init__(self, problem: str, mark: Any = None) -> None:  # yaml.Mark, of Python's or of C's parser
        super().__init__(problem)
        self.problem = problem
        self.line = mark.line + 1 if mark else None
        self.column = mark.column + 1 if mark else None


@dataclass
class YamlFile:
    """The content of a YAML file.

    Attributes:
        values: plain dicts, lists, numbers and text.
        lines: the line, from 1, of each field by its path.
    """

    values: Any
    lines: dict[FieldPath, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  (filled below; the inherited ones guess too much)


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_yaml(path: Path) -> YamlFile:
    """Reads one YAML document. Raises ConfigError, and OSError where there is no such file."""
    try:
        return parse_yaml(path.read_bytes())
    except YamlProblem as error:
        place = f"{path}, line {error.line}" if error.line else str(path)
        raise ConfigError(f"{place}: {error.problem}") from error


def parse_yaml(raw: bytes, aliases: int = 0) -> YamlFile:
    """Parses the bytes of one YAML document with at most so many aliases, none of them nested. Raises YamlProblem."""
    if len(raw) > LARGEST:
        raise YamlProblem(f"is {len(raw):,} bytes long; at most {LARGEST:,} are read")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlProblem(f"byte {error.start} is not UTF-8; save the file with that encoding") from error
    try:
        _check_nesting(text, aliases)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: dict[FieldPath, int] = {}
            if node is not None:
                _note_lines(node, (), lines)
            return YamlFile(None if node is None else loader.construct_document(node), lines)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        hint = "; indent with spaces, not tabs" if "\\t" in str(error.problem) else ""
        raise YamlProblem(
            f"{error.problem or error.context}{hint}", error.problem_mark or error.context_mark
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise error if isinstance(error, YamlProblem) else YamlProblem(f"not YAML: {error}") from error


def _check_nesting(text: str, aliases: int) -> None:
    """Raises YamlProblem for nesting that would exhaust the stack, and for aliases that could grow without bounds."""
    anchored: list[bool] = []  # of each collection around
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            aliases -= 1
            if aliases < 0 or any(anchored):
                raise YamlProblem("write the value out instead of an alias", event.start_mark)
        elif isinstance(event, yaml.CollectionStartEvent):
            anchored.append(event.anchor is not None)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchored.pop()
        if len(anchored) > DEEPEST:
            raise YamlProblem(f"nested more than {DEEPEST} levels deep, which no such file is", event.start_mark)


def _note_lines(node: yaml.Node, place: FieldPath, lines: dict[FieldPath, int]) -> None:
    """Notes the line of each field below `node`. Raises YamlProblem for a field given twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise YamlProblem("a field's name must be a word", key.start_mark)
            inner = (*place, key.value)
            if inner in lines:
                name = ".".join(map(str, inner))
                raise YamlProblem(f"{name} is given twice, first in line {lines[inner]}; keep one", key.start_mark)
            lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*place, i)] = value.start_mark.line + 1
            _note_lines(value, (*place, i), lines)
