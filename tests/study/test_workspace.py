"""Studies in preparation: drafts with gaps, photos by folder and archive, and the same build as on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skinclip.imaging.photo import PhotoError
from skinclip.study.errors import StudyRequestError
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.session_service import Study
from skinclip.study.workspace import PhotoSource, StudyDraft, Workspace
from tests.study import tiny


@pytest.fixture
def draft(tmp_path: Path) -> StudyDraft:
    return Workspace(tmp_path / "studies").begin("mine")


def zipped(photos: Path, folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder / "photos"), "zip", photos))


def test_a_new_draft_is_the_default_protocol(draft: StudyDraft, trust_study: Protocol) -> None:
    assert draft.problems() == [] and draft.protocol().key == "mine"
    assert draft.protocol().plan == trust_study.plan
    assert Workspace(draft.studies).keys() == ["mine"] and not draft.is_built


@pytest.mark.parametrize("key", ["", "Mine", "../mine", "a/b", "9a", "a" * 61, "ümlaut", "mine", "there"])
def test_keys_that_cannot_be_one_or_are_taken_are_refused(draft: StudyDraft, key: str) -> None:
    (draft.studies / "there").mkdir()
    with pytest.raises(StudyRequestError):
        Workspace(draft.studies).begin(key)
    assert Workspace(draft.studies).keys() == ["mine"]


@pytest.mark.parametrize("key", ["", "other", "..", "../.setup/mine", "/etc"])
def test_only_known_drafts_are_opened(draft: StudyDraft, key: str) -> None:
    with pytest.raises(StudyRequestError, match="choose a study"):
        Workspace(draft.studies).draft(key)


def test_a_draft_keeps_what_is_wrong_and_says_so(draft: StudyDraft) -> None:
    values = draft.values()
    assert draft.save({**values, "cases.n": None}) == ["Cases: must be a whole number from 2 to 2000, not nothing"]
    assert draft.values()["cases.n"] is None
    assert draft.save({**values, "cases.n": 40}) == [] and draft.protocol().cases.n == 40


def test_a_protocol_edited_as_yaml_is_taken_or_refused_whole(draft: StudyDraft) -> None:
    before = draft.text()
    for text, words in (
        ("a: [", "no YAML"),
        ("key: other", "must say mine"),
        ("- a", "must say"),
        ("x" * 300_000, "at most"),
    ):
        with pytest.raises(StudyRequestError, match=words):
            draft.save_text(text)
        assert draft.text() == before
    assert draft.save_text(before.replace("alpha: 0.05", "alpha: 0.01")) == []
    assert draft.values()["plan.alpha"] == 0.01
    assert draft.save_text(before + "nonsense: 1\n") != []


def test_photos_come_from_a_folder_or_an_archive(draft: StudyDraft, tiny_photos: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyRequestError, match="no photos yet"):
        draft.photos()
    for folder in ("", "  ", "/no/such/folder"):
        with pytest.raises(StudyRequestError, match="there is no folder"):
            draft.name_folder(folder)
    assert draft.name_folder(str(tiny_photos)) == PhotoSource(tiny_photos.resolve(), uploaded=False)
    by_folder = draft.supply()
    assert draft.take_archive(zipped(tiny_photos, tmp_path)).files == 16
    assert draft.photos().uploaded and draft.supply() == by_folder
    assert by_folder.labelled == {"nv": 7, "mel": 6} and by_folder.out_of_distribution == 2


def test_uploaded_photos_are_decoded_apart(tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("skinclip.study.workspace.load_photo_bounded", lambda data: called.append(len(data)))
    photo = next(tiny_photos.glob("*.jpg"))
    PhotoSource(tiny_photos, uploaded=True).load(photo)
    assert called == [photo.stat().st_size]
    assert PhotoSource(tiny_photos, uploaded=False).load(photo).pixels.ndim == 3 and len(called) == 1
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    with pytest.raises(PhotoError):
        PhotoSource(tmp_path, uploaded=False).load(tmp_path / "a.jpg")


def test_a_study_is_built_conducted_and_given_its_ethics_fields(
    draft: StudyDraft, tiny_photos: Path, tmp_path: Path
) -> None:
    from skinclip.pipeline.assessor import Assessor

    empty = {"ethics": {}, "key": "mine"}
    draft.file.write_text(tiny.write_protocol(tmp_path / "p.yaml", **empty).read_text())
    draft.take_archive(zipped(tiny_photos, tmp_path))
    steps: list[tuple[int, int]] = []
    built = draft.build(Assessor.load(), lambda done, total: steps.append((done, total)))
    assert built.folder == draft.studies / "mine" and draft.is_built and steps[-1] == (15, 15)
    with Study.open(draft.out) as study:
        assert study.protocol.missing_ethics()
    filled = {f"ethics.{name}": "for tests only" for name in tiny.protocol()["ethics"]}
    assert draft.save({**draft.values(), **filled}) == []
    draft.adopt()
    code = draft.coordinator_code()
    with Study.open(draft.out) as study:
        assert not study.protocol.missing_ethics() and study.sign_in(code, coordinator=True)
        study.enrol(1, "Bern")
    draft.save({**draft.values(), "cases.practice": 1})
    with pytest.raises(StudyRequestError, match="cases"):
        draft.adopt()
    with pytest.raises(StudyRequestError, match="has readers"):
        draft.build(Assessor.load(), lambda done, total: None)
