"""The readers' page that the set-up page starts: one process a study, on this computer alone, ended with it."""

from __future__ import annotations

from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from skinclip.study.errors import StudyRequestError
from skinclip.ui.readers_page import ReadersPages, command


def test_a_study_is_served_and_ended(study_folder: Path) -> None:
    pages = ReadersPages()
    try:
        url = pages.start(study_folder)
        assert url.startswith("http://127.0.0.1:") and pages.start(study_folder) == url == pages.url(study_folder)
        with pytest.raises(HTTPError, match="404"):  # no upload on the readers' page
            urlopen(Request(f"{url}photos", data=b"PK", method="POST"), timeout=10)
    finally:
        pages.stop_all()
    assert pages.url(study_folder) is None
    with pytest.raises(OSError):
        urlopen(url, timeout=5)


def test_what_is_no_study_is_told(tmp_path: Path) -> None:
    pages = ReadersPages()
    with pytest.raises(StudyRequestError, match="did not start"):
        pages.start(tmp_path)
    assert pages.url(tmp_path) is None


def test_the_command_is_that_of_the_guide() -> None:
    assert command(Path("studies/mine")) == ["python", "-m", "skinclip", "run", "--study", "studies/mine"]
