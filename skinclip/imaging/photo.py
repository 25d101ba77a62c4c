"""Photo file -> LesionImage: the first step of the path, and the only place where photo files are opened.

- What decoding would cost (bytes, pixels, scans, a colour profile) is checked before any pixel is decoded.
- The result is an upright RGB array without metadata; alpha lies on white, wide-gamut colours become sRGB.
- Every refusal is a `PhotoError` of one line that says what to do.
- The quality gate measures the photo at a fixed size, so that 150 px and 4000 px photos meet the same thresholds.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pillow_heif
from PIL import Image, UnidentifiedImageError, features

from skinclip.core.assessment import Kind, Quality, QualityIssue
from skinclip.core.safe_text import shortened
from skinclip.imaging import container
from skinclip.imaging.colour import to_srgb

MAX_FILE_MB = 20
MAX_MEGAPIXELS = 50
MAX_SIDE = 20_000  # pixels; the longest panoramas of phones have about 16,000
MIN_SIDE = 64  # below this not even the outline of a lesion is left
MAX_SCANS = 100  # of a progressive JPEG; cameras and editors write 1 to 14
MAX_SCANNED_MEGAPIXELS = 1000  # scans times megapixels: what decoding them costs

# Pillow's own guard only warns from 89 megapixels on: as an error it is caught below and reported as ours.
warnings.simplefilter("error", Image.DecompressionBombWarning)
pillow_heif.register_heif_opener(thumbnails=False)

# Formats that not every build of Pillow can decode. JPEG XL has no decoder there.
_OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000"}
_INSTALLED = tuple(name for name, feature in _OPTIONAL.items() if features.check(feature))
# JPEG includes MPO, the variant of some phones with a second picture behind the first. GIF is opened only to be named.
# Nothing else is: Pillow's further formats include programs (EPS), and each is one more parser to attack.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "HEIF", "GIF", *_INSTALLED)
_NAMES = {"AVIF": "AVIF", "JPEG2000": "JPEG 2000"}
_READ = ["JPEG", "PNG", "WebP", "BMP", "TIFF", *(_NAMES[name] for name in _INSTALLED)]
SUPPORTED = f"{', '.join(_READ)} or HEIC"

# First bytes -> type, for files that Pillow cannot open at all.
_DAMAGED_IF = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8")
_JPEG = b"\xff\xd8\xff"
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_JPEG2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_UNSUPPORTED = {b"%PDF": "a PDF document", b"PK\x03\x04": "a ZIP or Office file", b"8BPS": "a Photoshop file"}
_DAMAGED = "is truncated or damaged. Copy it again from the camera or export it anew."
# What decoders raise on broken files.
DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    AssertionError,
    struct.error,
    Image.DecompressionBombError,
    Warning,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoError(ValueError):
    """The photo cannot be used; the message is one line that tells what to do."""


@dataclass(frozen=True, eq=False)
class LesionImage:
    """One photo, upright and without metadata.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        sha256: of the photo file's bytes, to recognise the same file again; of the pixels where there was no file.
        kind: what a person says it is; None leaves it to the model.
    """

    pixels: np.ndarray
    sha256: str
    kind: Kind | None = None

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])


def load_photo(source: str | Path | bytes | BinaryIO) -> LesionImage:
    """Open a photo: a path, the bytes of a file, or a binary stream. Raises PhotoError."""
    name = shortened(Path(source).name) if isinstance(source, str | Path) else "The photo"
    data = _read(source, name)
    with quiet_decoder():
        photo = _open(data, name)
        _check_header(photo, name)
        try:
            pixels = _decode(photo)
        except DECODER_ERRORS as error:
            raise PhotoError(f"{name} {_DAMAGED}") from error
    return LesionImage(pixels, hashlib.sha256(data).hexdigest())


def read_photo_file(path: Path) -> bytes:
    """The bytes of a photo file, not decoded. Raises PhotoError where it is missing, empty, too large or no file."""
    return _read(path, shortened(path.name))


@contextlib.contextmanager
def quiet_decoder() -> Iterator[None]:
    """Passes over what Pillow remarks about metadata that it cannot read: only the pixels matter here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield


def from_array(pixels: np.ndarray) -> LesionImage:
    """A LesionImage of an array that is already RGB, uint8 [H, W, 3]. Raises PhotoError for any other."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise PhotoError(f"expected RGB pixels as uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    _check_pixels(pixels.shape[1], pixels.shape[0], "The photo")
    pixels = np.ascontiguousarray(pixels)
    return LesionImage(pixels, hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest())


def fit(pixels: np.ndarray, most: int, least: int = 0) -> np.ndarray:
    """The picture with its longer side between `least` and `most` pixels."""
    longer = max(pixels.shape[:2])
    scale = min(max(longer, least), most) / longer
    if scale == 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def encode_png(pixels: np.ndarray) -> bytes:
    """RGB uint8 [H, W, 3] as the bytes of a PNG file without metadata."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def encode_jpeg(pixels: np.ndarray, quality: int = 95) -> bytes:
    """RGB uint8 [H, W, 3] as the bytes of a JPEG file without metadata, colours at full resolution (4:4:4).

    At the default quality, on 30 dermoscopy photos and overlays: a third of the PNG's bytes, at least 42 dB (PSNR).
    """
    picture, stream = Image.fromarray(pixels), io.BytesIO()
    try:
        picture.save(stream, format="JPEG", quality=quality, subsampling=0, optimize=True)
    except OSError:  # Pillow sets memory aside for an optimized file by its area: too little where all is grain
        stream = io.BytesIO()
        picture.save(stream, format="JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


# --- from file to pixels ------------------------------------------------------------------------------------------


def _read(source: str | Path | bytes | BinaryIO, name: str) -> bytes:
    """The bytes, never more than the limit of them."""
    limit = MAX_FILE_MB * 1_000_000
    if isinstance(source, str | Path):
        data = _read_path(Path(source), name, limit)
    else:
        data = source if isinstance(source, bytes) else source.read(limit + 1)
    if not data:
        raise PhotoError(f"{name} is empty. Copy it again from the camera or export it anew.")
    if len(data) > limit:
        raise PhotoError(f"{name} is larger than {MAX_FILE_MB} MB. Save it smaller, for example as JPEG.")
    return data


def _read_path(path: Path, name: str, limit: int) -> bytes:
    place = shortened(str(path), 200)
    try:  # also around the questions: a name can be too long to be asked about
        if path.is_dir():
            raise PhotoError(f"{place} is a directory. Give one photo file.")
        if not path.exists():
            raise PhotoError(f"{place} does not exist. Check the path.")
        if not path.is_file():
            raise PhotoError(f"{place} is not a regular file. Give one photo file.")
        with path.open("rb") as stream:
            return stream.read(limit + 1)
    except OSError as error:
        raise PhotoError(f"{name} cannot be read ({error.strerror}). Check its permissions.") from error


def _open(data: bytes, name: str) -> Image.Image:
    """The photo with only its header read, its colour profile, orientation and number of scans in `info`."""
    if container.is_camera_raw(data):
        raise PhotoError(
            f"{name} is a camera raw file, of which only the small preview could be read. Develop it and export the "
            "photo as JPEG, PNG or TIFF."
        )
    if container.is_preview_first(data):
        raise PhotoError(f"{name} holds a small preview before the photo itself. Export it anew as JPEG, PNG or TIFF.")
    try:
        return _opened(data)
    except container.ContainerError as error:
        raise PhotoError(f"{name} {error}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PhotoError(_too_many_pixels(name)) from error
    except UnidentifiedImageError as error:
        raise PhotoError(f"{name} {_what_it_is(data)}") from error
    except DECODER_ERRORS as error:
        raise PhotoError(f"{name} {_DAMAGED}") from error


def _opened(data: bytes) -> Image.Image:
    if data.startswith(container.PNG_SIGNATURE):
        png = container.png_pixels(data)
        photo: Image.Image = Image.open(io.BytesIO(png.data), formats=("PNG",))
        photo.info |= {"icc_profile": png.profile, "orientation": png.orientation}
        return photo
    scans = container.jpeg_scans(data) if data.startswith(_JPEG) else 0
    photo = Image.open(io.BytesIO(data), formats=_FORMATS)
    photo.info["scans"] = scans
    if photo.format == "JPEG2000":
        photo.info["icc_profile"] = container.jp2_profile(data)
    return photo


def _what_it_is(data: bytes) -> str:
    """The rest of the sentence about a file that could not be opened."""
    choose = f"Choose a {SUPPORTED} photo."
    kind = _compressed_kind(data)
    if container.is_whole_tiff(data):
        return "is a TIFF of a kind that cannot be read here. Export it anew as JPEG or PNG."
    if kind and kind not in _READ:
        return f"is a {kind} photo, which cannot be read here. {choose}"
    if kind or data.startswith(_DAMAGED_IF) or (data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS):
        return _DAMAGED
    for magic, what in _UNSUPPORTED.items():
        if data.startswith(magic):
            return f"is {what}, not a photo. {choose}"
    if data[128:132] == b"DICM":
        return "is a DICOM file. Export the photo from the viewer as PNG or JPEG."
    if b"\0" not in data[:4096] and _is_text(data[:4096]):
        return f"holds text, not a photo, whatever its name says. {choose}"
    return f"is of no supported type. {choose}"


def _compressed_kind(data: bytes) -> str | None:
    """The newer formats by name, which an installation may or may not be able to decode."""
    if data[4:8] == b"ftyp" and (data[8:12] in _AVIF_BRANDS or b"avif" in data[16:64]):
        return "AVIF"
    if data.startswith(_JPEG2000):
        return "JPEG 2000"
    return "JPEG XL" if data.startswith(_JPEG_XL) else None


def _is_text(start: bytes) -> bool:
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # the cut may have split the last character
    return True


def _check_header(photo: Image.Image, name: str) -> None:
    if photo.format == "GIF":
        kind = "an animated GIF" if getattr(photo, "is_animated", False) else "a GIF"
        raise PhotoError(f"{name} is {kind}, which is not supported. Save one still picture as JPEG or PNG.")
    if photo.format in ("PNG", "WEBP", "AVIF") and getattr(photo, "is_animated", False):
        raise PhotoError(f"{name} is animated, which is not supported. Save one still picture as JPEG or PNG.")
    _check_pixels(*photo.size, name)
    if min(photo.size) < MIN_SIDE:
        width, height = photo.size
        raise PhotoError(
            f"{name} is too small ({width} x {height} pixels; each side needs at least {MIN_SIDE}). "
            "Use the original photo, not a thumbnail."
        )
    if photo.mode in ("I", "F"):
        raise PhotoError(f"{name} has 32 bits a channel. Save it with 8 or 16 bits, for example as PNG.")
    _check_scans(photo.info.get("scans", 0), photo.width * photo.height, name)


def _check_pixels(width: int, height: int, name: str) -> None:
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise PhotoError(_too_many_pixels(name))
    if max(width, height) > MAX_SIDE:
        raise PhotoError(
            f"{name} is {max(width, height):,} pixels long; at most {MAX_SIDE:,} can be used. Crop it to the lesion."
        )


def _check_scans(scans: int, pixels: int, name: str) -> None:
    """Each scan of a progressive JPEG goes over all its pixels again, however few bytes it has."""
    if scans > MAX_SCANS or (scans > 1 and scans * pixels > MAX_SCANNED_MEGAPIXELS * 1_000_000):
        raise PhotoError(f"{name} is a progressive JPEG of {scans} scans, too many to decode. Save it anew as JPEG.")


def _too_many_pixels(name: str) -> str:
    return f"{name} has more than {MAX_MEGAPIXELS} megapixels. Scale it down or crop it to the lesion."


def _decode(photo: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]: upright, sRGB, alpha on white. Only the pixels are kept, so no metadata can survive."""
    orientation = orientation_of(photo)
    photo.load()
    return np.array(upright(to_srgb(photo), orientation))


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """The picture turned by an orientation in EXIF's numbers, 1 to 8."""
    turn = _TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def orientation_of(photo: Image.Image) -> int:
    """Orientation of the stored picture in EXIF's numbers, 1 to 8; to be asked before its pixels are loaded.

    That of a TIFF is 1: Pillow turns it while decoding, and here loses the metadata that it would fail to write back.
    """
    if photo.format == "TIFF":
        for text in ("xmp", "exif"):
            photo.info.pop(text, None)
        return 1
    if "orientation" in photo.info:  # of a PNG, taken out with its text
        return int(photo.info["orientation"])
    exif, xmp = photo.info.get("exif") or b"", photo.info.get("xmp") or b""
    return container.exif_orientation(exif) or container.xmp_orientation(xmp)


# --- quality gate -------------------------------------------------------------------------------------------------
#
# The thresholds lie in the gaps that `python -m eval_study.quality_thresholds --data ROOT` prints: 1,013 HAM10000 valid
# photos, 150 ISIC 2017 valid photos, 423 smartphone photos of PAD-UFES-20 (1 % and 99 % quantiles, over the three
# sets), against copies blurred with sigma 6 % of the side, darkened to a tenth, over-exposed three times. Grey levels
# are 0-255. Of the photos 99.9, 100 and 99.8 % pass; of copies blurred by 6 %, darkened or blacked out none does, of
# those blurred by 3 % at most 0.5 %, of the over-exposed at most 1.9 %.
#
#   measure         good photos     spoilt copies                     threshold
#   fine_detail     0.86 to 6.1     blurred at most 0.68              0.72
#   detail_ratio    0.155 to 0.65   blurred at most 0.12              0.125  (blurred but noisy or high in contrast)
#   bright_end      111 to 232      darkened at most 24               50
#   burnt_share     0 to 0.02       over-exposed at least 0.34        0.40   (99.9 % of good photos are below 0.07)
#   contrast        37 to 204       uniform pictures 0                20     (the lowest good photo has 32)
#   lesion area     at least 0.011  -                                 0.001  (users stand further back)

GATE_SIDE = 128  # the shorter side is reduced to this before measuring; HAM10000's smallest photos have 150
MIN_FINE_DETAIL = 0.72
MIN_DETAIL_RATIO = 0.125
MIN_BRIGHT_END = 50.0
MAX_BURNT_SHARE = 0.40
MIN_CONTRAST = 20.0
MIN_USEFUL_SIDE = 112  # half of the model's input: below it, structures of a few hairs' width are gone
MIN_LESION_SHARE = 0.001  # of the photo's area
MAX_BORDER_SHARE = 0.02  # of the photo's border
MAIN_PLACE_SHARE = 0.25  # of the largest place's area: what is smaller is another spot, and not what is judged


def quality_measures(pixels: np.ndarray) -> dict[str, float]:
    """Measures of sharpness, exposure and contrast of RGB uint8 [H, W, 3].

    Returns:
        fine_detail: root mean square of the grey levels' fine band (Gaussian sigma 1 to 2 at GATE_SIDE).
        detail_ratio: the same over the coarser band (sigma 2 to 8), which does not depend on contrast.
        bright_end: 80th percentile of the grey levels.
        burnt_share: share of pixels at 250 or more.
        contrast: 99th less 1st percentile of the grey levels, black surround left out.
    """
    grey = _grey_at_gate_size(pixels)
    inside = _without_black_surround(grey)
    fine, coarse = _bands(grey, inside)
    visible = grey[inside]
    low, high = np.percentile(visible, [1, 99])
    return {
        "fine_detail": fine,
        "detail_ratio": fine / (coarse + 0.5),  # half a grey level: rounding noise is not structure
        "bright_end": float(np.percentile(grey, 80)),
        "burnt_share": float((grey >= 250).mean()),
        "contrast": float(high - low),
    }


def photo_quality(image: LesionImage) -> tuple[QualityIssue, ...]:
    """Faults of the photo itself: blur, dark, bright, low_contrast, small. All of them block."""
    measures = quality_measures(image.pixels)
    issues = []
    if min(image.width, image.height) < MIN_USEFUL_SIDE:
        issues.append(
            _blocking("small", f"The photo is too small to show structures: use at least {MIN_USEFUL_SIDE} px a side.")
        )
    if measures["bright_end"] < MIN_BRIGHT_END:
        issues.append(_blocking("dark", "The photo is too dark: take it again with more light."))
    elif measures["burnt_share"] > MAX_BURNT_SHARE:
        issues.append(_blocking("bright", "The photo is over-exposed: take it again with less light or no flash."))
    elif measures["contrast"] < MIN_CONTRAST:
        issues.append(_blocking("low_contrast", "The photo is almost one colour: check that it shows the lesion."))
    elif measures["fine_detail"] < MIN_FINE_DETAIL or measures["detail_ratio"] < MIN_DETAIL_RATIO:
        # only asked of a photo that shows something: a black photo is not "blurred"
        issues.append(_blocking("blur", "The photo is blurred: hold the camera still and focus on the lesion."))
    return tuple(issues)


def lesion_quality(mask: np.ndarray, outlined: np.ndarray | None = None) -> tuple[QualityIssue, ...]:
    """Faults of the lesion's place in the photo. No lesion blocks, a cut-off one only warns.

    Many good photos are close crops. A small spot beside the lesion may lie on the border.

    Args:
        mask: bool [h, w], the lesion in what the model read.
        outlined: bool [h', w'] of the whole photo, what the outline that is shown encloses; `mask` where it is not
            given. The model may read a part of the photo, whose edges are not the photo's border.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.mean() < MIN_LESION_SHARE:
        return (_blocking("no_lesion", "No lesion was found: centre the lesion and move closer."),)
    if border_share(_main_places(mask if outlined is None else outlined)) > MAX_BORDER_SHARE:
        message = "The lesion is cut off at the photo's border: its shape and border cannot be judged fully."
        return (QualityIssue("cut_off", message, blocking=False),)
    return ()


def _main_places(mask: np.ndarray) -> np.ndarray:
    """The mask, bool [h, w], without places much smaller than its largest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    main = areas >= MAIN_PLACE_SHARE * areas[1:].max(initial=0)
    main[0] = False  # the background
    return main[labels]


def border_share(mask: np.ndarray) -> float:
    """Share of the photo's outermost pixels that belong to the mask, bool [h, w]."""
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return float(border.mean())


def combine_quality(*issues: tuple[QualityIssue, ...]) -> Quality:
    """One verdict of several checks: usable unless an issue blocks."""
    merged = tuple(issue for part in issues for issue in part)
    return Quality(usable=not any(issue.blocking for issue in merged), issues=merged)


def _blocking(code: str, message: str) -> QualityIssue:
    return QualityIssue(code, message, blocking=True)


def _grey_at_gate_size(pixels: np.ndarray) -> np.ndarray:
    """float32 [h, w], the shorter side at most GATE_SIDE. Averaging over the area also averages sensor noise away."""
    scale = GATE_SIDE / min(pixels.shape[:2])
    if scale < 1:
        # fixed integers, not cv2's fx and fy: a very long photo must keep at least GATE_SIDE on its shorter side
        height, width = (max(GATE_SIDE, round(side * scale)) for side in pixels.shape[:2])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _without_black_surround(grey: np.ndarray) -> np.ndarray:
    """bool [h, w]: where the photo shows something. Dermatoscopes leave a black ring whose sharp edge is no detail."""
    inside = cv2.erode((grey > 20).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return inside if inside.mean() > 0.05 else np.ones_like(inside)


def _bands(grey: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Root mean square of the fine (sigma 1 to 2) and the coarser (2 to 8) band, in grey levels."""
    weight = inside.astype(np.float32)

    def smooth(sigma: float) -> np.ndarray:
        # dividing by the smoothed mask keeps the black surround from leaking in
        return cv2.GaussianBlur(grey * weight, (0, 0), sigma) / np.maximum(
            cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3
        )

    one, two, eight = smooth(1), smooth(2), smooth(8)

    def rms(band: np.ndarray) -> float:
        return float(np.sqrt(np.square(band[inside]).mean()))

    return rms(one - two), rms(two - eight)
