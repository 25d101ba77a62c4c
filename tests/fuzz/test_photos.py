"""Broken photo files: each is read, or refused with one line that says what to do; nothing else comes out."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skinclip.imaging import container
from skinclip.imaging.photo import PhotoError, load_photo
from tests.fuzz.effort import fuzzed
from tests.fuzz.mutations import Edit, edits, mutated

pillow_heif.register_heif_opener()


def encoded(kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (72, 80, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


SEEDS = {
    "jpeg": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "png": encoded("PNG"),
    "tiff": encoded("TIFF"),
    "deflated": encoded("TIFF", compression="tiff_deflate"),
    "webp": encoded("WEBP"),
    "bmp": encoded("BMP"),
    "gif": encoded("GIF"),
    "heic": encoded("HEIF"),
    "jp2": encoded("JPEG2000"),
}


def taken(data: bytes) -> None:
    try:
        image = load_photo(data)
    except PhotoError as refusal:
        words = str(refusal)
        assert "\n" not in words and words.endswith(".") and len(words) < 400
    else:
        assert image.pixels.dtype == np.uint8 and image.pixels.ndim == 3 and image.pixels.shape[2] == 3


@pytest.mark.parametrize("kind", SEEDS)
@fuzzed
@given(changes=edits)
def test_a_broken_photo_is_read_or_refused_in_words(kind: str, changes: list[Edit]) -> None:
    taken(mutated(SEEDS[kind], changes))


@fuzzed
@given(
    start=st.sampled_from([data[:16] for data in SEEDS.values()] + [b"", b"%PDF-", b"PK\3\4"]),
    rest=st.binary(max_size=400),
)
def test_any_bytes_are_read_or_refused_in_words(start: bytes, rest: bytes) -> None:
    taken(start + rest)


@fuzzed
@given(data=st.binary(max_size=600))
def test_containers_are_inspected_without_a_fault(data: bytes) -> None:
    for inspect in (
        container.is_camera_raw, container.is_preview_first, container.is_whole_tiff, container.exif_orientation,
        container.xmp_orientation, container.jp2_profile,
    ):  # fmt: skip
        for start in (
            b"",
            b"II*\0\x08\0\0\0",
            b"MM\0*\0\0\0\x08",
            b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
            b"Exif\0\0II*\0\x08\0\0\0",
        ):
            inspect(start + data)
    for read in (container.png_pixels, container.jpeg_scans):
        try:
            read(container.PNG_SIGNATURE + data)
        except container.ContainerError as refusal:
            assert str(refusal)


@fuzzed
@given(
    width=st.integers(0, 2**31 - 1), height=st.integers(0, 2**31 - 1), depth=st.sampled_from([1, 2, 4, 8, 16]),
    colour=st.sampled_from([0, 2, 3, 4, 6]), body=st.binary(max_size=200),
)  # fmt: skip
def test_a_png_of_any_stated_size_is_refused_before_it_costs(
    width: int, height: int, depth: int, colour: int, body: bytes
) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    taken(container.PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b""))
