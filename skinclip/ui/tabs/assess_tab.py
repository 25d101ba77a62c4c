"""Assess tab: a photo and what is known of the patient go in, the answer comes out.

`build` lays the tab out and wires it. The handlers below it are plain functions: they take the tab's components
(`AssessView`) and plain values, and return a dict keyed by component. A visitor's photo and answer are kept in memory,
for that visitor alone and for half an hour; nothing of it is written to disk.

An answer belongs to one photo. Adding another photo stops the assessment that is running and clears the answer; an
answer that is late is dropped, on the server (`TaskSuperseded`) and in the browser (`assets/page.js`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from skinclip.core.assessment import Assessment
from skinclip.core.vocabulary import SEXES, SITES
from skinclip.imaging.bounded import load_photo_bounded
from skinclip.imaging.photo import PhotoError, fit, photo_quality
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components
from skinclip.ui.answer import ALL, adapters, assess_photo, choices, made_by, pictures
from skinclip.ui.background_task import BackgroundTask, TasksByVisitor, TaskStopped, TaskSuperseded
from skinclip.ui.guard.quiet_log import describe
from skinclip.ui.page import ModelPage
from skinclip.ui.state import NOT_GIVEN, AssessedPhoto, Entries, context_of, describe_context, entries_of, photo_hash
from skinclip.ui.tabs import change_panel, opinion_panel
from skinclip.ui.tabs.change_panel import ChangePanel
from skinclip.ui.tabs.opinion_panel import OpinionPanel
from skinclip.ui.tabs.photo_field import (
    ADD,
    ADD_OTHER,
    build_example_buttons,
    example_name,
    refusal_words,
    uploaded_bytes,
)

PREVIEW_SIDE = 640  # px

Updates = dict[Any, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Progress of an assessment: the share done (0-1) and the step in words."""

    share: float
    what: str


Report = Progress | Assessment | AssessedPhoto  # a step, then the answer as far as it is written, then the whole answer


@dataclass(frozen=True)
class AssessView:
    """The tab's components, and its state: the photo file's bytes, the entries at the last Assess, and the answer."""

    drop: gr.HTML
    uploaded: gr.Textbox  # unseen; the browser hands over here the name of a file that it has sent
    refusal: gr.Textbox  # unseen; the browser reports here what it refuses
    preview: gr.HTML
    age: gr.Textbox
    sex: gr.Dropdown
    site: gr.Dropdown
    adapter: gr.Dropdown
    button: gr.Button
    stop: gr.Button
    outdated: gr.Column
    outdated_note: gr.HTML
    update: gr.Button
    result: gr.HTML
    finding: gr.Radio
    figures: gr.HTML
    download: gr.HTML
    panel: ChangePanel
    opinion: OpinionPanel | None  # None where the model has no vision tower of Qwen's
    photo: gr.State
    entries: gr.State
    answer: gr.State

    @property
    def form(self) -> list[Any]:
        """The entries that an answer depends on, besides the photo."""
        return [self.age, self.sex, self.site, self.adapter]

    @property
    def outputs(self) -> list[Any]:
        """Components that an assessment fills."""
        opinion = [] if self.opinion is None else self.opinion.all
        mark = [self.outdated, self.outdated_note]
        pictures = [self.result, self.finding, self.figures, self.download]
        return [*mark, *pictures, *self.panel.all, *opinion, self.entries, self.answer]

    @property
    def photo_outputs(self) -> list[Any]:
        """Components that a new photo fills or clears."""
        return [self.drop, self.preview, self.photo, self.button, self.stop, *self.outputs]


def build(page: ModelPage, tab: gr.Tab) -> AssessView:
    """Lays out the tab inside the current Blocks and wires its events."""
    assessor = page.assessor
    with gr.Row(equal_height=False, elem_classes="sk-page"):
        with gr.Column(scale=3, min_width=300, elem_classes="sk-form"):
            drop = gr.HTML(components.file_field(ADD, False), elem_id="photo")
            uploaded = gr.Textbox(visible="hidden", elem_id="uploaded", label="uploaded")
            refusal = gr.Textbox(visible="hidden", elem_id="refusal", label="refusal")
            preview = gr.HTML(components.FORMATS, elem_id="preview")
            form = _build_form(assessor)
            button = gr.Button("Assess", variant="primary", size="lg", elem_id="assess")
            stop = gr.Button("Stop", visible=False, elem_id="stop")
            examples = build_example_buttons()
        with gr.Column(scale=8, min_width=320):
            with gr.Column(visible=False, elem_id="outdated") as outdated:
                note = gr.HTML(elem_id="outdated-note")
                update = gr.Button("Update the answer", size="md", elem_id="update")
            result = gr.HTML(components.EMPTY, elem_id="result", min_height=140)
            finding = gr.Radio([("All findings", ALL)], label="Show on the photo", visible=False, elem_id="finding")
            figures = gr.HTML(visible=False, elem_id="figures")
            download = gr.HTML(visible=False, elem_id="download")
            panel = change_panel.build()
            opinion = opinion_panel.build() if assessor.config.reasoner.own_vision else None
    view = AssessView(
        drop, uploaded, refusal, preview, *form, button, stop, outdated, note, update, result, finding, figures,
        download, panel, opinion, page.photo, page.entries, page.answer,
    )  # fmt: skip
    _wire(page, view, examples)
    return view


def _build_form(assessor: Assessor) -> tuple[gr.Textbox, gr.Dropdown, gr.Dropdown, gr.Dropdown]:
    """Age, sex, body site, and the model where there are several."""
    gr.HTML(components.PATIENT_HEADING, elem_classes="sk-tight")
    with gr.Row(elem_classes="sk-pair"):
        age = gr.Textbox(label="Age", placeholder="years", max_lines=1, min_width=110, elem_id="age")
        sex = gr.Dropdown([NOT_GIVEN, *SEXES], value=NOT_GIVEN, label="Sex", min_width=110, elem_id="sex")
    site = gr.Dropdown([NOT_GIVEN, *SITES], value=NOT_GIVEN, label="Body site", elem_id="site")
    offered = adapters(assessor)
    chosen = assessor.model_info.weights_sha256 if offered else None
    adapter = gr.Dropdown(offered, value=chosen, label="Model", visible=len(offered) > 1, elem_id="adapter")
    return age, sex, site, adapter


def _wire(page: ModelPage, view: AssessView, examples: list[tuple[gr.Button, Path]]) -> None:
    running = _wire_assessment(page.assessor, view, page.tasks)
    dependent = [
        view.finding.input(
            partial(on_choice, view),
            [view.finding, view.answer],
            [view.figures],
            api_visibility="private",
            show_progress="hidden",
            trigger_mode="always_last",
        ),
        *change_panel.wire(page, view.panel),
    ]
    if view.opinion is not None:
        dependent.append(opinion_panel.wire(page, view.opinion))
    page.answer_events.extend(dependent)
    page.photo_events.extend([view.uploaded.change, view.refusal.change, *(button.click for button, _ in examples)])
    _wire_photo(page, view, examples, running)
    for field in view.form:
        field.change(  # not input, which a pasted or filled-in value does not fire
            partial(on_entries, page.assessor, view),
            [view.entries, *view.form, view.answer],
            [view.outdated, view.outdated_note],
            api_visibility="private",
            show_progress="hidden",
            queue=False,
            trigger_mode="always_last",
        )


def _wire_photo(page: ModelPage, view: AssessView, examples: list[tuple[gr.Button, Path]], cancels: list[Any]) -> None:
    """A new photo, by whichever way, ends everything that runs for the one before."""
    tasks = page.tasks

    def replacing(handler: Callable[[Any, gr.Request], Updates]) -> Callable[..., Updates]:
        # Gradio gives the request to functions alone that ask for it by their annotation
        def handle(value: Any, request: gr.Request) -> Updates:
            tasks.stop(request.session_hash, superseded=True)
            return handler(value, request)

        return handle

    def upload(name: str | None, request: gr.Request) -> Updates:
        return on_upload(view, lambda: uploaded_bytes(page.uploads, request, name))

    def example(file: Path) -> Callable[[Any, gr.Request], Updates]:
        return lambda _, __: on_example(view, file)

    # "private" keeps the handlers out of the page's API
    view.uploaded.change(
        replacing(upload),
        view.uploaded,
        view.photo_outputs,
        queue=False,  # a photo waits for nobody's assessment
        api_visibility="private",
        show_progress_on=view.preview,
        cancels=cancels,
    )
    view.refusal.change(
        replacing(lambda code, _: on_refusal(view, code)),
        view.refusal,
        view.photo_outputs,
        api_visibility="private",
        show_progress="hidden",
        cancels=cancels,
    )
    for button, file in examples:
        button.click(
            replacing(example(file)),
            view.refusal,
            view.photo_outputs,
            api_visibility="private",
            show_progress="hidden",
            cancels=cancels,
        )


def _wire_assessment(assessor: Assessor, view: AssessView, tasks: TasksByVisitor) -> list[Any]:
    """Wires an assessment, from the press of the button to its end; returns the events that a new photo cancels."""
    lengthy = assessor.config.reasoner.base is not None  # billions of parameters take long enough to change one's mind

    def run(
        photo: bytes | None,
        entries: Entries | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds it by its default
    ) -> Generator[Updates]:
        with tasks.of(request.session_hash) as begin:
            yield from on_assess(assessor, view, photo, entries, progress, begin)

    def stop(request: gr.Request) -> None:
        tasks.stop(request.session_hash)

    pressed = gr.on(
        [view.button.click, view.update.click],
        partial(on_press, view, lengthy),
        [view.photo, *view.form],
        [view.entries, view.button, view.stop],
        api_visibility="private",
        queue=False,
        show_progress="hidden",
    )
    ran = pressed.then(
        run,
        [view.photo, view.entries],
        view.outputs,
        concurrency_id="model",
        concurrency_limit=1,
        api_visibility="private",
        show_progress_on=view.result,
    )
    ran.then(
        partial(on_end, assessor, view),
        [view.entries, *view.form, view.answer],
        [view.button, view.stop, view.outdated, view.outdated_note],
        api_visibility="private",
        queue=False,
        show_progress="hidden",
    )
    view.stop.click(stop, None, None, api_visibility="private", queue=False, show_progress="hidden")
    return [ran]


# --- handlers: the photo ------------------------------------------------------------------------------------------


def on_upload(view: AssessView, take: Callable[[], bytes]) -> Updates:
    """Takes a chosen, dropped or pasted file: displayed, or refused in words.

    Args:
        take: gives the file's bytes. Raises PhotoError where they are gone.
    """
    try:
        updates = _take_photo(view, take())
    except PhotoError as problem:
        return _refused(view, str(problem))
    return {**_emptied(view), **updates}


def on_refusal(view: AssessView, code: str | None) -> Updates:
    """Says what the browser refused, and clears the photo and answer before it."""
    return _refused(view, refusal_words(code))


def on_example(view: AssessView, file: Path) -> Updates:
    """Takes one of the synthetic examples."""
    updates = _take_photo(view, file.read_bytes(), f"Synthetic example: {example_name(file).lower()}")
    return {**_emptied(view), **updates}


def _refused(view: AssessView, words: str) -> Updates:
    """The photo before a refused one must not be assessed, or its answer read, by mistake."""
    refusal = components.error(words, "This photo cannot be used")
    return {**_emptied(view), view.preview: refusal, view.photo: None, **_cleared(view, components.EMPTY)}


def _emptied(view: AssessView) -> Updates:
    """The upload field free for another photo, and smaller; nothing runs any more."""
    idle = {view.button: gr.update(interactive=True), view.stop: gr.update(visible=False)}
    return {view.drop: components.file_field(ADD_OTHER, True), **idle}


def _take_photo(view: AssessView, data: bytes, label: str = "") -> Updates:
    """Puts a new photo on the page and clears the answer to the one before. Raises PhotoError."""
    image = load_photo_bounded(data)
    preview = components.preview(fit(image.pixels, PREVIEW_SIDE), image, photo_quality(image), label)
    return {view.preview: preview, view.photo: data, **_cleared(view, components.READY)}


# --- handlers: the assessment -------------------------------------------------------------------------------------


def on_press(
    view: AssessView, lengthy: bool, photo: bytes | None, age: str, sex: str, site: str, adapter: str | None
) -> Updates:
    """Keeps the entries that the answer will be made with. `lengthy`: offer to stop."""
    entries = None if photo is None else Entries(photo_hash(photo), age or "", sex, site, adapter)
    return {
        view.entries: entries,
        view.button: gr.update(interactive=False),
        view.stop: gr.update(visible=lengthy),
    }


def on_assess(
    assessor: Assessor,
    view: AssessView,
    photo: bytes | None,
    entries: Entries | None,
    progress: Callable[..., Any],
    begin: Callable[[BackgroundTask], None] = lambda task: None,
) -> Generator[Updates]:
    """Runs the model on the photo and yields its answer as it is written. On any failure the form keeps its entries.

    Yields `gr.skip()` once the photo has been replaced.

    Args:
        entries: as they were when Assess was pressed.
        progress: a `gr.Progress`.
        begin: called with the task before it starts, so that it can be stopped.
    """
    if photo is None:
        message = "Add a photo, then press Assess. A photo is kept for half an hour; after that, add it again."
        yield _cleared(view, components.error(message, "There is no photo yet"))
        return
    if entries is None or entries.photo != photo_hash(photo):
        yield gr.skip()  # another photo came while this assessment waited for its turn
        return
    try:
        context = context_of(entries.age, entries.sex, entries.site)
    except PhotoError as problem:
        yield _cleared(view, components.error(str(problem), "An entry cannot be used"))
        return
    about: dict[str, Any] = {}  # how the page describes the model in use, filled when it answers

    def work(report: Callable[[Report], None]) -> AssessedPhoto:
        with assessor.using(entries.adapter):
            about.update(made_by=made_by(assessor))
            return assess_photo(assessor, photo, context, lambda share, what: report(Progress(share, what)), report)

    try:
        task = BackgroundTask[Report](work)
        begin(task)
        yield from _as_updates(view, task, about, progress)
    except TaskSuperseded:
        yield gr.skip()  # not nothing: Gradio would repeat the last update, or empty every output
    except (PhotoError, CheckpointError) as problem:
        yield _cleared(view, components.error(str(problem)))
    except TaskStopped:
        yield _cleared(view, components.STOPPED)
    except Exception as fault:
        log.error("an assessment failed: %s", describe(fault))
        yield _cleared(view, components.error(components.FAILED))


def _as_updates(
    view: AssessView, task: BackgroundTask[Report], about: dict[str, Any], progress: Callable[..., Any]
) -> Generator[Updates]:
    """The reports of an assessment as updates of the page."""
    writing = False
    for report in task:
        if isinstance(report, AssessedPhoto):
            yield _filled(view, report, about)
        elif isinstance(report, Assessment):
            # what stands below the text stays until the end, dimmed: the page would jump twice
            partial_answer = {view.result: components.result(report, **about, writing=True), view.answer: None}
            yield partial_answer if writing else {**partial_answer, **_unmarked(view)}
            writing = True
        elif not writing:  # from then on the text itself shows the progress
            progress(report.share, desc=report.what)


def on_end(assessor: Assessor, view: AssessView, entries: Entries | None, *form: Any) -> Updates:
    """Frees the button, and marks the answer if the entries changed while it was made.

    Args:
        form: as of `on_entries`.
    """
    idle = {view.button: gr.update(interactive=True), view.stop: gr.update(visible=False)}
    return {**idle, **on_entries(assessor, view, entries, *form)}


def on_entries(assessor: Assessor, view: AssessView, entries: Entries | None, *form: Any) -> Updates:
    """Marks the answer as made for other entries than those now in the form, and says for which.

    Args:
        entries: at the last Assess; what the answer on display was made with counts first, where it is kept.
        form: age, sex, site and model as they are now, then the `AssessedPhoto` on display or None.
    """
    age, sex, site, adapter, answer = form
    made = entries if answer is None else entries_of(answer.assessment, adapter is not None)
    if made is None:  # nothing was assessed, and the page shows no mark; or an answer is older than what is kept
        return {view.outdated: gr.update(visible=True), view.outdated_note: components.outdated("")}
    now = Entries(made.photo, age or "", sex, site, adapter)
    if made.same_patient_and_model(now) or made.context is None:
        return _unmarked(view)
    names = {weights: name for name, weights in adapters(assessor)}
    model = names.get(made.adapter or "", "") if now.adapter != made.adapter else ""
    note = components.outdated(describe_context(made.context), model)
    return {view.outdated: gr.update(visible=True), view.outdated_note: note}


def _unmarked(view: AssessView) -> Updates:
    return {view.outdated: gr.update(visible=False), view.outdated_note: ""}


def _filled(view: AssessView, answer: AssessedPhoto, about: dict[str, Any]) -> Updates:
    """The whole answer on the page."""
    options = choices(answer.assessment)
    return {
        **_unmarked(view),
        view.result: components.result(answer.assessment, **about),
        view.finding: gr.update(choices=options, value=ALL, visible=len(options) > 1),
        view.figures: gr.update(value=pictures(answer), visible=True),
        view.download: gr.update(value=components.downloads(answer.assessment, answer.pixels), visible=True),
        **change_panel.fresh(view.panel, answer.assessment),
        **opinion_panel.fresh(view.opinion, answer.assessment),
        view.answer: answer,
    }


def on_choice(view: AssessView, choice: str, answer: AssessedPhoto | None) -> Updates:
    """Draws the region of one finding, or of all."""
    return gr.skip() if answer is None else {view.figures: pictures(answer, choice)}


def _cleared(view: AssessView, message: str) -> Updates:
    """A message where the answer was."""
    return {
        **_unmarked(view),
        view.result: message,
        view.finding: gr.update(choices=[("All findings", ALL)], value=ALL, visible=False),
        view.figures: gr.update(value="", visible=False),
        view.download: gr.update(value="", visible=False),
        **change_panel.hidden(view.panel),
        **opinion_panel.hidden(view.opinion),
        view.entries: None,
        view.answer: None,
    }
