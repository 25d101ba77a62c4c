"""The same lesion at another magnification, cropped, squashed or turned is found; other lesions are not."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from skinclip.cli.main import main
from skinclip.data.cases import Case
from skinclip.data.duplicates import compare, describe, find_duplicates
from skinclip.data.readers import read_cases
from skinclip.imaging.examples import draw
from tests.helpers.folders import write


def lesion(seed: int) -> np.ndarray:
    """A drawn lesion with structures of its own: blotches of several sizes at random places."""
    rng = np.random.default_rng(seed)
    pixels = draw(("nevus", "melanoma")[seed % 2], seed, (640, 480)).astype(np.float32)
    for size, strength in ((3, 60), (7, 40), (15, 30)):
        noise = cv2.GaussianBlur(rng.standard_normal(pixels.shape[:2]).astype(np.float32), (0, 0), size)
        pixels += (noise / noise.std() * strength * 0.3)[..., None]
    return pixels.clip(0, 255).astype(np.uint8)


CHANGES = {
    "cropped": lambda p: p[60:420, 120:560],
    "squashed": lambda p: cv2.resize(p, (300, 300), interpolation=cv2.INTER_AREA),
    "square crop": lambda p: p[:, 80:560],
    "smaller": lambda p: cv2.resize(p, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA),
    "larger magnification": lambda p: cv2.resize(p[120:360, 160:480], (640, 480), interpolation=cv2.INTER_CUBIC),
    "turned": lambda p: np.rot90(p),
    "turned by 30 degrees": lambda p: cv2.warpAffine(
        p, cv2.getRotationMatrix2D((320, 240), 30, 1.1), (640, 480), borderMode=cv2.BORDER_REFLECT
    ),
    "darker": lambda p: (p * 0.7).astype(np.uint8),
    "compressed": lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_photo_is_recognised(change: str) -> None:
    found = 0
    for seed in range(4):
        pixels = lesion(seed)
        changed = np.ascontiguousarray(CHANGES[change](pixels))
        overlay = compare(describe(pixels), describe(changed))
        found += overlay is not None and overlay.correlation > 0.7
    assert found == 4


def test_zoom_and_overlap_are_those_of_the_change() -> None:
    pixels = lesion(5)
    overlay = compare(describe(pixels), describe(CHANGES["larger magnification"](pixels)))
    assert overlay is not None
    assert overlay.zoom == pytest.approx(2, rel=0.05) and overlay.overlap > 0.95


def test_other_lesions_are_not_the_same() -> None:
    described = [describe(lesion(seed)) for seed in range(12)]
    assert not [1 for i, a in enumerate(described) for b in described[:i] if compare(a, b)]
    blank = describe(np.full((64, 64, 3), 120, np.uint8))
    assert compare(blank, described[0]) is None and compare(described[0], blank) is None


def data(root: Path) -> Path:
    """Two sets of eight lesions; the last three of the first set turn up, changed, in the second."""
    for name, seeds in (("one", range(8)), ("two", range(5, 13))):
        rows = ["image,lesion_id,split"]
        for seed in seeds:
            pixels = lesion(seed)
            if name == "two" and seed < 8:
                pixels = np.ascontiguousarray(list(CHANGES.values())[seed - 5](pixels))
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / name / f"{seed}.png")
            rows.append(f"{seed}.png,L{seed},{'train' if name == 'one' else 'valid'}")
        write(root / name / "manifest.csv", *rows)
    (root / "two" / "12.png").write_bytes(b"no photo")
    return root


def test_the_command_lists_pairs_of_different_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = data(tmp_path / "data"), tmp_path / "data" / "near_duplicates.csv"
    assert main(["duplicates", "--data", str(root), "--out", str(out)]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["first"], row["second"]) for row in rows] == [(f"one/{i}", f"two/{i}") for i in (5, 6, 7)]
    assert {row["first_split"] + row["second_split"] for row in rows} == {"trainvalid"}
    printed = capsys.readouterr()
    assert "one and two: 3 pairs" in printed.out and "3 of them in different splits" in printed.out
    assert "1 rows or photos left out, the first: two/12:" in printed.err
    assert main(["duplicates", "--data", str(root), "--out", str(out), "--sets", "one"]) == 2
    assert main(["duplicates", "--data", str(root), "--out", str(out), "--sets", "one", "three"]) == 2
    assert "no data set three; found one, two" in capsys.readouterr().err


def test_photos_without_structure_find_nothing(tmp_path: Path) -> None:
    cases = []
    for source in ("one", "two"):
        Image.fromarray(np.full((64, 64, 3), 120, np.uint8)).save(tmp_path / f"{source}.png")
        cases.append(Case(tmp_path / f"{source}.png", "a", source, "a"))
    assert find_duplicates(cases) == [] and find_duplicates([]) == []


@pytest.mark.skipif(not os.environ.get("SKINCLIP_DATA"), reason="needs real data sets")
def test_lesions_of_milk10k_in_ham10000() -> None:
    """Of the lesions known to be in both sets, photographed at another magnification, most are found."""
    root = Path(os.environ["SKINCLIP_DATA"])
    if not (root / "milk10k" / "split.csv").is_file():
        pytest.skip("no milk10k/")
    with (root / "milk10k" / "split.csv").open() as file:
        known = [row["lesion_id"] for row in csv.DictReader(file) if row["same_lesion_in_ham10000"] == "True"]
    part = "calib"  # the pairs known so far lie in one part
    milk = [c for c in read_cases(root / "milk10k").cases if c.lesion_id in set(known) and c.split == part]
    ham = [c for c in read_cases(root / "ham10000").cases if c.split == part]
    found = {pair.second.lesion_id for pair in find_duplicates([*ham, *milk])}
    assert len(found) >= RECALL * len(milk) > 0


RECALL = 0.8  # measured on all 172: 0.93
