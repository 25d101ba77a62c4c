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

from skinclip.imaging import photo as photo_module
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import PhotoError, combine_quality, encode_jpeg, lesion_quality, load_photo, photo_quality


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return draw("nevus", 1, (200, 160))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG", "WEBP", "HEIF"])
def test_formats(photo: np.ndarray, kind: str) -> None:
    loaded = load_photo(encoded(photo, kind))
    assert loaded.pixels.shape == photo.shape
    assert np.abs(loaded.pixels.astype(int) - photo).mean() < 4


def test_lossless_formats_are_exact_and_hash_is_of_the_file(photo: np.ndarray) -> None:
    import hashlib

    data = encoded(photo, "PNG")
    loaded = load_photo(data)
    assert np.array_equal(loaded.pixels, photo)
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()


def test_orientation_is_applied_and_metadata_dropped(photo: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    exif[315] = "A. Clinician"
    loaded = load_photo(encoded(photo, "PNG", exif=exif))
    assert np.array_equal(loaded.pixels, np.rot90(photo, -1))
    for data in (photo_module.encode_png(loaded.pixels), photo_module.encode_jpeg(loaded.pixels)):
        assert b"Clinician" not in data and not Image.open(io.BytesIO(data)).getexif()


def test_a_jpeg_keeps_colour_edges() -> None:
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[::4] = (86, 180, 233)  # thin lines of one colour, as of a region: 4:2:0 would smear them
    back = load_photo(photo_module.encode_jpeg(lines)).pixels.astype(int)
    assert np.abs(back - lines).max() < 25


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 100 * 100).reshape(100, 100).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    loaded = load_photo(buffer.getvalue())
    assert abs(int(loaded.pixels[50, 0, 0]) - 127) <= 2


def test_alpha_lies_on_white_and_cmyk_is_converted(photo: np.ndarray) -> None:
    clear = np.dstack([photo, np.zeros(photo.shape[:2], np.uint8)])
    assert load_photo(encoded(clear, "PNG")).pixels.min() == 255
    buffer = io.BytesIO()
    Image.fromarray(photo).convert("CMYK").save(buffer, "JPEG", quality=95)
    assert np.abs(load_photo(buffer.getvalue()).pixels.astype(int) - photo).mean() < 12


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_colour_is_scaled(photo: np.ndarray, suffix: str) -> None:
    samples = photo[:, :, ::-1].astype(np.uint16) * 257
    assert np.array_equal(load_photo(cv2.imencode(suffix, samples)[1].tobytes()).pixels, photo)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_grey_and_palette_become_rgb(photo: np.ndarray, mode: str) -> None:
    converted, buffer = Image.fromarray(photo).convert(mode), io.BytesIO()
    converted.save(buffer, "PNG")
    assert np.array_equal(load_photo(buffer.getvalue()).pixels, np.array(converted.convert("RGB")))


def test_streams_and_phone_jpegs_with_a_second_picture(photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    first, second = Image.fromarray(photo), Image.fromarray(255 - photo)
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    buffer.seek(0)
    assert np.abs(load_photo(buffer).pixels.astype(int) - photo).mean() < 4


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
                load_photo(source)
            assert "\n" not in str(caught.value)
    with pytest.raises(PhotoError, match="nowhere.jpg"):
        load_photo(tmp_path / "nowhere.jpg")
    with pytest.raises(PhotoError, match="is a directory"):
        load_photo(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"\0" * 128 + b"DICM" + b"\0" * 50, "a DICOM file"),
        (bytes(range(256)) * 4, "no supported type"),
        (b"\x89PNG\r\n\x1a\n", "truncated or damaged"),
    ],
)
def test_other_files_are_named(data: bytes, message: str) -> None:
    with pytest.raises(PhotoError, match=message):
        load_photo(data)


def test_animated_and_32_bit_pictures_are_refused(photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(PhotoError, match="is animated"):
        load_photo(buffer.getvalue())
    with pytest.raises(PhotoError, match="32 bits"):
        load_photo(encoded(photo[:, :, 0].astype(np.float32), "TIFF"))


def test_pixels_are_counted_before_any_is_decoded(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_module, "MAX_MEGAPIXELS", 0.01)
    monkeypatch.setattr(photo_module, "_decode", lambda _: pytest.fail("decoded"))
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "HEIF"):
        with pytest.raises(PhotoError, match="megapixels"):
            load_photo(encoded(photo, kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "HEIF"])
def test_every_cut_file_is_refused_in_one_line(photo: np.ndarray, kind: str) -> None:
    data = encoded(photo, kind)
    for share in (0.02, 0.3, 0.6, 0.9):
        with pytest.raises(PhotoError) as caught:
            load_photo(data[: int(len(data) * share)])
        assert "\n" not in str(caught.value)


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> None:
    monkeypatch.setattr(photo_module, "MAX_FILE_MB", 0.001)
    with pytest.raises(PhotoError, match="larger than"):
        load_photo(encoded(photo, "BMP"))


def test_quality_of_drawn_photos() -> None:
    good = draw("melanoma", 2)
    assert combine_quality(photo_quality(photo_module.from_array(good))).usable
    assert {i.code for i in photo_quality(photo_module.from_array(cv2.GaussianBlur(good, (0, 0), 29)))} >= {"blur"}
    assert not combine_quality(photo_quality(photo_module.from_array(good // 8))).usable
    assert {i.code for i in photo_quality(photo_module.from_array(np.full_like(good, 250)))} >= {"bright"}


def test_blur_does_not_depend_on_the_size_of_the_photo() -> None:
    good = draw("nevus", 2, (400, 300))
    large = cv2.resize(good, (2400, 1800), interpolation=cv2.INTER_CUBIC)
    small = photo_module.quality_measures(good)["detail_ratio"]
    assert photo_module.quality_measures(large)["detail_ratio"] == pytest.approx(small, rel=0.05)
    assert combine_quality(photo_quality(photo_module.from_array(large))).usable
    assert [i.code for i in photo_quality(photo_module.from_array(cv2.GaussianBlur(large, (0, 0), 108)))] == ["blur"]


def test_a_black_ring_is_no_detail() -> None:
    blurred = cv2.GaussianBlur(draw("nevus", 2), (0, 0), 29)
    ring = np.zeros(blurred.shape[:2], np.uint8)
    cv2.circle(ring, (320, 240), 230, 1, thickness=-1)
    assert [i.code for i in photo_quality(photo_module.from_array(blurred * ring[..., None]))] == ["blur"]


def test_each_fault_has_its_code() -> None:
    good = draw("nevus", 2)
    faults = {"dark": good // 10, "bright": np.full_like(good, 252), "low_contrast": np.full_like(good, 128)}
    faults["small"] = np.ascontiguousarray(good[190:290, 270:370])
    for code, pixels in faults.items():
        issues = photo_quality(photo_module.from_array(pixels))
        assert code in {i.code for i in issues} and all(i.blocking for i in issues)


def test_lesion_quality() -> None:
    mask = np.zeros((80, 80), bool)
    assert lesion_quality(mask)[0].code == "no_lesion" and lesion_quality(mask)[0].blocking
    mask[20:50, 20:50] = True
    assert lesion_quality(mask) == ()
    mask[60:72, :8] = True  # a small spot beside the lesion lies on the border
    assert lesion_quality(mask) == ()
    mask[:, :40] = True
    assert lesion_quality(mask)[0].code == "cut_off" and not lesion_quality(mask)[0].blocking


@pytest.mark.skipif(not os.environ.get("SKINCLIP_DATA"), reason="needs real photos")
def test_real_photos_pass_and_degraded_ones_do_not() -> None:
    folder = Path(os.environ["SKINCLIP_DATA"]) / "ham10000"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "valid"][::8]
    photos = [load_photo(folder / r["image"]) for r in rows]

    def usable(pixels: np.ndarray) -> bool:
        return combine_quality(photo_quality(photo_module.from_array(pixels))).usable

    assert np.mean([usable(p.pixels) for p in photos]) >= 0.97
    assert not any(usable(cv2.GaussianBlur(p.pixels, (0, 0), 0.06 * p.height)) for p in photos)
    assert not any(usable(p.pixels // 10) for p in photos)


def test_a_picture_of_pure_grain_is_encoded() -> None:
    grain = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    for quality in (92, 95):
        again = np.asarray(Image.open(io.BytesIO(encode_jpeg(grain, quality))))
        assert np.abs(again.astype(int) - grain).mean() < 12


@pytest.mark.parametrize("name", ["x" * 10_000 + ".jpg", "x" * 200 + ".jpg", "a\nb" + "y" * 200 + ".png"])
def test_a_long_name_is_not_repeated_whole(name: str, tmp_path: Path) -> None:
    with pytest.raises(PhotoError) as refusal:
        load_photo(tmp_path / name)
    words = str(refusal.value)
    assert len(words) < 400 and name[-8:] in words and "\n" not in words
