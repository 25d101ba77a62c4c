"""The files below docs/deploy: linted, and their commands understood by the program."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from yamllint import linter
from yamllint.config import YamlLintConfig

from skinclip import __version__
from skinclip.cli import main as cli
from skinclip.service.metrics import Metrics

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


# --- compose, Prometheus, systemd -------------------------------------------------------------------------------------


def composed() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def our_services() -> dict[str, dict]:
    return {n: s for n, s in composed()["services"].items() if s["image"].startswith("skinclip:")}


def test_compose_starts_commands_of_ours_without_rights() -> None:
    for name, service in our_services().items():
        if "command" in service:
            assert service["command"][:2] == ["python", "app.py"], name
            words = ["run", *service["command"][2:]]
            assert callable(cli._parser(words).parse_args(words).run)
        assert service["image"].endswith(f":{__version__}") and service["read_only"] and service["cap_drop"] == ["ALL"]


def test_compose_has_what_it_names_and_shows_the_proxy_alone() -> None:
    compose = composed()
    for name, service in compose["services"].items():
        assert set(service["networks"]) <= set(compose["networks"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            known = source in compose["volumes"] if source[0] != "." else source in ("./tls", "./keys", "./studies")
            assert known or (DEPLOY / source).is_file(), volume
        assert set(service.get("depends_on", ())) <= set(compose["services"])
    reached = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert reached == {"proxy": ["443:443"], "prometheus": ["127.0.0.1:9090:9090"]}
    assert compose["networks"]["inside"]["internal"] is True


def test_prometheus_asks_who_is_there() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    (group,) = job["static_configs"]
    port = composed()["services"]["page-1"]["environment"]["SKINCLIP_METRICS"].rpartition(":")[2]
    assert set(group["targets"]) == {f"{name}:{port}" for name in our_services()}


def test_alerts_name_metrics_that_there_are() -> None:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    exported = generate_latest(Metrics(CollectorRegistry()).registry).decode()
    families = {line.split()[2] for line in exported.splitlines() if line.startswith("# TYPE")}
    for rule in group["rules"]:
        for metric in re.findall(r"skinclip_[a-z_]+", rule["expr"]):
            assert re.sub(r"_(bucket|count|sum)$", "", metric) in families, metric


def test_the_systemd_unit() -> None:
    """systemd-analyze, where there is one, finds nothing but the program that is not installed here."""
    unit = (DEPLOY / "skinclip.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", unit, re.M)
    assert command is not None
    words = ["run", *shlex.split(command[1])[2:]]
    assert callable(cli._parser(words).parse_args(words).run)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    verify = ["systemd-analyze", "verify", "--man=no", str(DEPLOY / "skinclip.service")]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "skinclip.service" in line]
    assert [line for line in ours if "is not executable" not in line] == []
