"""A strict reading of a coordinator's YAML, and Pydantic's findings in a coordinator's words, with line and field.

Plain YAML 1.1 reads `no` as false, `12:30` as 750, `0123` as 83 and a field given twice as the last one, all in
silence. Here only `true`, `false`, `null` and ordinary numbers are more than text, and twice is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from skinclip.study.errors import ProtocolError
from skinclip.study.protocol.field_types import PROBLEMS, quoted

_DEEPEST = 40  # levels of a protocol: far more than it has


class _StrictLoader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  (filled below; the inherited ones guess too much)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        known: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in known:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
            known.add(str(key.value))
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
    return read_yaml_with_lines(path)[0]


def read_yaml_with_lines(path: Path) -> tuple[Any, dict[str, int]]:
    """The content of a YAML file, and the line of each field by its path (`questions.after[3].key`).

    Raises ProtocolError for a file that is missing, not UTF-8 or not YAML.
    """
    try:
        loader = _StrictLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines = dict(_lines(node, "", 0))
        return loader.construct_document(node), lines
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror}); give the path of a study's YAML"
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8; save the file with that encoding"
    except yaml.MarkedYAMLError as error:
        problem = _syntax_problem(error)
    except yaml.YAMLError as error:
        problem = f"not YAML: {error}"
    except RecursionError:
        problem = "fields are nested too deeply for a protocol, or the file is no protocol"
    raise ProtocolError([problem], str(path))


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    hint = "; indent with spaces, not tabs" if "\\t" in str(error.problem) else ""
    return f"{place}{error.problem or error.context}{hint}"


def _lines(node: yaml.Node, path: str, depth: int) -> Iterator[tuple[str, int]]:
    if depth > _DEEPEST:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield f"{path}[{i}]", value.start_mark.line + 1
            yield from _lines(value, f"{path}[{i}]", depth + 1)


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
        metadata = getattr(current, "__metadata__", ())
        current = typing.get_args(current)[0] if metadata else current
    return current, metadata
