"""The files below docs/deploy: linted, and their commands understood by the program."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from skinclip import __version__
from skinclip.cli import main as cli

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
LINT = YamlLintConfig("{extends: default, rules: {line-length: {max: 120}, comments: {min-spaces-from-content: 1}}}")
EXTRA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.y*ml")), ids=lambda path: path.name)
def test_yaml_is_linted(path: Path) -> None:
    assert [str(problem) for problem in linter.run(path.read_text(), LINT)] == []


def test_ray_has_one_version() -> None:
    (pinned,) = EXTRA["screen"]
    assert pinned in (ROOT / "requirements-dev.txt").read_text()
    job = yaml.safe_load((DEPLOY / "kuberay_screen.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned.partition("==")[2]


def test_the_kuberay_job_starts_a_command_of_ours() -> None:
    job = yaml.safe_load((DEPLOY / "kuberay_screen.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "skinclip", "screen"]
    args = cli._parser(words[3:]).parse_args(words[3:])
    assert args.address == "auto"
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert args.workers * args.threads <= group["maxReplicas"] * int(group["rayStartParams"]["num-cpus"])


def test_kuberay_containers_have_no_rights_and_the_ports_they_need() -> None:
    cluster = yaml.safe_load((DEPLOY / "kuberay_screen.yaml").read_text())["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"].endswith(f":{__version__}")
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {v["name"] for v in pod["volumes"]} == {v["name"] for v in container["volumeMounts"]}
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
