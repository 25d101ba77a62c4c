"""One reader's data exported and erased, and photos of a closed study deleted when their time is over."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eval_study.trust_study import sessions
from skinclip.cli import main as cli
from skinclip.study.coordinator import Coordinator
from skinclip.study.errors import StudyError, StudyRequestError
from skinclip.study.personal_data import delete_photos, erase_reader, reader_data
from skinclip.study.session.bundle import PHOTO
from skinclip.study.session.session_service import Study
from skinclip.study.session.steps import CONSENT


@pytest.fixture
def study_folder(tmp_path: Path) -> Path:
    """A study of drawn photos that no model has seen."""
    return sessions.made_up_study(tmp_path / "made_up", 12)


def consented(study: Study) -> tuple[str, str]:
    """Two readers of whom the first has consented."""
    first, second = study.enrol(2, "clinic in Bern")
    token = study.sign_in(first.code)
    study.submit(token, study.view(token).step, {CONSENT: True}, "request-1", 1.0)
    return first.reader, second.reader


def test_all_that_is_kept_of_one_reader_and_nothing_of_another(study_folder: Path, tmp_path: Path) -> None:
    with Study.open(study_folder) as study:
        reader, other = consented(study)
        data = reader_data(study, reader)
    text = json.dumps(data)
    assert data["site"] == "clinic in Bern" and any(e["payload"] for e in data["events"])
    assert other not in text and data["allocation"] is None
    assert not any(word in text for word in ("grad_cam", "regions", '"arm"'))  # the reader stays blinded
    out = tmp_path / "data.json"
    words = ["study", "reader-data", str(study_folder), "--reader", reader, "--out", str(out)]
    assert cli.main(words) == 0 and json.loads(out.read_text()) == data
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_an_erased_reader_leaves_a_log_that_is_whole(study_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Study.open(study_folder) as study:
        reader, _ = consented(study)
    words = ["study", "erase-reader", str(study_folder), "--reader", reader]
    assert cli.main(words) == 2 and "say --yes" in capsys.readouterr().err
    assert cli.main([*words, "--yes"]) == 0
    with Study.open(study_folder) as study:
        data = reader_data(study, reader)
        assert data["site"] is None and data["withdrawn_at"] and not any(e["payload"] for e in data["events"])
        assert study.store.verify(study.name) == []


def test_a_reader_that_there_is_not(study_folder: Path) -> None:
    with Study.open(study_folder) as study:
        for call in (reader_data, erase_reader):
            with pytest.raises(StudyError):
                call(study, "R999")


def test_photos_go_when_their_time_is_over_and_the_study_still_opens(study_folder: Path) -> None:
    with Study.open(study_folder) as study:
        consented(study)
        with pytest.raises(StudyRequestError, match="is not closed"):
            delete_photos(study, 0)
        Coordinator(study).close("a test")
        assert delete_photos(study, 30) == []
        assert list(study_folder.rglob(PHOTO))
        deleted = delete_photos(study, 30, datetime.now(UTC) + timedelta(days=31))
        assert deleted and not list(study_folder.rglob("*.jpg"))
        assert delete_photos(study, 30, datetime.now(UTC) + timedelta(days=31)) == []
    with Study.open(study_folder) as study:
        assert study.store.verify(study.name) == []
        assert Coordinator(study).tables()


def test_only_photos_can_be_missing(study_folder: Path) -> None:
    """A list of deleted photos excuses no other file, and no photo that was changed."""
    with Study.open(study_folder) as study:
        names = list(study.bundle.record["files"])
    (study_folder / "deleted_photos.json").write_text(json.dumps({"files": names}))
    photo = next(study_folder.rglob(PHOTO))
    kept = photo.read_bytes()
    photo.write_bytes(kept + b"x")
    with pytest.raises(StudyRequestError, match="was changed"):
        Study.open(study_folder)
    photo.write_bytes(kept)
    next(study_folder.rglob("aid.json")).unlink()
    with pytest.raises(StudyRequestError, match="cannot be read"):
        Study.open(study_folder)
