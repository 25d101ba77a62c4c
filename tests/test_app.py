"""What the program is told by its options, and by the environment where there are none."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESET", "WEIGHTS", "ADAPTERS", "HOST", "PORT"):
        monkeypatch.delenv(f"SKINCLIP_{name}", raising=False)
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)  # which importing app sets


def told(*options: str) -> Namespace:
    import app

    return app.arguments().parse_args(options)


def test_on_this_computer_alone_by_default() -> None:
    args = told()
    assert (args.host, args.port, args.preset, args.weights, args.study) == ("127.0.0.1", 7860, "mini", None, None)


def test_on_a_space_without_options_it_listens_where_its_proxy_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/space")
    assert (told().host, told().port) == ("0.0.0.0", 7860)
    assert told("--host", "127.0.0.1").host == "127.0.0.1"


def test_options_win_over_our_variables_and_these_over_gradios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "10.0.0.1")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7001")
    assert (told().host, told().port) == ("10.0.0.1", 7001)
    for name, value in {
        "HOST": "10.0.0.2",
        "PORT": "7002",
        "PRESET": "qwen-3b",
        "WEIGHTS": "/some/where",
        "ADAPTERS": "/a",
    }.items():
        monkeypatch.setenv(f"SKINCLIP_{name}", value)
    args = told()
    assert (args.host, args.port, args.preset, args.weights) == ("10.0.0.2", 7002, "qwen-3b", Path("/some/where"))
    assert args.adapters == Path("/a") and told("--adapters", "b").adapters == Path("b")
    args = told("--host", "::1", "--port", "7003", "--preset", "mini", "--weights", "here")
    assert (args.host, args.port, args.preset, args.weights) == ("::1", 7003, "mini", Path("here"))


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        ([], {"SKINCLIP_PORT": "many"}, "invalid int value: 'many'"),
        ([], {"SKINCLIP_HOME": "/dev/null/below"}, "set SKINCLIP_HOME to a folder"),
        (["--study", "/nowhere"], {}, "/nowhere"),
    ],
)
def test_what_cannot_work_is_told_at_once(
    options: list[str], environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = subprocess.run([sys.executable, "app.py", *options], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr
