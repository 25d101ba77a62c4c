"""One step of a reader's session as HTML: a pure function of its StepView.

Every step is one form of native fields, so that keyboard, touch and screen reader work as anywhere else. All arms
with an explanation get the same frame; without one the photo and the differential stand alone. The
differential, the same in all arms, stands below the photo, so that picture and text of an aid have room beside it.
All words are the catalogue's, in the view's language.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import groupby

from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

from skinclip.core.formatting import whole_percent
from skinclip.study.catalogue.catalogue import ENGLISH, Words, language_name, section
from skinclip.study.session.view_models import AidView, Fragment, QuestionView, StepView
from skinclip.ui.templating import data_url, macro

_study = partial(macro, "study.html")

CONFIRMED = ("consent", "before", "after", "block", "preference")  # kinds of steps whose button has words of its own
AROUND = ("title", "tab_reader", "tab_coordinator", "banner")  # words of the page around the steps
ENDED = ("done", "withdrawn")
NO_COLOUR = "#999999"  # of a reference without a region
# commonmark without raw HTML: what a protocol's author writes is text, never markup of this page
_MARKDOWN = MarkdownIt("commonmark", {"html": False})


def shell(languages: Sequence[str] = (ENGLISH,)) -> Markup:
    """The tab before its first step: words of its script and a sign-in form in each language that a study offers."""
    offered = {language: language_name(language) for language in languages}
    around = {code: {f"page_{key}": Words(code, "page")(key) for key in AROUND} for code in offered}
    words = {code: section(code, "script") | around[code] for code in offered}
    forms = {code: _study("sign_in", page_words(code), offered) for code in offered}
    return _study("shell", page_words(languages[0]), json.dumps(words, ensure_ascii=False), forms)


def rehearsal(language: str = ENGLISH) -> Markup:
    """The mark of a study that is only tried out."""
    return _study("rehearsal", page_words(language))


def page_words(language: str) -> Words:
    """The words of the page in a language; called `t` in templates."""
    return Words(language, "page")


def step(view: StepView) -> Markup:
    """The whole step: progress, heading, words, and the form with the case and its questions."""
    body = _END[view.kind](view) if view.kind in _END else _form(view)
    return _study("step", page_words(view.language), view, position(view), view.kind in ENDED, body)


def position(view: StepView) -> str:
    """ "Step 12 of 140", or how the session ended."""
    t = page_words(view.language)
    if view.kind in ENDED:
        return t("position_ended", done=view.done, total=view.total)
    return t("position", step=min(view.done + 1, view.total), total=view.total)


def announced(view: StepView) -> str:
    """The sentence that screen readers hear when a step is shown."""
    return page_words(view.language)("announced", position=position(view), title=view.title)


@lru_cache(maxsize=128)  # as below: many readers see the same, and wait for what is drawn again
def prose(text: str) -> Markup:
    """Markdown as HTML; raw HTML in it is shown as text."""
    return _study("prose", Markup(_MARKDOWN.render(text))) if text.strip() else Markup("")


# --- the form -----------------------------------------------------------------------------------------------------


def _form(view: StepView) -> Markup:
    case, words, t = _case(view), prose(view.text), page_words(view.language)
    questions = _questions(view.questions, view.language)
    button = t(f"confirm_{view.kind if view.kind in CONFIRMED else 'other'}")
    parts = {
        "above": "" if case else words,
        "case": case,
        "own": _study("own", t, view.own),
        "words": words if case else "",
        "questions": questions,
        "confirm": _study("confirm", button, t("locks") if view.kind == "before" else ""),
        "keys": _keys(t("keys")) if case and questions else "",
    }
    return _study("form", **parts)


def _keys(text: str) -> Markup:
    """A sentence whose names of keys stand in square brackets."""
    return Markup(re.sub(r"\[(\w+)\]", r"<kbd>\1</kbd>", str(Markup.escape(text))))


def _case(view: StepView) -> Markup:
    """The case asked about: its photo, with the aid beside it once it may be seen."""
    if view.photo is None:
        return Markup("")
    t = page_words(view.language)
    named: dict[str, AidView] = {}
    if view.aids:
        named = {t("aid_a"): view.aids[0], t("aid_b"): view.aids[1]}
    elif view.aid:
        named = {t("aid"): view.aid}
    beside = _joined(aid(t, aid_view, name) for name, aid_view in named.items() if aid_view.explains)
    layout = "sk-pair" if view.aids else "sk-beside" if beside else "sk-alone"
    probabilities = differential(t, next(iter(named.values())).differential) if named else ""
    return _study("case", layout, _ratio(view.photo), picture(t, view.photo, t("photo")), probabilities, beside)


@lru_cache(maxsize=256)
def _ratio(photo: bytes) -> float:
    """Width over height, from the header alone: the frame has the photo's shape, in every arm the same."""
    with Image.open(io.BytesIO(photo)) as header:
        width, height = header.size
    return width / height


def picture(t: Words, jpeg: bytes, name: str) -> Markup:
    """A picture that a click, Enter or Z enlarges."""
    return _study("picture", t, _address(jpeg), name)


@lru_cache(maxsize=256)
def _address(jpeg: bytes) -> Markup:
    return data_url(jpeg)


def aid(t: Words, view: AidView, name: str) -> Markup:
    """The aid's explanation in its frame: its picture and its text, whichever of the two it has."""
    drawn = picture(t, view.picture, name) if view.picture else ""
    return _study("aid", t, name, drawn, fragments(t, view.text) if view.text else "", view.written_in)


def differential(t: Words, rows: tuple[tuple[str, float], ...]) -> Markup:
    """The aid's probabilities, which are the same in all arms."""
    return _study("differential", t, rows)


def percent(p: float) -> Markup:
    """A probability in whole per cent, never a rounded 0 % or 100 %."""
    return Markup.escape(whole_percent(p))


def fragments(t: Words, text: tuple[Fragment, ...]) -> Markup:
    """The rationale, each reference a number in the colour of its region."""
    parts = [(f.text, f.ref, f.colour or NO_COLOUR) for f in text]
    return _study("fragments", t, [{"text": t, "ref": r, "colour": c, "ink": ink(c)} for t, r, c in parts])


def ink(colour: str) -> str:
    """Black or white, whichever reads better on `colour` ("#rrggbb")."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#fff"


# --- questions ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _questions(asked: tuple[QuestionView, ...], language: str) -> Markup:
    """All questions in order; three or more in a row on one scale share its words, as the published scales do."""
    numbered = groupby(enumerate(asked), key=lambda one: (one[1].field, one[1].points, one[1].anchors))
    t = page_words(language)
    return _joined(_group([(question(t, q, i), q) for i, q in group]) for _, group in numbered)


def _group(drawn: list[tuple[Markup, QuestionView]]) -> Markup:
    fields, first = _joined(html for html, _ in drawn), drawn[0][1]
    if len(drawn) < 3 or first.field != "likert":
        return fields
    return _study("battery", first.points, first.anchors, fields)


def question(t: Words, asked: QuestionView, index: int) -> Markup:
    """One question as a group of native fields; `index` makes its ids unique on the page."""
    return _study("question", t, asked, index, _FIELDS[asked.field](t, asked, index))


def _choice(t: Words, asked: QuestionView, index: int) -> Markup:
    return _study("options", index, asked.options)


def _yes_no(t: Words, asked: QuestionView, index: int) -> Markup:
    return _study("options", index, (("true", t("yes")), ("false", t("no"))))


def _likert(t: Words, asked: QuestionView, index: int) -> Markup:
    points = asked.points or 0
    each = len(asked.anchors) == points
    words = dict(enumerate(asked.anchors, 1)) if each else {}
    ends = {} if each or len(asked.anchors) != 2 else {1: asked.anchors[0], points: asked.anchors[1]}
    return _study("likert", t, index, points, words, ends, asked.anchors)


def _percent_field(t: Words, asked: QuestionView, index: int) -> Markup:
    return _study("percent_field", t, asked.text, asked.anchors)


def _text(t: Words, asked: QuestionView, index: int) -> Markup:
    return _study("text_field", t, asked.text, asked.max_length or 1000)


_FIELDS: dict[str, Callable[[Words, QuestionView, int], Markup]] = {
    "choice": _choice,
    "likert": _likert,
    "percent": _percent_field,
    "yes_no": _yes_no,
    "text": _text,
}


# --- steps that ask nothing ---------------------------------------------------------------------------------------


def _done(view: StepView) -> Markup:
    return _study("done", page_words(view.language), prose(view.text))


def _withdrawn(view: StepView) -> Markup:
    return _study("withdrawn", page_words(view.language), prose(view.text))


def _pause(view: StepView) -> Markup:
    return _study("pause", page_words(view.language), prose(view.text), math.ceil(max(view.wait, 0)))


_END: dict[str, Callable[[StepView], Markup]] = {"done": _done, "withdrawn": _withdrawn, "pause": _pause}


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
