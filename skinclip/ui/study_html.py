"""One step of a reader's session as HTML: a pure function of its StepView.

Every step is one form of native fields, so that keyboard, touch and screen reader work as anywhere else. All arms
with an explanation get the same frame; without one the photo and the differential stand alone. The
differential, the same in all arms, stands below the photo, so that picture and text of an aid have room beside it.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from functools import lru_cache
from html import escape
from itertools import groupby

from markdown_it import MarkdownIt
from PIL import Image

from skinclip.core.formatting import whole_percent
from skinclip.study.session.view_models import AidView, Fragment, QuestionView, StepView

SIGN_IN = (
    '<form class="sk-card sk-signin" data-form="sign-in" autocomplete="off" novalidate>'
    '<h2 tabindex="-1" data-heading>Sign in to the reader study</h2>'
    "<p>Type the personal code that the study's coordinator gave you. It brings you back to where you stopped, on any "
    "computer.</p>"
    '<label for="study-code">Your code</label>'
    '<input id="study-code" name="code" type="text" required maxlength="40" autocapitalize="characters" '
    'autocomplete="off" spellcheck="false" placeholder="XXXX-XXXX-XXXX" aria-describedby="study-signin-problem">'
    '<p class="sk-problem" id="study-signin-problem" role="alert" data-problem></p>'
    '<button type="submit" class="sk-go">Sign in</button></form>'
)
# The stage is drawn anew for each step; the lines that tell what happens stay, or screen readers would not say them.
SHELL = (
    '<div class="sk-study"><div data-stage aria-busy="true"><div class="sk-empty"><p>One moment.</p></div></div>'
    '<p class="sk-saving" role="status" aria-live="polite" data-saving></p>'
    '<p class="sk-unseen" aria-live="polite" data-announce></p></div>'
    f"<template data-signin>{SIGN_IN}</template>"
)
BUTTONS = {
    "consent": "Confirm and go on",
    "before": "Lock my answer and show the aid",
    "after": "Confirm my answer",
    "block": "Confirm my answers",
    "preference": "Confirm my choice",
}
HINT = '<span class="sk-hint-slider">Move the slider or type a number</span>'
REHEARSAL = '<strong class="sk-rehearsal">Rehearsal, not a study</strong>'
LOCKS = "Once locked, this answer cannot be changed."
KEYS = (
    '<p class="sk-note sk-keys">Keyboard: <kbd>1</kbd> to <kbd>9</kbd> choose, <kbd>Tab</kbd> goes on, '
    "<kbd>Enter</kbd> confirms, <kbd>Z</kbd> enlarges the photo.</p>"
)
ENDED = ("done", "withdrawn")
# commonmark without raw HTML: what a protocol's author writes is text, never markup of this page
_MARKDOWN = MarkdownIt("commonmark", {"html": False})


def step(view: StepView) -> str:
    """The whole step: how far the session is, heading, words, and the form with the case and its questions.

    The heading, where each step's focus begins, comes after the progress, so that Tab leads from it into the form.
    """
    body = _END[view.kind](view) if view.kind in _END else _form(view)
    return (
        f'<section class="sk-step" data-kind="{escape(view.kind)}" data-step="{escape(view.step)}">'
        f'<div class="sk-head">{_progress(view)}<h2 tabindex="-1" data-heading>{escape(view.title)}</h2></div>'
        f"{body}</section>"
    )


def position(view: StepView) -> str:
    """ "Step 12 of 140", or how the session ended."""
    if view.kind in ENDED:
        return f"{view.done} of {view.total} steps answered"
    return f"Step {min(view.done + 1, view.total)} of {view.total}"


def _progress(view: StepView) -> str:
    leave = "" if view.kind in ENDED else _leave()
    rehearsal = REHEARSAL if view.rehearsal else ""
    return (
        f'<div class="sk-progress">{rehearsal}<span id="study-progress">{position(view)}</span>'
        f'<progress max="{view.total}" value="{view.done}" aria-labelledby="study-progress"></progress>'
        f"{leave}</div>"
    )


def _leave() -> str:
    """What can be done at any step besides answering it."""
    return (
        '<button type="button" class="sk-quiet" data-act="receipt">Receipt</button>'
        '<button type="button" class="sk-quiet" data-act="withdraw">Withdraw</button>'
        '<button type="button" class="sk-quiet" data-act="pause">Pause and sign out</button>'
    )


@lru_cache(maxsize=128)  # as below: many readers see the same, and wait for what is drawn again
def prose(text: str) -> str:
    """Markdown as HTML; raw HTML in it is shown as text."""
    return f'<div class="sk-prose">{_MARKDOWN.render(text)}</div>' if text.strip() else ""


# --- the form -----------------------------------------------------------------------------------------------------


def _form(view: StepView) -> str:
    shown, words = _shown(view), prose(view.text)
    above = "" if shown or not words else f'<div class="sk-card">{words}</div>'
    questions = _questions(view.questions)
    asked = (
        f'<div class="sk-questions">{_own(view.own)}{words if shown else ""}'
        f'<div class="sk-problem" role="alert" tabindex="-1" data-problem></div>{questions}{_confirm(view.kind)}'
        f"{KEYS if shown and questions else ''}</div>"
    )
    return f'<form data-form="step" novalidate>{above}<div class="sk-work">{shown}{asked}</div></form>'


def _confirm(kind: str) -> str:
    locks = f'<p class="sk-note">{LOCKS}</p>' if kind == "before" else ""
    return (
        f'<div class="sk-confirm"><button type="submit" class="sk-go">{BUTTONS.get(kind, "Continue")}</button>'
        f"{locks}</div>"
    )


def _shown(view: StepView) -> str:
    """What the questions are about: the photo, with the aid beside it once it may be seen."""
    if view.photo is None:
        return ""
    named = {"Aid A": view.aids[0], "Aid B": view.aids[1]} if view.aids else {"The aid": view.aid} if view.aid else {}
    beside = "".join(aid(shown, name) for name, shown in named.items() if shown.explains)
    layout = "sk-pair" if view.aids else "sk-beside" if beside else "sk-alone"
    probabilities = differential(next(iter(named.values())).differential) if named else ""
    return (
        f'<div class="sk-case {layout}" style="--ratio:{_ratio(view.photo):.3f}">'
        f'<div class="sk-frame">{picture(view.photo, "Photo")}{probabilities}</div>{beside}</div>'
    )


@lru_cache(maxsize=256)
def _ratio(photo: bytes) -> float:
    """Width over height, from the header alone: the frame has the photo's shape, in every arm the same."""
    with Image.open(io.BytesIO(photo)) as header:
        width, height = header.size
    return width / height


def picture(jpeg: bytes, name: str) -> str:
    """A picture that a click, Enter or Z enlarges. Part of the page itself: no file of it is served."""
    return (
        f'<figure><figcaption class="sk-label">{name}</figcaption>'
        f'<button type="button" class="sk-enlarge" aria-label="Enlarge: {name}" data-name="{name}">'
        f'<img alt="{name}" src="data:image/jpeg;base64,{_base64(jpeg)}"></button></figure>'
    )


@lru_cache(maxsize=256)
def _base64(jpeg: bytes) -> str:
    return base64.b64encode(jpeg).decode()


def aid(shown: AidView, name: str) -> str:
    """The aid's explanation in its frame: its picture and its text, whichever of the two it has."""
    drawn = picture(shown.picture, name) if shown.picture else ""
    text = (
        f'<div class="sk-below"><h3 class="sk-label">What it says</h3>'
        f'<div class="sk-says" tabindex="0" role="group" aria-label="{name}: text">{fragments(shown.text)}</div></div>'
    )
    return f'<section class="sk-frame sk-aid" aria-label="{name}">{drawn}{text if shown.text else ""}</section>'


def differential(rows: tuple[tuple[str, float], ...]) -> str:
    """The aid's probabilities, which are the same in all arms."""
    listed = "".join(
        f'<div class="sk-row" role="listitem"><span class="sk-name">{escape(name)}</span>'
        f'<span class="sk-track" aria-hidden="true"><span class="sk-bar" style="width:{100 * p:.1f}%"></span></span>'
        f'<span class="sk-value">{percent(p)}</span></div>'
        for name, p in rows
    )
    return (
        '<div class="sk-below"><h3 class="sk-label">The aid\'s probabilities</h3>'
        f'<div role="list" aria-label="The aid: probabilities">{listed}</div></div>'
    )


def percent(p: float) -> str:
    """A probability in whole per cent, never a rounded 0 % or 100 %."""
    return escape(whole_percent(p))


def fragments(text: tuple[Fragment, ...]) -> str:
    """The rationale, each reference a number in the colour of its region."""
    return f'<p class="sk-rationale">{"".join(_fragment(f) for f in text)}</p>'


def _fragment(fragment: Fragment) -> str:
    if fragment.ref is None:
        return escape(fragment.text)
    colour = fragment.colour or "#999999"
    return (
        f'<span class="sk-chip" style="--chip:{escape(colour)};--ink:{ink(colour)}">'
        f'<span class="sk-unseen">region </span>{fragment.ref}</span>{escape(fragment.text)}'
    )


def ink(colour: str) -> str:
    """Black or white, whichever reads better on `colour` ("#rrggbb")."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#fff"


def _own(answers: tuple[tuple[str, str], ...]) -> str:
    if not answers:
        return ""
    rows = "".join(f"<div><dt>{escape(asked)}</dt><dd>{escape(said)}</dd></div>" for asked, said in answers)
    return f'<section class="sk-own"><h3 class="sk-label">Your locked answer</h3><dl>{rows}</dl></section>'


# --- questions ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _questions(asked: tuple[QuestionView, ...]) -> str:
    """All questions in order; three or more in a row on one scale share its words, as the published scales do."""
    numbered = groupby(enumerate(asked), key=lambda one: (one[1].field, one[1].points, one[1].anchors))
    return "".join(_group([(question(q, i), q) for i, q in group]) for _, group in numbered)


def _group(drawn: list[tuple[str, QuestionView]]) -> str:
    fields, first = "".join(html for html, _ in drawn), drawn[0][1]
    if len(drawn) < 3 or first.field != "likert":
        return fields
    head = "".join(f"<span>{escape(word)}</span>" for word in first.anchors)
    return (
        f'<div class="sk-battery" style="--points:{first.points}"><div class="sk-scale-head" aria-hidden="true">'
        f'<div class="sk-scale-words">{head}</div></div>{fields}</div>'
    )


def question(asked: QuestionView, index: int) -> str:
    """One question as a group of native fields; `index` makes its ids unique on the page."""
    needed = "" if asked.required else ' <span class="sk-optional">(optional)</span>'
    return (
        f'<fieldset class="sk-question" data-key="{escape(asked.key)}" data-kind="{asked.field}" '
        f'data-required="{str(asked.required).lower()}" aria-describedby="study-missing-{index}">'
        f"<legend>{escape(asked.text)}{needed}</legend>{_FIELDS[asked.field](asked, index)}"
        f'<p class="sk-missing" id="study-missing-{index}" data-missing></p></fieldset>'
    )


def _choice(asked: QuestionView, index: int) -> str:
    radios = "".join(_radio(index, value, label, i + 1) for i, (value, label) in enumerate(asked.options))
    return f'<div class="sk-options">{radios}</div>'


def _yes_no(asked: QuestionView, index: int) -> str:
    return f'<div class="sk-options">{_radio(index, "true", "Yes", 1)}{_radio(index, "false", "No", 2)}</div>'


def _radio(index: int, value: str, label: str, digit: int) -> str:
    key = f'<kbd aria-hidden="true">{digit}</kbd>' if digit <= 9 else ""
    return (
        f'<label class="sk-pick sk-option"><input type="radio" name="study-q{index}" value="{escape(value)}">'
        f"<span>{escape(label)}</span>{key}</label>"
    )


def _likert(asked: QuestionView, index: int) -> str:
    """Numbered points in a row; each has its words where every point has some, else the ends have."""
    points = asked.points or 0
    each = len(asked.anchors) == points
    words = dict(enumerate(asked.anchors, 1)) if each else {}
    ends = {} if each or len(asked.anchors) != 2 else {1: asked.anchors[0], points: asked.anchors[1]}
    radios = "".join(_point(index, p, words.get(p, ""), ends.get(p, "")) for p in range(1, points + 1))
    below = _ends(asked.anchors) if ends else ""
    return f'<div class="sk-likert{" sk-worded" if each else ""}" style="--points:{points}">{radios}</div>{below}'


def _point(index: int, point: int, words: str, end: str) -> str:
    name = escape(", ".join(filter(None, (str(point), words or end))))
    below = f"<small>{escape(words)}</small>" if words else ""
    return (
        f'<label class="sk-pick sk-point"><input type="radio" name="study-q{index}" value="{point}" '
        f'aria-label="{name}">'
        f'<b aria-hidden="true">{point}</b>{below}</label>'
    )


def _ends(anchors: tuple[str, ...], between: str = "") -> str:
    low, high = (escape(a) for a in anchors) if len(anchors) == 2 else ("", "")
    return f'<div class="sk-ends" aria-hidden="true"><span>{low}</span>{between}<span>{high}</span></div>'


def _percent_field(asked: QuestionView, index: int) -> str:
    """A slider and a number that follow each other. The number is the answer: an untouched slider is none."""
    name = escape(asked.text)
    return (
        '<div class="sk-percent sk-untouched"><input type="range" min="0" max="100" step="1" value="50" '
        f'aria-label="{name}" aria-valuetext="not answered yet" data-slider>'
        '<span class="sk-number"><input type="number" min="0" max="100" step="1" inputmode="numeric" '
        f'aria-label="{name}, as a number from 0 to 100" data-number> %</span></div>'
        f"{_ends(asked.anchors, HINT)}"
    )


def _text(asked: QuestionView, index: int) -> str:
    most = asked.max_length or 1000
    return (
        f'<textarea rows="{2 if most <= 200 else 4}" maxlength="{most}" aria-label="{escape(asked.text)}"></textarea>'
        f'<p class="sk-note">At most {most} characters. Please name no patient.</p>'
    )


_FIELDS: dict[str, Callable[[QuestionView, int], str]] = {
    "choice": _choice,
    "likert": _likert,
    "percent": _percent_field,
    "yes_no": _yes_no,
    "text": _text,
}


# --- steps that ask nothing ---------------------------------------------------------------------------------------


def _done(view: StepView) -> str:
    return (
        f'<div class="sk-card">{prose(view.text)}</div><div class="sk-confirm">'
        '<button type="button" class="sk-go" data-act="receipt">Show my receipt</button>'
        '<button type="button" class="sk-quiet" data-act="withdraw">Withdraw</button>'
        '<button type="button" class="sk-quiet" data-act="pause">Sign out</button></div>'
    )


def _withdrawn(view: StepView) -> str:
    return (
        f'<div class="sk-card">{prose(view.text)}</div><div class="sk-confirm">'
        '<button type="button" class="sk-go" data-act="pause">Sign out</button></div>'
    )


def _pause(view: StepView) -> str:
    """The page counts down and then frees the button; whether the pause is over the server alone decides."""
    return (
        f'<div class="sk-card">{prose(view.text)}'
        f'<p class="sk-countdown" role="timer" data-wait="{math.ceil(max(view.wait, 0))}"></p></div>'
        '<div class="sk-confirm"><button type="button" class="sk-go" data-act="resume" disabled>Go on</button></div>'
    )


_END: dict[str, Callable[[StepView], str]] = {"done": _done, "withdrawn": _withdrawn, "pause": _pause}
