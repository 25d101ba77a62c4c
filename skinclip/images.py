"""Photos in: decoded, oriented, stripped of metadata, bounded in size, and looked at for quality.

First step of the path: a file or its bytes -> LesionImage. Everything is checked before pixels are decoded, so that a
decompression bomb never unfolds, and nothing but the pixels and a digest of the file is kept.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

from skinclip.assessment import Quality, QualityIssue

register_heif_opener()

MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 50_000_000
MIN_SIDE = 64
FORMATS = {"JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "HEIF", "HEIC"}
_ACCEPTED = "use a JPEG, PNG, WebP, BMP, TIFF or HEIC photo"

# Measured on HAM10000's valid split and degraded copies of it: `python -m eval_study.quality_thresholds --data ROOT`.
WORK_SIDE = 128  # px, at which quality is judged, so that a 150 px and a 4000 px photo are judged alike
BLUR_MIN = 2.0  # standard deviation of the Laplacian on the green channel, 8-bit levels
DARK_MAX, BRIGHT_MIN = 40.0, 245.0  # mean of 8-bit luminance
CONTRAST_MIN = 4.0  # standard deviation of 8-bit luminance
SMALL_SIDE = 128  # px; smaller photos are judged, with a warning
LESION_MIN = 0.002  # share of the window that must be lesion
CUT_OFF_SHARE = 0.10  # of the window's border that is lesion


class PhotoError(ValueError):
    """A photo that cannot be used; the message is one line that says what to do."""


@dataclass(frozen=True)
class LesionImage:
    """An oriented RGB photo without metadata.

    Attributes:
        pixels: uint8 [H, W, 3].
        sha256: of the file as it came, or of the pixels where there was no file.
    """

    pixels: np.ndarray
    sha256: str

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])


def load(source: str | Path | bytes | BinaryIO) -> LesionImage:
    """A photo from a path, its bytes or an open file. Raises PhotoError for whatever cannot be used."""
    data = _read(source)
    if not data:
        raise PhotoError("the file is empty; choose another photo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own bomb and metadata warnings: the limits below are stricter
        image = _open(data)
        _check_header(image)
        return LesionImage(_pixels(image), hashlib.sha256(data).hexdigest())


def from_array(pixels: np.ndarray) -> LesionImage:
    """An uint8 [H, W, 3] RGB array as a photo. Raises PhotoError for another type or shape."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise PhotoError(f"expected an RGB photo of 8 bits a channel, got {pixels.dtype} {pixels.shape}")
    return LesionImage(np.ascontiguousarray(pixels), hashlib.sha256(pixels.tobytes()).hexdigest())


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of uint8 [H, W, 3], without any metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _read(source: str | Path | bytes | BinaryIO) -> bytes:
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise PhotoError(f"there is no photo file {path}; check the path")
        if path.stat().st_size > MAX_BYTES:
            raise PhotoError(_too_large(path.stat().st_size))
        data = path.read_bytes()
    else:
        data = source.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise PhotoError(_too_large(len(data)))
    return data


def _too_large(size: int) -> str:
    return f"the file has {size / 2**20:.0f} MB, at most {MAX_BYTES // 2**20} MB are read; export a smaller copy"


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise PhotoError(_too_many("far too many")) from None
    except UnidentifiedImageError:
        raise PhotoError(f"the file is not a photo that can be read; {_ACCEPTED}") from None
    except Exception:
        raise PhotoError(f"the photo is damaged or incomplete; {_ACCEPTED}") from None


def _too_many(megapixels: str) -> str:
    return f"the photo has {megapixels} megapixels, at most {MAX_PIXELS // 10**6} are read; export a smaller copy"


def _check_header(image: Image.Image) -> None:
    if image.format not in FORMATS:
        raise PhotoError(f"{image.format or 'this'} files are not supported; {_ACCEPTED}")
    if getattr(image, "is_animated", False) and image.format in ("WEBP", "PNG"):
        raise PhotoError("the file is animated; choose a still photo")
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PhotoError(_too_many(f"{width * height / 1e6:.0f}"))
    if min(width, height) < MIN_SIDE:
        raise PhotoError(f"the photo has {width} x {height} pixels, at least {MIN_SIDE} x {MIN_SIDE} are needed")


def _pixels(image: Image.Image) -> np.ndarray:
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
            image = _to_8_bit(image)
        if "A" in image.getbands() or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return np.ascontiguousarray(np.asarray(image.convert("RGB")))
    except Exception:
        raise PhotoError(f"the photo is damaged or incomplete; {_ACCEPTED}") from None


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit greyscale scaled, not clipped, to 8 bits."""
    values = np.asarray(image).astype(np.float64)
    top = 65535.0 if values.max() > 255 else 255.0
    if image.mode == "F" and values.max() <= 1.0:
        top = 1.0
    return Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))


# ---- quality ---------------------------------------------------------------------------------------------------------


def sharpness(pixels: np.ndarray) -> float:
    """Standard deviation of the Laplacian at WORK_SIDE: near 0 for a blurred photo."""
    return float(cv2.Laplacian(_work_copy(pixels)[..., 1].astype(np.float32), cv2.CV_32F).std())


def _work_copy(pixels: np.ndarray) -> np.ndarray:
    scale = WORK_SIDE / min(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def photo_quality(image: LesionImage) -> tuple[QualityIssue, ...]:
    """What is wrong with the photo itself, in plain words."""
    grey = cv2.cvtColor(_work_copy(image.pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    issues = []
    if grey.mean() < DARK_MAX:
        issues.append(QualityIssue("dark", "The photo is too dark. Take it again with more light.", True))
    elif grey.mean() > BRIGHT_MIN:
        issues.append(QualityIssue("bright", "The photo is overexposed. Take it again with less light.", True))
    elif grey.std() < CONTRAST_MIN:
        issues.append(QualityIssue("low_contrast", "The photo shows hardly any contrast. Take it again.", True))
    if sharpness(image.pixels) < BLUR_MIN:
        issues.append(QualityIssue("blur", "The photo is blurred. Hold the camera still and focus on the lesion.", True))
    if min(image.width, image.height) < SMALL_SIDE:
        issues.append(QualityIssue("small", "The photo is very small; fine structures cannot be seen.", False))
    return tuple(issues)


def lesion_quality(mask: np.ndarray) -> tuple[QualityIssue, ...]:
    """What is wrong with the lesion's place in the photo. `mask`: bool [h, w]."""
    if mask.mean() < LESION_MIN:
        return (QualityIssue("no_lesion", "No lesion was found. Centre the lesion and fill the photo with it.", True),)
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if edge.mean() > CUT_OFF_SHARE:
        text = "The lesion is cut off at the edge of the photo; its shape cannot be judged."
        return (QualityIssue("cut_off", text, False),)
    return ()


def combine_quality(*issues: tuple[QualityIssue, ...]) -> Quality:
    """All issues together; a photo is usable unless one of them blocks it."""
    every = tuple(issue for part in issues for issue in part)
    return Quality(not any(issue.blocking for issue in every), every)
