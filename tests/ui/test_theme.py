"""Style sheets as Gradio takes them: it puts its own page before each selector in a media rule."""

from __future__ import annotations

import re

import pytest

from skinclip.ui.theme import css, study_css


def media_rules(sheet: str) -> list[str]:
    """The text within each media rule at the top of the sheet."""
    sheet, found = re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL), []
    for start in re.finditer(r"(?:^|\})\s*@media[^{]*\{", sheet):
        depth, end = 1, start.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(sheet[end], 0)
            end += 1
        found.append(sheet[start.end() : end - 1])
    return found


@pytest.mark.parametrize("sheet", [css(), study_css()], ids=["page", "study"])
def test_no_media_rule_is_of_the_page_as_a_whole(sheet: str) -> None:
    rules = media_rules(sheet)
    assert len(rules) >= 5
    selectors = [selector for rule in rules for selector in re.findall(r"([^{}]+)\{", rule)]
    dead = [s.strip() for s in selectors if re.search(r"(^|,)\s*(html|body|:root|\.gradio-container)\b", s)]
    assert dead == []  # nested in a rule of its own it holds: `body { @media print { ... } }`
