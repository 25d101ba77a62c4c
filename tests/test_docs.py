"""The documents: short, linked, in step with the program; every command in them is tried, or at least parsed.

Commands stand in fenced blocks. Those of the embedded model are run, in a folder of their own, on drawn photos; those
that need data sets, published weights or a hub are parsed as the program would, and `make` says what it would do.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skinclip.cli import main as cli
from tests.helpers.served import ROOT
from tests.study import tiny

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [README, *PAGES, ROOT / "assets" / "mini" / "README.md", *(ROOT / "eval_study").rglob("README.md")]
WORDS_OF_README = 1200
OPTION = re.compile(r"--[a-z][a-z-]*")


def body(document: Path) -> str:
    """The text without the front matter that Spaces reads."""
    return re.sub(r"\A---\n.*?\n---\n", "", document.read_text(), flags=re.S)


def commands(document: Path) -> Iterator[str]:
    """The lines of fenced blocks, continued lines joined and comments removed."""
    for block in re.findall(r"^```(?:sh|bash)?\n(.*?)^```", body(document), flags=re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            if command := re.sub(r"\s+#\s.*", "", line).strip():
                yield command


def every(*starts: str) -> list[str]:
    found = (command for document in DOCUMENTS for command in commands(document))
    return sorted({command for command in found if command.startswith(starts)})


def words_of(command: str) -> list[str]:
    """The arguments of the command line in a command."""
    words = shlex.split(command.replace("$SKINCLIP_DATA", "/data"))
    return words[words.index("skinclip") + 1 :]


# --- text -----------------------------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len(body(README).split()) <= WORDS_OF_README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", body(document))
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [target for target in local if target and not (document.parent / target).exists()] == []


def test_every_page_is_linked() -> None:
    linked = {
        (document.parent / target).resolve()
        for document in (README, *PAGES)
        for target in re.findall(r"\]\(([^)\s#]+\.md)\)", body(document))
        if "://" not in target
    }
    assert [str(page) for page in PAGES if page not in linked] == []


def test_the_changelog_ends_with_this_version() -> None:
    from skinclip import __version__

    versions = re.findall(r"^## (\S+)", (ROOT / "docs" / "CHANGELOG.md").read_text(), flags=re.M)
    assert versions[0] == __version__


def test_files_that_the_documents_name_are_there() -> None:
    """Paths in back quotes that begin with a folder of the project."""
    missing = []
    for document in (README, *PAGES):
        for path in re.findall(r"`((?:skinclip|eval_study|assets|tests|docs)/[\w./-]+)`", body(document)):
            if not (ROOT / path).exists() and not path.startswith("skinclip/assets/") and "NAME" not in path:
                missing.append(f"{document.name}: {path}")
    assert missing == []


# --- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", every("python -m skinclip", "skinclip", "accelerate launch"))
def test_commands_are_understood(command: str) -> None:
    if command.startswith("accelerate"):
        words = shlex.split(command)
        assert (ROOT / words[words.index("--config_file") + 1]).is_file()
    words = words_of(command)
    args = cli._parser(words).parse_args(words)  # a word that it does not know ends the program
    assert callable(args.run)


@pytest.mark.parametrize("command", every("python -m eval_study"))
def test_options_of_measurements_are_known(command: str) -> None:
    path = ROOT.joinpath(*shlex.split(command)[2].split("."))
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    folders = (path.parent if path.with_suffix(".py").is_file() else path, ROOT / "eval_study" / "benchmarks")
    source = "".join(module.read_text() for folder in folders for module in folder.glob("*.py"))
    assert [option for option in OPTION.findall(command) if f'"{option}"' not in source] == []


@pytest.mark.parametrize("command", every("make"))
def test_make_knows_its_targets(command: str) -> None:
    done = subprocess.run(
        ["make", "-n", f"PYTHON={sys.executable}", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_only_known_programs_are_shown() -> None:
    known = ("python -m skinclip", "python -m eval_study", "skinclip ", "make ", "accelerate launch", "docker ")
    fences = [c for document in (README, *PAGES) for c in commands(document)]
    shown = [c for c in fences if re.match(r"(python|skinclip|make|accelerate|docker|pip|hf)\b", c)]
    assert [command for command in shown if not command.startswith(known)] == []


# --- commands that run ---------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_photos: Path) -> Path:
    """A folder with what the commands name: the examples, labelled photos, and a protocol for tests."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    (tmp_path / "photos").symlink_to(tiny_photos)
    tiny.write_protocol(tmp_path / "my_study.yaml", key="my-study")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_assess_commands_run(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = [c for c in every("python -m skinclip assess") if "--preset" not in c and "lesion.jpg --" not in c]
    assert len(ran) >= 4
    for command in ran:
        assert cli.main(words_of(command)) == 0, capsys.readouterr().err
    assert (elsewhere / "answer" / "regions.png").is_file() and (elsewhere / "answer" / "lesion.pdf").is_file()


def test_study_commands_run_up_to_the_page(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the guide. Closing and what follows needs readers: `tests/study` has some."""
    guide = [words_of(c) for c in commands(ROOT / "docs" / "study_guide.md") if " study " in c and "make" not in c]
    first = [words for words in guide if words[1] in ("build", "enrol", "status", "verify")]
    assert {words[1] for words in first} == {"build", "enrol", "status", "verify"}
    for words in first:
        assert cli.main(words) == 0, capsys.readouterr().err
    assert (elsewhere / "studies" / "my-study").is_dir()
