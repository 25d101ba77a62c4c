"""Looks: Gradio's theme made of the page's tokens, the style sheets and the scripts.

The tokens (sizes, radii, colours by role) are in `assets/tokens.css`; the theme refers to them, so that Gradio's own
fields look like the rest. Nothing is fetched from elsewhere: the fonts come with Gradio and are served by the page.
"""

from __future__ import annotations

from inspect import signature

import gradio as gr
from gradio.themes.utils.sizes import Size

from skinclip.core.paths import ASSETS

SCRIPTS = ("refused.js", "page.js", "viewer.js", "compare.js", "clinician.js")
_TYPE = {"xxs": 12, "xs": 12, "sm": 14, "md": 16, "lg": 16, "xl": 20, "xxl": 32}
_RADIUS = {"xxs": 6, "xs": 6, "sm": 6, "md": 6, "lg": 12, "xl": 12, "xxl": 12}
_SPACE = {"xxs": "4px", "xs": "4px", "sm": "8px", "md": "8px", "lg": "16px", "xl": "16px", "xxl": "24px"}
# Gradio's variable -> a role of the tokens, alike in both themes: the role itself changes with the theme
_ROLES = {
    "body_background_fill": "page",
    "block_background_fill": "surface",
    "block_border_color": "line",
    "block_label_text_color": "subdued",
    "block_title_text_color": "ink",
    "body_text_color": "ink",
    "body_text_color_subdued": "subdued",
    "border_color_primary": "line",
    "border_color_accent": "action",
    "color_accent": "action",
    "color_accent_soft": "action-bg",
    "input_background_fill": "surface",
    "input_border_color": "field-line",
    "input_border_color_focus": "focus",
    "input_placeholder_color": "subdued",
    "link_text_color": "action",
    "button_secondary_background_fill": "surface",
    "button_secondary_background_fill_hover": "action-bg",
    "button_secondary_border_color": "field-line",
    "button_secondary_text_color": "ink",
    "button_primary_background_fill": "action",
    "button_primary_background_fill_hover": "action-strong",
    "button_primary_border_color": "action",
    "button_primary_text_color": "on-action",
    "checkbox_background_color": "surface",
    "checkbox_background_color_selected": "action",
    "checkbox_border_color": "field-line",
    "checkbox_border_color_selected": "action",
    "checkbox_border_color_focus": "focus",
    "checkbox_label_background_fill": "surface",
    "checkbox_label_background_fill_selected": "action-bg",
    "checkbox_label_text_color": "ink",
    "checkbox_label_text_color_selected": "ink",
    "background_fill_primary": "surface",
    "background_fill_secondary": "sunken",
}
_SINGLE = {"block_label_text_weight": "400", "block_title_text_weight": "400", "button_large_text_weight": "600"}


def theme() -> gr.themes.Base:
    """Gradio's theme in the page's tokens."""
    fonts: list[gr.themes.Font | str] = [
        gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)),  # its 600 lacks letters; 600 is drawn with its 700
        "system-ui",
        "sans-serif",
    ]
    mono: list[gr.themes.Font | str] = [
        gr.themes.LocalFont("IBM Plex Mono", weights=(400,)),
        "ui-monospace",
        "monospace",
    ]
    base = gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=fonts,
        font_mono=mono,
        text_size=Size(name="sk", **{step: f"var(--sk-t{px})" for step, px in _TYPE.items()}),
        radius_size=Size(name="sk", **{step: f"var(--sk-r{px})" for step, px in _RADIUS.items()}),
        spacing_size=Size(name="sk", **_SPACE),
    )
    known = signature(base.set).parameters  # not every variable has a value of its own in the dark theme
    both = {name: f"var(--sk-{role})" for light, role in _ROLES.items() for name in (light, f"{light}_dark")}
    both = {name: value for name, value in both.items() if name in known or not name.endswith("_dark")}
    widths = {
        f"{name}{theme}": "1px" for name in ("input_border_width", "button_border_width") for theme in ("", "_dark")
    }
    shadows = {f"{name}_shadow": "none" for name in ("block", "input", "button_primary", "button_secondary")}
    return base.set(**both, **widths, **shadows, **_SINGLE)


def css() -> str:
    """Style sheet of the model's page."""
    return _sheets("tokens.css", "style.css")


def head() -> str:
    """Scripts of the model's page."""
    return "\n".join(map(_script, SCRIPTS))


def study_css() -> str:
    """Style sheet of the model's page, and a study's own on top."""
    return _sheets("tokens.css", "style.css", "study.css")


def study_head() -> str:
    """Scripts of a study's page."""
    return _script("study.js")


def setup_css() -> str:
    """Style sheet of the page on which studies are set up."""
    return _sheets("tokens.css", "style.css", "study.css", "setup.css")


def setup_head() -> str:
    """Scripts of that page."""
    return _script("setup.js")


def _sheets(*names: str) -> str:
    return "".join((ASSETS / name).read_text() + "\n" for name in names)


def _script(name: str) -> str:
    return f"<script>\n{(ASSETS / name).read_text()}\n</script>"
