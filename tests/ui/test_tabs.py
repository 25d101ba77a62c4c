"""The registry of tabs: what is registered is on the page, a made-up tab too (docs/extending/tab.md)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from skinclip.core import assessment as record
from skinclip.core.config import preset
from skinclip.ui.app import build_page
from skinclip.ui.page import ModelPage, Tab
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.tabs import registry


def page_config(info: record.ModelInfo) -> dict[str, Any]:
    """The page as Gradio sends it to the browser."""
    assessor = SimpleNamespace(config=preset("mini"), checkpoints={}, model_info=info)

    async def build() -> dict[str, Any]:  # within a running event loop, or Gradio leaves one open
        page: dict[str, Any] = build_page(assessor).config  # type: ignore[arg-type]
        return page

    return asyncio.run(build())


def tabs_of(config: dict[str, Any]) -> list[tuple[str, str]]:
    items = [c["props"] for c in config["components"] if c["type"] == "tabitem"]
    return [(props["id"], props["label"]) for props in items]


def build_size_tab(page: ModelPage, tab: gr.Tab) -> gr.HTML:
    """A made-up tab that says how large the assessed photo is."""

    def on_open(answer: AssessedPhoto | None) -> str:
        return "" if answer is None else f"{answer.assessment.photo.width} pixels wide"

    text = gr.HTML(elem_id="size")
    opened = tab.select(on_open, page.answer, text, api_visibility="private")
    page.answer_events.append(opened)
    return text


def test_registered_tabs_are_on_the_page_in_their_order(made_up: record.Assessment) -> None:
    assert tabs_of(page_config(made_up.model)) == [("assess", "Assess"), ("compare", "Compare explanations")]


def test_a_made_up_tab_is_on_the_page_and_a_new_photo_cancels_its_event(
    made_up: record.Assessment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "TABS", [*registry.TABS, Tab("size", "Size", build_size_tab)])
    config = page_config(made_up.model)
    assert tabs_of(config)[-1] == ("size", "Size")
    assert any(c["props"].get("elem_id") == "size" for c in config["components"])
    tab_id = next(c["id"] for c in config["components"] if c["props"].get("id") == "size")
    event = next(d["id"] for d in config["dependencies"] if [tab_id, "select"] in [list(t) for t in d["targets"]])
    assert any(event in d["cancels"] for d in config["dependencies"])
