"""A report written once and printed twice: one HTML page that needs nothing else, and a PDF.

A document is sections of blocks (paragraph, list, tiles, table, picture). Both printers put the research-use line, and
its mark where it is no real study, on every page. Everything is escaped where it enters the HTML.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
from fpdf import FPDF
from fpdf.enums import TableBordersLayout
from fpdf.fonts import FontFace

from skinclip import RESEARCH_USE_ONLY, __version__
from skinclip.evaluation.report import CSS, html_section, html_table
from skinclip.reporting.charts import svg
from skinclip.study.analysis.plots import ON_PAGE, STYLE, Plot


@dataclass(frozen=True)
class Paragraph:
    text: str
    lead: bool = False  # set larger: the summary


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Tiles:
    """A row of headline figures: (label, figure, note)."""

    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Table:
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    kind: str = "numbers"  # or `made`: names and texts


@dataclass(frozen=True)
class Picture:
    """A figure; `name` is that of its files."""

    name: str
    title: str
    words: str
    plot: Plot


Block = Paragraph | Bullets | Tiles | Table | Picture


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report; `mark` says what it is where it is no real study, else it is empty."""

    title: str
    subtitle: str
    mark: str
    sections: tuple[Section, ...]

    @property
    def banner(self) -> str:
        return f"{self.mark} - no real reader. {RESEARCH_USE_ONLY}" if self.mark else RESEARCH_USE_ONLY

    @property
    def pictures(self) -> list[Picture]:
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]


def tied(text: object) -> str:
    """With spaces that do not break between a figure and its sign: 95 %, p = 0.04, < 0.001."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=[<=]) (?=\d)", "\u00a0", str(text))


# --- HTML ---------------------------------------------------------------------------------------------------------

_MORE_CSS = """
.lead { font-size: 1.06rem; max-width: 56rem; background: var(--card); border: 1px solid var(--line);
  border-left: 5px solid var(--series); border-radius: 12px; padding: 14px 18px; }
main > section > p, main > section > ul { max-width: 56rem; }
main > section > p.lead { margin: 0; }
main > section > * + * { margin-top: 12px; }
figure svg { max-width: 46rem; }
.frame table td { white-space: nowrap; } .made td { white-space: normal !important; }
.tiles dd b { font-size: 1.3rem; }
"""


def to_html(document: Document) -> str:
    """The page, without scripts and without anything to fetch."""
    body = [html_section(s.title, "".join(_html_block(block) for block in s.blocks)) for s in document.sections]
    banner = escape(document.banner)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(document.title)}</title><style>{CSS}{_MORE_CSS}</style></head><body>",
            f'<p class="banner" role="note">{banner}</p>',
            f"<header><h1>{escape(document.title)}</h1><p>{escape(document.subtitle)}</p></header>",
            f"<main>{''.join(body)}</main>",
            f"<footer>SkinCLIP-VL {escape(__version__)}. {banner}.</footer></body></html>\n",
        ]
    )


def _html_block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f'<p class="{"lead" if block.lead else "text"}">{escape(tied(block.text))}</p>'
    if isinstance(block, Bullets):
        return f"<ul>{''.join(f'<li>{escape(tied(item))}</li>' for item in block.items)}</ul>"
    if isinstance(block, Tiles):
        tiles = "".join(
            f"<div><dt>{escape(label)}</dt><dd><b>{escape(figure)}</b> <span>{escape(tied(note))}</span></dd></div>"
            for label, figure, note in block.items
        )
        return f'<dl class="tiles" aria-label="Main figures">{tiles}</dl>'
    if isinstance(block, Table):
        return html_table(tied(block.caption), tuple(map(tied, block.header)), _tied_rows(block), block.kind)
    label = escape(f"{block.title}. {block.words}", quote=True)
    drawn = svg(block.plot.figure, block.name, ON_PAGE)
    return (
        f'<figure><h3>{escape(block.title)}</h3><div role="img" aria-label="{label}">{drawn}</div>'
        f"<figcaption>{escape(block.words)} Data: figures/{escape(block.name)}.csv</figcaption></figure>"
    )


def _tied_rows(table: Table) -> tuple[tuple[object, ...], ...]:
    """The rows' texts tied; a cell of a name and its note stays a pair."""
    return tuple(
        tuple(tuple(map(tied, cell)) if isinstance(cell, tuple) else tied(cell) for cell in row) for row in table.rows
    )


# --- PDF ----------------------------------------------------------------------------------------------------------

_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu, which has every sign that a report uses
_INK, _SUBDUED, _LINE, _SERIES, _BANNER = (21, 33, 43), (76, 93, 105), (213, 221, 226), (10, 106, 166), (122, 31, 31)
_MARGIN, _DPI = 16.0, 200  # mm


class _Pdf(FPDF):
    """A4 pages with the banner on top and the page's number at the foot."""

    def __init__(self, document: Document) -> None:
        super().__init__(format="A4")
        self.banner, self.name = document.banner, document.title
        self.set_title(document.title)
        self.set_subject(document.banner)
        self.add_font("body", "", _FONTS / "DejaVuSans.ttf")
        self.add_font("body", "B", _FONTS / "DejaVuSans-Bold.ttf")
        self.set_margins(_MARGIN, 20, _MARGIN)
        self.set_auto_page_break(True, 18)
        self.add_page()

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
    """The same report as A4 pages."""
    pdf = _Pdf(document)
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


def _pdf_block(pdf: _Pdf, block: Block) -> None:
    if isinstance(block, Paragraph):
        pdf.text_block(block.text, 10.5 if block.lead else 9)
    elif isinstance(block, Bullets):
        for item in block.items:
            pdf.text_block(f"•  {item}", 8.5)
            pdf.ln(0.8)
    elif isinstance(block, Tiles):
        _pdf_tiles(pdf, block)
    elif isinstance(block, Table):
        _pdf_table(pdf, block)
    else:
        _pdf_picture(pdf, block)


def _pdf_tiles(pdf: _Pdf, tiles: Tiles) -> None:
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


def _pdf_table(pdf: _Pdf, table: Table) -> None:
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


def _pdf_picture(pdf: _Pdf, picture: Picture) -> None:
    width, height = (float(side) for side in picture.plot.figure.get_size_inches())
    tall = pdf.epw * height / width
    pdf.keep(tall + 18)
    pdf.text_block(picture.title, 9, "B")
    pdf.image(io.BytesIO(png(picture.plot)), x=_MARGIN, w=pdf.epw)
    pdf.text_block(f"{picture.words} Data: figures/{picture.name}.csv", 7.5, "", _SUBDUED)


def png(plot: Plot) -> bytes:
    file = io.BytesIO()
    plot.figure.savefig(file, format="png", dpi=_DPI, facecolor="white")
    return file.getvalue()


def write_pictures(document: Document, folder: Path, marks: Mapping[str, str]) -> list[Path]:
    """Each figure as SVG, with its data beside it as CSV; `marks` are columns added to every table."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for picture in document.pictures:
        drawing, data = folder / f"{picture.name}.svg", folder / f"{picture.name}.csv"
        about = {"Date": None, "Title": picture.title, "Description": document.banner}
        with matplotlib.rc_context(STYLE):
            picture.plot.figure.savefig(drawing, format="svg", metadata=about)
        picture.plot.data.assign(**marks).to_csv(data, index=False)
        files += [drawing, data]
    return files
