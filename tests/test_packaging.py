"""Files around the package: what Spaces reads, what a wheel carries, and that an installed one works by itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from huggingface_hub import SpaceHardware

from eval_study.trust_study.serving import free_port
from skinclip import __version__
from skinclip.core.assessment import Assessment
from skinclip.core.config import PRESETS
from skinclip.imaging.photo import MAX_FILE_MB, MAX_MEGAPIXELS
from skinclip.ui import server, serving
from skinclip.ui.tabs.registry import TABS
from tests.helpers.served import await_status
from tests.study import tiny

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    *("requirements.txt", "requirements-dev.txt", "README.md", "app.py", "spaces.yaml", "pyproject.toml", "Makefile"),
    *("LICENSE", "Dockerfile", "skinclip", "assets", "eval_study", "tests", "docs", "runs", "checkpoints", "build"),
    "skinclip.egg-info",
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
    assert set(section["variables"]) == set(re.findall(r"SKINCLIP_[A-Z_]+", page))
    assert section["preset"] == re.search(r'_setting\("SKINCLIP_PRESET"\) or "(.+?)"', page)[1]  # type: ignore[index]
    assert section["health"] == server.HEALTH
    assert section["limits"] == {
        "max_file_mb": MAX_FILE_MB,
        "max_megapixels": MAX_MEGAPIXELS,
        "queue": serving.MAX_QUEUED,
    }
    assert section["tabs"] == [tab.key for tab in TABS]


def test_gradio_is_pinned_alike() -> None:
    assert f"gradio=={front_matter()['sdk_version']}" in (ROOT / "requirements.txt").read_text()


def test_top_level_holds_nothing_else() -> None:
    assert {p.name for p in ROOT.iterdir() if not p.name.startswith(".")} <= TOP_LEVEL


def test_only_ci_names_where_its_data_lies() -> None:
    needle = "../" + "shared"
    folders = ("skinclip", "eval_study", "tests", "assets", "docs")
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in {".py", ".md", ".yaml", ".sh", ".json"}]
    files += [p for p in ROOT.iterdir() if p.is_file()]
    assert not [str(p) for p in files if needle in p.read_text(errors="ignore")]


def test_weights_stay_small() -> None:
    sizes = [p.stat().st_size for p in (ROOT / "assets" / "mini").rglob("*.safetensors")]
    assert sum(sizes) <= 60e6


# --- make ----------------------------------------------------------------------------------------------------------


def made_up_index(folder: Path, **versions: str) -> str:
    """Writes wheels that hold a version and nothing else, as an index on the disk; returns its URL."""
    for name, version in versions.items():
        (folder / name).mkdir(parents=True)
        file = f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(folder / name / file, "w") as archive:
            about = f"{name}-{version}.dist-info"
            archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{about}/RECORD", "")
        (folder / name / "index.html").write_text(f'<a href="{file.replace("+", "%2B")}">{file}</a>')
    return folder.as_uri()


def make(folder: Path, *words: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE"))}
    command = ["make", f"PYTHON={sys.executable}", *words]
    done = subprocess.run(command, cwd=folder, env=kept | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_comes_from_the_index_that_make_is_given_and_all_else_from_the_usual_one(tmp_path: Path) -> None:
    usual = made_up_index(tmp_path / "usual", torch="2.12.1", torchvision="0.27.1", pillow="12.3.0")
    builds = made_up_index(tmp_path / "cpu", torch="2.12.1+cpu", torchvision="0.27.1+cpu")
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(ROOT / "Makefile", project)
    (project / "docs/deploy").mkdir(parents=True)
    (project / "docs/deploy/requirements.lock").touch()
    (project / "requirements.txt").write_text("# pins\ntorch==2.12.1\ntorchvision==0.27.1  # fits\npillow==12.3.0\n")

    def installed(*words: str) -> dict[str, str]:
        make(project, ".venv/.runtime", *words, PIP_INDEX_URL=usual)
        folders = next((project / ".venv" / "lib").glob("python*/site-packages")).glob("*.dist-info")
        found = dict(folder.name.removesuffix(".dist-info").split("-", 1) for folder in folders)
        return {name: found[name] for name in ("torch", "torchvision", "pillow")}

    plain = {"torch": "2.12.1", "torchvision": "0.27.1", "pillow": "12.3.0"}
    small = {"torch": "2.12.1+cpu", "torchvision": "0.27.1+cpu", "pillow": "12.3.0"}
    assert installed() == plain
    assert installed(f"TORCH_INDEX={builds}") == small  # even where the large builds are there already
    (project / "requirements.txt").touch()
    assert installed() == small  # and it stays so
    assert make(project, ".venv/.runtime", f"TORCH_INDEX={builds}").strip().endswith("up to date.")


def test_make_takes_options_from_its_own_command_line_alone() -> None:
    started = make(ROOT, "-n", "run", HOST="x86_64-conda-linux-gnu", PORT="1", PRESET="huge", STUDY="/nowhere")
    assert re.search(r"app\.py\s*\\?\s*$", started)
    started = make(ROOT, "-n", "run", "HOST=::1", "PORT=7001", "PRESET=qwen-3b", "STUDY=a study")
    for option in ("--host '::1'", "--port '7001'", "--preset 'qwen-3b'", "--study 'a study'"):
        assert option in started


# --- the wheel, installed somewhere else ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Install:
    """An environment of its own that the wheel is installed into, and a folder far from the checkout to work in."""

    wheel: Path
    python: Path
    folder: Path

    @property
    def command(self) -> Path:
        return self.python.with_name("skinclip")

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SKINCLIP"))}
        return {**kept, "SKINCLIP_HOME": str(self.folder / "home")}

    def run(self, *words: str | Path) -> str:
        """Runs `skinclip` in the folder and returns what it printed."""
        done = subprocess.run(
            [self.command, *words], cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy: a build leaves files beside the source."""
    source = tmp_path_factory.mktemp("source")
    leave = shutil.ignore_patterns("__pycache__", "*.pyc")
    for folder in ("skinclip", "assets", "eval_study/trust_study/protocol"):
        shutil.copytree(ROOT / folder, source / folder, ignore=leave)
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(source / "out"), str(source))
    (built,) = (source / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """An empty environment with the wheel alone; its libraries, 5 GB, are lent by the one that runs the tests."""
    folder = tmp_path_factory.mktemp("install")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    site = next((folder / "env" / "lib").glob("python*")) / "site-packages"
    (site / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    return Install(wheel, python, tmp_path_factory.mktemp("elsewhere"))


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_wheel_carries_all_files_of_the_program(wheel: Path) -> None:
    carried = set(zipfile.ZipFile(wheel).namelist())
    places = {"skinclip": "skinclip", "assets": "skinclip/assets"}
    places["eval_study/trust_study/protocol"] = "skinclip/assets/trust_study"
    for folder, place in places.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{place}/{path.relative_to(ROOT / folder).as_posix()}" in carried
    assert {name.split("/")[0] for name in carried} == {"skinclip", f"skinclip-{__version__}.dist-info"}


def test_the_wheel_needs_what_requirements_txt_lists(wheel: Path) -> None:
    metadata = zipfile.ZipFile(wheel).read(f"skinclip-{__version__}.dist-info/METADATA").decode()
    asked = re.findall(r"^Requires-Dist: (.+)", metadata, flags=re.M)
    needed = {requirement.lower() for requirement in asked if "extra ==" not in requirement}
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    assert {name.replace("_", "-") for name in needed} == {line.lower().replace("_", "-") for line in lines if line}


def test_an_installed_package_is_found_without_the_checkout(install: Install) -> None:
    assert install.run("--version") == f"skinclip {__version__}\n"
    code = "from skinclip.core import paths; print(paths.ASSETS); assert paths.TRUST_STUDY.is_file()"
    done = subprocess.run(
        [install.python, "-c", code], cwd=install.folder, env=install.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(install.python.parents[1]))


def test_an_installed_package_assesses_an_example(install: Install) -> None:
    (example,) = install.python.parents[1].rglob("skinclip/assets/examples/synthetic_melanoma.jpg")
    shutil.copy(example, install.folder / "lesion.jpg")
    assessment = Assessment.from_json(install.run("assess", "lesion.jpg", "--json", "--out", "answer"))
    assert assessment.diagnosis[0].code == "mel" and assessment.model.version == __version__
    assert (install.folder / "answer" / "gradcam.png").is_file()


def test_an_installed_package_opens_the_page(install: Install) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [install.command, "run", "--port", str(port)], cwd=install.folder, env=install.environment()
    )
    try:
        await_status(url, process)
        with urlopen(url, timeout=30) as reply:
            page = unescape(reply.read().decode())
            assert reply.status == 200
        assert "SkinCLIP-VL" in page and "Photo of the lesion" in page and "Assess" in page
    finally:
        process.terminate()
        process.wait(30)


def test_an_installed_package_builds_a_study(install: Install, tiny_photos: Path) -> None:
    tiny.write_protocol(install.folder / "protocol.yaml")
    install.run("study", "build", "protocol.yaml", "--photos", tiny_photos, "--out", "study")
    assert "0 readers" in install.run("study", "status", "study")
