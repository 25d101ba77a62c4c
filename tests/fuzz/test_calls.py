"""Calls of the pages: any JSON is answered in words, with a status that is no fault of the server."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from skinclip.ui.tabs import study_tab
from skinclip.ui.tabs.study_tab import reply_to
from tests.fuzz.effort import fuzzed
from tests.hostile_texts import TEXTS
from tests.ui.fake_study import FakeStudy
from tests.ui.guard.gated import gated, visitor

words = st.text(max_size=30) | st.sampled_from([text for text in TEXTS if "\ud800" not in text])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words | st.sampled_from(["path", "meta", "_type", "url"]), inner, max_size=4)
    ),
    max_leaves=10,
)
calls = st.fixed_dictionaries(
    {},
    optional={
        "session_hash": st.just("fuzzed12") | values,
        "fn_index": st.integers(-3, 5) | values,
        "data": st.lists(values, max_size=3) | values,
        "event_data": values,
        "trigger_id": values,
        "event_id": values,
        "simple_format": values,
        "batched": values,
        "oauth_token": values,
    },
)


@pytest.fixture(scope="module")
def client() -> TestClient:
    application: FastAPI = gated()[1]
    return visitor(application, "f" * 43)


@pytest.mark.filterwarnings("ignore:A `<script>` tag was found")
@fuzzed
@given(body=calls | values)
def test_any_call_is_answered_in_words(client: TestClient, body: Any) -> None:
    assume("\\ud" not in repr(body))  # no UTF-8, and so no JSON that a browser could send
    for path in ("/gradio_api/run/predict", "/gradio_api/cancel"):
        reply = client.post(path, json=body)
        assert reply.status_code in (200, 400, 403, 413, 415, 500), reply.text
        assert reply.status_code != 500 or "error" in reply.json()  # the page's own handler refused the value


@fuzzed
@given(name=st.sampled_from(sorted(study_tab.HANDLERS)), request_body=st.dictionaries(
    st.sampled_from(["token", "step", "request_id", "answers", "seconds", "code", "word"]) | words, values, max_size=6
))  # fmt: skip
def test_any_session_call_is_answered(name: str, request_body: dict[str, Any]) -> None:
    reply = reply_to(FakeStudy(), study_tab.HANDLERS[name], request_body)  # type: ignore[arg-type]
    assert isinstance(reply, dict)


@fuzzed
@given(path=st.text(alphabet="abc/.%=?#:@_-~ 0é\\", max_size=40))
def test_no_address_outside_the_list_is_answered(client: TestClient, path: str) -> None:
    try:
        reply = client.get("/gradio_api/" + path)
    except Exception as fault:  # the client's own refusal of what is no address
        assert type(fault).__module__.startswith("httpx")
        return
    assert reply.status_code in (404, 403)
