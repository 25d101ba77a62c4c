"""The set-up page's parts: a study in preparation is chosen, and five steps lead to readers who answer.

Here is the layout; what each step does is in `setup_steps`. As on the coordinator's tab, the code lies in the browser
tab's own sessionStorage, and every handler asks anew whether it admits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import gradio as gr

from skinclip.study.protocol.form import FormField, form_groups
from skinclip.ui import setup_html
from skinclip.ui.setup_desk import SetupDesk

# Runs in the browser: the code of the link, or the one that was typed before in this tab, is given back on loading.
KEPT = "study-setup"
KEEP = f"(code) => code ? sessionStorage.setItem('{KEPT}', code) : sessionStorage.removeItem('{KEPT}')"
GIVE_BACK = (
    "() => { const code = new URLSearchParams(location.hash.slice(1)).get('code'); "
    "if (code) history.replaceState(null, '', location.pathname); "
    f"return code || sessionStorage.getItem('{KEPT}') || ''; }}"
)
POWER_STUDIES = 20
Updates = dict[Any, Any]


@dataclass(frozen=True)
class EntryView:
    """The sign-in, and the choice of a study."""

    entry: gr.Column
    code: gr.Textbox
    enter: gr.Button
    refused: gr.HTML
    room: gr.Column
    study: gr.Dropdown
    key: gr.Textbox
    begin: gr.Button
    begun: gr.HTML
    steps: gr.Tabs
    token: gr.Textbox
    chosen: gr.Textbox


@dataclass(frozen=True)
class ProtocolView:
    """Step 1."""

    save: gr.Button
    saved: gr.HTML
    yaml: gr.Textbox
    save_yaml: gr.Button
    yaml_saved: gr.HTML


@dataclass(frozen=True)
class PhotosView:
    """Steps 2 and 3."""

    folder: gr.Textbox
    take: gr.Button
    uploaded: gr.Textbox
    photos: gr.HTML
    count: gr.Button
    outlook: gr.HTML
    studies: gr.Number
    power: gr.Button
    halt: gr.Button
    powered: gr.HTML


@dataclass(frozen=True)
class StudyView:
    """Steps 4 and 5."""

    build: gr.Button
    stop: gr.Button
    built: gr.HTML
    serve: gr.Button
    end: gr.Button
    coordinator: gr.Button
    conduct: gr.HTML
    code_once: gr.HTML


@dataclass(frozen=True)
class SetupView:
    """All components of the page; `form` by the path of the protocol's field."""

    entry: EntryView
    protocol: ProtocolView
    photos: PhotosView
    study: StudyView
    form: dict[str, Any]

    @property
    def components(self) -> list[Any]:
        """Every component that a handler may change."""
        parts = (self.entry, self.protocol, self.photos, self.study)
        return [*(getattr(part, f.name) for part in parts for f in fields(part)), *self.form.values()]

    @property
    def outcomes(self) -> list[gr.HTML]:
        """Outcomes that belong to one study, cleared when another is chosen."""
        one, two, three = self.protocol, self.photos, self.study
        return [one.saved, one.yaml_saved, two.photos, two.outlook, two.powered, three.built, three.code_once]


def build(desk: SetupDesk) -> SetupView:
    """Lays out the page inside the current Blocks; `setup_steps.wire` wires its events."""
    form: dict[str, Any] = {}
    with gr.Column(elem_classes="sk-desk-signin") as entry:
        gr.HTML(setup_html.intro(desk.access.is_local))
        code = gr.Textbox(label="Set-up code", type="password", max_lines=1, elem_id="setup-code")
        enter = gr.Button("Open", variant="primary", elem_id="setup-enter")
        refused = gr.HTML(elem_id="setup-refused")
    with gr.Column(visible=False, elem_classes="sk-setup") as room:
        gr.HTML(setup_html.HEADING)
        with gr.Row():
            study = gr.Dropdown([], label="Study in preparation", interactive=True, elem_id="setup-study")
            key = gr.Textbox(
                label="Short name of a new study", placeholder="trust-study-bern", max_lines=1, elem_id="setup-key"
            )
            begin = gr.Button("Begin a new study", elem_id="setup-begin")
        begun = gr.HTML(elem_id="setup-begun")
        with gr.Tabs(visible=False) as steps:
            with gr.Tab("1 Protocol", id="protocol"):
                protocol = _protocol_step(form)
            photos = _photo_steps(desk)
            studied = _study_steps()
    token, chosen = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden", elem_id="setup-chosen")
    opened = EntryView(entry, code, enter, refused, room, study, key, begin, begun, steps, token, chosen)
    return SetupView(opened, protocol, photos, studied, form)


def _protocol_step(form: dict[str, Any]) -> ProtocolView:
    for number, group in enumerate(form_groups()):
        with gr.Accordion(group.title, open=number == 0):
            gr.HTML(setup_html.group(group.help))
            for field in group.fields:
                form[field.path] = _component(field)
    save = gr.Button("Keep the protocol", variant="primary", elem_id="setup-save")
    saved = gr.HTML(elem_id="setup-saved")
    with gr.Accordion("The whole protocol as YAML, with what the form does not have", open=False):
        yaml = gr.Textbox(label="Protocol", lines=20, max_lines=40, elem_id="setup-yaml")
        save_yaml = gr.Button("Keep this text", elem_id="setup-save-yaml")
        yaml_saved = gr.HTML(elem_id="setup-yaml-saved")
    return ProtocolView(save, saved, yaml, save_yaml, yaml_saved)


def _component(field: FormField) -> Any:
    """The component for a field; bounds are checked, and worded, by the protocol."""
    named: dict[str, Any] = {
        "label": field.label,
        "info": field.help,
        "elem_id": "field-" + field.path.replace(".", "-"),
    }
    choices = [(words, value) for value, words in field.options]
    match field.kind:
        case "flag":
            return gr.Checkbox(**named)
        case "whole" | "number":
            return gr.Number(**named)
        case "choice":
            return gr.Dropdown(choices, value=None, **named)
        case "choices":
            return gr.CheckboxGroup(choices, **named)
    return gr.Textbox(lines=8 if field.kind == "long_text" else 1, **named)


def _photo_steps(desk: SetupDesk) -> PhotosView:
    with gr.Tab("2 Photos", id="photos"):
        gr.HTML(setup_html.photos_help(desk.access.is_local))
        with gr.Row(visible=desk.access.is_local):
            folder = gr.Textbox(label="Folder of this computer", max_lines=1, elem_id="setup-folder")
            take = gr.Button("Take the photos of this folder", elem_id="setup-take")
        gr.HTML(setup_html.UPLOAD)
        uploaded = gr.Textbox(visible="hidden", elem_id="setup-uploaded")
        photos = gr.HTML(elem_id="setup-photos")
    with gr.Tab("3 Plan and power", id="plan"):
        count = gr.Button("Count photos needed and there", elem_id="setup-count")
        outlook = gr.HTML(elem_id="setup-outlook")
        with gr.Row():
            studies = gr.Number(
                POWER_STUDIES,
                label="Simulated studies",
                info="More take longer and tell more.",
                elem_id="setup-studies",
            )
            power = gr.Button("Simulate the power", elem_id="setup-power")
            halt = gr.Button("Stop", elem_id="setup-halt")
        powered = gr.HTML(elem_id="setup-powered")
    return PhotosView(folder, take, uploaded, photos, count, outlook, studies, power, halt, powered)


def _study_steps() -> StudyView:
    with gr.Tab("4 Build", id="build"):
        gr.HTML(
            setup_html.group(
                "The model looks at each photo once, and the cases are drawn. What it answered is kept: "
                "a build that was stopped, or refused for too few errors of the AI, goes on where it was."
            )
        )
        with gr.Row():
            build = gr.Button("Build the study", variant="primary", elem_id="setup-build")
            stop = gr.Button("Stop", elem_id="setup-stop")
        built = gr.HTML(elem_id="setup-built")
    with gr.Tab("5 Readers", id="readers"):
        conduct = gr.HTML(elem_id="setup-conduct")
        with gr.Row():
            serve = gr.Button("Serve the readers' page", variant="primary", elem_id="setup-serve")
            end = gr.Button("Stop serving it", elem_id="setup-end")
            coordinator = gr.Button("Make a coordinator code", elem_id="setup-coordinator")
        code_once = gr.HTML(elem_id="setup-coordinator-code")
    return StudyView(build, stop, built, serve, end, coordinator, conduct, code_once)


def bind(
    desk: SetupDesk, view: SetupView, event: tuple[Any, gr.HTML], handler: Callable[..., Updates], inputs: Sequence[Any]
) -> Any:
    """Runs a handler on an event, whose progress shows at a place, with the code and the chosen study first."""
    trigger, place = event
    return trigger(
        partial(handler, desk, view),
        [view.entry.token, view.entry.chosen, *inputs],
        view.components,
        concurrency_id="setup",
        concurrency_limit=4,
        api_visibility="private",
        show_progress_on=place,
    )
