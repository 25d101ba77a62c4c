"""Small colour profiles (ICC 2.0) made on the spot: matrix profiles of RGB and one of grey."""

from __future__ import annotations

import struct

import numpy as np

_D50 = (0.9642, 1.0, 0.8249)
# XYZ of the primaries, adapted to D50, of Display P3 and of Adobe RGB (1998): rows red, green, blue.
_PRIMARIES = {
    "display_p3": ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)),
    "adobe_rgb": ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)),
}


def rgb_profile(name: str = "display_p3", gamma: float = 2.2, padding: int = 0) -> bytes:
    """A profile of the named primaries, with `padding` bytes of a private tag that cannot be compressed."""
    tags = {b"rXYZ": None, b"gXYZ": None, b"bXYZ": None}
    packed = {tag: _xyz(row) for tag, row in zip(tags, _PRIMARIES[name], strict=True)}
    packed |= {tag: _curve(gamma) for tag in (b"rTRC", b"gTRC", b"bTRC")}
    if padding:
        packed[b"priv"] = b"data\0\0\0\0\0\0\0\1" + np.random.default_rng(0).bytes(padding)
    return _profile(b"RGB ", packed)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", {b"kTRC": _curve(gamma)})


def _xyz(row: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in row))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    words = b"made for a test\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz(_D50),
        **tags,
    }
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02100000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
