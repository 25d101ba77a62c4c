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
    ("float", r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_yaml(path: Path) -> YamlFile:
    """Reads one YAML document. Raises ConfigError, and OSError where there is no such file."""
    raw = path.read_bytes()
    if len(raw) > LARGEST:
        raise ConfigError(f"{path} is {len(raw)} bytes long; a config has at most {LARGEST}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file with that encoding") from error
    try:
        _check_nesting(path, text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: dict[FieldPath, int] = {}
            if node is not None:
                _note_lines(path, node, (), lines)
            return YamlFile(None if node is None else loader.construct_document(node), lines)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{place}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{path} is not YAML: {error}") from error


def _check_nesting(path: Path, text: str) -> None:
    """Raises ConfigError for nesting that would exhaust the stack, and for aliases, which can grow without bounds."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{path}, line {line}: write the value out instead of an alias")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigError(f"{path}, line {line}: nested more than {DEEPEST} levels deep, which no config is")


def _note_lines(path: Path, node: yaml.Node, place: FieldPath, lines: dict[FieldPath, int]) -> None:
    """Notes the line of each field below `node`. Raises ConfigError for a field given twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{path}, line {line}: a field's name must be a word")
            inner = (*place, key.value)
            if inner in lines:
                name = ".".join(map(str, inner))
                raise ConfigError(f"{path}, line {line}: {name} is given twice, first in line {lines[inner]}; keep one")
            lines[inner] = line
            _note_lines(path, value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*place, i)] = value.start_mark.line + 1
            _note_lines(path, value, (*place, i), lines)
