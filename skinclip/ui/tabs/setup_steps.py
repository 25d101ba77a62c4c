"""Handlers of the set-up page: plain functions, each of which calls what a command of `study` calls."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from skinclip.study import power as powers
from skinclip.study import supply as supplies
from skinclip.study.errors import StudyRequestError
from skinclip.study.workspace import StudyDraft
from skinclip.ui import setup_html
from skinclip.ui.coordinator_html import note
from skinclip.ui.setup_desk import SetupDesk
from skinclip.ui.study_jobs import REPORTED, JobState
from skinclip.ui.tabs.setup_tab import GIVE_BACK, KEEP, SetupView, Updates, bind
from skinclip.ui.tabs.study_tab import sentence

WATCH_SECONDS = 0.5  # between looks at a job
MOST_STUDIES = 1000
BUILD, POWER = "build", "power"
_MAX_LEFT_OUT = 200  # names that the browser hands over of an upload


def wire(desk: SetupDesk, view: SetupView, page: gr.Blocks) -> None:
    """Wires the events of the page, and what happens when it is loaded."""
    entry, protocol, photos, study = view.entry, view.protocol, view.photos, view.study
    form = list(view.form.values())

    def on(event: Any, handler: Callable[..., Updates], place: gr.HTML, *inputs: Any) -> Any:
        return bind(desk, view, (event, place), handler, inputs)

    def watched(event: Any) -> None:
        event.then(
            lambda token, key: (yield from on_watch(desk, view, token, key)), [entry.token, entry.chosen],
            view.components, concurrency_id="setup-watch", concurrency_limit=8, api_visibility="private",
            show_progress="hidden",
        )  # fmt: skip

    for event in (entry.enter.click, entry.code.submit):
        on(event, on_enter, entry.refused, entry.code)
    watched(on(entry.study.input, on_choose, entry.begun, entry.study))
    for event in (entry.begin.click, entry.key.submit):
        on(event, on_begin, entry.begun, entry.key)
    on(protocol.save.click, on_save, protocol.saved, *form)
    on(protocol.save_yaml.click, on_save_yaml, protocol.yaml_saved, protocol.yaml)
    on(photos.take.click, on_folder, photos.photos, photos.folder)
    on(photos.uploaded.change, on_uploaded, photos.photos, photos.uploaded)
    on(photos.count.click, on_plan, photos.outlook)
    watched(on(photos.power.click, on_power, photos.powered, photos.studies))
    watched(on(study.build.click, on_build, study.built))
    on(study.stop.click, on_stop, study.built)
    on(photos.halt.click, on_stop, photos.powered)
    on(study.serve.click, on_serve, study.conduct)
    on(study.end.click, on_end, study.conduct)
    on(study.coordinator.click, on_coordinator, study.code_once)
    entry.token.change(None, [entry.token], None, js=KEEP)
    page.load(
        lambda token: on_resume(desk, view, token), [entry.token], view.components, js=GIVE_BACK,
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip


# --- who asks -----------------------------------------------------------------------------------------------------


def on_enter(desk: SetupDesk, view: SetupView, token: str | None, key: str | None, code: str | None) -> Updates:
    """The set-up code -> the studies in preparation."""
    if not desk.access.admits(code):
        return {
            view.entry.refused: setup_html.alert("This is not the code that was printed last."),
            view.entry.code: "",
        }
    return _inside(desk, view, (code or "").strip())


def on_resume(desk: SetupDesk, view: SetupView, token: str | None) -> Updates:
    """The page again for a browser that has the code, or an account."""
    if not desk.access.admits(token):
        return {view.entry.token: ""}
    return _inside(desk, view, (token or "").strip())


def _inside(desk: SetupDesk, view: SetupView, token: str) -> Updates:
    entry = view.entry
    shown = {entry.entry: gr.update(visible=False), entry.room: gr.update(visible=True), entry.refused: ""}
    choices = gr.update(choices=desk.workspace.keys(), value=None)
    return {**shown, entry.code: "", entry.token: token, entry.study: choices}


def _outside(view: SetupView) -> Updates:
    """Back to the sign-in; nothing stays on the page."""
    entry = view.entry
    words = setup_html.alert("Type the set-up code. It is a new one each time the program is started.")
    shown = {entry.entry: gr.update(visible=True), entry.room: gr.update(visible=False), entry.refused: words}
    empty = {view.protocol.yaml: "", view.study.conduct: "", entry.token: "", entry.chosen: "", **_cleared(view)}
    return {**shown, **empty, **dict.fromkeys(view.form.values(), None), entry.study: gr.update(choices=[], value=None)}


def _cleared(view: SetupView) -> Updates:
    return dict.fromkeys(view.outcomes, "")


def _asked(desk: SetupDesk, view: SetupView, token: str | None, place: gr.HTML, work: Callable[[], Updates]) -> Updates:
    """Runs `work` where the code admits; problems are shown at `place`."""
    if not desk.access.admits(token):
        return _outside(view)
    try:
        return work()
    except REPORTED as problem:
        return {place: setup_html.alert(sentence(str(problem)))}


# --- step 1 -------------------------------------------------------------------------------------------------------


def on_begin(desk: SetupDesk, view: SetupView, token: str | None, key: str | None, new: str | None) -> Updates:
    """A new study: the default protocol under another name."""

    def work() -> Updates:
        draft = desk.workspace.begin(new or "")
        chosen = gr.update(choices=desk.workspace.keys(), value=draft.key)
        begun = note(f"{draft.key} begins with the default protocol.")
        return {**_opened(desk, view, draft), view.entry.study: chosen, view.entry.key: "", view.entry.begun: begun}

    return _asked(desk, view, token, view.entry.begun, work)


def on_choose(desk: SetupDesk, view: SetupView, token: str | None, key: str | None, chosen: str | None) -> Updates:
    """A study that was begun before."""
    return _asked(desk, view, token, view.entry.begun, lambda: _opened(desk, view, desk.workspace.draft(chosen or "")))


def _opened(desk: SetupDesk, view: SetupView, draft: StudyDraft) -> Updates:
    updates = {**_cleared(view), view.entry.begun: "", view.entry.chosen: draft.key}
    updates |= {
        view.entry.steps: gr.update(visible=True),
        **_protocol_shown(view, draft),
        **_conduct(desk, view, draft),
    }
    with contextlib.suppress(*REPORTED):  # none yet, or none that can be read any more: step 3 says so
        updates[view.photos.photos] = setup_html.photos(draft.photos(), draft.supply())
    return updates


def _protocol_shown(view: SetupView, draft: StudyDraft) -> Updates:
    values = draft.values()
    return {**{component: values[path] for path, component in view.form.items()}, view.protocol.yaml: draft.text()}


def on_save(desk: SetupDesk, view: SetupView, token: str | None, key: str | None, *given: Any) -> Updates:
    """Keeps the form, says what is still wrong, and hands a study that was built its ethics fields."""

    def work() -> Updates:
        draft = _idle(desk, key)
        problems = draft.save(dict(zip(view.form, given, strict=True)))
        return {**_kept(desk, view, draft, problems, view.protocol.saved), view.protocol.yaml: draft.text()}

    return _asked(desk, view, token, view.protocol.saved, work)


def on_save_yaml(desk: SetupDesk, view: SetupView, token: str | None, key: str | None, text: str | None) -> Updates:
    """Keeps the protocol as it was edited as YAML, and fills the form with it."""

    def work() -> Updates:
        draft = _idle(desk, key)
        problems = draft.save_text(text or "")
        return {**_protocol_shown(view, draft), **_kept(desk, view, draft, problems, view.protocol.yaml_saved)}

    return _asked(desk, view, token, view.protocol.yaml_saved, work)


def _kept(desk: SetupDesk, view: SetupView, draft: StudyDraft, problems: list[str], place: gr.HTML) -> Updates:
    missing = [] if problems else draft.protocol().missing_ethics()
    words = setup_html.saved(problems, missing)
    if not problems and draft.is_built:
        try:
            draft.adopt()
        except StudyRequestError as problem:
            reason = f"The draft is kept, but the study that was built stays as it is: {problem}"
            return {place: setup_html.alert(reason)}
        words += note("The study that was built has taken the protocol over.")
    return {place: words, **_conduct(desk, view, draft)}


def _idle(desk: SetupDesk, key: str | None) -> StudyDraft:
    """The chosen study. Raises StudyRequestError while it is being built."""
    draft = desk.workspace.draft(key or "")
    if desk.is_busy(draft.key):
        raise StudyRequestError("this study is being built or simulated; wait until that is done, or stop it")
    return draft


# --- steps 2 and 3 ------------------------------------------------------------------------------------------------


def on_folder(desk: SetupDesk, view: SetupView, token: str | None, key: str | None, folder: str | None) -> Updates:
    """Photos of a folder of this computer, which only who started the server may name."""

    def work() -> Updates:
        if not desk.access.is_local:
            raise StudyRequestError("folders can be named on the computer that serves this page alone; upload a ZIP")
        draft = _idle(desk, key)
        source = draft.name_folder(folder or "")
        return {view.photos.photos: setup_html.photos(source, draft.supply())}

    return _asked(desk, view, token, view.photos.photos, work)


def on_uploaded(desk: SetupDesk, view: SetupView, token: str | None, key: str | None, reply: str | None) -> Updates:
    """Photos that have just been unpacked; `reply` is the route's, with the files that were left out."""

    def work() -> Updates:
        draft = desk.workspace.draft(key or "")
        left_out = _left_out(reply or "")
        return {view.photos.photos: setup_html.photos(draft.photos(), draft.supply(), left_out)}

    return _unchanged(view) if not reply else _asked(desk, view, token, view.photos.photos, work)


def _left_out(reply: str) -> list[str]:
    try:
        listed = json.loads(reply).get("left_out")
    except (ValueError, AttributeError):
        return []
    return [str(line) for line in listed[:_MAX_LEFT_OUT]] if isinstance(listed, list) else []


def on_plan(desk: SetupDesk, view: SetupView, token: str | None, key: str | None) -> Updates:
    """Photos needed and there, as `study plan` counts them."""

    def work() -> Updates:
        draft = desk.workspace.draft(key or "")
        protocol = draft.protocol()
        try:
            supply = draft.supply()
        except StudyRequestError:
            supply = None
        return {view.photos.outlook: setup_html.outlook(protocol, supplies.outlook(protocol, supply), supply)}

    return _asked(desk, view, token, view.photos.outlook, work)


def on_power(desk: SetupDesk, view: SetupView, token: str | None, key: str | None, studies: float | None) -> Updates:
    """Starts to simulate the power, as `study plan` does."""

    def work() -> Updates:
        draft, number = _idle(desk, key), int(studies or 0)
        if not 1 <= number <= MOST_STUDIES:
            raise StudyRequestError(f"simulate 1 to {MOST_STUDIES} studies")
        protocol = draft.protocol()
        job = JobState(POWER, "Studies simulated")
        desk.jobs.start(
            draft.key, job,
            lambda progress: setup_html.power(protocol, powers.power(protocol, number, on_study=progress), number),
        )  # fmt: skip
        return {view.photos.powered: setup_html.progress(job)}

    return _asked(desk, view, token, view.photos.powered, work)


# --- steps 4 and 5 ------------------------------------------------------------------------------------------------


def on_build(desk: SetupDesk, view: SetupView, token: str | None, key: str | None) -> Updates:
    """Starts to build the study, as `study build` does."""

    def work() -> Updates:
        draft = _idle(desk, key)
        protocol = draft.protocol()
        supplies.check_supply(protocol, draft.supply())  # before the model is loaded
        if desk.pages.url(draft.out):
            raise StudyRequestError("the readers' page of this study is served; stop serving it first")
        job = JobState(BUILD, "Photos assessed")
        missing = protocol.missing_ethics()
        desk.jobs.start(
            draft.key, job, lambda progress: setup_html.built(draft.build(desk.assessor, progress), missing)
        )
        return {view.study.built: setup_html.progress(job)}

    return _asked(desk, view, token, view.study.built, work)


def on_stop(desk: SetupDesk, view: SetupView, token: str | None, key: str | None) -> Updates:
    """Stops the study's job at its next step."""

    def work() -> Updates:
        desk.jobs.stop(desk.workspace.draft(key or "").key)
        return _unchanged(view)

    return _asked(desk, view, token, view.study.built, work)


def on_watch(desk: SetupDesk, view: SetupView, token: str | None, key: str | None) -> Iterator[Updates]:
    """Shows a job of the chosen study until it has ended, with its outcome."""
    if not desk.access.admits(token) or not key:
        yield _unchanged(view)
        return
    shown: JobState | None = None
    while (state := desk.jobs.state(key)) is not None:
        place = {BUILD: view.study.built, POWER: view.photos.powered}[state.kind]
        if state.ended:
            problem = setup_html.alert(sentence(state.problem)) if state.problem else None
            yield {place: problem or state.result, **_conduct(desk, view, desk.workspace.draft(key))}
            return
        if state != shown:
            yield {place: setup_html.progress(state)}
        shown = state
        time.sleep(WATCH_SECONDS)
    yield _unchanged(view)


def _unchanged(view: SetupView) -> Updates:
    """An update that changes nothing: Gradio takes no empty one."""
    return {view.entry.begun: gr.update()}


def on_serve(desk: SetupDesk, view: SetupView, token: str | None, key: str | None) -> Updates:
    """Serves the readers' page from a process of its own, for this computer."""

    def work() -> Updates:
        if not desk.access.is_local:
            raise StudyRequestError("ask whoever runs this server to serve the readers' page with the command above")
        draft = _idle(desk, key)
        _check_built(draft)
        desk.pages.start(draft.out)
        return {**_conduct(desk, view, draft), view.study.code_once: ""}

    return _asked(desk, view, token, view.study.code_once, work)


def on_end(desk: SetupDesk, view: SetupView, token: str | None, key: str | None) -> Updates:
    """Stops serving the readers' page."""

    def work() -> Updates:
        draft = desk.workspace.draft(key or "")
        desk.pages.stop(draft.out)
        return _conduct(desk, view, draft)

    return _asked(desk, view, token, view.study.code_once, work)


def on_coordinator(desk: SetupDesk, view: SetupView, token: str | None, key: str | None) -> Updates:
    """A new code for the coordinator's tab of the readers' page; it is on the page this once."""

    def work() -> Updates:
        draft = _idle(desk, key)
        _check_built(draft)
        return {view.study.code_once: setup_html.code(draft.coordinator_code())}

    return _asked(desk, view, token, view.study.code_once, work)


def _check_built(draft: StudyDraft) -> None:
    if not draft.is_built:
        raise StudyRequestError("the study is not built yet: step 4")


def _conduct(desk: SetupDesk, view: SetupView, draft: StudyDraft) -> Updates:
    """Where the readers' page is served, once there is a study to serve."""
    if not draft.is_built:
        return {view.study.conduct: setup_html.group("The study is not built yet.")}
    missing = draft.protocol().missing_ethics()
    return {view.study.conduct: setup_html.conduct(draft, desk.pages.url(draft.out), missing)}
