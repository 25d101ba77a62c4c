"""One step of a reader's session as HTML: a pure function of its StepView.

Every step is one form of native fields, so that keyboard, touch and screen reader work as anywhere else. All arms
with an explanation get the same frame; without one the photo and the differential stand alone. The
differential, the same in all arms, stands below the photo, so that picture and text of an aid have room beside it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from itertools import groupby

from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

from skinclip.core.formatting import whole_percent
from skinclip.study.session.view_models import AidView, Fragment, QuestionView, StepView
from skinclip.ui.templating import data_url, macro

_study = partial(macro, "study.html")

SIGN_IN = _study("sign_in")
SHELL = _study("shell")
REHEARSAL = _study("rehearsal")
BUTTONS = {
    "consent": "Confirm and go on",
    "before": "Lock my answer and show the aid",
    "after": "Confirm my answer",
    "block": "Confirm my answers",
    "preference": "Confirm my choice",
}
LOCKS = "Once locked, this answer cannot be changed."
ENDED = ("done", "withdrawn")
NO_COLOUR = "#999999"  # of a reference without a region
# commonmark without raw HTML: what a protocol's author writes is text, never markup of this page
_MARKDOWN = MarkdownIt("commonmark", {"html": False})


def step(view: StepView) -> Markup:
    """The whole step: progress, heading, words, and the form with the case and its questions."""
    body = _END[view.kind](view) if view.kind in _END else _form(view)
    return _study("step", view, position(view), view.kind in ENDED, body)


def position(view: StepView) -> str:
    """ "Step 12 of 140", or how the session ended."""
    if view.kind in ENDED:
        return f"{view.done} of {view.total} steps answered"
    return f"Step {min(view.done + 1, view.total)} of {view.total}"


@lru_cache(maxsize=128)  # as below: many readers see the same, and wait for what is drawn again
def prose(text: str) -> Markup:
    """Markdown as HTML; raw HTML in it is shown as text."""
    return _study("prose", Markup(_MARKDOWN.render(text))) if text.strip() else Markup("")


# --- the form -----------------------------------------------------------------------------------------------------


def _form(view: StepView) -> Markup:
    case, words = _case(view), prose(view.text)
    questions = _questions(view.questions)
    confirm = _study("confirm", BUTTONS.get(view.kind, "Continue"), LOCKS if view.kind == "before" else "")
    return _study(
        "form",
        above="" if case else words,
        case=case,
        own=_study("own", view.own),
        words=words if case else "",
        questions=questions,
        confirm=confirm,
        keys=bool(case and questions),
    )


def _case(view: StepView) -> Markup:
    """The case asked about: its photo, with the aid beside it once it may be seen."""
    if view.photo is None:
        return Markup("")
    named = {"Aid A": view.aids[0], "Aid B": view.aids[1]} if view.aids else {"The aid": view.aid} if view.aid else {}
    beside = _joined(aid(aid_view, name) for name, aid_view in named.items() if aid_view.explains)
    layout = "sk-pair" if view.aids else "sk-beside" if beside else "sk-alone"
    probabilities = differential(next(iter(named.values())).differential) if named else ""
    return _study("case", layout, _ratio(view.photo), picture(view.photo, "Photo"), probabilities, beside)


@lru_cache(maxsize=256)
def _ratio(photo: bytes) -> float:
    """Width over height, from the header alone: the frame has the photo's shape, in every arm the same."""
    with Image.open(io.BytesIO(photo)) as header:
        width, height = header.size
    return width / height


def picture(jpeg: bytes, name: str) -> Markup:
    """A picture that a click, Enter or Z enlarges."""
    return _study("picture", _address(jpeg), name)


@lru_cache(maxsize=256)
def _address(jpeg: bytes) -> Markup:
    return data_url(jpeg)


def aid(view: AidView, name: str) -> Markup:
    """The aid's explanation in its frame: its picture and its text, whichever of the two it has."""
    drawn = picture(view.picture, name) if view.picture else ""
    return _study("aid", name, drawn, fragments(view.text) if view.text else "")


def differential(rows: tuple[tuple[str, float], ...]) -> Markup:
    """The aid's probabilities, which are the same in all arms."""
    return _study("differential", rows)


def percent(p: float) -> Markup:
    """A probability in whole per cent, never a rounded 0 % or 100 %."""
    return Markup.escape(whole_percent(p))


def fragments(text: tuple[Fragment, ...]) -> Markup:
    """The rationale, each reference a number in the colour of its region."""
    parts = [(f.text, f.ref, f.colour or NO_COLOUR) for f in text]
    return _study("fragments", [{"text": t, "ref": r, "colour": c, "ink": ink(c)} for t, r, c in parts])


def ink(colour: str) -> str:
    """Black or white, whichever reads better on `colour` ("#rrggbb")."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#fff"


# --- questions ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _questions(asked: tuple[QuestionView, ...]) -> Markup:
    """All questions in order; three or more in a row on one scale share its words, as the published scales do."""
    numbered = groupby(enumerate(asked), key=lambda one: (one[1].field, one[1].points, one[1].anchors))
    return _joined(_group([(question(q, i), q) for i, q in group]) for _, group in numbered)


def _group(drawn: list[tuple[Markup, QuestionView]]) -> Markup:
    fields, first = _joined(html for html, _ in drawn), drawn[0][1]
    if len(drawn) < 3 or first.field != "likert":
        return fields
    return _study("battery", first.points, first.anchors, fields)


def question(asked: QuestionView, index: int) -> Markup:
    """One question as a group of native fields; `index` makes its ids unique on the page."""
    return _study("question", asked, index, _FIELDS[asked.field](asked, index))


def _choice(asked: QuestionView, index: int) -> Markup:
    return _study("options", index, asked.options)


def _yes_no(asked: QuestionView, index: int) -> Markup:
    return _study("options", index, (("true", "Yes"), ("false", "No")))


def _likert(asked: QuestionView, index: int) -> Markup:
    points = asked.points or 0
    each = len(asked.anchors) == points
    words = dict(enumerate(asked.anchors, 1)) if each else {}
    ends = {} if each or len(asked.anchors) != 2 else {1: asked.anchors[0], points: asked.anchors[1]}
    return _study("likert", index, points, words, ends, asked.anchors)


def _percent_field(asked: QuestionView, index: int) -> Markup:
    return _study("percent_field", asked.text, asked.anchors)


def _text(asked: QuestionView, index: int) -> Markup:
    return _study("text_field", asked.text, asked.max_length or 1000)


_FIELDS: dict[str, Callable[[QuestionView, int], Markup]] = {
    "choice": _choice,
    "likert": _likert,
    "percent": _percent_field,
    "yes_no": _yes_no,
    "text": _text,
}


# --- steps that ask nothing ---------------------------------------------------------------------------------------


def _done(view: StepView) -> Markup:
    return _study("done", prose(view.text))


def _withdrawn(view: StepView) -> Markup:
    return _study("withdrawn", prose(view.text))


def _pause(view: StepView) -> Markup:
    return _study("pause", prose(view.text), math.ceil(max(view.wait, 0)))


_END: dict[str, Callable[[StepView], Markup]] = {"done": _done, "withdrawn": _withdrawn, "pause": _pause}


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
