"""Options of the page, and the environment where there are none."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from skinclip.cli import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRESET", "WEIGHTS", "ADAPTERS", "HOST", "PORT", "NAME", "OPEN"):
        monkeypatch.delenv(f"SKINCLIP_{name}", raising=False)
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)


def parsed(*options: str) -> Namespace:
    parser = ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args(options)


def test_on_this_computer_alone_by_default() -> None:
    args = parsed()
    assert (args.host, args.port, args.preset, args.weights, args.study) == ("127.0.0.1", 7860, "mini", None, None)


def test_on_a_space_without_options_it_listens_where_its_proxy_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/space")
    assert (parsed().host, parsed().port) == ("0.0.0.0", 7860)
    assert parsed("--host", "127.0.0.1").host == "127.0.0.1"


def test_options_win_over_our_variables_and_these_over_gradios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "10.0.0.1")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7001")
    assert (parsed().host, parsed().port) == ("10.0.0.1", 7001)
    for name, value in {
        "HOST": "10.0.0.2",
        "PORT": "7002",
        "PRESET": "qwen-3b",
        "WEIGHTS": "/some/where",
        "ADAPTERS": "/a",
    }.items():
        monkeypatch.setenv(f"SKINCLIP_{name}", value)
    args = parsed()
    assert (args.host, args.port, args.preset, args.weights) == ("10.0.0.2", 7002, "qwen-3b", Path("/some/where"))
    assert args.adapters == Path("/a") and parsed("--adapters", "b").adapters == Path("b")
    args = parsed("--host", "::1", "--port", "7003", "--preset", "mini", "--weights", "here")
    assert (args.host, args.port, args.preset, args.weights) == ("::1", 7003, "mini", Path("here"))


@pytest.mark.parametrize("command", [["app.py"], ["-m", "skinclip", "run"]], ids=["app.py", "skinclip run"])
@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        ([], {"SKINCLIP_PORT": "many"}, "'many' is not a valid port; give a whole number from 0 to 65535"),
        ([], {"SKINCLIP_PORT": "70000"}, "'70000' is not a valid port"),
        (["--port", "99999"], {}, "'99999' is not a valid port"),
        (["--port", "-1"], {}, "--port"),
        (["--host", ""], {}, "no address is given; 127.0.0.1 is this computer alone"),
        ([], {"SKINCLIP_HOME": "/dev/null/below"}, "set SKINCLIP_HOME to a folder"),
        (["--study", "/nowhere"], {}, "/nowhere"),
        (["--preset", "huge"], {}, "choose"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    command: list[str], options: list[str], environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = subprocess.run([sys.executable, *command, *options], cwd=ROOT, capture_output=True, text=True, timeout=60)
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2 and words in result.stderr and len(lines) == 1


@pytest.mark.parametrize(
    ("page", "spared"),
    [
        (
            "skinclip.ui.app",
            "sklearn scipy.stats torchmetrics statsmodels sqlalchemy alembic psycopg "
            "skinclip.training skinclip.evaluation skinclip.study eval_study",
        ),
        (
            "skinclip.ui.study_page",
            "torch transformers captum scipy sklearn skinclip.model skinclip.pipeline eval_study",
        ),
    ],
)
def test_a_page_imports_no_more_than_it_needs(page: str, spared: str) -> None:
    """Each start pays for every import: the model's page needs no study or training, a study's page no model."""
    code = f"import sys, {page}; print(*sorted(set({spared.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
