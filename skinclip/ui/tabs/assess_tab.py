"""Assess tab: one or two photos of a lesion and what is known of the patient go in, the answer comes out.

`build` lays the tab out (`assess_view`) and wires it. The handlers, here and in `photo_events`, `requests` and
`revision`, are plain functions: they take the tab's components (`AssessView`) and plain values, and return a dict keyed
by component. A visitor's photos and answer are kept in memory, for that visitor alone and for half an hour; nothing
of it is written to disk.

An answer belongs to its photos. Adding or removing one stops the assessment that is running and clears the answer; an
answer that is late is dropped, on the server (`TaskSuperseded`) and in the browser (`assets/page.js`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from skinclip.core.formatting import count
from skinclip.imaging.photo import PhotoError
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.settings import Settings
from skinclip.ui import components
from skinclip.ui.answer import adapters, assess_photos, made_by
from skinclip.ui.background_task import BackgroundTask, TaskStopped, TaskSuperseded, WaitingLine
from skinclip.ui.guard.quiet_log import describe
from skinclip.ui.loading import is_loading
from skinclip.ui.page import ModelPage
from skinclip.ui.state import (
    GIVEN,
    AssessedPhoto,
    Entries,
    FormPhotos,
    Photos,
    context_of,
    describe_context,
    describe_kinds,
    edits_in_words,
    entries_of,
)
from skinclip.ui.tabs import change_panel, opinion_panel, requests, revision
from skinclip.ui.tabs.assess_updates import filled, growing
from skinclip.ui.tabs.assess_view import AssessView, Updates, build_view
from skinclip.ui.tabs.photo_events import (
    cleared,
    no_pieces,
    on_example,
    on_kind,
    on_other_refusal,
    on_other_upload,
    on_recognise,
    on_reframe,
    on_refusal,
    on_remove,
    on_upload,
    unmarked,
)
from skinclip.ui.tabs.photo_field import uploaded_bytes

POLL_SECONDS = 0.5  # between looks at a visitor's place in the line
RECOGNISE_SECONDS = 5.0  # that a photo waits for the model, to be recognised before it is assessed
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Progress of an assessment: the share done (0-1) and the step in words."""

    share: float
    what: str


@dataclass(frozen=True)
class PartialAnswer:
    """The answer as far as it is known."""

    answer: AssessedPhoto


@dataclass(frozen=True)
class Display:
    """A visitor's choices of how an answer is displayed.

    Attributes:
        first: hide it until the clinician has given one.
        settings: threshold and prevalence.
        edited: how the photos were turned and cropped, in words.
    """

    first: bool = False
    settings: Settings = Settings()  # noqa: RUF009  frozen
    edited: str = ""

    def of(self, assessor: Assessor, answer: AssessedPhoto, name: str | None = None) -> AssessedPhoto:
        """The answer with them; `name` is that of the model, where there are several."""
        clinician = replace(answer.clinician, photo_edit=self.edited)
        return replace(answer.at(self.settings, assessor), clinician=clinician, made_by=name)


Report = Progress | PartialAnswer | AssessedPhoto  # steps and the answer as it grows, then the whole answer


def build(page: ModelPage, tab: gr.Tab) -> AssessView:
    """Lays out the tab inside the current Blocks and wires its events."""
    view, examples = build_view(page)
    _wire(page, view, examples)
    return view


def _wire(page: ModelPage, view: AssessView, examples: list[tuple[gr.Button, Path]]) -> None:
    running = _wire_assessment(page, view)
    page.answer_events.extend([requests.wire(page, view), revision.wire(page, view)])
    page.answer_events.extend(change_panel.wire(page, view.panel))
    if view.opinion is not None:
        page.answer_events.append(opinion_panel.wire(page, view.opinion))
    arrivals = (view.uploaded, view.refusal, view.slot.uploaded, view.slot.refusal)
    page.photo_events.extend([*(field.change for field in arrivals), *(button.click for button, _ in examples)])
    _wire_photo(page, view, examples, running)
    for field in view.form:
        field.change(  # not input, which a pasted or filled-in value does not fire
            partial(on_entries, page.assessor, view),
            [view.entries, view.answer, *view.form],
            [view.outdated, view.outdated_note],
            api_visibility="private",
            show_progress="hidden",
            queue=False,
            trigger_mode="always_last",
        )


def _wire_photo(page: ModelPage, view: AssessView, examples: list[tuple[gr.Button, Path]], cancels: list[Any]) -> None:
    """A new photo, by whichever way, ends everything that runs for the one before."""
    tasks, slot = page.tasks, view.slot

    def replacing(handler: Callable[[Any, bytes | None, gr.Request], Updates]) -> Callable[..., Updates]:
        # Gradio gives the request to functions alone that ask for it by their annotation
        def handle(value: Any, beside: bytes | None, request: gr.Request) -> Updates:
            tasks.stop(request.session_hash, superseded=True)
            page.line.leave(request.session_hash)
            return handler(value, beside, request)

        return handle

    def upload(name: str | None, other: bytes | None, request: gr.Request) -> Updates:
        return on_upload(view, lambda: uploaded_bytes(page.uploads, request, name), other)

    def other_upload(name: str | None, photo: bytes | None, request: gr.Request) -> Updates:
        return on_other_upload(view, lambda: uploaded_bytes(page.uploads, request, name), photo)

    def example(file: Path) -> Callable[[Any, bytes | None, gr.Request], Updates]:
        return lambda _, other, __: on_example(view, file, other)

    # "private" keeps the handlers out of the page's API
    common: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    stops = {"outputs": view.photo_outputs, "cancels": cancels, **common}
    # a photo waits for nobody's assessment
    added = [
        view.uploaded.change(replacing(upload), [view.uploaded, view.other], queue=False, **stops),
        slot.uploaded.change(replacing(other_upload), [slot.uploaded, view.photo], queue=False, **stops),
        *(button.click(replacing(example(file)), [view.refusal, view.other], **stops) for button, file in examples),
    ]
    refusal = replacing(lambda code, _, __: on_refusal(view, code))
    view.refusal.change(refusal, [view.refusal, view.other], **stops)
    other_refusal = replacing(lambda code, _, __: on_other_refusal(view, code))
    slot.refusal.change(other_refusal, [slot.refusal, view.photo], **stops)
    # cancels nothing by itself: most requests concern the answer, and leave what runs alone
    asked = [view.request, view.photo, view.edit, view.other, view.other_edit, slot.kind, view.recognised]
    view.request.change(_photo_request(page, view), asked, view.photo_outputs, **common)
    _wire_kinds(page, view, added)


def _photo_request(page: ModelPage, view: AssessView) -> Callable[..., Updates]:
    """Requests of the browser's that change a photo in the form."""

    def change(request: gr.Request, text: str | None, *form: Any) -> Updates:
        asked = requests.parsed(text)
        if asked.get("kind") not in ("crop", "uncrop", "remove"):
            return gr.skip()
        page.tasks.stop(request.session_hash, superseded=True)
        page.line.leave(request.session_hash)
        photos = FormPhotos(*form)
        if asked["kind"] == "remove":
            return on_remove(view, asked.get("which"), photos)
        return on_reframe(view, asked, photos)

    return change


def _wire_kinds(page: ModelPage, view: AssessView, added: list[Any]) -> None:
    """The kind of each photo: recognised once it is there, corrected by the visitor."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    chosen = [view.kind, view.slot.kind]

    def recognise(photo: bytes | None, other: bytes | None, kind: str, other_kind: str) -> Updates:
        lock = page.assessor.lock
        if not lock.acquire(timeout=RECOGNISE_SECONDS):  # an assessment runs; that of these photos will say
            return gr.skip()
        try:
            return on_recognise(page.assessor, view, (photo, other), (kind, other_kind))
        finally:
            lock.release()

    for event in added:
        # not in the queue: its end could close the stream of events in which an answer begins
        event.then(recognise, [*view.photos, *chosen], view.kinds, queue=False, **quiet)
    for field in chosen:
        inputs = [view.other, *chosen, view.recognised]
        field.input(partial(on_kind, view), inputs, [view.slot.note], queue=False, **quiet)


def _wire_assessment(page: ModelPage, view: AssessView) -> list[Any]:
    """Wires an assessment, from the press of the button to its end; returns the events that a new photo cancels."""
    assessor, tasks, line = page.assessor, page.tasks, page.line
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def press(request: gr.Request, photo: bytes | None, other: bytes | None, *form: Any) -> Updates:
        line.join(request.session_hash)
        return on_press(view, Entries.of((photo, other), form), line.ahead(request.session_hash))

    async def wait(request: gr.Request) -> AsyncIterator[Updates]:
        async for updates in on_wait(view, line, request.session_hash):
            yield updates

    def run(
        request: gr.Request, entries: Entries | None, first: bool, settings: Settings, *form: Any
    ) -> Generator[Updates]:
        photos = FormPhotos(*form)
        try:
            with tasks.of(request.session_hash) as begin:
                edited = edits_in_words(photos.edit, photos.other_edit, photos.other is not None)
                how = Display(first, settings, edited)
                yield from on_assess(assessor, view, (photos.photo, photos.other), entries, begin, how)
        finally:
            line.leave(request.session_hash)

    def stop(request: gr.Request) -> Updates:
        tasks.stop(request.session_hash)
        line.leave(request.session_hash)
        idle = {view.button: gr.update(interactive=True), view.stop: gr.update(visible=False)}
        return {**idle, **cleared(view, components.STOPPED)}

    pressed = gr.on(
        [view.button.click, view.update.click],
        press,
        [*view.photos, *view.form],
        [view.entries, view.button, view.stop, view.outdated, view.outdated_note, view.result, *view.pieces],
        queue=False,
        **quiet,
    )
    waited = pressed.then(wait, None, [view.result], concurrency_limit=16, **quiet)
    ran = pressed.then(
        run,
        [view.entries, view.first, view.settings, view.photo, view.edit, view.other, view.other_edit],
        view.outputs,
        concurrency_id="model",
        concurrency_limit=1,
        **quiet,
    )
    ran.then(
        partial(on_end, assessor, view),
        [view.entries, view.answer, *view.form],
        [view.button, view.stop, view.outdated, view.outdated_note],
        queue=False,
        **quiet,
    )
    view.stop.click(stop, None, [view.button, view.stop, *view.outputs], cancels=[ran, waited], queue=False, **quiet)
    return [ran, waited]


# --- handlers: the assessment -------------------------------------------------------------------------------------


def on_press(view: AssessView, entries: Entries | None, ahead: int = 0) -> Updates:
    """Keeps the entries that the answer will be made with, and clears the place where it will stand.

    Args:
        ahead: assessments that run before this one.
    """
    return {
        **unmarked(view),
        **no_pieces(view),
        view.entries: entries,
        view.button: gr.update(interactive=False),
        view.stop: gr.update(visible=True),
        view.result: components.running("Starting", queue_words(ahead)),
    }


def queue_words(ahead: int) -> str:
    """A place in the queue in words; "" at its head."""
    if ahead == 0:
        return ""
    return f"{count(ahead).capitalize()} {'assessment runs' if ahead == 1 else 'assessments run'} before yours."


async def on_wait(view: AssessView, line: WaitingLine, visitor: str | None) -> AsyncIterator[Updates]:
    """Says how many are before the visitor, until nobody is."""
    said = -1
    while ahead := line.ahead(visitor):
        if ahead != said:
            yield {view.result: components.running("", queue_words(ahead))}
        said = ahead
        await asyncio.sleep(POLL_SECONDS)
    if said < 0:
        yield gr.skip()


def on_assess(
    assessor: Assessor,
    view: AssessView,
    photos: Photos,
    entries: Entries | None,
    begin: Callable[[BackgroundTask], None] = lambda task: None,
    how: Display | None = None,
) -> Generator[Updates]:
    """Runs the model on the photos and yields its answer as it grows. On any failure the form keeps its entries.

    Yields `gr.skip()` once a photo has been replaced.

    Args:
        entries: as they were when Assess was pressed.
        begin: called with the task before it starts, so that it can be stopped.
        how: the visitor's choices of how the answer is displayed.
    """
    how, (photo, other) = how or Display(), photos
    if photo is None:
        message = "Add a photo, then press Assess. A photo is kept for half an hour; after that, add it again."
        yield cleared(view, components.error(message, "There is no photo yet"))
        return
    if entries is None or not entries.are_of(photos):
        yield gr.skip()  # another photo came while this assessment waited for its turn
        return
    try:
        context = context_of(entries.age, entries.sex, entries.site)
    except PhotoError as problem:
        yield cleared(view, components.error(str(problem), "An entry cannot be used"))
        return

    def work(report: Callable[[Report], None]) -> AssessedPhoto:
        def show(partial_answer: AssessedPhoto) -> None:
            report(PartialAnswer(how.of(assessor, partial_answer)))

        if is_loading(assessor):
            report(Progress(0.0, "Loading the model; the assessment starts then"))
        with assessor.using(entries.adapter):
            told = lambda *step: report(Progress(*step))  # noqa: E731
            answer = assess_photos(assessor, (photo, other), entries.kinds, context, told, show)
            return how.of(assessor, answer, made_by(assessor))

    try:
        task = BackgroundTask[Report](work)
        begin(task)
        yield from _as_updates(view, task, how.first)
    except TaskSuperseded:
        yield gr.skip()  # not nothing: Gradio would repeat the last update, or empty every output
    except (PhotoError, CheckpointError) as problem:
        yield cleared(view, components.error(str(problem)))
    except TaskStopped:
        yield cleared(view, components.STOPPED)
    except Exception as fault:
        log.error("an assessment failed: %s", describe(fault))
        yield cleared(view, components.error(components.FAILED))


def _as_updates(view: AssessView, task: BackgroundTask[Report], first: bool) -> Generator[Updates]:
    """The reports of an assessment as updates of the page."""
    begun = False  # the figures are on the page
    for report in task:
        if isinstance(report, AssessedPhoto):
            if first and not report.assessment.abstained:
                yield {**no_pieces(view), view.result: components.first_question(ready=True), view.answer: report}
            else:
                yield filled(view, report, begun)
        elif isinstance(report, PartialAnswer):
            if first:
                if not begun:
                    yield {view.result: components.first_question(ready=False), view.answer: None}
            else:
                yield growing(view, report.answer, begun)
            begun = True
        elif not begun:
            yield {view.result: components.running(report.what), view.answer: None}


def on_end(
    assessor: Assessor, view: AssessView, entries: Entries | None, answer: AssessedPhoto | None, *form: Any
) -> Updates:
    """Frees the button, and marks the answer if the entries changed while it was made; arguments as of `on_entries`."""
    idle = {view.button: gr.update(interactive=True), view.stop: gr.update(visible=False)}
    return {**idle, **on_entries(assessor, view, entries, answer, *form)}


def on_entries(
    assessor: Assessor, view: AssessView, entries: Entries | None, answer: AssessedPhoto | None, *form: Any
) -> Updates:
    """Marks the answer as made for other entries than those now in the form, and says for which.

    Args:
        entries: at the last Assess; what the answer on display was made with counts first, where it is kept.
        answer: on display, or None.
        form: `AssessView.form` as it is now.
    """
    age, sex, site, adapter, kind, other_kind = form
    made = entries if answer is None else entries_of(answer, adapter is not None)
    if made is None:  # nothing was assessed, and the page shows no mark; or an answer is older than what is kept
        return {view.outdated: gr.update(visible=True), view.outdated_note: components.outdated("")}
    kinds = (GIVEN.get(kind), None if made.other is None else GIVEN.get(other_kind))
    now = replace(made, age=age or "", sex=sex, site=site, adapter=adapter, kinds=kinds)
    if made.same_but_photos(now) or made.context is None:
        return unmarked(view)
    names = {weights: name for name, weights in adapters(assessor)}
    model = names.get(made.adapter or "", "") if now.adapter != made.adapter else ""
    said = [describe_kinds(made)] if now.kinds != made.kinds else []
    note = components.outdated(", ".join([describe_context(made.context), *said]), model)
    return {view.outdated: gr.update(visible=True), view.outdated_note: note}
