"""Photo files as they come: profiles, orientation, chunks, raw files, bombs."""

from __future__ import annotations

import io
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, features

from skinclip.imaging import container
from skinclip.imaging import photo as images
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import PhotoError, load_photo
from tests.helpers.icc import grey_profile, rgb_profile


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return draw("nevus", 1, (200, 160))


def encoded(picture: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


# --- colour profiles ----------------------------------------------------------------------------------------------


def through(picture: Image.Image, profile: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    return np.array(ImageCms.profileToProfile(picture, source, target, outputMode="RGB"))


@pytest.mark.parametrize("profile", ["display_p3", "adobe_rgb"])
@pytest.mark.parametrize("form", ["rgb", "alpha", "key colour", "16 bits", "16 bits and alpha", "tiff", "webp"])
def test_colours_go_through_their_profile_once(photo: np.ndarray, profile: str, form: str) -> None:
    icc, opaque = rgb_profile(profile), np.full((*photo.shape[:2], 1), 255, np.uint8)
    expected = through(Image.fromarray(photo), icc)
    assert np.abs(expected.astype(int) - photo).mean() > 2
    bgra = np.dstack([photo[..., ::-1], opaque]).astype(np.uint16) * 257
    data = {
        "rgb": lambda: encoded(photo, "PNG", icc_profile=icc),
        "alpha": lambda: encoded(np.dstack([photo, opaque]), "PNG", icc_profile=icc),
        "key colour": lambda: encoded(photo, "PNG", icc_profile=icc, transparency=(1, 254, 3)),
        "16 bits": lambda: with_profile(cv2.imencode(".png", bgra[..., :3])[1].tobytes(), icc),
        "16 bits and alpha": lambda: with_profile(cv2.imencode(".png", bgra)[1].tobytes(), icc),
        "tiff": lambda: encoded(np.dstack([photo, opaque]), "TIFF", icc_profile=icc),
        "webp": lambda: encoded(np.dstack([photo, opaque]), "WEBP", icc_profile=icc, lossless=True),
    }[form]()
    assert np.array_equal(load_photo(data).pixels, expected)


def with_profile(png: bytes, icc: bytes) -> bytes:
    return with_chunk(png, chunk(b"iCCP", b"p\0\0" + zlib.compress(icc)))


def test_a_palette_goes_through_its_profile(photo: np.ndarray) -> None:
    icc, palette = rgb_profile(), Image.fromarray(photo).quantize(64)
    expected = through(palette.convert("RGB"), icc)
    assert np.array_equal(load_photo(encoded(palette, "PNG", icc_profile=icc)).pixels, expected)
    transparent = encoded(palette, "PNG", icc_profile=icc, transparency=0)
    pixels, clear = load_photo(transparent).pixels, np.array(palette) == 0
    assert (pixels[clear] == 255).all() and np.array_equal(pixels[~clear], expected[~clear])


@pytest.mark.parametrize("form", ["8 bits", "16 bits", "alpha", "palette", "jpeg"])
def test_grey_goes_through_its_profile(photo: np.ndarray, form: str) -> None:
    icc, grey = grey_profile(1.0), cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    expected = through(Image.fromarray(grey), icc)
    assert expected.mean() > grey.mean() + 15
    data = {
        "8 bits": lambda: encoded(grey, "PNG", icc_profile=icc),
        "16 bits": lambda: encoded(grey.astype(np.uint16) * 257, "PNG", icc_profile=icc),
        "alpha": lambda: encoded(np.dstack([grey, np.full_like(grey, 255)]), "PNG", icc_profile=icc),
        "palette": lambda: encoded(Image.fromarray(grey).convert("P"), "PNG", icc_profile=icc),
        "jpeg": lambda: encoded(grey, "JPEG", icc_profile=icc, quality=100),
    }[form]()
    assert np.abs(load_photo(data).pixels.astype(int) - expected).max() <= (4 if form == "jpeg" else 0)


def test_an_unusable_profile_is_passed_over(photo: np.ndarray) -> None:
    for icc in (b"no profile", grey_profile(1.0)):
        assert np.array_equal(load_photo(encoded(photo, "PNG", icc_profile=icc)).pixels, photo)


def test_lab_colours_are_converted(photo: np.ndarray) -> None:
    lab = ImageCms.profileToProfile(
        Image.fromarray(photo), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(load_photo(encoded(lab, "TIFF")).pixels.astype(int) - photo).mean() < 3


# --- orientation --------------------------------------------------------------------------------------------------


def exif(orientation: int, endian: str = "<", rest: bytes = b"") -> bytes:
    """IFD 0 with an orientation and a field that cannot be written back: a text of no known type, far outside."""
    head = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(f"{endian}I", 8)
    fields = struct.pack(f"{endian}HHIHH", 0x0112, 3, 1, orientation, 0)
    fields += rest or struct.pack(f"{endian}HHII", 0x9C9B, 77, 2**30, 2**31)
    return b"Exif\0\0" + head + struct.pack(f"{endian}H", 2) + fields + bytes(4)


TURNED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_orientation_whatever_the_rest_of_exif_holds(
    photo: np.ndarray, orientation: int, endian: str, kind: str
) -> None:
    options = {"PNG": {}, "JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
    loaded = load_photo(encoded(photo, kind, exif=exif(orientation, endian), **options))
    expected = TURNED[orientation](photo)
    assert loaded.pixels.shape == expected.shape
    assert np.abs(loaded.pixels.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["TIFF", "HEIF", "AVIF"])
def test_formats_that_their_decoder_turns_are_turned_once(photo: np.ndarray, orientation: int, kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("no decoder for AVIF")
    tags = Image.Exif()
    tags[274] = orientation
    options = {} if kind == "TIFF" else {"quality": 98}
    loaded = load_photo(encoded(photo, kind, exif=tags.tobytes() if kind == "HEIF" else tags, **options))
    expected = TURNED[orientation](photo)
    assert loaded.pixels.shape == expected.shape
    assert np.abs(loaded.pixels.astype(int) - expected).mean() < 4


def test_broken_fields_of_a_tiff_and_of_a_jpeg_do_not_spoil_it(photo: np.ndarray) -> None:
    tiff = bytearray(tiff_with(photo, {274: (3, (6,)), 40000: (3, (1, 2, 3))}))
    at = tiff.rindex(struct.pack("<HH", 40000, 3))
    for kind, count in ((3, 3), (99, 3), (12, 2**31)):
        tiff[at + 2 : at + 8] = struct.pack("<HI", kind, count)
        assert np.array_equal(load_photo(bytes(tiff)).pixels, np.rot90(photo, -1))
    for cut in range(8, 44, 3):
        loaded = load_photo(encoded(photo, "JPEG", exif=exif(6)[:cut], quality=98, subsampling=0))
        turned = np.rot90(photo, -1) if cut >= 28 else photo
        assert np.abs(loaded.pixels.astype(int) - turned).mean() < 2


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", exif(9), b"nothing"])
def test_broken_exif_turns_nothing(photo: np.ndarray, block: bytes) -> None:
    assert container.exif_orientation(block) == 0
    assert np.array_equal(load_photo(with_chunk(encoded(photo, "PNG"), chunk(b"eXIf", block))).pixels, photo)


def test_orientation_in_text_chunks(photo: np.ndarray) -> None:
    png, xmp = encoded(photo, "PNG"), b'<x tiff:Orientation="6"/>'
    hexadecimal = b"\nexif\n  34\n" + exif(6).hex().encode()
    for text in (
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexadecimal)),
    ):
        assert np.array_equal(load_photo(with_chunk(png, text)).pixels, np.rot90(photo, -1))


# --- chunks of PNG ------------------------------------------------------------------------------------------------

HARMLESS = {
    "compressed XMP of 20 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(20_000_000))),
    "XMP of 3 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b" " * 3_000_000),
    "zTXt of 2 MB": chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b" " * 2_000_000)),
    "tEXt of 2 MB": chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000),
    "many texts": b"".join(chunk(b"tEXt", b"Comment\0" + b"x" * 900_000) for _ in range(8)),
    "tEXt with a wrong checksum": chunk(b"tEXt", b"Comment\0x")[:-1] + b"\0",
    "iTXt that is no zlib stream": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0no"),
    "tIME with a wrong checksum": chunk(b"tIME", bytes(7))[:-2] + b"no",
    "pHYs too short": chunk(b"pHYs", b"x"),
    "a private chunk": chunk(b"prVt", b"x" * 5_000_000),
    "gAMA and cHRM too short": chunk(b"gAMA", b"") + chunk(b"cHRM", b"1"),
    "iCCP that is no zlib stream": chunk(b"iCCP", b"p\0\0no"),
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("where", ["before the pixels", "after the pixels"])
def test_chunks_without_pixels_cannot_spoil_a_png(photo: np.ndarray, name: str, where: str) -> None:
    png = encoded(photo, "PNG")
    cut = 33 if where.startswith("before") else len(png) - 12
    assert np.array_equal(load_photo(png[:cut] + HARMLESS[name] + png[cut:]).pixels, photo)


def test_a_large_profile_is_used(photo: np.ndarray) -> None:
    icc = rgb_profile(padding=1_500_000)
    assert np.array_equal(
        load_photo(with_profile(encoded(photo, "PNG"), icc)).pixels, through(Image.fromarray(photo), icc)
    )
    broken = with_profile(encoded(photo, "PNG"), icc).replace(
        chunk(b"iCCP", b"p\0\0" + zlib.compress(icc))[-4:], b"oops", 1
    )
    assert np.array_equal(load_photo(broken).pixels, through(Image.fromarray(photo), icc))


def test_damage_to_the_pixels_is_still_refused(photo: np.ndarray) -> None:
    png = encoded(photo, "PNG")
    at = png.index(b"IDAT") + 40
    with pytest.raises(PhotoError, match="damaged"):
        load_photo(png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :])
    for cut in (60, 200, 2000):
        with pytest.raises(PhotoError, match="damaged"):
            load_photo(with_chunk(png, chunk(b"tEXt", b"Comment\0x"))[:-cut])


def test_a_profile_that_inflates_without_end_is_refused_in_time(photo: np.ndarray) -> None:
    start = time.monotonic()
    with pytest.raises(PhotoError, match="colour profile of more than 16 MB"):
        load_photo(with_profile(encoded(photo, "PNG"), bytes(60_000_000)))
    assert time.monotonic() - start < 3


# --- camera raw files ---------------------------------------------------------------------------------------------


def tiff_with(
    photo: np.ndarray, tags: dict[int, tuple[int, tuple[int, ...]]], endian: str = "<", big: bool = False
) -> bytes:
    """A readable TIFF (an uncompressed RGB preview) that has the given further tags: tag -> (type, values)."""
    height, width = photo.shape[:2]
    word, header = ("Q", 16) if big else ("I", 8)
    sizes = {1: "B", 3: "H", 4: "I"}
    fields = {
        256: (4, (width,)), 257: (4, (height,)), 258: (3, (8, 8, 8)), 259: (3, (1,)), 262: (3, (2,)),
        273: (4, (header,)), 277: (3, (3,)), 278: (4, (height,)), 279: (4, (photo.size,)), **tags,
    }  # fmt: skip
    start = header + photo.size
    size, inline = (20, 8) if big else (12, 4)
    after = start + (8 if big else 2) + size * len(fields) + (8 if big else 4)
    entries, extra = b"", b""
    for tag, (kind, values) in sorted(fields.items()):
        body = struct.pack(f"{endian}{len(values)}{sizes[kind]}", *values)
        if len(body) > inline:
            place = struct.pack(f"{endian}{word}", after + len(extra))
            extra += body
        else:
            place = body.ljust(inline, b"\0")
        entries += struct.pack(f"{endian}HH{word}", tag, kind, len(values)) + place
    magic = {"<": b"II", ">": b"MM"}[endian] + struct.pack(f"{endian}H", 43 if big else 42)
    magic += struct.pack(f"{endian}HH", 8, 0) if big else b""
    count = struct.pack(f"{endian}{'Q' if big else 'H'}", len(fields))
    return (
        magic
        + struct.pack(f"{endian}{word}", start)
        + photo.tobytes()
        + count
        + entries
        + struct.pack(f"{endian}{word}", 0)
        + extra
    )


def sub_ifd(photo: np.ndarray, tags: dict[int, tuple[int, tuple[int, ...]]]) -> bytes:
    """A preview whose sub-directory describes another, larger picture."""
    whole = tiff_with(photo, {330: (4, (0,))})
    at = len(whole)
    body = struct.pack("<H", len(tags))
    for tag, (kind, values) in sorted(tags.items()):
        body += struct.pack("<HHI", tag, kind, 1) + struct.pack({3: "<H", 4: "<I"}[kind], values[0]).ljust(4, b"\0")
    return tiff_with(photo, {330: (4, (at,))}) + body + bytes(4)


LARGE = {256: (4, (6000,)), 257: (4, (4000,))}


def test_raw_files_in_tiff_clothes_are_refused(photo: np.ndarray) -> None:
    assert np.array_equal(load_photo(tiff_with(photo, {})).pixels, photo)
    raw = {
        "DNG": tiff_with(photo, {50706: (1, (1, 4, 0, 0))}),
        "DNG, other byte order": tiff_with(photo, {50706: (1, (1, 4, 0, 0))}, ">"),
        "DNG in BigTIFF": tiff_with(photo, {50706: (1, (1, 7, 0, 0))}, "<", big=True),
        "NEF": sub_ifd(photo, {**LARGE, 259: (3, (34713,)), 262: (3, (32803,))}),
        "NEF with no more than its compression": sub_ifd(photo, {259: (3, (34713,))}),
        "TIFF/EP": tiff_with(photo, {37398: (1, (1, 0, 0, 0))}),
        "ARW": sub_ifd(photo, {259: (3, (32767,))}),
        "linear raw": sub_ifd(photo, {262: (3, (34892,))}),
    }
    for name, data in raw.items():
        with pytest.raises(PhotoError, match="camera raw file") as caught:
            load_photo(data)
        assert "\n" not in str(caught.value), name
    for data in (
        b"FUJIFILMCCD-RAW 0201",
        b"\0\0\0\x18ftypcrx ",
        b"IIU\0\x18\0\0\0",
        b"IIRO\x08\0\0\0",
        b"FOVb" + bytes(9),
    ):
        with pytest.raises(PhotoError, match="camera raw file"):
            load_photo(data)


def test_a_preview_in_front_of_the_photo_is_not_assessed(photo: np.ndarray) -> None:
    for data in (sub_ifd(photo, LARGE),):
        with pytest.raises(PhotoError, match="small preview before the photo"):
            load_photo(data)
    pages = io.BytesIO()
    first, second = Image.fromarray(photo), Image.fromarray(np.tile(photo, (2, 2, 1)))
    first.save(pages, "TIFF", save_all=True, append_images=[second])
    assert np.array_equal(load_photo(pages.getvalue()).pixels, photo)  # pages: the first one counts, as elsewhere


# --- other formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("AVIF", "AVIF"), ("JPEG2000", "JPEG 2000")])
def test_newer_formats_are_read_or_named(
    photo: np.ndarray, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind not in images._INSTALLED:
        pytest.skip("no encoder to make one with")
    data = encoded(photo, kind)
    assert np.abs(load_photo(data).pixels.astype(int) - photo).mean() < 4
    assert name in images.SUPPORTED
    with pytest.raises(PhotoError):
        load_photo(data[: len(data) // 3])
    monkeypatch.setattr(images, "_FORMATS", ("JPEG", "PNG"))
    monkeypatch.setattr(images, "_READ", ["JPEG", "PNG"])
    with pytest.raises(PhotoError, match=f"is a {name} photo, which cannot be read here"):
        load_photo(data)


def test_a_profile_in_jpeg_2000_is_used(photo: np.ndarray) -> None:
    if "JPEG2000" not in images._INSTALLED:
        pytest.skip("no encoder to make one with")
    icc, data = rgb_profile(), encoded(photo, "JPEG2000")
    at = data.index(b"colr") - 4
    (length,) = struct.unpack(">I", data[at : at + 4])
    colr = struct.pack(">I", 11 + len(icc)) + b"colr\2\0\0" + icc
    header = data.index(b"jp2h") - 4
    (old,) = struct.unpack(">I", data[header : header + 4])
    data = (
        data[:header] + struct.pack(">I", old - length + len(colr)) + data[header + 4 : at] + colr + data[at + length :]
    )
    assert np.abs(load_photo(data).pixels.astype(int) - through(Image.fromarray(photo), icc)).mean() < 1


@pytest.mark.parametrize("data", [b"\xff\x0a" + bytes(40), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40)])
def test_jpeg_xl_is_named(data: bytes) -> None:
    with pytest.raises(PhotoError, match="is a JPEG XL photo, which cannot be read here"):
        load_photo(data)


# --- files that cost more than they show --------------------------------------------------------------------------


def of_many_scans(photo: np.ndarray, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    jpeg = encoded(photo, "JPEG", progressive=True, quality=75)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * scans + b"\xff\xd9"


def test_scans_are_counted_before_decoding(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, progressive = encoded(photo, "JPEG"), encoded(photo, "JPEG", progressive=True)
    assert container.jpeg_scans(plain) == 1
    assert 5 < container.jpeg_scans(progressive) < 20
    assert container.jpeg_scans(plain + progressive) == 1  # a second picture or a film behind the first
    assert np.abs(load_photo(progressive).pixels.astype(int) - photo).mean() < 4
    monkeypatch.setattr(images, "_decode", lambda _: pytest.fail("decoded"))
    with pytest.raises(PhotoError, match=r"progressive JPEG of 20\d\d scans"):
        load_photo(of_many_scans(photo, 2000))


def test_segments_are_counted_before_opening() -> None:
    start = time.monotonic()
    with pytest.raises(PhotoError, match="more than 10,000 segments"):
        load_photo(b"\xff\xd8" + b"\xff\xe0\0\2" * 4_000_000)
    assert container.jpeg_scans(b"\xff\xd8" + b"\xff\x01" * 4_000_000) == 0
    assert time.monotonic() - start < 3


def test_a_very_long_picture_is_refused() -> None:
    with pytest.raises(PhotoError, match=r"is 21,000 pixels long; at most 20,000"):
        load_photo(encoded(np.zeros((64, 21_000), np.uint8), "PNG"))


def test_xmp_turns_a_jpeg_whose_exif_holds_no_orientation(photo: np.ndarray) -> None:
    other = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 0x0128, 3, 1, b"\2\0\0\0", 0)
    jpeg = encoded(photo, "JPEG", quality=98, subsampling=0, exif=other, xmp=b'<x tiff:Orientation="6"/>')
    assert np.abs(load_photo(jpeg).pixels.astype(int) - np.rot90(photo, -1)).mean() < 2


def test_xmp_of_any_type_does_not_spoil_a_turned_tiff(photo: np.ndarray) -> None:
    tiff = tiff_with(photo, {274: (3, (6,)), 700: (3, (1, 2, 3))})
    assert np.array_equal(load_photo(tiff).pixels, np.rot90(photo, -1))


def grey_tiff(samples: bytes, shape: tuple[int, int], bits: int, photometric: int) -> bytes:
    """A little-endian TIFF of one channel."""
    fields = {256: shape[1], 257: shape[0], 258: bits, 259: 1, 262: photometric, 277: 1, 278: shape[0]}
    fields |= {273: 8 + 2 + 12 * 9 + 4, 279: len(samples)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + b"\0\0\0\0" + samples


def test_grey_tiffs_of_12_bits_and_with_white_as_zero_are_as_bright_as_they_are(photo: np.ndarray) -> None:
    grey = np.asarray(Image.fromarray(photo).convert("L")).astype(np.uint16)
    wanted = np.dstack([grey.astype(np.uint8)] * 3)
    pairs = (grey.astype(np.uint32) * 4095 // 255).reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    of_12_bits = grey_tiff(packed.astype(np.uint8).tobytes(), grey.shape, 12, 1)
    inverted = grey_tiff((65535 - grey * 257).tobytes(), grey.shape, 16, 0)
    for tiff in (of_12_bits, inverted):
        assert np.abs(load_photo(tiff).pixels.astype(int) - wanted).max() <= 1


def test_a_sound_tiff_of_another_kind_is_not_called_damaged(photo: np.ndarray) -> None:
    tiff = grey_tiff(photo[..., 0].astype("<f8").tobytes(), photo.shape[:2], 64, 1)
    with pytest.raises(PhotoError, match="is a TIFF of a kind that cannot be read here. Export it anew"):
        load_photo(tiff)
