"""One document, printed three ways."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from skinclip import RESEARCH_USE_ONLY
from skinclip.reporting import document as model
from skinclip.reporting import style
from skinclip.reporting.document import Document, Section, write_pictures
from skinclip.reporting.html_page import to_html
from skinclip.reporting.markdown import to_markdown
from skinclip.reporting.pdf_pages import to_pdf

NASTY = """<script>alert("x")</script>&'"""


@style.styled
def drawn(data: pd.DataFrame | None = None) -> style.Plot:
    figure, (axes,) = style.charts()
    axes.plot([0, 1], [0, 1], color=style.BLUE)
    axes.set_title(NASTY, color=style.INK)
    return style.Plot(figure, data)


@pytest.fixture
def everything() -> Document:
    """A document with each kind of block, whose texts come from data."""
    table = model.Table(NASTY, ("name", "value"), ((("row", NASTY), "0.812 (0.790-0.833)"), (NASTY, "a | b")))
    picture = model.Picture("one", NASTY, NASTY, drawn(), table)
    blocks = (
        model.Paragraph(NASTY, lead=True),
        model.Heading(NASTY),
        model.Bullets((NASTY, "b")),
        model.Tiles(((NASTY, NASTY, NASTY),)),
        table,
        picture,
        model.Gallery((model.Picture("two", "t", "c", drawn(pd.DataFrame({"x": [1]}))),)),
    )
    return Document(NASTY, NASTY, "", (Section(NASTY, blocks), Section.of("Second", ["### Part", "", "`code` **b**"])))


def test_nothing_from_data_becomes_markup(everything) -> None:
    text = to_html(everything)
    assert "<script" not in text and text.count("alert(") >= 12
    assert "<code>code</code> <b>b</b>" in text and "<h3>Part</h3>" in text
    assert '<span class="interval">(0.790-0.833)</span>' in text
    assert text.count(RESEARCH_USE_ONLY) == 2


def test_code_in_a_marked_up_text_is_escaped_too() -> None:
    text = to_html(Document("t", "s", "", (Section.of("", ["`<b>` and <i>"]),)))
    assert "<code>&lt;b&gt;</code> and &lt;i&gt;" in text


def test_a_new_kind_of_block_is_printed_everywhere(everything) -> None:
    kinds = {type(block) for section in everything.sections for block in section.blocks}
    assert kinds == set(model.Block.__args__)
    assert to_pdf(everything).startswith(b"%PDF")
    text = to_markdown(everything)
    assert "![t](figures/two.svg)" in text and "| a \\| b |" in text and "### Part\n\n`code` **b**" in text


def test_drawn_colours_become_those_of_the_page(everything) -> None:
    for drawing in re.findall(r"<svg.*?</svg>", to_html(everything), flags=re.S):
        assert "var(--series)" in drawing and "currentColor" in drawing
        assert not {style.BLUE, style.INK, style.GREY} & set(re.findall(r"#[0-9a-f]{6}", drawing))


def test_pictures_are_files_with_their_data_where_they_have_any(everything, tmp_path: Path) -> None:
    files = write_pictures(everything, tmp_path / "figures", {"kind": "made"})
    assert [f.name for f in files] == ["one.svg", "two.svg", "two.csv"]
    assert files[2].read_text() == "x,kind\n1,made\n"
    before = files[0].read_bytes()
    write_pictures(everything, tmp_path / "figures")
    assert files[0].read_bytes() == before
