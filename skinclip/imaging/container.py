"""Inspects the container of a photo file (PNG, JPEG, JPEG 2000, TIFF, camera raw) before a decoder opens it.

- A PNG is reduced to the chunks that hold pixels, so that a broken text or profile chunk cannot make decoding fail.
- The scans of a JPEG are counted: thousands of them in a small file cost minutes of decoding.
- Camera raw files are recognised: most are TIFF containers whose first image is only a small preview.
- Of EXIF only the orientation is read, so that other fields, however broken, do no harm.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE_BYTES = 16_000_000  # inflated; the largest profiles in use have about 4 MB
ORIENTATION = 0x0112

# tRNS is the transparency of the palette or of one colour; acTL marks an animated PNG, which the decoder has to notice.
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL"})
_PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_MAX_ORIENTATION_TEXT = 200_000  # bytes of an inflated text chunk that are searched for an orientation
_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")  # a marker followed by its segment's length, or EOI
_MAX_SEGMENTS = 10_000  # of a JPEG; a photo has a few dozen
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])\s*[\"'<]")

# TIFF tags and values.
_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SUB_IFDS = 254, 255, 256, 257, 259, 262, 330
_TIFF_EP, _DNG_VERSION = 37398, 50706
_RAW_PHOTOMETRIC = frozenset({32803, 34892})  # colour filter array, linear raw
_RAW_COMPRESSION = frozenset({32767, 32769, 32770, 34713, 65535, 65000})  # Sony, Epson, Samsung, Nikon, Pentax, Kodak
_VALUE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 18: 8}
_MAX_IFDS, _MAX_FIELDS = 64, 500  # directories that are read, which also caps the values of a field; fields of each
_OTHER_RAW = (  # (offset, magic number) of raw formats that are not TIFF, or TIFF with a magic number of their own
    (0, b"FUJIFILMCCD-RAW"),
    (0, b"FOVb"),
    (0, b"\0MRM"),
    (0, b"IIRO"),
    (0, b"IIRS"),
    (0, b"MMOR"),
    (0, b"IIU\0"),
    (4, b"ftypcrx "),
    (6, b"HEAPCCDR"),
)


class ContainerError(ValueError):
    """Raised for a file that must not be decoded; the message continues a sentence that begins with the file's name."""


@dataclass(frozen=True)
class Png:
    """A PNG reduced to its pixel chunks, with the colour profile and the orientation read from the removed ones."""

    data: bytes
    profile: bytes | None = None
    orientation: int = 1


def png_pixels(data: bytes) -> Png:
    """The PNG with only the chunks that hold pixels. A truncated last chunk is kept, so that the decoder refuses it.

    Raises ContainerError for a colour profile of more than MAX_PROFILE_BYTES.
    """
    kept, profile, orientation, text_orientation = [PNG_SIGNATURE], None, 1, 1
    for name, whole, body in _png_chunks(data):
        if name in _PNG_KEPT:
            kept.append(whole)
        elif name == b"iCCP":
            profile = profile or _png_profile(body)
        elif name == b"eXIf":
            orientation = exif_orientation(body) or 1
        elif name in _PNG_TEXT and text_orientation == 1:
            text_orientation = _text_orientation(name, body)
    return Png(b"".join(kept), profile, orientation if orientation != 1 else text_orientation)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yields (name, whole chunk, body) up to IEND; a chunk cut off by the end of the file comes last, named IDAT."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + length
        if end > len(data):  # named IDAT, so that it is kept and the decoder refuses it
            yield b"IDAT", data[at:], b""
            return
        yield name, data[at:end], data[at + 8 : end - 4]
        if name == b"IEND":
            return
        at = end


def _png_profile(body: bytes) -> bytes | None:
    """The profile of an iCCP chunk; None where it cannot be inflated."""
    packed = body.partition(b"\0")[2][1:]
    profile = _inflated(packed, MAX_PROFILE_BYTES + 1)
    if profile is not None and len(profile) > MAX_PROFILE_BYTES:
        raise ContainerError(
            f"carries a colour profile of more than {MAX_PROFILE_BYTES // 1_000_000} MB. Export it anew, in sRGB."
        )
    return profile


def _inflated(packed: bytes, most: int) -> bytes | None:
    """The first `most` bytes of an inflated zlib stream, None where it is broken."""
    try:
        return zlib.decompressobj().decompress(packed, most)
    except zlib.error:
        return None


def _text_orientation(name: bytes, body: bytes) -> int:
    """The orientation in a text chunk, from XMP or from EXIF in hexadecimal digits (ImageMagick); 1 without either."""
    keyword, _, rest = body.partition(b"\0")
    if keyword not in (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1"):
        return 1
    packed = name == b"zTXt"
    if name == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        rest = rest[1:]
    text = (_inflated(rest, _MAX_ORIENTATION_TEXT) or b"") if packed else rest[:_MAX_ORIENTATION_TEXT]
    if keyword.startswith(b"XML"):
        return xmp_orientation(text)
    try:
        return exif_orientation(bytes.fromhex("".join(text.decode("ascii").split()[2:]))) or 1
    except ValueError:
        return 1


def xmp_orientation(xmp: bytes) -> int:
    """`tiff:Orientation` of an XMP packet, 1 to 8; 1 where there is none."""
    match = _XMP_ORIENTATION.search(xmp)
    return int(match[1]) if match else 1


def exif_orientation(exif: bytes) -> int:
    """The orientation in an EXIF block, 1 to 8; 0 where there is none. No other field is read or has to be valid."""
    tiff = exif.removeprefix(b"Exif\0\0")
    endian = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if endian is None or len(tiff) < 8:
        return 0
    (at,) = struct.unpack(f"{endian}I", tiff[4:8])
    (count,) = struct.unpack(f"{endian}H", tiff[at : at + 2]) if at + 2 <= len(tiff) else (0,)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _ = struct.unpack(f"{endian}HHI", tiff[entry : entry + 8])
        if tag == ORIENTATION:
            code = {1: "B", 3: "H", 4: "I"}.get(kind, "H")
            (value,) = struct.unpack_from(f"{endian}{code}", tiff, entry + 8)
            return value if 1 <= value <= 8 else 0
    return 0


def jpeg_scans(data: bytes) -> int:
    """The number of scans of a JPEG's first image, not counting a thumbnail in its metadata.

    Raises ContainerError for a file with more segments than any photo has.
    """
    scans, at = 0, 2
    for _ in range(_MAX_SEGMENTS):
        match = _JPEG_MARKER.search(data, at)
        if match is None or match.end() + 2 > len(data) or data[match.start() + 1] == 0xD9:
            return scans  # a second image or a video may follow the end of the first
        scans += data[match.start() + 1] == 0xDA
        at = match.end() + struct.unpack(">H", data[match.end() : match.end() + 2])[0]
    raise ContainerError(f"is a JPEG of more than {_MAX_SEGMENTS:,} segments. Save it anew as JPEG.")


def jp2_profile(data: bytes) -> bytes | None:
    """The ICC profile of a JPEG 2000 file (its `colr` box of method 2), None where there is none."""
    for name, body in _boxes(data):
        if name == b"jp2h":
            for inner, colour in _boxes(body):
                if inner == b"colr" and colour[:1] == b"\2":
                    return colour[3:]
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields (name, body) of the boxes in `data`, up to the first with an impossible length."""
    at = 0
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        start = at + 8
        if length == 1 and at + 16 <= len(data):
            (length,) = struct.unpack(">Q", data[at + 8 : at + 16])
            start = at + 16
        end = len(data) if length == 0 else at + length
        if end <= at or end < start:
            return
        yield name, data[start:end]
        at = end


# --- camera raw files ---------------------------------------------------------------------------------------------


@dataclass
class _Ifd:
    """The integer fields of one TIFF image file directory (IFD); `is_sub` where another directory contains it."""

    is_sub: bool = False
    values: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def first(self, tag: int) -> int | None:
        values = self.values.get(tag)
        return values[0] if values else None

    @property
    def pixels(self) -> int:
        return (self.first(_WIDTH) or 0) * (self.first(_HEIGHT) or 0)


def is_camera_raw(data: bytes) -> bool:
    """True for a camera raw file (DNG, NEF, CR2, CR3, ARW, PEF, ORF, RW2, RAF ...), by its content, not its name.

    Most are TIFF containers: an ordinary TIFF decoder takes the first image, a small preview, for the photo.
    """
    if any(data[at : at + len(magic)] == magic for at, magic in _OTHER_RAW):
        return True
    ifds = list(_tiff_ifds(data))
    return bool(ifds) and (
        data[8:10] == b"CR"
        or any(tag in ifds[0].values for tag in (_DNG_VERSION, _TIFF_EP))
        or any(ifd.first(_PHOTOMETRIC) in _RAW_PHOTOMETRIC for ifd in ifds)
        or any(ifd.first(_COMPRESSION) in _RAW_COMPRESSION for ifd in ifds)
    )


def is_preview_first(data: bytes) -> bool:
    """True for a TIFF whose first image is a reduced copy of a larger one in the same file."""
    ifds = list(_tiff_ifds(data))
    if not ifds:
        return False
    reduced = bool((ifds[0].first(_SUBFILE) or 0) & 1) or ifds[0].first(_OLD_SUBFILE) == 2
    return any(ifd.pixels > ifds[0].pixels for ifd in ifds if reduced or ifd.is_sub)


def is_whole_tiff(data: bytes) -> bool:
    """True for a TIFF whose first directory names a picture and lies in the file: what cannot be read is its kind."""
    first = next(_tiff_ifds(data), None)
    return first is not None and first.pixels > 0


def _is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _tiff_ifds(data: bytes) -> Iterator[_Ifd]:
    """Yields the directories of a TIFF or BigTIFF, including sub-directories, at most _MAX_IFDS."""
    if not _is_tiff(data) or len(data) < 16:
        return
    endian, big = "<" if data[:2] == b"II" else ">", b"+" in data[2:4]
    pending = [(struct.unpack_from(f"{endian}{'Q' if big else 'I'}", data, 8 if big else 4)[0], False)]
    visited: set[int] = set()
    while pending and len(visited) < _MAX_IFDS:
        at, is_sub = pending.pop(0)
        if at in visited or not 8 <= at <= len(data) - 8:
            continue
        visited.add(at)
        ifd, next_ifd = _tiff_ifd(data, at, endian, big)
        ifd.is_sub = is_sub
        pending += [*((sub, True) for sub in ifd.values.get(_SUB_IFDS, ())), (next_ifd, is_sub)]
        yield ifd


def _tiff_ifd(data: bytes, at: int, endian: str, big: bool) -> tuple[_Ifd, int]:
    """The directory at offset `at`, and the offset of the next one (0 where there is none)."""
    count_code, size, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    (count,) = struct.unpack_from(f"{endian}{count_code}", data, at)
    start = at + struct.calcsize(f"={count_code}")
    ifd = _Ifd()
    for entry in range(start, min(start + min(count, _MAX_FIELDS) * size, len(data) - size + 1), size):
        tag, kind, length = struct.unpack_from(f"{endian}HH{'Q' if big else 'I'}", data, entry)
        where = entry + size - inline
        bytes_needed = length * _VALUE_SIZES.get(kind, 1)
        if bytes_needed > inline:
            (where,) = struct.unpack_from(f"{endian}{'Q' if big else 'I'}", data, where)
        code = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}.get(kind)
        n = min(length, _MAX_IFDS)
        if code and where + n * _VALUE_SIZES[kind] <= len(data):
            ifd.values[tag] = struct.unpack_from(f"{endian}{n}{code}", data, where)
        else:
            ifd.values[tag] = ()
    end = start + count * size
    offset = f"{endian}{'Q' if big else 'I'}"
    next_ifd = struct.unpack_from(offset, data, end)[0] if end + struct.calcsize(offset) <= len(data) else 0
    return ifd, next_ifd
