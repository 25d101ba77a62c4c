from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from huggingface_hub import SpaceHardware

from skinclip.core.config import PRESETS
from skinclip.imaging.photo import MAX_FILE_MB, MAX_MEGAPIXELS
from skinclip.ui import server, serving

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    *("requirements.txt", "requirements-dev.txt", "README.md", "app.py", "spaces.yaml", "pyproject.toml", "Makefile"),
    *("LICENSE", "Dockerfile", "skinclip", "assets", "eval_study", "tests", "runs", "checkpoints", "build"),
}


# https://huggingface.co/docs/hub/spaces-config-reference in November 2026, and `license`, which every repository has
SPACE_KEYS = {
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "app_port"),
    *("suggested_hardware", "suggested_storage", "app_build_command", "base_path", "fullWidth", "header", "models"),
    *("short_description", "datasets", "tags", "thumbnail", "pinned", "license", "hf_oauth", "hf_oauth_scopes"),
    *("hf_oauth_expiration_minutes", "hf_oauth_authorized_org", "disable_embedding", "startup_duration_timeout"),
    *("custom_headers", "preload_from_hub"),
}
SPACE_COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def app_section() -> dict:
    return yaml.safe_load((ROOT / "spaces.yaml").read_text())["app"]


def front_matter() -> dict:
    head = (ROOT / "README.md").read_text().split("---")
    return yaml.safe_load(head[1])


def test_readme_front_matter_is_that_of_spaces_yaml() -> None:
    spaces = yaml.safe_load((ROOT / "spaces.yaml").read_text())
    spaces.pop("app")
    assert front_matter() == spaces


def test_front_matter_has_only_keys_that_spaces_knows() -> None:
    assert set(front_matter()) <= SPACE_KEYS


def test_front_matter_says_what_spaces_accepts() -> None:
    head = front_matter()
    assert len(head["short_description"]) <= 60  # a longer one is refused when it is uploaded
    assert {head["colorFrom"], head["colorTo"]} <= SPACE_COLOURS
    assert head["sdk"] == "gradio" and (ROOT / head["app_file"]).is_file()
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert required == f">={head['python_version']}"


def test_every_preset_has_hardware_that_spaces_offers() -> None:
    hardware = app_section()["hardware"]
    assert list(hardware) == list(PRESETS) and app_section()["preset"] in PRESETS
    assert set(hardware.values()) <= {flavor.value for flavor in SpaceHardware}
    assert front_matter()["suggested_hardware"] == hardware[app_section()["preset"]]


def test_what_spaces_yaml_says_of_the_app_is_so() -> None:
    section = app_section()
    page = "".join(
        path.read_text() for path in (ROOT / "skinclip" / "cli" / "run.py", ROOT / "skinclip" / "core" / "paths.py")
    )
    assert set(section["variables"]) == set(re.findall(r"SKINCLIP_[A-Z]+", page))
    assert section["preset"] == re.search(r'_setting\("SKINCLIP_PRESET"\) or "(.+?)"', page)[1]  # type: ignore[index]
    assert section["health"] == server.HEALTH
    assert section["limits"] == {
        "max_file_mb": MAX_FILE_MB,
        "max_megapixels": MAX_MEGAPIXELS,
        "queue": serving.QUEUE,
    }
    tabs = re.findall(r'gr\.Tab\(.+?, id="(.+?)"\)', (ROOT / "skinclip" / "ui" / "app.py").read_text())
    assert section["tabs"] == tabs


def test_gradio_is_pinned_alike() -> None:
    assert f"gradio=={front_matter()['sdk_version']}" in (ROOT / "requirements.txt").read_text()


def test_top_level_holds_nothing_else() -> None:
    assert {p.name for p in ROOT.iterdir() if not p.name.startswith(".")} <= TOP_LEVEL


def test_only_ci_names_where_its_data_lies() -> None:
    needle = "../" + "shared"
    folders = ("skinclip", "eval_study", "tests", "assets")
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in {".py", ".md", ".yaml", ".sh", ".json"}]
    files += [p for p in ROOT.iterdir() if p.is_file()]
    assert not [str(p) for p in files if needle in p.read_text(errors="ignore")]


def test_weights_stay_small() -> None:
    sizes = [p.stat().st_size for p in (ROOT / "assets" / "mini").rglob("*.safetensors")]
    assert sum(sizes) <= 40 * 2**20
