"""Looks: a calm theme, the style sheet and the page's few lines of JavaScript.

Nothing is fetched from elsewhere: the fonts are the ones that come with Gradio and are served by the page itself.
"""

from __future__ import annotations

import gradio as gr

from skinclip.core.paths import ASSETS


def theme() -> gr.themes.Base:
    """Teal for what can be done, slate for everything else."""
    fonts: list[gr.themes.Font | str] = [
        gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)),
        "system-ui",
        "sans-serif",
    ]
    mono: list[gr.themes.Font | str] = [
        gr.themes.LocalFont("IBM Plex Mono", weights=(400,)),
        "ui-monospace",
        "monospace",
    ]
    base = gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=fonts, font_mono=mono, radius_size="lg")
    return base.set(
        body_background_fill="#f6f8f9",
        body_background_fill_dark="#0e151b",
        block_background_fill="#ffffff",
        block_background_fill_dark="#16202a",
        block_border_color="#d5dde2",
        block_border_color_dark="#2c3a46",
        block_label_text_color="#33434f",
        block_label_text_color_dark="#c3d0da",
        block_title_text_color="#33434f",
        block_title_text_color_dark="#c3d0da",
        body_text_color="#15212b",
        body_text_color_dark="#e6edf2",
        body_text_color_subdued="#4c5d69",
        body_text_color_subdued_dark="#a9b8c3",
        border_color_primary="#d5dde2",
        border_color_primary_dark="#2c3a46",
        input_background_fill="#ffffff",
        input_background_fill_dark="#0e151b",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_border_color="#aebbc4",
        input_border_color_dark="#475866",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#16202a",
        button_secondary_background_fill_hover="#eef4f4",
        button_secondary_background_fill_hover_dark="#1f2d39",
        button_secondary_border_color="#d5dde2",
        button_secondary_border_color_dark="#2c3a46",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_primary_background_fill="#0f6a64",
        button_primary_background_fill_dark="#2bb5a8",
        button_primary_background_fill_hover="#0b544f",
        button_primary_background_fill_hover_dark="#4cc9bd",
        button_primary_border_color="#0f6a64",
        button_primary_border_color_dark="#2bb5a8",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#06201e",
        checkbox_label_background_fill_selected="#dff1ef",
        checkbox_label_background_fill_selected_dark="#173f3d",
        checkbox_label_text_color_selected="#15212b",
        checkbox_label_text_color_selected_dark="#e6edf2",
    )


def css() -> str:
    """Style sheet of the model's page."""
    return (ASSETS / "style.css").read_text() + "\n"


def head() -> str:
    """Scripts of the model's page."""
    return _script("page.js")


def study_css() -> str:
    """Style sheet of the model's page, and a study's own on top."""
    return (ASSETS / "style.css").read_text() + "\n" + (ASSETS / "study.css").read_text()


def study_head() -> str:
    """Scripts of a study's page."""
    return _script("study.js")


def _script(name: str) -> str:
    return f"<script>\n{(ASSETS / name).read_text()}\n</script>"
