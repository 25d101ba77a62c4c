"""A document as Markdown, for reports that are read in the repository."""

from __future__ import annotations

from collections.abc import Sequence

from skinclip.core.safe_text import plain_text
from skinclip.reporting.document import (
    Block,
    Bullets,
    Document,
    Gallery,
    Heading,
    Paragraph,
    Picture,
    Section,
    Table,
    Tiles,
)


def to_markdown(document: Document, figures: str = "figures") -> str:
    """The whole document; pictures are shown from the folder `figures` beside it, see `document.write_pictures`."""
    head = [f"# {document.title}", f"**{document.banner}.**", document.subtitle]
    parts = [*head, *(section_markdown(section, figures) for section in document.sections)]
    return plain_text("\n\n".join(part for part in parts if part)) + "\n"


def section_markdown(section: Section, figures: str = "figures") -> str:
    """One section."""
    blocks = [text for block in section.blocks if (text := _block(block, figures))]
    return "\n\n".join([f"## {section.title}", *blocks] if section.title else blocks)


def markdown_table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table, figures to the right of the first column."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _block(block: Block, figures: str) -> str:
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Heading):
        return f"### {block.text}"
    if isinstance(block, Bullets):
        return "\n".join(f"- {item}" for item in block.items)
    if isinstance(block, Tiles):
        return markdown_table(("figure", "value", ""), block.items)
    if isinstance(block, Table):
        return "\n\n".join(filter(None, (block.caption, markdown_table(block.header, block.rows))))
    pictures = block.pictures if isinstance(block, Gallery) else (block,)
    return "\n\n".join(_picture(picture, figures) for picture in pictures)


def _picture(picture: Picture, figures: str) -> str:
    return "\n\n".join(filter(None, (f"![{picture.title}]({figures}/{picture.name}.svg)", picture.caption)))


def _cell(cell: object) -> str:
    text = ": ".join(str(part) for part in cell if part) if isinstance(cell, tuple) else str(cell)
    return text.replace("|", "\\|")
