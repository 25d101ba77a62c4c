"""Visitors' memory: bounded in time and size, no second copies, and nobody loses a photo to others."""

from __future__ import annotations

import time

import gradio as gr
import numpy as np
import pytest
from fastapi import FastAPI

from skinclip.pipeline.settings import Settings
from skinclip.ui.guard import sessions
from skinclip.ui.guard.sessions import VisitorSessions, size_of
from skinclip.ui.state import AssessedPhoto
from tests.ui.guard.gated import call, gated, visitor


@pytest.fixture
def opened() -> tuple[gr.Blocks, FastAPI]:
    return gated(visitors=4)


def holder(page: gr.Blocks) -> VisitorSessions:
    assert isinstance(page.state_holder, VisitorSessions)
    return page.state_holder


def test_sixty_four_requests_take_nobodys_photo(opened: tuple[gr.Blocks, FastAPI]) -> None:
    page, application = opened
    mine = visitor(application)
    assert mine.post("/gradio_api/run/predict", json=call(data=["my photo"], session="mysession")).status_code == 200
    for i in range(64):
        visitor(application).post("/gradio_api/run/predict", json=call(data=["x"], session=f"attacker{i}"))
        visitor(application).post("/gradio_api/queue/join", json=call(fn_index=1, data=["x"], session=f"other{i}"))
    assert b"my photo" in holder(page)["mysession"].state_data.values()
    assert len(holder(page).session_data) <= 4
    reply = visitor(application).post("/gradio_api/run/predict", json=call(session="latecomer"))
    assert reply.status_code == 503 and "full" in reply.json()["detail"]


def test_the_bytes_of_all_visitors_are_bounded(opened: tuple[gr.Blocks, FastAPI]) -> None:
    page, application = opened
    holder(page).most_bytes = 10
    mine = visitor(application)
    for _ in range(2):  # who is there goes on
        reply = mine.post("/gradio_api/run/predict", json=call(data=["a photo of 20 bytes"], session="mysession"))
        assert reply.status_code == 200
    reply = visitor(application).post("/gradio_api/run/predict", json=call(session="newcomer"))
    assert reply.status_code == 503 and "full" in reply.json()["detail"]


def test_sessions_that_hold_nothing_make_room(opened: tuple[gr.Blocks, FastAPI]) -> None:
    page, application = opened
    for i in range(20):
        reply = visitor(application).post("/gradio_api/run/predict", json=call(data=[""], session=f"session{i}"))
        assert reply.status_code == 200
    assert len(holder(page).session_data) == 4


def test_a_visitor_who_has_only_what_everybody_begins_with_makes_room(opened: tuple[gr.Blocks, FastAPI]) -> None:
    page, _ = opened
    settings = next(block for block in page.blocks.values() if isinstance(block, gr.State))
    settings.value = Settings()
    held = VisitorSessions(4)
    held.set_blocks(page)
    for i in range(4):
        held[f"session{i}"][settings._id] = Settings()
    assert held.admit("newcomer")
    for i in range(4):
        held[f"session{i}"][settings._id] = Settings(threshold=0.2)
    assert not held.admit("another")


def test_nothing_of_a_visitor_outlives_its_time(
    opened: tuple[gr.Blocks, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, application = opened
    visitor(application).post("/gradio_api/run/predict", json=call(data=["61 years"]))
    state = holder(page)["abcdefgh12"]
    assert state.config_values == {} and b"61 years" in state.state_data.values()
    monkeypatch.setattr(sessions, "KEPT_SECONDS", 0.02)
    time.sleep(0.05)
    holder(page).delete_all_expired_state()
    assert not holder(page).session_data and not holder(page)._used


def test_a_closed_page_is_forgotten_sooner(opened: tuple[gr.Blocks, FastAPI], monkeypatch: pytest.MonkeyPatch) -> None:
    page, application = opened
    visitor(application).post("/gradio_api/run/predict", json=call())
    monkeypatch.setattr(sessions, "KEPT_AFTER_CLOSE", 0.02)
    time.sleep(0.05)
    holder(page).delete_all_expired_state()
    assert "abcdefgh12" in holder(page)
    holder(page).session_data["abcdefgh12"].is_closed = True
    holder(page).delete_all_expired_state()
    assert "abcdefgh12" not in holder(page)


def test_answers_that_nobody_fetches_are_dropped(
    opened: tuple[gr.Blocks, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, application = opened
    waiting = page._queue.pending_messages_per_session
    reply = visitor(application).post("/gradio_api/queue/join", json=call(fn_index=1, session="neverfetches"))
    assert reply.status_code == 200 and "neverfetches" in waiting
    monkeypatch.setattr(sessions, "KEPT_AFTER_CLOSE", 0.02)
    monkeypatch.setattr(sessions, "KEPT_SECONDS", 0.02)
    holder(page).delete_all_expired_state()
    time.sleep(0.05)
    holder(page).delete_all_expired_state()
    assert "neverfetches" not in waiting


def test_the_bytes_of_photos_are_counted(made_up) -> None:
    answer = AssessedPhoto(bytes(100), made_up, np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10), np.float32))
    assert size_of(answer) == 100 + 300 + 400
    assert size_of({"a": [b"12", (b"3", None)]}) == 3 and size_of("text") == 0
