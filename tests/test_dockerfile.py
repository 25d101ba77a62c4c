"""The Dockerfile without an engine to build it: a linter, and what none knows. `tests/browser` runs its command."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from skinclip.cli import run
from skinclip.ui.server import HEALTH
from tests.helpers.container import UID, copied, environment, health_check, instructions, last
from tests.helpers.served import ROOT

LINTER = Path(sys.executable).with_name("hadolint")


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    command = [LINTER, "--no-color", "--failure-threshold", "style", file]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def values(name: str) -> list[str]:
    return [i.value for i in instructions() if i.name == name]


def test_the_linter_has_nothing_to_say() -> None:
    result = lint(ROOT / "Dockerfile")
    assert (result.returncode, result.stdout) == (0, "")


def test_the_linter_would_say_it(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN pip install gradio\n")
    result = lint(bad)
    assert result.returncode == 1 and "DL3006" in result.stdout and "DL3013" in result.stdout


def test_every_image_it_starts_from_is_pinned_to_the_bit() -> None:
    stages: set[str] = set()
    for value in values("FROM"):
        image, _, name = value.partition(" AS ")
        assert image in stages or re.fullmatch(r"python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", image)
        stages.add(name)
    assert len(stages) == 3


def test_what_it_copies_is_there_and_nothing_else_reaches_the_build() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[0] == "*" and let_in == set(copied())
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert not values("ADD")


def test_it_runs_as_a_user_without_rights() -> None:
    at_the_end = [i for i in instructions() if i.stage == 2]
    names = [i.name for i in at_the_end]
    assert last("USER") == f"{UID}:{UID}"
    assert names[names.index("USER") :] == ["USER", "HEALTHCHECK", "CMD"]
    assert "pip" not in "".join(i.value for i in at_the_end if i.name == "RUN")


def test_port_and_directories_are_those_of_the_program() -> None:
    variables = environment()
    options = argparse.ArgumentParser()
    run.add_arguments(options)
    assert json.loads(last("VOLUME")) == [variables["SKINCLIP_HOME"]]
    assert last("EXPOSE") == variables["SKINCLIP_PORT"] == str(options.get_default("port"))
    assert variables["SKINCLIP_PRESET"] == options.get_default("preset")
    assert variables["GRADIO_TEMP_DIR"].startswith("/tmp/")
    assert json.loads(last("CMD")) == ["python", "app.py"]


def test_its_health_check_asks_for_the_health() -> None:
    assert health_check()[:2] == ["python", "-c"] and HEALTH in health_check()[2]


def test_it_holds_no_secret() -> None:
    names = [*environment(), *(value.partition("=")[0] for value in values("ARG"))]
    assert not [name for name in names if re.search("TOKEN|SECRET|PASSW|KEY|CREDENTIAL", name)]


def test_the_command_it_recommends_is_that_of_the_page_on_serving() -> None:
    said = " ".join(line.lstrip("# ").rstrip(" \\") for line in (ROOT / "Dockerfile").read_text().splitlines())
    page = (ROOT / "docs" / "serving.md").read_text()
    for option in ("-p 127.0.0.1:7860:7860", "--read-only --tmpfs /tmp", "-v skinclip:/data skinclip"):
        assert option in said and option in page
