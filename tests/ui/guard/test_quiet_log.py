"""Logs name what failed and where, and repeat nothing that a visitor entered."""

from __future__ import annotations

import pytest

from skinclip.ui.guard.quiet_log import describe
from tests.ui.guard.gated import call, gated, visitor


def test_a_failing_handler_is_logged_without_what_was_entered(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    reply = visitor(gated()[1]).post("/gradio_api/run/predict", json=call(data=["fail"]))
    assert reply.status_code == 500 and "patient-name" not in reply.text
    streams = capfd.readouterr()
    logged = caplog.text + streams.out + streams.err
    assert "ValueError" in logged and "gated.py" in logged and "in handle" in logged
    assert "patient-name" not in logged and "cannot use" not in logged


def test_causes_are_named_and_a_circle_of_them_ends() -> None:
    try:
        try:
            raise KeyError("a name")
        except KeyError as cause:
            raise OSError("a path") from cause
    except OSError as fault:
        assert fault.__cause__ is not None
        fault.__cause__.__context__ = fault
        words = describe(fault)
    assert words.splitlines()[0] == "OSError" and "KeyError" in words and "a name" not in words
