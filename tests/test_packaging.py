from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    *("requirements.txt", "requirements-dev.txt", "README.md", "app.py", "spaces.yaml", "pyproject.toml", "Makefile"),
    *("LICENSE", "Dockerfile", "skinclip", "assets", "eval_study", "tests", "runs", "checkpoints", "build"),
}


def front_matter() -> dict:
    head = (ROOT / "README.md").read_text().split("---")
    return yaml.safe_load(head[1])


def test_readme_front_matter_is_that_of_spaces_yaml() -> None:
    spaces = yaml.safe_load((ROOT / "spaces.yaml").read_text())
    spaces.pop("app")
    assert front_matter() == spaces


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
