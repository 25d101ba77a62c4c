"""Looks: a calm theme with system fonts (nothing is fetched from elsewhere), and the style sheet."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

CSS_FILE = Path(__file__).resolve().parents[2] / "assets" / "style.css"
_SANS = ["system-ui", "Segoe UI", "Roboto", "Helvetica", "sans-serif"]


def theme() -> gr.themes.Base:
    base = gr.themes.Soft(primary_hue="teal", neutral_hue="slate", font=_SANS, font_mono=["ui-monospace", "monospace"])
    return base.set(  # white on the theme's own teal is too faint to read
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
    )


def css() -> str:
    return CSS_FILE.read_text()
