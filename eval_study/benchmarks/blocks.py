"""Tables and charts of the benchmarks' reports; their texts are the project's own and may hold markup."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from skinclip.reporting.document import Picture, Table
from skinclip.reporting.style import Plot


def table(header: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Table:
    """A table of figures; texts may hold `code` and **bold**."""
    return Table(caption, tuple(header), tuple(tuple(row) for row in rows), marked_up=True)


def picture(figure: Figure, name: str, title: str, caption: str = "") -> Picture:
    """A chart, which the report writes as `<name>.svg`."""
    return Picture(name, title, caption, Plot(figure))
