"""Letters to readers: complete in every language, personal, and refused before anybody is enrolled in vain."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skinclip.study import letters
from skinclip.study.catalogue.catalogue import languages, section
from skinclip.study.errors import StudyRequestError
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.session_service import EnrolledReader
from tests.study import tiny

READERS = [EnrolledReader("R001", "AAAA-BBBB-CCCC-DDDD"), EnrolledReader("R002", "EEEE-FFFF-GGGG-HHHH")]


@pytest.fixture
def study() -> Any:
    return SimpleNamespace(protocol=Protocol.from_dict(tiny.protocol(title="Braces {code} and 100 %")))


def test_every_language_says_the_same() -> None:
    assert languages() == ("en", "de", "es")
    for kind in ("invitation", "reminder"):
        named = [
            sorted(set(re.findall(r"\{\w+\}", letter[kind]["subject"] + letter[kind]["body"])))
            for letter in (section(language, "letters") for language in languages())
        ]
        assert named[0] == named[1] == named[2]


@pytest.mark.parametrize("language", ["en", "de", "es"])
def test_an_invitation_is_personal_and_for_the_coordinator_alone(study: Any, tmp_path: Path, language: str) -> None:
    written = letters.write_invitations(study, READERS, tmp_path / "letters", "https://host/study/?x=1#y", language)
    assert [path.name for path in written] == ["R001-invitation.txt", "R002-invitation.txt"]
    first = written[0].read_text(encoding="utf-8")
    assert "https://host/study/#code=AAAA-BBBB-CCCC-DDDD" in first and "EEEE" not in first
    assert "Braces {code} and 100 %" in first and "for tests only: contact" in first
    assert stat.S_IMODE(written[0].stat().st_mode) == 0o600
    with pytest.raises(StudyRequestError, match="is there already"):
        letters.write_invitations(study, READERS, tmp_path / "letters", "https://host/", language)


def test_only_who_has_not_finished_is_reminded(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = ("enrolled", "in progress", "completed", "withdrawn")
    about = {"cases_total": 8, "opens_at": ""}
    rows = [SimpleNamespace(reader=f"R00{i}", state=s, cases=i, **about) for i, s in enumerate(states, start=1)]
    monkeypatch.setattr(letters, "Coordinator", lambda study, site: SimpleNamespace(status=lambda: rows))
    for _ in range(2):
        written = letters.write_reminders(study, tmp_path, "https://host", "de")
        assert [path.name for path in written] == ["R001-reminder.txt", "R002-reminder.txt"]
    assert "Von 8 Fotos sind noch 6 zu" in " ".join(written[1].read_text(encoding="utf-8").split())


@pytest.mark.parametrize("url", ["", "host", "ftp://host/", "javascript:alert(1)", "https://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(StudyRequestError, match="as readers open it"):
        letters.check_address(url)


def test_a_language_without_letters_is_refused(study: Any, tmp_path: Path) -> None:
    with pytest.raises(StudyRequestError, match="choose one of en, de, es"):
        letters.write_invitations(study, READERS, tmp_path, "https://host/", "fr")
