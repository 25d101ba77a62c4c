"""Hashes of the embedded checkpoints' files, kept with the program and apart from them, checked at every load.

One flipped bit in a calibration can turn 84 % into 100 % without a word. `python -m skinclip.model.integrity` writes
the hashes anew after a checkpoint was changed on purpose.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from skinclip.core.paths import ASSETS
from skinclip.model.errors import CheckpointError

HASHES = Path(__file__).with_name("checkpoint_hashes.json")  # folder below `ASSETS` -> file -> sha256
_TEXTS = (".yaml", ".json", ".jinja", ".txt")  # whose line ends a version control system may change
_DOCUMENTS = (".md",)  # nothing of them is read into the model


def file_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of each file below `folder`, documents left out, by its path; hidden files do not count."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in _DOCUMENTS and p.name[0] != ".")
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def verify(folder: Path, hashes: Path = HASHES, assets: Path = ASSETS) -> None:
    """Compares the files of an embedded checkpoint with their recorded hashes; other folders have none.

    Raises CheckpointError naming each file that differs, is missing or does not belong there.
    """
    recorded = _recorded(hashes).get(_name(folder, assets))
    if recorded is None:
        return
    actual = file_hashes(folder)
    problems = [f"{name} is missing" for name in recorded if name not in actual]
    problems += [f"{name} does not belong there" for name in actual if name not in recorded]
    differing = [name for name in recorded if name in actual and actual[name] != recorded[name]]
    problems += [f"{name} was changed or is damaged" for name in differing]
    if problems:
        raise CheckpointError(
            f"{folder} is not the checkpoint that came with this program: {'; '.join(problems[:5])}. Nothing is "
            "assessed with it: install the program again, or give another checkpoint with --weights"
        )


def record(folder: Path, hashes: Path = HASHES, assets: Path = ASSETS) -> bool:
    """Writes the hashes of a checkpoint that was changed on purpose; False for a folder that is not an embedded one."""
    name, known = _name(folder, assets), _recorded(hashes)
    if name not in known:
        return False
    known[name] = file_hashes(folder)
    hashes.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return True


def _name(folder: Path, assets: Path) -> str:
    """The path of a folder below the assets, empty for one elsewhere."""
    resolved, root = folder.resolve(), assets.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else ""


def _recorded(hashes: Path) -> dict[str, dict[str, str]]:
    return dict(json.loads(hashes.read_text(encoding="utf-8")))


def _sha256(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha256(content.replace(b"\r\n", b"\n") if path.suffix in _TEXTS else content).hexdigest()


if __name__ == "__main__":
    for embedded in _recorded(HASHES):
        record(ASSETS / embedded)
        print(f"hashes of {ASSETS / embedded} written to {HASHES}")
