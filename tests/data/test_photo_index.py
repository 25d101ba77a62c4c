"""The index of training photos: knows a photo again however it was treated, and no other."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from skinclip.cli.duplicates import _index
from skinclip.core.paths import ASSETS
from skinclip.data.cases import Case
from skinclip.data.photo_index import INDEX, PhotoIndex, build_index
from skinclip.data.readers import read_cases
from skinclip.imaging.photo import load_photo

SIZE = (300, 400)


def photo(seed: int) -> np.ndarray:
    """Skin with a lesion full of detail, uint8 [300, 400, 3]."""
    rng = np.random.default_rng(seed)
    pixels = np.full((*SIZE, 3), (205, 160, 140), np.float32)
    for _ in range(260):
        at = (int(rng.normal(200, 70)), int(rng.normal(150, 50)))
        colour = [float(c) for c in rng.uniform(30, 200, 3)]
        axes = (int(rng.integers(2, 16)), int(rng.integers(2, 16)))
        cv2.ellipse(pixels, at, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return np.clip(cv2.GaussianBlur(pixels, (0, 0), 1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PhotoIndex:
    folder = tmp_path_factory.mktemp("photos")
    cases = []
    for seed in range(12):
        Image.fromarray(photo(seed)).save(folder / f"{seed}.png")
        cases.append(Case(folder / f"{seed}.png", str(seed), "drawn", f"lesion{seed}"))
    (folder / "broken.png").write_bytes(b"no photo")
    built = build_index([*cases, Case(folder / "broken.png", "broken", "drawn", "x")])
    built.write(folder / "index.npz")
    return PhotoIndex.read(folder / "index.npz")


def compressed(pixels: np.ndarray) -> np.ndarray:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream))


TREATED = {
    "as it is": lambda p: p,
    "compressed": compressed,
    "smaller": lambda p: cv2.resize(p, (160, 120), interpolation=cv2.INTER_AREA),
    "brighter": lambda p: np.clip(p * 1.15 + 8, 0, 255).astype(np.uint8),
    "turned": lambda p: np.ascontiguousarray(np.rot90(p)),
    "mirrored": lambda p: np.ascontiguousarray(p[:, ::-1]),
    "cropped": lambda p: np.ascontiguousarray(p[40:280, 60:360]),
    "cropped, mirrored and compressed": lambda p: compressed(np.ascontiguousarray(p[30:270, 350:50:-1])),
}


@pytest.mark.parametrize("name", TREATED)
def test_a_photo_is_known_again(index: PhotoIndex, name: str) -> None:
    found = [index.find(TREATED[name](photo(seed))) for seed in range(12)]
    assert sum(name == f"drawn/{seed}" for seed, name in enumerate(found)) >= 11, found


def test_other_photos_are_not_taken_for_known_ones(index: PhotoIndex) -> None:
    assert [index.find(photo(seed)) for seed in range(100, 140)] == [None] * 40


def test_the_index_is_small_and_holds_no_photo(index: PhotoIndex, tmp_path: Path) -> None:
    index.write(tmp_path / "index.npz")
    assert len(index) == 12 and (tmp_path / "index.npz").stat().st_size < 12 * 250 + 1500


def test_an_empty_index_and_another_file(tmp_path: Path) -> None:
    assert build_index([]).find(photo(1)) is None
    np.savez(tmp_path / "other.npz", about=np.frombuffer(b'{"form": "other"}', np.uint8))
    with pytest.raises(ValueError, match="make it anew"):
        PhotoIndex.read(tmp_path / "other.npz")


def test_the_index_of_a_checkpoint_holds_the_second_photo_of_a_lesion_too(tmp_path: Path) -> None:
    photos = [tmp_path / "dermoscopy.png", tmp_path / "close_up.png"]
    for seed, path in enumerate(photos):
        Image.fromarray(photo(seed)).save(path)
    pair = Case(photos[0], "a", "drawn", "lesion", split="calib", kind="dermoscopy", clinical_image=photos[1])
    kept_apart = Case(photos[0], "b", "drawn", "other", split="test")
    assert _index([pair, kept_apart], tmp_path / "index.npz") == 0
    index = PhotoIndex.read(tmp_path / "index.npz")
    assert index.names[0] == "drawn/a" == index.find(photo(0)) and len(index) == 2
    assert index.names[1].startswith("drawn/a") and index.find(photo(1)) == index.names[1]


@pytest.mark.skipif(not os.environ.get("SKINCLIP_DATA"), reason="needs real data sets")
def test_of_real_photos_those_of_training_alone_are_known_again() -> None:
    root, shipped = Path(os.environ["SKINCLIP_DATA"]), PhotoIndex.read(ASSETS / "mini" / INDEX)
    if not (root / "pad_ufes").is_dir() or not (root / "ham10000").is_dir():
        pytest.skip("no pad_ufes/ or ham10000/")
    others = read_cases(root / "pad_ufes").cases[::10][:40]  # smartphone photos, of which none was learnt from
    assert [c.image_id for c in others if shipped.find(load_photo(c.image).pixels)] == []
    trained = [case for case in read_cases(root / "ham10000").cases if case.split == "train"][::700]
    for treatment in ("compressed", "smaller", "brighter", "turned", "mirrored"):
        found = [shipped.find(TREATED[treatment](load_photo(c.image).pixels)) for c in trained]
        assert found == [f"{c.source}/{c.image_id}" for c in trained], treatment
