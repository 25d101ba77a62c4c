"""The texts of a study as its readers are shown them: default ones speak only of the parts that the study has."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, StrictUndefined, Template

from skinclip.study.protocol.model import ProtocolModel, Texts
from skinclip.study.protocol.protocol import default_questions

# Markdown, not HTML: the page renders it without raw HTML. Templates are the package's own, never a coordinator's.
_ENVIRONMENT = Environment(undefined=StrictUndefined, autoescape=False)


@cache
def _template(name: str) -> Template:
    return _ENVIRONMENT.from_string(default_questions()["presented"][name])


def texts_of(protocol: ProtocolModel) -> Texts:
    """Instructions, feedback and debrief as they are shown; a protocol's own texts stay as they are."""
    default = default_questions()
    texts = {
        name: _template(name).render(_parts(protocol)).strip() if text == default["texts"][name].strip() else text
        for name, text in ((name, getattr(protocol.texts, name)) for name in default["presented"])
    }
    return Texts(practice_feedback=protocol.texts.practice_feedback, **texts)


def _parts(protocol: ProtocolModel) -> dict[str, int]:
    cases = protocol.cases
    return {
        "ood": cases.counts["ood"],
        "repeats": cases.repeats,
        "pairs": cases.preference_pairs,
        "practice": cases.practice,
    }
