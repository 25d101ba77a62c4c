"""The tabs of the model's page, in their order. A new tab is one entry here (docs/extending)."""

from __future__ import annotations

from skinclip.ui.page import Tab
from skinclip.ui.tabs import assess_tab, compare_tab

TABS: list[Tab] = [
    Tab("assess", "Assess", assess_tab.build),
    Tab("compare", "Compare explanations", compare_tab.build),
]
