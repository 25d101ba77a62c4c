"""Parts of the program: licences of its packages, a bill of materials, and hashes for the release notes.

    python -m eval_study.supply licences                                the table in docs/licences.md, written anew
    python -m eval_study.supply sbom --out build/skinclip.cdx.json      CycloneDX 1.6, with the lock's hashes
    python -m eval_study.supply release --wheel build/skinclip.whl --out build/release.md

All read what is installed and `docs/deploy/requirements.lock`; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from skinclip import __version__
from skinclip.core.paths import ASSETS
from skinclip.model.checkpoint import weights_sha256

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "docs" / "deploy" / "requirements.lock"
PAGE = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- made by eval_study.supply -->\n", "<!-- end -->\n"
CHECKPOINTS = ("mini", "plain")


@dataclass(frozen=True)
class Package:
    """An installed package with its licence as its own metadata state it."""

    name: str
    version: str
    licence: str


def direct(path: Path = ROOT / "requirements.txt") -> list[Requirement]:
    """The requirements that a file names itself."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def packages() -> list[Package]:
    """All packages that the program needs here, their own needs included, by name."""
    found: dict[str, Package] = {}
    pending = direct()
    while pending:
        wanted = pending.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        try:
            one = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        found[name] = Package(name, one.version, licence_of(one))
        pending += _needs(one, wanted.extras)
    return sorted(found.values(), key=lambda package: package.name)


def _needs(one: metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    for text in one.requires or ():
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield need


def licence_of(one: metadata.Distribution) -> str:
    """The licence: its SPDX expression, else its classifiers, else the first line of its free text, or "not stated"."""
    about = one.metadata
    if expression := about.get("License-Expression"):
        return expression
    classifiers = [c for c in about.get_all("Classifier", []) if c.startswith("License ::")]
    named = "; ".join(c.rpartition(" :: ")[2] for c in classifiers)
    free = (about.get("License") or "").strip().partition("\n")[0]
    return named or (free if free not in ("", "UNKNOWN") else "not stated")


def locked() -> dict[str, tuple[str, list[str]]]:
    """Name -> version and SHA-256 hashes of each package of the lock."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", LOCK.read_text(), flags=re.M)[1:]
    parsed = [(re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^ ;\\]+)", block), block) for block in blocks]
    return {
        canonicalize_name(head[1]): (head[2], re.findall(r"sha256:([0-9a-f]{64})", block))
        for head, block in parsed
        if head
    }


# --- licences ---------------------------------------------------------------------------------------------------


def licence_table(installed: Sequence[Package]) -> str:
    """The table of docs/licences.md."""
    by_licence: dict[str, list[str]] = defaultdict(list)
    for package in installed:
        by_licence[package.licence].append(package.name)
    rows = [f"| {licence} | {', '.join(names)} |" for licence, names in sorted(by_licence.items())]
    return "\n".join(["| licence, as the package states it | packages |", "|---|---|", *rows]) + "\n"


def write_licences() -> None:
    """Writes the table into docs/licences.md, between its marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + licence_table(packages()) + "\n" + END + rest.partition(END)[2])


# --- bill of materials ------------------------------------------------------------------------------------------


def bill_of_materials() -> str:
    """A CycloneDX document of the program, its packages and its checkpoints."""
    bom = Bom()
    bom.metadata.component = Component(name="skinclip", version=__version__, type=ComponentType.APPLICATION)
    hashes = locked()
    parts = [_component(package, hashes) for package in packages()] + [_model(name) for name in CHECKPOINTS]
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(bom.metadata.component, parts)
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _component(package: Package, hashes: dict[str, tuple[str, list[str]]]) -> Component:
    version, files = hashes.get(package.name, ("", []))
    same = files if version == package.version.partition("+")[0] else []
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        purl=PackageURL("pypi", None, package.name, package.version),
        bom_ref=f"pypi/{package.name}",
        licenses=[DisjunctiveLicense(name=package.licence)],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file) for file in same],
    )


def _model(name: str) -> Component:
    digest = HashType(alg=HashAlgorithm.SHA_256, content=weights_sha256(ASSETS / name))
    model = ComponentType.MACHINE_LEARNING_MODEL
    return Component(name=f"skinclip-{name}", version=__version__, type=model, bom_ref=f"model/{name}", hashes=[digest])


# --- release notes ----------------------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def release_notes(wheel: Path) -> str:
    """The newest part of the changelog, with the hashes of wheel, checkpoints and lock."""
    changes = re.split(r"^## ", (ROOT / "docs" / "CHANGELOG.md").read_text(), flags=re.M)[1]
    files = [wheel, LOCK, *(file for name in CHECKPOINTS for file in sorted((ASSETS / name).glob("*.safetensors")))]
    rows = [f"| {_relative(file)} | `{sha256_of(file)}` |" for file in files]
    weights = [
        f"| checkpoint `{name}`, as an Assessment names it | `{weights_sha256(ASSETS / name)}` |"
        for name in CHECKPOINTS
    ]
    table = "\n".join(["| file | SHA-256 |", "|---|---|", *rows, *weights])
    return f"# SkinCLIP-VL {changes.strip()}\n\n### Hashes\n\n{table}\n\nCheck a download with `sha256sum FILE`.\n"


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


# --- the command ------------------------------------------------------------------------------------------------


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _has_wheel(args: argparse.Namespace) -> bool:
    return args.what != "release" or (args.wheel is not None and args.wheel.is_file())


def main(argv: Sequence[str] | None = None) -> None:
    """Writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["licences", "sbom", "release"])
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    if args.what == "licences":
        write_licences()
    elif args.out is None or not _has_wheel(args):
        parser.error("give --out FILE, and for `release` an existing --wheel FILE")
    else:
        _write(args.out, bill_of_materials() if args.what == "sbom" else release_notes(args.wheel))


if __name__ == "__main__":
    main()
