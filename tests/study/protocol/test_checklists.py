"""Every item of the checklists is there, answered from the protocol or left to the authors."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from skinclip.study.protocol.checklists import CHECKLISTS, TO_BE_STATED, checklist, write_checklists
from skinclip.study.protocol.protocol import Protocol


def rows(page: str) -> dict[str, str]:
    """item -> where it is answered"""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("| ")]
    assert all(len(row) == 3 for row in cells)
    return {row[0].strip(): row[2].strip() for row in cells if row[0].strip() != "item"}


def test_clear_derm_has_its_25_items(trust_study: Protocol) -> None:
    found = rows(checklist("clear_derm", trust_study))
    assert list(found) == [str(i) for i in range(1, 26)]
    assert "20 of 60" in found["14"] and "6 of 60" in found["15"]
    assert found["8"] == TO_BE_STATED


def test_decide_ai_has_its_28_subitems_and_10_generic_ones(trust_study: Protocol) -> None:
    found = rows(checklist("decide_ai", trust_study))
    generic = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X"]
    assert [item for item in found if item in generic] == generic
    assert len(found) == 28 + 10
    assert trust_study.plan_sha256 in found["III"] and "regions against grad_cam" in found["II"]


def test_ethics_fields_are_quoted_once_they_are_filled(trust_study: Protocol, filled_study: Protocol) -> None:
    assert f"`ethics.approval`: {TO_BE_STATED}" in rows(checklist("decide_ai", trust_study))["III"]
    governance = rows(checklist("decide_ai", filled_study))["III"]
    for told in (filled_study.ethics.approval, filled_study.ethics.consent_version, filled_study.ethics.retention):
        assert told in governance


def test_the_papers_are_named_with_their_dois(trust_study: Protocol) -> None:
    assert "doi:10.1001/jamadermatol.2021.4915" in checklist("clear_derm", trust_study)
    assert "doi:10.1038/s41591-022-01772-9" in checklist("decide_ai", trust_study)


def test_the_plans_family_is_told_whole(trust_study: Protocol) -> None:
    found = rows(checklist("decide_ai", trust_study))
    assert "trust, grad_cam_text against grad_cam" in found["IV"] and "preference" in found["IV"]
    assert "18 secondary endpoints and contrasts under Holm" in found["V"]


def test_words_of_the_coordinator_cannot_break_the_table(trust_study: Protocol) -> None:
    protocol = dataclasses.replace(trust_study, title="a | b\n| c")
    assert rows(checklist("decide_ai", protocol))["1"] == "`title`: a \\| b \\| c"


def test_files(trust_study: Protocol, tmp_path: Path) -> None:
    paths = write_checklists(trust_study, tmp_path / "new")
    assert [p.name for p in paths] == [f"{name}.md" for name in CHECKLISTS]
    assert all("{" not in p.read_text() for p in paths)
    with pytest.raises(ValueError, match="choose one of clear_derm, decide_ai"):
        checklist("consort", trust_study)
