"""The tab in which a photo is assessed. Handlers are plain functions of plain values; they hold no state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from skinclip import images
from skinclip.assess import Assessor
from skinclip.assessment import Assessment, Context
from skinclip.clinical import SEXES, SITES, STATE_BY_KEY
from skinclip.explain.gradcam import grad_cam
from skinclip.explain.render import heatmap_overlay, region_overlay
from skinclip.images import PhotoError
from skinclip.ui import components

EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "examples"
ALL = "All findings"
NOT_GIVEN = "not given"
SHOWN_SIDE = 900  # px, longer side of the pictures on the page


def untouched(payload: Any) -> str | None:
    """Path of the uploaded file as it came, in place of Gradio's own decoding: `images.load` does that, and says what
    is wrong with a bad file."""
    return payload.path if payload is not None else None


@dataclass
class Upload:
    """The bytes of the photo last read, so that its temporary file can be removed at once."""

    path: str
    data: bytes


@dataclass
class Shown:
    """What is on the page: kept on the server, in memory, for this visitor alone."""

    assessment: Assessment
    pixels: np.ndarray
    heat: np.ndarray


@cache
def example_photos() -> frozenset[bytes]:
    """The example files' bytes: a copy of one in Gradio's cache serves every visitor and must stay."""
    return frozenset(path.read_bytes() for path in EXAMPLES.glob("synthetic_*.jpg"))


def read_upload(path: str, upload: Upload | None) -> Upload:
    """The photo's bytes; its temporary file is removed. Raises PhotoError where nothing is left of it."""
    file = Path(path)
    if not file.is_file():
        if upload is not None and upload.path == path:
            return upload
        raise PhotoError("The upload is no longer there. Add the photo again.")
    if file.stat().st_size > images.MAX_FILE_MB * 1_000_000:
        raise PhotoError(f"The file is larger than {images.MAX_FILE_MB} MB. Save it smaller, for example as JPEG.")
    data = file.read_bytes()
    if data not in example_photos():
        file.unlink(missing_ok=True)
    return Upload(path, data)


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


def assess_photo(assessor: Assessor, data: bytes, context: Context, progress: Callable[[float, str], None]) -> Shown:
    """Photo bytes -> everything the page shows. Raises PhotoError."""
    image = images.load(data)
    assessment = assessor.assess(image, context, lambda share, what: progress(0.8 * share, what))
    progress(0.85, "Drawing the Grad-CAM map")
    heat = grad_cam(assessor, image, context)
    scale = min(1.0, SHOWN_SIDE / max(image.width, image.height))
    size = (round(image.width * scale), round(image.height * scale))
    pixels = cv2.resize(image.pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else image.pixels
    return Shown(assessment, pixels, heat)


def figures(shown: Shown, choice: str | None = None) -> str:
    only = choice.split(" ")[0] if choice and choice != ALL else None
    return components.figures(
        region_overlay(shown.pixels, shown.assessment, only), heatmap_overlay(shown.pixels, shown.heat)
    )


def choices(assessment: Assessment) -> list[str]:
    return [ALL, *(f"{f.ref} {STATE_BY_KEY[f'{f.criterion}:{f.state}'].phrase}" for f in assessment.findings)]


def build(assessor: Assessor) -> None:
    """Lays out the tab inside the current Blocks and wires its events."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            photo = gr.Image(
                label="Lesion photo",
                type="filepath",
                sources=["upload", "clipboard"],
                height=300,
                elem_id="photo",
                buttons=[],
            )
            # not a subclass: Gradio would write a stub file beside this one
            photo.preprocess = untouched  # type: ignore[method-assign]
            with gr.Row():
                age = gr.Textbox(label="Age", placeholder="years, optional", max_lines=1, min_width=120)
                sex = gr.Dropdown(label="Sex", choices=[NOT_GIVEN, *SEXES], value=NOT_GIVEN, min_width=120)
            site = gr.Dropdown(label="Body site", choices=[NOT_GIVEN, *SITES], value=NOT_GIVEN)
            button = gr.Button("Assess", variant="primary", elem_id="assess", size="lg")
            files = sorted(EXAMPLES.glob("synthetic_*.jpg"))
            if files:
                gr.Examples(
                    [[str(f)] for f in files],
                    inputs=[photo],
                    label="Synthetic examples, drawn by a program (no patient)",
                    api_visibility="private",
                )
            gr.HTML(
                '<p class="sk-note">Drop, paste or choose a photo of one lesion, centred and in focus, best taken '
                "with a dermatoscope. JPEG, PNG, WebP, BMP, TIFF or HEIC, up to 20 MB.</p>"
            )
        with gr.Column(scale=4, min_width=320):
            status = gr.HTML(components.EMPTY, elem_id="result")
            finding = gr.Radio(label="Show the region of", choices=[ALL], value=ALL, visible=False, elem_id="finding")
            pictures = gr.HTML(visible=False, elem_id="figures")
            with gr.Accordion("Machine-readable result (JSON)", open=False, visible=False) as details:
                record = gr.Code(language="json", label="Assessment", elem_id="json")
    upload_state, shown_state = gr.State(None), gr.State(None)

    def on_assess(path, age, sex, site, upload, progress=gr.Progress()):  # type: ignore[no-untyped-def]  # noqa: B008
        if not path:
            message = "Add a photo first: drop it on the field, paste it or choose a file."
            return {status: components.error(message)}
        try:
            context = context_of(age, sex, site)
            upload = read_upload(path, upload)
            shown = assess_photo(assessor, upload.data, context, lambda share, what: progress(share, desc=what))
        except PhotoError as problem:
            return {
                status: components.error(str(problem)),
                pictures: gr.update(visible=False),
                finding: gr.update(visible=False),
                details: gr.update(visible=False),
                upload_state: upload,
                shown_state: None,
            }
        options = choices(shown.assessment)
        return {
            status: components.result(shown.assessment),
            pictures: gr.update(value=figures(shown), visible=True),
            finding: gr.update(choices=options, value=ALL, visible=len(options) > 1),
            details: gr.update(visible=True),
            record: shown.assessment.to_json(),
            upload_state: upload,
            shown_state: shown,
        }

    def on_choice(choice, shown):  # type: ignore[no-untyped-def]
        return gr.update() if shown is None else figures(shown, choice)

    button.click(
        on_assess,
        inputs=[photo, age, sex, site, upload_state],
        outputs=[status, pictures, finding, details, record, upload_state, shown_state],
        concurrency_id="model",
        concurrency_limit=1,
        api_visibility="private",
        show_progress_on=[status],
    )
    finding.input(
        on_choice, inputs=[finding, shown_state], outputs=[pictures], api_visibility="private", show_progress="hidden"
    )
