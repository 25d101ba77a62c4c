from __future__ import annotations

import csv
import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from skinclip import images
from skinclip.examples import draw
from skinclip.images import PhotoError, combine_quality, lesion_quality, load, photo_quality


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return draw("nevus", 1, (200, 160))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG", "WEBP", "HEIF"])
def test_formats(photo: np.ndarray, kind: str) -> None:
    loaded = load(encoded(photo, kind))
    assert loaded.pixels.shape == photo.shape
    assert np.abs(loaded.pixels.astype(int) - photo).mean() < 4


def test_lossless_formats_are_exact_and_hash_is_of_the_file(photo: np.ndarray) -> None:
    import hashlib

    data = encoded(photo, "PNG")
    loaded = load(data)
    assert np.array_equal(loaded.pixels, photo)
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()


def test_orientation_is_applied_and_metadata_dropped(photo: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    exif[315] = "A. Clinician"
    loaded = load(encoded(photo, "PNG", exif=exif))
    assert np.array_equal(loaded.pixels, np.rot90(photo, -1))
    assert b"Clinician" not in images.encode_png(loaded.pixels)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 100 * 100).reshape(100, 100).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    loaded = load(buffer.getvalue())
    assert abs(int(loaded.pixels[50, 0, 0]) - 127) <= 2


def test_alpha_lies_on_white_and_cmyk_is_converted(photo: np.ndarray) -> None:
    clear = np.dstack([photo, np.zeros(photo.shape[:2], np.uint8)])
    assert load(encoded(clear, "PNG")).pixels.min() == 255
    buffer = io.BytesIO()
    Image.fromarray(photo).convert("CMYK").save(buffer, "JPEG", quality=95)
    assert np.abs(load(buffer.getvalue()).pixels.astype(int) - photo).mean() < 12


def bomb() -> bytes:
    """A PNG that says 10,000 x 10,000 and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def animated_gif(photo: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def test_bad_files_each_give_their_error(photo: np.ndarray, tmp_path: Path) -> None:
    jpeg = encoded(photo, "JPEG")
    bad = {
        "is empty": b"",
        "truncated or damaged": jpeg[: len(jpeg) // 2],
        "holds text, not a photo": b"just some text, renamed",
        "more than 50 megapixels": bomb(),
        "animated GIF": animated_gif(photo),
        "too small": encoded(photo[:20, :20], "PNG"),
    }
    for message, data in bad.items():
        path = tmp_path / "photo.jpg"
        path.write_bytes(data)
        for source in (path, data):
            with pytest.raises(PhotoError, match=message) as caught:
                load(source)
            assert "\n" not in str(caught.value)
    with pytest.raises(PhotoError, match="nowhere.jpg"):
        load(tmp_path / "nowhere.jpg")


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> None:
    monkeypatch.setattr(images, "MAX_FILE_MB", 0.001)
    with pytest.raises(PhotoError, match="larger than"):
        load(encoded(photo, "BMP"))


def test_quality_of_drawn_photos() -> None:
    good = draw("melanoma", 2)
    assert combine_quality(photo_quality(images.from_array(good))).usable
    assert {i.code for i in photo_quality(images.from_array(cv2.GaussianBlur(good, (0, 0), 29)))} >= {"blur"}
    assert not combine_quality(photo_quality(images.from_array(good // 8))).usable
    assert {i.code for i in photo_quality(images.from_array(np.full_like(good, 250)))} >= {"bright"}


def test_lesion_quality() -> None:
    mask = np.zeros((80, 80), bool)
    assert lesion_quality(mask)[0].code == "no_lesion" and lesion_quality(mask)[0].blocking
    mask[20:50, 20:50] = True
    assert lesion_quality(mask) == ()
    mask[:, :40] = True
    assert lesion_quality(mask)[0].code == "cut_off" and not lesion_quality(mask)[0].blocking


@pytest.mark.skipif(not os.environ.get("SKINCLIP_DATA"), reason="needs real photos")
def test_real_photos_pass_and_degraded_ones_do_not() -> None:
    folder = Path(os.environ["SKINCLIP_DATA"]) / "ham10000"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "valid"][::8]
    photos = [load(folder / r["image"]) for r in rows]

    def usable(pixels: np.ndarray) -> bool:
        return combine_quality(photo_quality(images.from_array(pixels))).usable

    assert np.mean([usable(p.pixels) for p in photos]) >= 0.97
    assert not any(usable(cv2.GaussianBlur(p.pixels, (0, 0), 0.06 * p.height)) for p in photos)
    assert not any(usable(p.pixels // 10) for p in photos)
