"""The field that takes a photo: uploads, refusals, and the synthetic examples.

The browser sends a file to `guard.uploads` and hands over the name it got for it (`assets/page.js`).
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import numpy as np

from skinclip.core.paths import EXAMPLES
from skinclip.imaging.photo import MAX_FILE_MB, PhotoError, fit, load_photo
from skinclip.ui import components
from skinclip.ui.guard.uploads import UploadStore
from skinclip.ui.guard.visitors import COOKIE

# Refusals that happen in the browser, before a file reaches the program; the keys are those of `assets/page.js`.
REFUSALS = {
    "size": f"The file is larger than {MAX_FILE_MB} MB. Save it smaller, for example as JPEG.",
    "several": "Several files were added at once. Add one photo of one lesion; another of the same lesion has a place "
    "of its own below it.",
    "folder": "This is a folder. Open it and add one photo.",
    "busy": "Too many photos are arriving at this moment. Wait a few seconds and add it again.",
    "upload": "The photo did not reach the program. Check the connection and add it again.",
}


def refusal_words(code: str | None) -> str:
    """Words for a refusal that the browser reports as CODE:NUMBER; an unknown code reads as a failed upload."""
    return REFUSALS.get((code or "").partition(":")[0], REFUSALS["upload"])


def uploaded_bytes(uploads: UploadStore, request: gr.Request, name: str | None) -> bytes:
    """The visitor's uploaded file, which the server then forgets. Raises PhotoError where it is no longer there."""
    data = uploads.take(request.cookies.get(COOKIE), name or "")
    if data is None:
        raise PhotoError("The upload is no longer there. Add the photo again.")
    return data


def build_example_buttons() -> list[tuple[gr.Button, Path]]:
    """One button for each synthetic example."""
    files = example_files()
    if not files:
        return []
    gr.HTML(components.EXAMPLES_HEADING, elem_classes="sk-tight")
    with gr.Row(elem_classes="sk-examples"):
        return [(gr.Button(example_name(f), size="sm", min_width=60, elem_id=f.stem), f) for f in files]


def example_css() -> str:
    """Style sheet rules that put each example photo on its button.

    A file in the cache could be deleted when a visitor uploads the same photo; the style sheet cannot.
    """
    return "\n".join(
        f"#{f.stem}::before {{ background-image: url({components.data_url(_thumbnail(f))}); }}" for f in example_files()
    )


def _thumbnail(file: Path) -> np.ndarray:
    return fit(load_photo(file).pixels, 160)


def example_files() -> list[Path]:
    """The synthetic examples that come with the program."""
    return sorted(EXAMPLES.glob("synthetic_*.jpg"))


def example_name(file: Path) -> str:
    """Name on the button: `synthetic_nevus.jpg` -> "Nevus"."""
    return file.stem.removeprefix("synthetic_").replace("_", " ").capitalize()
