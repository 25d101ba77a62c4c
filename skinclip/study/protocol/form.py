"""The protocol as a form for coordinators who do not program: fields with explanations, and values in and out of YAML.

The words are in `form.yaml`; kinds and bounds are those of the protocol's own types, so that form and file cannot
differ. Checking is the protocol's: a form makes a YAML document, and `Protocol.read` says what is wrong with it.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from skinclip.core.paths import TRUST_STUDY
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.study.catalogue.catalogue import ENGLISH, language_name, languages
from skinclip.study.protocol.arms import ARMS
from skinclip.study.protocol.field_types import Flag, Number, Whole
from skinclip.study.protocol.model import BALANCES, DERIVED_ENDPOINTS, FIRST_OFFERED, GATES, PRIMARY_ENDPOINTS, RATED
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.protocol.yaml_schema import field_type, read_yaml

Options = tuple[tuple[str, str], ...]  # (value, words)
_SAFETY = "switch_to_wrong"  # an endpoint that has a place of its own in a plan
_ASKED = ("confidence", "act")  # what is asked with and without the aid, and may be tested
_HEAD = """\
# A study's protocol, written by the set-up page. The guide beside the default protocol (trust_study.yaml) explains each
# field, those too that the form does not have: own questions, texts and translations.
"""


@dataclass(frozen=True)
class FormField:
    """A field of the form.

    Attributes:
        path: of the protocol's field, such as `cases.n`.
        kind: text, long_text, whole, number, flag, choice or choices.
        options: of a choice.
        low, high: bounds of a number, both included.
        optional: where it is empty, the protocol has no such section.
    """

    path: str
    label: str
    help: str
    kind: str
    options: Options = ()
    low: float | None = None
    high: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class FormGroup:
    """Fields that stand together."""

    title: str
    help: str
    fields: tuple[FormField, ...]


@cache
def form_groups() -> tuple[FormGroup, ...]:
    """The form's groups of fields, in the order of the page."""
    listed = read_yaml(Path(__file__).with_name("form.yaml"))
    return tuple(FormGroup(one["title"], one["help"], tuple(map(_field, one["fields"]))) for one in listed)


def form_fields() -> tuple[FormField, ...]:
    """All fields of the form, in the order of the page."""
    return tuple(field for group in form_groups() for field in group.fields)


def _field(entry: Mapping[str, Any]) -> FormField:
    path, several = entry["path"], False
    current, checks = field_type(Protocol, path)
    bounds = next((check for check in checks if isinstance(check, (Whole, Number))), None)
    if "options" in entry:
        several = getattr(current, "__origin__", None) is tuple
        kind, options = "choices" if several else "choice", OPTIONS[entry["options"]]
        return FormField(path, entry["label"], entry["help"], kind, options)
    if bounds is not None:
        kind = "whole" if isinstance(bounds, Whole) else "number"
        optional = bool(entry.get("optional"))
        return FormField(path, entry["label"], entry["help"], kind, (), bounds.low, bounds.high, optional)
    kind = "flag" if any(isinstance(check, Flag) for check in checks) else entry.get("kind", "text")
    return FormField(path, entry["label"], entry["help"], kind)


def _endpoints() -> Options:
    names = [*RATED, *_ASKED, *(name for name in DERIVED_ENDPOINTS if name != _SAFETY)]
    return tuple((name, _words(name)) for name in dict.fromkeys(names))


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


_ARM_WORDS = {
    "none": "No explanation",
    "grad_cam": "Grad-CAM map",
    "grad_cam_text": "Grad-CAM map with the rationale's text",
    "regions": "Rationale that points at regions of the photo",
}
OPTIONS: dict[str, Options] = {
    "arms": tuple((arm, _ARM_WORDS.get(arm, _words(arm))) for arm in ARMS),
    "diagnoses": tuple((diagnosis.code, diagnosis.name) for diagnosis in DIAGNOSES),
    "languages": tuple((code, language_name(code)) for code in languages()),
    "balance": tuple((name, _words(name)) for name in BALANCES),
    "primary_endpoints": tuple((name, _words(name)) for name in (*RATED, *PRIMARY_ENDPOINTS)),
    "endpoints": _endpoints(),
    "gates": tuple((name, _words(name)) for name in GATES),
}


# --- values -----------------------------------------------------------------------------------------------------------


def new_document(key: str) -> dict[str, Any]:
    """The default protocol under another key, with a seed of its own."""
    document: dict[str, Any] = read_yaml(TRUST_STUDY)
    return {**document, "key": key, "seed": secrets.randbelow(1_000_000)}


def form_values(document: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> value of each field of the form in a document; those that it leaves out as the protocol reads them."""
    return {field.path: _value(document, field) for field in form_fields()}


def _value(document: Mapping[str, Any], field: FormField) -> Any:
    value = _at(document, field.path)
    if value is None:
        value = _DEFAULTS.get(field.path)
    if field.kind in ("text", "long_text"):
        return "" if value is None else str(value)
    return list(value or ()) if field.kind == "choices" else value


# What the protocol takes where a file says nothing.
_DEFAULTS: dict[str, Any] = {
    "rehearsal": False,
    "languages": [ENGLISH],
    "diagnoses": FIRST_OFFERED,
    "washout.hours": 0,
    "plan.primary.endpoint": "trust",
}


def _at(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def with_values(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a document with the form's values put in; whatever else it holds stays."""
    changed = copy.deepcopy(dict(document))
    for field in form_fields():
        if field.path in values:
            _put(changed, field, values[field.path])
    contrasts, arms = _at(changed, "plan.contrasts"), changed.get("arms") or []
    if isinstance(contrasts, list):  # an arm that was taken out is compared with nothing
        named = [c for c in contrasts if isinstance(c, Mapping) and {c.get("arm"), c.get("reference")} <= set(arms)]
        changed["plan"]["contrasts"] = named
    return changed


def _put(document: dict[str, Any], field: FormField, value: Any) -> None:
    *sections, name = field.path.split(".")
    if field.optional and value is None:
        document.pop(sections[0], None)
        return
    for section in sections:
        if not isinstance(document.get(section), dict):
            document[section] = {}
        document = document[section]
    if field.kind in ("text", "long_text"):
        value = (value or "").strip() or None
    elif field.kind == "choices":
        value = _in_order(value or (), document.get(name) or (), field.options)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    document[name] = value


def _in_order(chosen: Iterable[str], before: Iterable[str], options: Options) -> list[str]:
    """What was chosen: in the order of before, then what is new; steps of gatekeeping in the order of testing."""
    rest, kept = set(chosen), [] if options == OPTIONS["gates"] else list(before)
    return [value for value in dict.fromkeys([*kept, *(option for option, _ in options)]) if value in rest]


def as_yaml(document: Mapping[str, Any]) -> str:
    """The document as a protocol's file."""
    return _HEAD + yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=110)


def label_of(path: str) -> str:
    """The form's label of a field; its path where the form has none."""
    return next((field.label for field in form_fields() if field.path == path), path)


def labelled(problem: str) -> str:
    """A problem of a protocol with the form's label in place of the field's path, where the form has it.

    >>> labelled("line 4: cases.n: must be a whole number from 2 to 2000, not nothing")
    'Cases: must be a whole number from 2 to 2000, not nothing'
    """
    words = problem.partition(": ")[2] if problem.startswith("line ") else problem
    path, _, rest = words.partition(": ")
    for group in form_groups():
        for field in group.fields:
            if path == field.path or path.startswith(f"{field.path}["):
                ambiguous = sum(other.label == field.label for other in form_fields()) > 1
                return f"{group.title}, {field.label}: {rest}" if ambiguous else f"{field.label}: {rest}"
    return problem
