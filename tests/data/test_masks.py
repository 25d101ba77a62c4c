"""One reader of masks with one rule, for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinclip.data.cases import Case, DataError
from skinclip.data.masks import read_mask
from skinclip.data.photos import load_masks
from skinclip.evaluation.run import lesion_iou

TRUTH = np.zeros((40, 60), bool)
TRUTH[10:30, 20:50] = True
ONE = TRUTH.astype(np.uint8)


def palette(colours: list[int]) -> Image.Image:
    image = Image.fromarray(ONE, "L").convert("P")
    image = Image.frombytes("P", image.size, ONE.tobytes())
    image.putpalette(colours)
    return image


def rgba(colour: tuple[int, int, int], lesion: int = 255, around: int = 0) -> Image.Image:
    pixels = np.full((*ONE.shape, 4), (*colour, 0), np.uint8)
    pixels[..., 3] = np.where(TRUTH, lesion, around)
    return Image.fromarray(pixels)


def coloured(lesion: tuple[int, int, int], around: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.where(TRUTH[..., None], np.uint8(lesion), np.uint8(around)))


MADE: dict[str, Callable[[], Image.Image]] = {
    "0 and 255": lambda: Image.fromarray(ONE * 255),
    "0 and 1": lambda: Image.fromarray(ONE),
    "1 and 2": lambda: Image.fromarray(ONE + 1),
    "one bit": lambda: Image.fromarray(TRUTH),
    "16 bits, 0 and 65535": lambda: Image.fromarray(ONE.astype(np.uint16) * 65535),
    "16 bits, 0 and 1": lambda: Image.fromarray(ONE.astype(np.uint16)),
    "16 bits, 0 and 255": lambda: Image.fromarray(ONE.astype(np.uint16) * 255),
    "32 bits": lambda: Image.fromarray(ONE.astype(np.int32)),
    "palette, black and white": lambda: palette([0, 0, 0, 255, 255, 255]),
    "palette, black and red": lambda: palette([0, 0, 0, 128, 0, 0]),
    "palette, black and dark blue": lambda: palette([0, 0, 0, 0, 0, 60]),
    "alpha over black": lambda: rgba((0, 0, 0)),
    "alpha over white": lambda: rgba((255, 255, 255)),
    "half transparent red": lambda: rgba((255, 0, 0), 128),
    "alpha 0 and 1": lambda: rgba((0, 0, 0), 1),
    "opaque, black and white": lambda: coloured((255, 255, 255), (0, 0, 0)).convert("RGBA"),
    "grey and alpha": lambda: rgba((0, 0, 0)).convert("LA"),
    "red on black": lambda: coloured((255, 0, 0), (0, 0, 0)),
    "green on blue": lambda: coloured((0, 255, 0), (0, 0, 255)),
    "colours": lambda: coloured((250, 220, 40), (70, 0, 90)),
}


@pytest.mark.parametrize("name", MADE)
def test_a_mask_is_read_however_it_was_saved(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mask.png"
    image = MADE[name]()
    path = path if image.mode != "I" else path.with_suffix(".tif")
    image.save(path)
    assert np.array_equal(read_mask(path), TRUTH)
    case = Case(path, "a", "made_up", "a", mask=path)
    assert lesion_iou(case, TRUTH) == 1.0  # a mask against itself
    assert np.array_equal(load_masks([case], 40, crop="square")[0], ONE[:, 10:50])


@pytest.mark.parametrize("level", [0, 1, 255])
def test_masks_of_one_value(tmp_path: Path, level: int) -> None:
    Image.fromarray(np.full((40, 40), level, np.uint8)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").all() == (level > 0)


def test_masks_saved_with_loss_are_cut_half_way(tmp_path: Path) -> None:
    large = np.kron(ONE * 255, np.ones((5, 5), np.uint8))
    Image.fromarray(large).save(tmp_path / "mask.jpg", quality=85)
    assert np.array_equal(read_mask(tmp_path / "mask.jpg"), large > 127)
    Image.fromarray(large).resize((250, 170), Image.Resampling.BICUBIC).save(tmp_path / "smooth.png")
    assert read_mask(tmp_path / "smooth.png").mean() == pytest.approx(TRUTH.mean(), abs=0.01)


@pytest.mark.parametrize(
    "kind", ["three labels", "few of a third label", "three colours", "many labels", "gradient", "photo"]
)
def test_a_file_of_more_values_is_no_mask(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    few = ONE * 255
    few[0, :3] = 128
    three = coloured((255, 0, 0), (0, 0, 0))
    three.putpixel((0, 0), (0, 255, 0))
    labels = Image.fromarray(
        np.kron(np.where(np.arange(40)[:, None] < 3, np.arange(60) // 10, ONE * 9), np.ones((4, 4))).astype(np.uint8)
    )
    image = {
        "three labels": lambda: Image.fromarray((ONE + np.roll(ONE, 9, 0)).astype(np.uint8)),
        "few of a third label": lambda: Image.fromarray(few),
        "three colours": lambda: three,
        "many labels": lambda: labels,
        "gradient": lambda: Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))),
        "photo": lambda: Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)),
    }[kind]()
    path = tmp_path / "mask.png"
    image.save(path)
    case = Case(path, "a", "made_up", "a", mask=path)
    for read in (lambda: read_mask(path), lambda: load_masks([case], 16), lambda: lesion_iou(case, TRUTH)):
        with pytest.raises(DataError, match=r"mask\.png has \d+ values; a mask has two"):
            read()


def test_broken_mask_files_are_named(tmp_path: Path) -> None:
    Image.fromarray(ONE * 255).save(tmp_path / "mask.png")
    png = (tmp_path / "mask.png").read_bytes()
    for data in (b"", b"no mask", png[:50], png[:16] + b"\0\1\0\0" * 2 + png[24:]):
        (tmp_path / "mask.png").write_bytes(data)
        with pytest.raises(DataError, match=r"mask\.png cannot be decoded; replace or remove the file"):
            read_mask(tmp_path / "mask.png")
    huge = b"BM" + (54 + 12).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    huge += (60_000).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24) + bytes(12)
    (tmp_path / "mask.bmp").write_bytes(huge)
    with pytest.raises(DataError, match="cannot be decoded"):
        read_mask(tmp_path / "mask.bmp")


def disc() -> np.ndarray:
    y, x = np.mgrid[:90, :120]
    return ((x - 60) ** 2 / 900 + (y - 45) ** 2 / 500 < 1).astype(np.uint8)


@pytest.mark.parametrize("colour", [(255, 0, 0), (128, 128, 128)])
def test_lossy_masks_of_any_level_or_colour(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    one = disc()
    Image.fromarray(one[..., None] * np.array(colour, np.uint8)).save(tmp_path / "mask.jpg", quality=75)
    assert (read_mask(tmp_path / "mask.jpg") == one).mean() > 0.995


def test_a_palette_whose_colours_are_all_alike_is_read_by_its_entries(tmp_path: Path) -> None:
    image = Image.fromarray(disc()).convert("P")
    image.putpalette([0] * 768)
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), disc() > 0)


def test_a_mask_without_anything_visible_is_empty(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 30), (255, 255, 255, 0)).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png").any()


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_a_mask_is_turned_as_its_photo_is(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(disc() * 255).save(tmp_path / f"mask.{kind}", exif=exif)
    assert (read_mask(tmp_path / f"mask.{kind}") == np.rot90(disc(), -1)).mean() > 0.995


def test_an_inverted_mask_is_refused_and_a_lesion_that_fills_the_photo_is_not(tmp_path: Path) -> None:
    Image.fromarray((1 - disc()) * 255).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="seems to be inverted"):
        read_mask(tmp_path / "mask.png")
    filling = np.full((90, 120), 255, np.uint8)
    filling[40:45, 40:45] = 0
    Image.fromarray(filling).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), filling > 0)
