"""The texts of a study as its readers are shown them: default ones speak only of the parts that the study has."""

from __future__ import annotations

import dataclasses
from functools import cache

from jinja2 import Environment, StrictUndefined, Template

from skinclip.study.catalogue.catalogue import ENGLISH, section
from skinclip.study.protocol.defaults import own_texts
from skinclip.study.protocol.model import ProtocolModel, Texts

# Markdown, not HTML: the page renders it without raw HTML. Templates are the package's own, never a coordinator's.
_ENVIRONMENT = Environment(undefined=StrictUndefined, autoescape=False)


@cache
def _template(language: str, name: str) -> Template:
    return _ENVIRONMENT.from_string(section(language, "texts")[name])


def texts_of(protocol: ProtocolModel, language: str = ENGLISH) -> Texts:
    """Instructions, feedback and debrief as they are shown; a protocol's own texts stay as they are."""
    own = own_texts(protocol)
    names = [f.name for f in dataclasses.fields(Texts)]
    texts = {name: own.get(name) or _template(language, name).render(_parts(protocol)).strip() for name in names}
    return Texts(**texts)


def _parts(protocol: ProtocolModel) -> dict[str, int]:
    cases = protocol.cases
    return {
        "ood": cases.counts["ood"],
        "repeats": cases.repeats,
        "pairs": cases.preference_pairs,
        "practice": cases.practice,
        "second": 0 if protocol.second_session is None else protocol.second_session.days,
    }
