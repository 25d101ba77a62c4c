"""A document as A4 pages: the banner on top of each, its number at the foot."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from fpdf import FPDF
from fpdf.enums import TableBordersLayout
from fpdf.fonts import FontFace

from skinclip import __version__
from skinclip.core.safe_text import one_line, plain_text
from skinclip.reporting.document import (
    Block,
    Bullets,
    Document,
    Heading,
    Paragraph,
    Picture,
    Table,
    Tiles,
    pictures_of,
    tied,
)
from skinclip.reporting.style import png

_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu, which has every sign that a report uses
_INK, _SUBDUED, _LINE, _SERIES, _BANNER = (21, 33, 43), (76, 93, 105), (213, 221, 226), (10, 106, 166), (122, 31, 31)
_MARGIN = 16.0  # mm


class Pages(FPDF):
    """A4 pages with the banner on top and the page's number at the foot."""

    def __init__(self, document: Document) -> None:
        super().__init__(format="A4")
        self.banner, self.name = document.banner, document.title
        self.set_title(one_line(document.title))
        self.set_subject(document.banner)
        self.add_font("body", "", _FONTS / "DejaVuSans.ttf")
        self.add_font("body", "B", _FONTS / "DejaVuSans-Bold.ttf")
        self.set_margins(_MARGIN, 20, _MARGIN)
        self.set_auto_page_break(True, 18)
        self.add_page()

    def normalize_text(self, text: str) -> str:
        """The text as the font has it: control characters, which names may hold, have no sign."""
        return str(super().normalize_text(plain_text(text).expandtabs(1)))

    def header(self) -> None:
        self.set_fill_color(*_BANNER)
        self.set_text_color(255, 255, 255)
        self.set_font("body", "B", 8)
        self.set_xy(0, 0)
        self.cell(self.w, 9, self.banner, align="C", fill=True)
        self.set_xy(_MARGIN, 16)
        self.set_text_color(*_INK)

    def footer(self) -> None:
        self.set_xy(_MARGIN, -12)
        self.set_font("body", "", 7)
        self.set_text_color(*_SUBDUED)
        self.cell(self.epw / 2, 5, f"SkinCLIP-VL {__version__} · {self.name}")
        self.cell(self.epw / 2, 5, f"{self.page_no()} / {{nb}}", align="R")

    def text_block(self, text: str, size: float, style: str = "", colour: tuple[int, int, int] = _INK) -> None:
        self.set_font("body", style, size)
        self.set_text_color(*colour)
        self.multi_cell(self.epw, size * 0.5, tied(text), new_x="LMARGIN", new_y="NEXT", align="L")

    def keep(self, height: float) -> None:
        """Begins a page where less than `height` mm are left."""
        if self.will_page_break(height):
            self.add_page()


def to_pdf(document: Document) -> bytes:
    """The bytes of a document's PDF file."""
    pdf = Pages(document)
    pdf.text_block(document.title, 17, "B")
    pdf.text_block(document.subtitle, 9, "", _SUBDUED)
    for section in document.sections:
        pdf.ln(5)
        pdf.keep(30)
        pdf.text_block(section.title, 12.5, "B")
        pdf.ln(1.5)
        for block in section.blocks:
            _pdf_block(pdf, block)
            pdf.ln(2.5)
    return bytes(pdf.output())


def _pdf_block(pdf: Pages, block: Block) -> None:
    if isinstance(block, Paragraph):
        pdf.text_block(block.text, 10.5 if block.lead else 9)
    elif isinstance(block, Heading):
        pdf.text_block(block.text, 10, "B")
    elif isinstance(block, Bullets):
        for item in block.items:
            pdf.text_block(f"•  {item}", 8.5)
            pdf.ln(0.8)
    elif isinstance(block, Tiles):
        _pdf_tiles(pdf, block)
    elif isinstance(block, Table):
        _pdf_table(pdf, block)
    else:
        for picture in pictures_of(block):
            _pdf_picture(pdf, picture)


def _pdf_tiles(pdf: Pages, tiles: Tiles) -> None:
    pdf.keep(24)
    gap, y = 3.0, pdf.get_y()
    width = (pdf.epw - gap * (len(tiles.items) - 1)) / max(len(tiles.items), 1)
    for i, (label, figure, note) in enumerate(tiles.items):
        x = _MARGIN + i * (width + gap)
        pdf.set_draw_color(*_LINE)
        pdf.rect(x, y, width, 21, round_corners=True, corner_radius=2)
        for dy, text, style, size, colour in (
            (2.0, label, "", 7, _SUBDUED),
            (7.5, figure, "B", 11.5, _INK),
            (14.5, note, "", 6.5, _SUBDUED),
        ):
            pdf.set_xy(x + 2, y + dy)
            pdf.set_font("body", style, size)
            pdf.set_text_color(*colour)
            pdf.cell(width - 4, 4.5, tied(text))
    pdf.set_xy(_MARGIN, y + 23)


def _pdf_table(pdf: Pages, table: Table) -> None:
    """A table over the page's width; its head comes again on each page, a row is never broken."""
    pdf.keep(24)
    pdf.text_block(table.caption, 7.5, "", _SUBDUED)
    pdf.ln(0.8)
    pdf.set_font("body", "", 7.5)
    pdf.set_text_color(*_INK)
    pdf.set_draw_color(*_LINE)
    rows = [tuple(map(_cell, row)) for row in ([table.header] if any(table.header) else []) + list(table.rows)]
    with pdf.table(
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=FontFace(emphasis="BOLD", color=_SUBDUED),
        first_row_as_headings=any(table.header),
        col_widths=(1.0, 3.0) if table.kind == "made" else _widths(pdf, rows),
        line_height=4.2,
        padding=(0.7, 1.0),
        text_align="LEFT",
    ) as drawn:
        for cells in rows:
            row = drawn.row()
            for cell in cells:
                row.cell(cell)


def _cell(cell: object) -> str:
    return tied(": ".join(filter(None, cell)) if isinstance(cell, tuple) else cell)


_WIDEST = 62.0  # mm that one column may ask for


def _widths(pdf: FPDF, rows: Sequence[Sequence[str]]) -> tuple[float, ...]:
    """mm for each column: its longest word fits, and what is left goes to those whose texts ask for more."""
    pdf.set_font("body", "B", 7.5)  # the head's, the widest
    asked, least = [], []
    for column in zip(*rows, strict=True):
        words = [word for text in column for word in re.split(r"[ \n]", text)]
        least.append(max(map(pdf.get_string_width, words)) + 4.5)
        asked.append(max(least[-1], min(max(map(pdf.get_string_width, column)) + 4.5, _WIDEST)))
    pdf.set_font("body", "", 7.5)
    more = [a - b for a, b in zip(asked, least, strict=True)]
    if not any(more):
        return tuple(least)
    share = max(pdf.epw - sum(least), 0.0) / sum(more)
    return tuple(a + share * b for a, b in zip(least, more, strict=True))


def _pdf_picture(pdf: Pages, picture: Picture) -> None:
    width, height = (float(side) for side in picture.plot.figure.get_size_inches())
    tall = pdf.epw * height / width
    pdf.keep(tall + 18)
    pdf.text_block(picture.title, 9, "B")
    pdf.image(io.BytesIO(png(picture.plot.figure)), x=_MARGIN, w=pdf.epw)
    data = f" Data: figures/{picture.name}.csv" if picture.plot.data is not None else ""
    pdf.text_block(f"{picture.caption}{data}", 7.5, "", _SUBDUED)
