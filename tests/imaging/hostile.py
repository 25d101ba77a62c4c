"""Photos made to cost their reader: scans without end, stretched, deep and striped pictures, each below 1 MB."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def many_scans(scans: int = 2000, side: int = 2000) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (120, 80, 60)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + b"\xff\xd9"


def png(width: int, height: int, depth: int, colour: int, channels: int) -> bytes:
    """A PNG of zeros."""
    row = bytes(1 + width * channels * depth // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def deep_rgba(side: int = 7000) -> bytes:
    """49 megapixels of 16-bit RGBA in some hundred kilobytes."""
    return png(side, side, 16, 6, 4)


def one_row_strips(side: int = 7000) -> bytes:
    """A TIFF of 49 megapixels with a strip for each row."""
    stream = io.BytesIO()
    pixels = np.zeros((side, side, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "TIFF", compression="tiff_deflate", tiffinfo={278: 1})
    return stream.getvalue()
