"""A report as sections of blocks, written once and printed as a page, as a PDF and as Markdown.

Evaluations, benchmarks, explanations and reader studies all build a `Document`; `html_page`, `pdf_pages` and `markdown`
print it. Every printer puts the research-use line, and the mark of what is no real study, where it is seen first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.safe_text import safe_cell
from skinclip.reporting.style import Plot, save_svg


@dataclass(frozen=True)
class Paragraph:
    """A text.

    Attributes:
        lead: set larger, as a summary is.
        small: set smaller, as a remark is.
        marked_up: whether `code` and **bold** in the text are markup; leave it False for texts that hold data.
    """

    text: str
    lead: bool = False
    small: bool = False
    marked_up: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Tiles:
    """A row of headline figures: (label, figure, note)."""

    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table; a cell that is a pair is a name and a note on it.

    Attributes:
        kind: "numbers", or "made" for names and texts.
        marked_up: as in `Paragraph`, for every cell.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    kind: str = "numbers"
    marked_up: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure with its caption.

    Attributes:
        name: of its files, and unique in the document.
        caption: in words what is seen; read aloud in place of the picture.
        numbers: the same as a table, folded away on a page.
    """

    name: str
    title: str
    caption: str
    plot: Plot
    numbers: Table | None = None


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side where there is room."""

    pictures: tuple[Picture, ...]


Block = Paragraph | Heading | Bullets | Tiles | Table | Picture | Gallery


@dataclass(frozen=True)
class Section:
    """Blocks below a title; the first section of a document may have none."""

    title: str
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, title: str, parts: Iterable[Block | str]) -> Section:
        """A section of blocks and texts: a text is a marked-up paragraph, or with `### ` a heading."""
        return cls(title, tuple(_block(part) for part in parts if part))


@dataclass(frozen=True)
class Document:
    """A report; `mark` says what it is where it is no real study, else it is empty."""

    title: str
    subtitle: str
    mark: str
    sections: tuple[Section, ...] = field(default=())

    @property
    def banner(self) -> str:
        """The line that every page begins with."""
        return f"{self.mark} - no real reader. {RESEARCH_USE_ONLY}" if self.mark else RESEARCH_USE_ONLY

    @property
    def pictures(self) -> list[Picture]:
        """All pictures in reading order."""
        return [picture for section in self.sections for block in section.blocks for picture in pictures_of(block)]


def pictures_of(block: Block) -> tuple[Picture, ...]:
    """The pictures that a block is made of, if any."""
    if isinstance(block, Gallery):
        return block.pictures
    return (block,) if isinstance(block, Picture) else ()


def tied(text: object) -> str:
    """The text with spaces that do not break between a figure and its sign: 95 %, p = 0.04, < 0.001."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=[<=]) (?=\d)", "\u00a0", str(text))


def write_pictures(document: Document, folder: Path, marks: Mapping[str, str] | None = None) -> list[Path]:
    """Writes each figure as SVG, with its data beside it as CSV where it has any.

    Args:
        marks: columns added to every CSV file.
    """
    files = []
    for picture in document.pictures:
        drawing = folder / f"{picture.name}.svg"
        save_svg(picture.plot.figure, drawing, Title=picture.title, Description=document.banner)
        files.append(drawing)
        if picture.plot.data is not None:
            files.append(drawing.with_suffix(".csv"))
            picture.plot.data.assign(**(marks or {})).map(safe_cell).to_csv(files[-1], index=False)
    return files


def _block(part: Block | str) -> Block:
    if not isinstance(part, str):
        return part
    return Heading(part[4:]) if part.startswith("### ") else Paragraph(part, marked_up=True)
