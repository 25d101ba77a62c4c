"""A coordinator's YAML, read by `core.strict_yaml`, and Pydantic's findings in words, with line and field."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skinclip.core.strict_yaml import YamlFile, YamlProblem, parse_yaml
from skinclip.study.errors import ProtocolError
from skinclip.study.protocol.field_types import PROBLEMS, quoted

_ALIASES = 50  # of a protocol, which may name a scale once and use it for several questions


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises ProtocolError for a file that is missing, not UTF-8 or not YAML."""
    return read_yaml_with_lines(path)[0]


def read_yaml_with_lines(path: Path) -> tuple[Any, dict[str, int]]:
    """The content of a YAML file, and the line of each field by its path (`questions.after[3].key`).

    Raises ProtocolError for a file that is missing, not UTF-8 or not YAML.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror}); give the path of a study's YAML"
        raise ProtocolError([problem], str(path)) from error
    file = _parsed(raw, str(path))
    return file.values, {path_of(place): line for place, line in file.lines.items()}


def parse_yaml_text(text: str) -> Any:
    """The content of a protocol's text. Raises ProtocolError for a text that is not YAML."""
    return _parsed(text.encode(), "the protocol").values


def _parsed(raw: bytes, source: str) -> YamlFile:
    try:
        return parse_yaml(raw, _ALIASES)
    except YamlProblem as error:
        place = f"line {error.line}, column {error.column}: " if error.line else ""
        raise ProtocolError([f"{place}{error.problem}"], source) from None


def with_lines(problems: Sequence[str], lines: Mapping[str, int]) -> list[str]:
    """Problems ("path: message") with the line of the field in front, or of the nearest field around it."""
    located = []
    for problem in problems:
        path = problem.partition(": ")[0]
        while path and path not in lines:
            path = re.sub(r"(?:\.?[^.\[\]]+|\[\d+\])$", "", path)
        located.append(f"line {lines[path]}: {problem}" if path else problem)
    return located


# --- Pydantic's findings --------------------------------------------------------------------------------------------


def problems_of(error: ValidationError, root: type) -> list[str]:
    """One sentence for each finding, beginning with the path of the field."""
    return [sentence for detail in error.errors() for sentence in _sentences(dict(detail), root)]


def _sentences(detail: dict[str, Any], root: type) -> Iterator[str]:
    location, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    path = path_of(location)
    if PROBLEMS in context:
        yield from (f"{path}.{name}: {message}" for name, message in context[PROBLEMS])
    elif "message" in context:
        yield f"{path}: {context['message']}"
    elif kind in ("unexpected_keyword_argument", "extra_forbidden"):
        yield f"{path}: is not a field here{nearest(str(location[-1]), _names(root, location[:-1]))}"
    elif kind in ("missing", "missing_argument"):
        yield f"{path}: must be {_expected(root, location)}, not nothing"
    elif kind in ("dataclass_type", "dataclass_exact_type", "dict_type"):
        yield f"{path or 'the file'}: must hold fields (name: value), not {quoted(detail['input'])}"
    else:
        yield f"{path}: {detail['msg']}, not {quoted(detail['input'])}"


def path_of(location: Sequence[int | str]) -> str:
    """`("cases", "n")` as `cases.n`, `("arms", 1)` as `arms[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def field_type(root: Any, path: str) -> tuple[Any, tuple[Any, ...]]:
    """The type of the field at `path` ("cases.n") below the dataclass `root`, and the checks it is annotated with."""
    return _at(root, path.split("."))


def nearest(name: str, names: Sequence[str]) -> str:
    """A hint at the field that was probably meant, or at all there are."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(names)}"


def _names(root: type, location: Sequence[int | str]) -> list[str]:
    cls, _ = _at(root, location)
    return [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _expected(root: type, location: Sequence[int | str]) -> str:
    cls, metadata = _at(root, location)
    if dataclasses.is_dataclass(cls):
        return "given, with fields of its own"
    return next((m.expected for m in metadata if hasattr(m, "expected")), "given")


def _at(root: Any, location: Sequence[int | str]) -> tuple[Any, tuple[Any, ...]]:
    """The type of the field at a location below `root`, and its metadata."""
    current, metadata = root, ()
    for part in location:
        if isinstance(part, str) and dataclasses.is_dataclass(current):
            current = typing.get_type_hints(current, include_extras=True).get(part, object)
        else:  # an entry of a tuple, or of a dict of tuples
            inner = typing.get_args(current)
            current = inner[-1] if isinstance(part, str) and inner else inner[0] if inner else object
        if type(None) in typing.get_args(current):  # a field that may be left out
            current = next(one for one in typing.get_args(current) if one is not type(None))
        metadata = getattr(current, "__metadata__", ())
        current = typing.get_args(current)[0] if metadata else current
    return current, metadata
