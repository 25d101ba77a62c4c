"""A document as one HTML page that needs no network, no script and no other file.

The page is a Jinja2 template with autoescaping: everything that comes from data is escaped where it enters it. What is
markup already (drawn charts, the breaks inside intervals) is made here and says so by its type.
"""

from __future__ import annotations

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from skinclip import RESEARCH_USE_ONLY, __version__
from skinclip.core.safe_text import plain_text
from skinclip.reporting.document import Document, Picture, tied
from skinclip.reporting.style import inline_svg

_INTERVAL = re.compile(r"\(?[+−-]?\d+\.\d+(?:-| to )[+−-]?\d+\.\d+\)?")


def to_html(document: Document) -> str:
    """The page of a document, without control characters, which names in it may hold."""
    return plain_text(_template().render(document=document, version=__version__, research_use_only=RESEARCH_USE_ONLY))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("skinclip.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"tied": tied, "words": _words, "figures": _figures, "drawing": _drawing}
    environment.tests |= {"pair": lambda cell: isinstance(cell, tuple)}
    environment.globals["kind"] = lambda block: type(block).__name__
    return environment.get_template("report.html.j2")


def _words(text: object, marked_up: bool) -> Markup:
    """A text, escaped; where it is `marked_up`, `code` and **bold** become elements."""
    safe = escape(tied(text))
    if not marked_up:
        return safe
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(safe))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", coded))


def _figures(cell: object, marked_up: bool) -> Markup:
    """A cell's text, escaped, with every interval in it kept on one line."""
    return Markup(_INTERVAL.sub(r'<span class="interval">\g<0></span>', str(_words(cell, marked_up))))


def _drawing(picture: Picture) -> Markup:
    return Markup(inline_svg(picture.plot.figure, picture.name))
