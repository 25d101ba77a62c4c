"""The set-up page without a browser: who may do what, what each step calls, and work that outlives the browser."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from skinclip.study.errors import StudyRequestError
from skinclip.study.workspace import StudyDraft, Workspace
from skinclip.ui import study_photos_route
from skinclip.ui.guard.setup_access import SetupAccess
from skinclip.ui.setup_desk import SetupDesk
from skinclip.ui.study_jobs import JobState, StudyJobs
from skinclip.ui.tabs import setup_steps as steps
from skinclip.ui.tabs import setup_tab
from tests.study import tiny

CODE = "the-code"


def no_model() -> Any:
    raise ValueError("there is no model here")


@pytest.fixture
def desk(tmp_path: Path) -> SetupDesk:
    return SetupDesk(Workspace(tmp_path / "studies"), SetupAccess(CODE), no_model)


@pytest.fixture
def draft(desk: SetupDesk) -> StudyDraft:
    return desk.workspace.begin("mine")


@pytest.fixture
def view(desk: SetupDesk) -> setup_tab.SetupView:
    return made(desk)


def made(desk: SetupDesk) -> setup_tab.SetupView:
    async def build() -> setup_tab.SetupView:
        with gr.Blocks() as page:
            one = setup_tab.build(desk)
            steps.wire(desk, one, page)
            return one

    return asyncio.run(build())


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- who asks -----------------------------------------------------------------------------------------------------


def test_without_the_code_nothing_is_shown_or_done(
    desk: SetupDesk, view: setup_tab.SetupView, draft: StudyDraft, tiny_photos: Path
) -> None:
    before = draft.text()
    for handler, given in (
        (steps.on_begin, ("other",)), (steps.on_choose, ("mine",)), (steps.on_save, tuple(view.form)),
        (steps.on_save_yaml, ("key: mine",)), (steps.on_folder, (str(tiny_photos),)), (steps.on_uploaded, ("{}",)),
        (steps.on_plan, ()), (steps.on_power, (1,)), (steps.on_build, ()), (steps.on_stop, ()),
        (steps.on_serve, ()), (steps.on_end, ()), (steps.on_coordinator, ()),
    ):  # fmt: skip
        for token in (None, "", "guess", f"{CODE}x"):
            updates = handler(desk, view, token, "mine", *given)  # type: ignore[operator]
            assert "set-up code" in updates[view.entry.refused] and updates[view.entry.token] == ""
            assert all(updates[place] == "" for place in view.outcomes) and updates[view.protocol.yaml] == ""
    for updates in steps.on_watch(desk, view, "guess", "mine"):
        assert set(updates) == {view.entry.begun}
    assert desk.workspace.keys() == ["mine"] and draft.text() == before and desk.jobs.state("mine") is None


def test_the_code_opens_the_page(desk: SetupDesk, view: setup_tab.SetupView, draft: StudyDraft) -> None:
    assert "not the code" in steps.on_enter(desk, view, None, None, "guess")[view.entry.refused]
    assert steps.on_resume(desk, view, "guess") == {view.entry.token: ""}
    opened = steps.on_enter(desk, view, None, None, f" {CODE} ")
    assert opened[view.entry.token] == CODE and opened[view.entry.study]["choices"] == ["mine"]


def test_an_account_opens_it_without_a_code_and_names_no_folder(
    desk: SetupDesk, draft: StudyDraft, tiny_photos: Path
) -> None:
    other = SetupDesk(desk.workspace, SetupAccess.by_account(), no_model)
    view = made(other)
    assert steps.on_resume(other, view, "")[view.entry.room]["visible"]
    refused = steps.on_folder(other, view, "", "mine", str(tiny_photos))
    assert "upload a ZIP" in refused[view.photos.photos]
    with pytest.raises(StudyRequestError, match="no photos yet"):
        draft.photos()
    assert "whoever runs this server" in steps.on_serve(other, view, "", "mine")[view.study.code_once]


# --- the steps ----------------------------------------------------------------------------------------------------


def test_the_form_is_filled_kept_and_says_what_is_wrong(desk: SetupDesk, view: setup_tab.SetupView) -> None:
    assert "lower-case" in steps.on_begin(desk, view, CODE, None, "<b>")[view.entry.begun]
    begun = steps.on_begin(desk, view, CODE, None, "mine")
    assert begun[view.entry.chosen] == "mine" and begun[view.form["cases.n"]] == 60
    given = {path: begun[component] for path, component in view.form.items()}
    kept = steps.on_save(desk, view, CODE, "mine", *{**given, "title": "<i>Mine</i>", "cases.n": 1}.values())
    assert "Cases: must be a whole number" in kept[view.protocol.saved]
    again = steps.on_choose(desk, view, CODE, None, "mine")
    assert again[view.form["title"]] == "<i>Mine</i>" and again[view.form["cases.n"]] == 1
    kept = steps.on_save(desk, view, CODE, "mine", *given.values())
    assert "is complete" in kept[view.protocol.saved] and "Approval" in kept[view.protocol.saved]
    edited = begun[view.protocol.yaml].replace("alpha: 0.05", "alpha: 0.01")
    assert steps.on_save_yaml(desk, view, CODE, "mine", edited)[view.form["plan.alpha"]] == 0.01
    assert "no YAML" in steps.on_save_yaml(desk, view, CODE, "mine", "a: [")[view.protocol.yaml_saved]
    assert "Choose a study" in steps.on_choose(desk, view, CODE, None, "../etc")[view.entry.begun]


def test_photos_are_counted_and_the_plan_says_what_is_missing(
    desk: SetupDesk, view: setup_tab.SetupView, draft: StudyDraft, tiny_photos: Path
) -> None:
    assert "Give --photos" in steps.on_plan(desk, view, CODE, "mine")[view.photos.outlook]
    assert "no folder" in steps.on_folder(desk, view, CODE, "mine", "/no/such")[view.photos.photos]
    assert "13 lesions" in steps.on_folder(desk, view, CODE, "mine", str(tiny_photos))[view.photos.photos]
    assert "Not enough: 13 photos" in steps.on_plan(desk, view, CODE, "mine")[view.photos.outlook]
    refused = steps.on_build(desk, view, CODE, "mine")[view.study.built]
    assert "Too few photos" in refused and desk.jobs.state("mine") is None, "refused before the model is loaded"
    assert "not built yet" in steps.on_serve(desk, view, CODE, "mine")[view.study.code_once]
    assert "not built yet" in steps.on_coordinator(desk, view, CODE, "mine")[view.study.code_once]


def test_a_build_without_a_model_says_so_and_can_be_watched_again(
    desk: SetupDesk, view: setup_tab.SetupView, draft: StudyDraft, tiny_photos: Path, tmp_path: Path
) -> None:
    draft.save_text(tiny.write_protocol(tmp_path / "p.yaml", key="mine").read_text())
    draft.name_folder(str(tiny_photos))
    assert "Photos assessed" in steps.on_build(desk, view, CODE, "mine")[view.study.built]
    for _ in range(2):  # the second: a browser that comes back
        *_, last = steps.on_watch(desk, view, CODE, "mine")
        assert "There is no model here" in last[view.study.built]


def test_power_is_simulated_with_progress(desk: SetupDesk, view: setup_tab.SetupView, draft: StudyDraft) -> None:
    for number in (0, None, 1e9):
        assert "1 to 1000" in steps.on_power(desk, view, CODE, "mine", number)[view.photos.powered]
    draft.save({**draft.values(), "cases.n": 12, "cases.repeat_share": 0, "completion.min_readers": 4,
                "cases.wrong_share": 0.4, "washout.presentations": 0})  # fmt: skip
    steps.on_power(desk, view, CODE, "mine", 1)
    *_, last = steps.on_watch(desk, view, CODE, "mine")
    assert "1 studies of this protocol" in last[view.photos.powered]


# --- long work ----------------------------------------------------------------------------------------------------


def test_one_job_at_a_time_that_can_be_stopped() -> None:
    jobs, go = StudyJobs(), threading.Event()

    def work(progress: Callable[[int, int], None]) -> str:
        for done in range(1000):
            progress(done, 1000)
            go.wait(0.01)
        return "done"

    jobs.start("one", JobState("build", "Photos"), work)
    with pytest.raises(StudyRequestError, match="busy with one"):
        jobs.start("two", JobState("build", "Photos"), work)
    jobs.stop("one")
    until(lambda: jobs.state("one").ended)  # type: ignore[union-attr]
    assert "Stopped" in jobs.state("one").problem  # type: ignore[union-attr]
    go.set()
    jobs.start("one", JobState("build", "Photos"), lambda progress: "done")
    until(lambda: jobs.state("one").ended)  # type: ignore[union-attr]
    assert jobs.state("one").result == "done" and jobs.state("two") is None  # type: ignore[union-attr]


def test_protocol_and_photos_stay_while_a_study_is_built(
    desk: SetupDesk, view: setup_tab.SetupView, draft: StudyDraft, tiny_photos: Path
) -> None:
    go = threading.Event()
    desk.jobs.start("mine", JobState("build", "Photos"), lambda progress: go.wait(20))
    for updates, place in (
        (steps.on_save(desk, view, CODE, "mine", *draft.values().values()), view.protocol.saved),
        (steps.on_folder(desk, view, CODE, "mine", str(tiny_photos)), view.photos.photos),
        (steps.on_build(desk, view, CODE, "mine"), view.study.built),
    ):
        assert "being built" in updates[place]
    assert posted(desk, b"PK").status_code == 409
    go.set()


# --- the upload ---------------------------------------------------------------------------------------------------


def posted(desk: SetupDesk, data: bytes, **headers: str) -> Any:
    app = Starlette(routes=[study_photos_route.photos_route(desk)])
    given = {"x-study": "mine", "x-setup-code": CODE} | {name.replace("_", "-"): text for name, text in headers.items()}
    with TestClient(app) as client:
        return client.post("/photos", content=data, headers=given)


def test_an_archive_is_unpacked_into_its_study(
    desk: SetupDesk, draft: StudyDraft, tiny_photos: Path, tmp_path: Path
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", tiny_photos))
    reply = posted(desk, archive.read_bytes())
    assert (reply.status_code, reply.json()) == (200, {"files": 16, "left_out": []})
    assert draft.photos().uploaded and reply.headers["cache-control"] == "no-store"
    assert not list(draft.folder.glob(".arriving*"))


def test_uploads_are_refused_without_the_code_a_study_or_a_sound_archive(
    desk: SetupDesk, draft: StudyDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert posted(desk, b"PK", x_setup_code="guess").status_code == 403
    assert posted(desk, b"PK", x_setup_code="").status_code == 403
    for study in ("", "other", "..", "../../etc"):
        assert posted(desk, b"PK", x_study=study).status_code == 400
    assert "no ZIP archive" in posted(desk, b"no archive").json()["problem"]
    monkeypatch.setattr(study_photos_route, "MAX_ARCHIVE_BYTES", 5)
    assert posted(desk, b"no archive").status_code == 413
    assert list(draft.folder.iterdir()) == [draft.file]
