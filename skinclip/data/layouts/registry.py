"""All layouts, in the order in which a folder is tried: one's own manifest first, then the most telling names."""

from __future__ import annotations

from skinclip.data.layouts import (
    derm7pt,
    ham10000,
    isic2018,
    isic2018_task2,
    isic2019,
    isic2020,
    isic_archive,
    manifest,
    milk10k,
    pad_ufes,
)
from skinclip.data.layouts.base import Layout

LAYOUTS: dict[str, Layout] = {
    module.LAYOUT.name: module.LAYOUT
    for module in (
        *(manifest, derm7pt, milk10k, isic2018_task2, ham10000, isic2018),
        *(isic2019, isic2020, pad_ufes, isic_archive),
    )
}


def register(layout: Layout) -> None:
    """Adds a layout, tried after the others. Raises ValueError for a name that is taken."""
    if layout.name in LAYOUTS:
        raise ValueError(f"a layout {layout.name!r} is registered already")
    LAYOUTS[layout.name] = layout


def expected() -> str:
    """A list of the files that folders are known by, for the message about one that is not known."""
    *others, last = (layout.expected for layout in LAYOUTS.values())
    return f"expected {', '.join(others)}, or {last}"
