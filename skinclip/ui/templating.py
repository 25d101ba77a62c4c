"""Jinja2 templates of the page (`skinclip/ui/templates`), autoescaped: text never becomes markup by accident.

Templates hold macros, one for each piece of the page; `macro` makes a function of one. A missing value is an error.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from skinclip.core.formatting import percent, whole_percent
from skinclip.core.paths import ASSETS

TEMPLATES = Path(__file__).with_name("templates")


@cache
def environment() -> Environment:
    """The templates' environment, with the filters that number and text formats share with reports."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    made.filters.update(percent=percent, whole_percent=whole_percent, strong=strong, moment=moment)
    made.globals.update(icon=icon)
    return made


def render(template: str, **values: Any) -> str:
    """A whole template, such as "loading.html", filled in."""
    return environment().get_template(template).render(**values)


def macro(template: str, name: str, *args: Any, **values: Any) -> Markup:
    """One macro of a template, filled in."""
    return Markup(getattr(_module(template), name)(*args, **values).strip())


@cache
def _module(template: str) -> Any:
    loaded: Template = environment().get_template(template)
    return loaded.module


def spaced(text: str) -> str:
    """A sentence with a no-break space before each per cent sign, as everywhere on the page."""
    return re.sub(r"(?<=\d) ?%", "\N{NO-BREAK SPACE}%", text)


@cache
def icon(name: str) -> Markup:
    """An icon of the kept set (Lucide, ISC licence, `assets/icons`), 1.25 em high, unseen by screen readers."""
    drawn = (ASSETS / "icons" / f"{name}.svg").read_text()
    inside = re.sub(r"\s+", " ", re.search(r"<svg[^>]*>(.*)</svg>", drawn, re.DOTALL)[1]).strip()  # type: ignore[index]
    return Markup(f'<svg class="sk-icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">{inside}</svg>')


def strong(text: str) -> Markup:
    """A sentence with what stands between `**` in bold."""
    parts = spaced(text).split("**")
    return Markup("").join(Markup("<b>{}</b>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts))


def moment(iso: str) -> str:
    """An ISO 8601 moment for people, "27 Nov 2026, 10:35 UTC"; "" stays so."""
    return datetime.fromisoformat(iso).strftime("%d %b %Y, %H:%M UTC") if iso else ""


def data_url(data: bytes, kind: str = "image/jpeg") -> Markup:
    """`data` as an address of its own, so that no file of it is ever served."""
    return Markup("data:{};base64,{}").format(kind, base64.b64encode(data).decode())
