"""The tab in which a photo is assessed.

`build` lays it out and wires it. The handlers below it are plain functions: they take the tab's components (`View`)
and plain values, and return a dict keyed by component. What a visitor has on the page is kept in memory, for that
visitor alone and for half an hour; an uploaded file is read and deleted at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder

from skinclip.core.assessment import Assessment, Context
from skinclip.core.paths import EXAMPLES
from skinclip.core.vocabulary import SEXES, SITES
from skinclip.imaging.overlay import DRAWN_SIDE, heatmap_overlay, region_overlay
from skinclip.imaging.photo import MAX_FILE_MB, LesionImage, PhotoError, fit, load_photo, photo_quality
from skinclip.model.adapters.card import card_name
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components
from skinclip.ui.background_task import Run, Runs, Stopped
from skinclip.ui.tabs import change_panel, opinion_panel
from skinclip.ui.tabs.change_panel import Panel
from skinclip.ui.tabs.opinion_panel import OpinionPanel

# Extensions too: browsers do not know the type of HEIC and TIFF files everywhere.
FILE_TYPES = ["image", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif"]
ADD, ADD_OTHER = "Photo of the lesion", "Another photo"
ALL = "all"
NOT_GIVEN = "not given"
SHOWN_SIDE = 1100  # px, longer side of the pictures on the page at most
PREVIEW_SIDE = 640  # px
KEPT_SECONDS = 1800  # how long a visitor's photo stays in memory after its last use

Updates = dict[Any, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """What is on the page: `pixels` [H, W, 3] and `heat` [H, W] at the size shown; no heat after an abstention."""

    assessment: Assessment
    pixels: np.ndarray
    heat: np.ndarray | None


@dataclass(frozen=True)
class Step:
    """How far an assessment is: a share (0-1) and what is being done."""

    share: float
    what: str


News = Step | Assessment | Shown  # of an assessment: a step, what is there of the answer, in the end all of it


@dataclass(frozen=True)
class View:
    """The tab's components, and its two pieces of state: the photo file's bytes, and what is shown."""

    drop: gr.File
    preview: gr.HTML
    age: gr.Textbox
    sex: gr.Dropdown
    site: gr.Dropdown
    adapter: gr.Dropdown
    button: gr.Button
    stop: gr.Button
    result: gr.HTML
    finding: gr.Radio
    figures: gr.HTML
    download: gr.HTML
    panel: Panel
    opinion: OpinionPanel | None  # None where the model has no vision tower of Qwen's
    photo: gr.State
    shown: gr.State

    @property
    def answer(self) -> list[Any]:
        """What an assessment fills."""
        opinion = [] if self.opinion is None else self.opinion.all
        return [self.result, self.finding, self.figures, self.download, *self.panel.all, *opinion, self.shown]


def build(assessor: Assessor) -> View:
    """Lays out the tab inside the current Blocks and wires its events."""
    with gr.Row(equal_height=False, elem_classes="sk-page"):
        with gr.Column(scale=3, min_width=300, elem_classes="sk-form"):
            drop = gr.File(label=ADD, file_types=FILE_TYPES, height=150, elem_id="photo")
            preview = gr.HTML(components.FORMATS, elem_id="preview")
            gr.HTML(components.PATIENT_HEADING, elem_classes="sk-tight")
            with gr.Row(elem_classes="sk-pair"):
                age = gr.Textbox(label="Age", placeholder="years", max_lines=1, min_width=110, elem_id="age")
                sex = gr.Dropdown([NOT_GIVEN, *SEXES], value=NOT_GIVEN, label="Sex", min_width=110)
            site = gr.Dropdown([NOT_GIVEN, *SITES], value=NOT_GIVEN, label="Body site")
            offered = adapters(assessor)
            adapter = gr.Dropdown(
                offered,
                value=assessor.model_info.weights_sha256 if offered else None,
                label="Model",
                visible=len(offered) > 1,
                elem_id="adapter",
            )
            button = gr.Button("Assess", variant="primary", size="lg", elem_id="assess")
            stop = gr.Button("Stop", visible=False, elem_id="stop")
            examples = _example_buttons()
        with gr.Column(scale=8, min_width=320):
            result = gr.HTML(components.EMPTY, elem_id="result", min_height=140)
            finding = gr.Radio([("All findings", ALL)], label="Show on the photo", visible=False, elem_id="finding")
            figures = gr.HTML(visible=False, elem_id="figures")
            download = gr.HTML(visible=False, elem_id="download")
            panel = change_panel.build()
            opinion = opinion_panel.build() if assessor.config.reasoner.own_vision else None
    photo, shown = gr.State(None, time_to_live=KEPT_SECONDS), gr.State(None, time_to_live=KEPT_SECONDS)
    form = (drop, preview, age, sex, site, adapter, button, stop)
    view = View(*form, result, finding, figures, download, panel, opinion, photo, shown)
    _wire(assessor, view, examples)
    return view


def _example_buttons() -> list[tuple[gr.Button, Path]]:
    files = _example_files()
    if not files:
        return []
    gr.HTML(components.EXAMPLES_HEADING, elem_classes="sk-tight")
    with gr.Row(elem_classes="sk-examples"):
        return [(gr.Button(example_name(f), size="sm", min_width=60, elem_id=f.stem), f) for f in files]


def example_css() -> str:
    """The example photos on their buttons. As part of the style sheet: a file in the cache could be deleted when a
    visitor uploads the same photo."""
    return "\n".join(
        f"#{f.stem}::before {{ background-image: url({components.data_url(_thumbnail(f))}); }}"
        for f in _example_files()
    )


def _thumbnail(file: Path) -> np.ndarray:
    return fit(load_photo(file).pixels, 160)


def _example_files() -> list[Path]:
    return sorted(EXAMPLES.glob("synthetic_*.jpg"))


def _wire(assessor: Assessor, view: View, examples: list[tuple[gr.Button, Path]]) -> None:
    # "private" keeps the handlers out of the page's API; preprocess=False leaves the uploaded file as it came
    view.drop.upload(
        partial(on_upload, view),
        view.drop,
        [view.drop, view.preview, view.photo, *view.answer],
        preprocess=False,
        api_visibility="private",
        show_progress_on=view.preview,
    )
    for button, file in examples:
        button.click(
            partial(on_example, view, file),
            None,
            [view.drop, view.preview, view.photo, *view.answer],
            api_visibility="private",
            show_progress="hidden",
        )
    _wire_assessment(assessor, view)
    view.finding.input(
        partial(on_choice, view),
        [view.finding, view.shown],
        [view.figures],
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )
    change_panel.wire(assessor, view.panel, view.photo, view.shown)
    if view.opinion is not None:
        opinion_panel.wire(assessor, view.opinion, view.photo, view.shown)


def _wire_assessment(assessor: Assessor, view: View) -> None:
    runs = Runs()
    lengthy = assessor.config.reasoner.base is not None  # billions of parameters take long enough to change one's mind

    # Gradio gives the request to functions alone that ask for it by their annotation
    def run(
        photo: bytes | None,
        age: str | None,
        sex: str | None,
        site: str | None,
        adapter: str | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio finds it by its default
    ) -> Generator[Updates]:
        visitor = request.session_hash
        try:
            begin = partial(runs.begin, visitor)
            yield from on_assess(assessor, view, photo, age, sex, site, adapter, progress, begin)
        finally:
            runs.end(visitor)

    def stop(request: gr.Request) -> None:
        runs.stop(request.session_hash)

    begun = {view.button: gr.update(interactive=False), view.stop: gr.update(visible=lengthy)}
    ended = {view.button: gr.update(interactive=True), view.stop: gr.update(visible=False)}
    buttons = [view.button, view.stop]
    view.button.click(lambda: begun, None, buttons, api_visibility="private", queue=False).then(
        run,
        [view.photo, view.age, view.sex, view.site, view.adapter],
        view.answer,
        concurrency_id="model",
        concurrency_limit=1,
        api_visibility="private",
        show_progress_on=view.result,
    ).then(lambda: ended, None, buttons, api_visibility="private", queue=False)
    view.stop.click(stop, None, None, api_visibility="private", queue=False)


# --- handlers -----------------------------------------------------------------------------------------------------


def on_upload(view: View, upload: dict[str, Any] | None) -> Updates:
    """An uploaded, dropped or pasted file: read, deleted from disk, shown."""
    if upload is None:
        return {}
    try:
        data = read_and_delete(Path(upload["path"]))
        updates = _take(view, data)
    except PhotoError as problem:
        # the photo before it must not be assessed by mistake
        refusal = components.error(str(problem), "This photo cannot be used")
        updates = {view.preview: refusal, view.photo: None, **_cleared(view, components.EMPTY)}
    return {**_emptied(view), **updates}


def on_example(view: View, file: Path) -> Updates:
    updates = _take(view, file.read_bytes(), f"Synthetic example: {example_name(file).lower()}")
    return {**_emptied(view), **updates}


def on_assess(
    assessor: Assessor,
    view: View,
    photo: bytes | None,
    age: str | None,
    sex: str | None,
    site: str | None,
    adapter: str | None,
    progress: Callable[..., Any],
    begin: Callable[[Run], None] = lambda run: None,
) -> Generator[Updates]:
    """Runs the model on the photo and shows its answer as it comes. Whatever goes wrong, the form keeps its entries.

    Args:
        adapter: `weights_sha256` of the checkpoint to use; None is the one in force.
        progress: a `gr.Progress`.
        begin: given the run before it starts, so that it can be stopped.
    """
    if photo is None:
        message = "Drop a photo on this page, paste it, or choose a file. Then press Assess."
        yield _cleared(view, components.error(message, "There is no photo yet"))
        return
    about: dict[str, Any] = {}  # what the page says of the model, as it was when it answered

    def answer(tell: Callable[[News], None]) -> Shown:
        with assessor.using(adapter):
            about.update(sensitivity=_sensitivity(assessor), made_by=_made_by(assessor))
            return assess_photo(assessor, image, context, lambda share, what: tell(Step(share, what)), tell)

    try:
        image, context = load_photo(photo), context_of(age, sex, site)
        run = Run[News](answer)
        begin(run)
        written = False
        for news in run:
            if isinstance(news, Shown):
                yield _filled(view, news, about)
            elif isinstance(news, Assessment):
                written = True
                # what stands below stays until the end, dimmed: the page would jump twice
                yield {view.result: components.result(news, **about, writing=True), view.shown: None}
            elif not written:  # from then on the answer itself says how far it is
                progress(news.share, desc=news.what)
    except (PhotoError, CheckpointError) as problem:
        yield _cleared(view, components.error(str(problem)))
    except Stopped:
        yield _cleared(view, components.STOPPED)
    except Exception:
        log.exception("an assessment failed")
        yield _cleared(view, components.error(components.FAILED))


def _filled(view: View, shown: Shown, about: dict[str, Any]) -> Updates:
    """The whole answer on the page."""
    options = choices(shown.assessment)
    return {
        view.result: components.result(shown.assessment, **about),
        view.finding: gr.update(choices=options, value=ALL, visible=len(options) > 1),
        view.figures: gr.update(value=pictures(shown), visible=True),
        view.download: gr.update(value=components.downloads(shown.assessment, shown.pixels), visible=True),
        **change_panel.fresh(view.panel, shown.assessment),
        **opinion_panel.fresh(view.opinion, shown.assessment),
        view.shown: shown,
    }


def on_choice(view: View, choice: str, shown: Shown | None) -> Updates:
    """Shows the region of one finding, or of all."""
    return {} if shown is None else {view.figures: pictures(shown, choice)}


def _emptied(view: View) -> Updates:
    """The upload field free for another photo, and smaller."""
    return {view.drop: gr.update(value=None, label=ADD_OTHER, height=64)}


def _take(view: View, data: bytes, label: str = "") -> Updates:
    """A new photo on the page; what was said about the one before goes. Raises PhotoError."""
    image = load_photo(data)
    small = fit(image.pixels, PREVIEW_SIDE)
    preview = components.preview(small, image.width, image.height, photo_quality(image), label)
    return {view.preview: preview, view.photo: data, **_cleared(view, components.READY)}


def _cleared(view: View, message: str) -> Updates:
    return {
        view.result: message,
        view.finding: gr.update(choices=[("All findings", ALL)], value=ALL, visible=False),
        view.figures: gr.update(value="", visible=False),
        view.download: gr.update(value="", visible=False),
        **change_panel.hidden(view.panel),
        **opinion_panel.hidden(view.opinion),
        view.shown: None,
    }


# --- what the handlers are made of --------------------------------------------------------------------------------


def read_and_delete(path: Path) -> bytes:
    """The bytes of an uploaded file, which is then gone from disk, its folder too. Raises PhotoError.

    Only files in the upload folder are touched, whatever path a request names.
    """
    folder = Path(get_upload_folder()).resolve()
    path = path.resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise PhotoError("The upload is no longer there. Add the photo again.")
    try:
        if path.stat().st_size > MAX_FILE_MB * 1_000_000:
            raise PhotoError(f"The file is larger than {MAX_FILE_MB} MB. Save it smaller, for example as JPEG.")
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)
        if path.parent != folder and not any(path.parent.iterdir()):
            path.parent.rmdir()


def context_of(age: str | None, sex: str | None, site: str | None) -> Context:
    """Raises PhotoError for an age that no patient has."""
    years: float | None = None
    if age and age.strip():
        try:
            years = float(age.strip().replace(",", "."))
        except ValueError:
            years = -1.0
        if not 0 <= years <= 120:
            raise PhotoError("The age must be a number of years from 0 to 120. Correct it or leave it empty.")
    return Context(years, None if sex == NOT_GIVEN else sex, None if site == NOT_GIVEN else site)


def assess_photo(
    assessor: Assessor,
    image: LesionImage,
    context: Context,
    tell: Callable[[float, str], None],
    on_partial: Callable[[Assessment], None] | None = None,
) -> Shown:
    """The photo -> everything the page shows; `on_partial` as in `Assessor.assess`."""
    assessment = assessor.assess(image, context, lambda share, what: tell(0.8 * share, what), on_partial)
    pixels, heat = fit(image.pixels, SHOWN_SIDE, DRAWN_SIDE), None
    if not assessment.abstained:  # there is no diagnosis that a map could explain
        tell(0.85, "Drawing the Grad-CAM map")
        whole = assessor.heat_on_photo(image, context, assessment.diagnosis[0].code)
        heat = cv2.resize(whole, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_LINEAR)
    return Shown(assessment, pixels, heat)


def warm_up(assessor: Assessor) -> None:
    """Takes a synthetic photo the whole way, so that whatever is set up at first use is ready for the first visitor."""
    shown = assess_photo(assessor, load_photo(_example_files()[0]), Context(), lambda share, what: None)
    pictures(shown)
    components.downloads(shown.assessment, shown.pixels)


def pictures(shown: Shown, choice: str = ALL) -> str:
    """The two pictures as HTML; `choice` is a reference ("r1") or ALL."""
    only = None if choice == ALL else choice
    if shown.assessment.abstained:
        return components.figures(shown.assessment, region_overlay(shown.pixels, shown.assessment, "none"), None)
    regions = region_overlay(shown.pixels, shown.assessment, only)
    heat = None if shown.heat is None else heatmap_overlay(shown.pixels, shown.heat)
    return components.figures(shown.assessment, regions, heat, only)


def choices(assessment: Assessment) -> list[tuple[str, str]]:
    """(label, reference) of each finding, ALL first; only ALL where the model abstained."""
    findings = () if assessment.abstained else assessment.findings
    return [("All findings", ALL), *((f"{f.ref[1:]} {components.phrase(f)}", f.ref) for f in findings)]


def example_name(file: Path) -> str:
    """`synthetic_nevus.jpg` -> "Nevus"."""
    return file.stem.removeprefix("synthetic_").replace("_", " ").capitalize()


def _sensitivity(assessor: Assessor) -> float | None:
    value = assessor.calibrator.referral.sensitivity
    return value if np.isfinite(value) else None


def adapters(assessor: Assessor) -> list[tuple[str, str]]:
    """(name, weights_sha256) of each checkpoint on offer; a name that several share gets its folder's beside it."""
    names = {weights: card_name(folder) for weights, folder in assessor.checkpoints.items()}
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    return [
        (f"{name} ({assessor.checkpoints[weights].name})" if name in shared else name, weights)
        for weights, name in names.items()
    ]


def _made_by(assessor: Assessor) -> str | None:
    """The name of the checkpoint in force, where there are several."""
    names = {weights: name for name, weights in adapters(assessor)}
    return names.get(assessor.model_info.weights_sha256) if len(names) > 1 else None
