"""The Dockerfile's command as a container runs it: no rights, nothing to write to but its data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.visits import add_photo, assess, chromium
from tests.helpers.container import UID, running
from tests.helpers.served import ROOT, await_status

pytestmark = pytest.mark.browser


def listing(folder: Path) -> dict[str, int]:
    """Every file and folder below with its time of change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_photo_is_assessed_and_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    with running(tmp_path) as container:
        assert not container.healthy()  # loading
        answer = await_status(container.url, container.process)
        assert answer["preset"] == "mini" and container.healthy()
        if container.isolated:
            assert Path(f"/proc/{container.process.pid}/uid_map").read_text().split()[0] == str(UID)
        files = listing(container.program)
        with chromium() as browser:
            page = browser.new_page()
            page.goto(container.url)
            page.wait_for_selector("#assess")
            add_photo(page, ROOT / "assets/examples/synthetic_melanoma.jpg")
            assert "refer" in assess(page).lower()
    assert container.strays() == []
    assert listing(container.program) == files
    assert not [path for path in container.scratch.rglob("*") if path.is_file()], "an upload is left"
    assert not list((container.data / "tmp").glob("run-*"))
