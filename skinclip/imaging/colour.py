"""Decoded photo -> sRGB: every photo goes through its colour profile once, alpha then lies on white.

Phones and cameras save wide-gamut colours (Display P3, Adobe RGB): read as sRGB they look paler, and colour is evidence
here. That holds for grey photos, palettes, 16 bits and photos with transparency as well.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

_WHITE = (255, 255, 255)
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}  # of a profile's colour space
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF tags, and a value of the second
_GREY_MODES = ("1", "L", "LA", "La")


def to_srgb(photo: Image.Image) -> Image.Image:
    """The photo as an RGB picture of sRGB colours, without alpha. Raises OSError or ValueError where it cannot be."""
    profile = photo.info.get("icc_profile")
    colour, alpha = _split(photo)
    rgb = _through_profile(colour, profile) if profile else None
    rgb = rgb or _plain(colour)
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, _WHITE)
    white.paste(rgb, mask=alpha)
    return white


def _split(photo: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """(the colours in L, RGB, CMYK or LAB of 8 bits, the alpha channel or None)."""
    if photo.mode.startswith("I;16"):
        samples = _full_range(photo)
        key = photo.info.get("transparency")
        alpha = Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
        return Image.fromarray(eight_bits(samples)), alpha
    if photo.has_transparency_data:
        if photo.mode in _GREY_MODES:
            grey, alpha = photo.convert("LA").split()
            return grey, alpha
        rgba = photo.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    if photo.mode == "1":
        return photo.convert("L"), None
    if photo.mode in ("L", "RGB", "CMYK", "LAB"):
        return photo, None
    return photo.convert("RGB"), None


def _full_range(photo: Image.Image) -> np.ndarray:
    """Grey samples of 16 bits, 65535 for white: Pillow leaves 12 bits and "white is zero" of a TIFF as they are."""
    samples = np.asarray(photo).astype(np.uint32)
    if not isinstance(photo, TiffImagePlugin.TiffImageFile):
        return samples
    (bits, *_) = photo.tag_v2.get(_BITS, (16,))
    samples = samples * 65535 // (2**bits - 1)
    return 65535 - samples if photo.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else samples


def eight_bits(samples: np.ndarray) -> np.ndarray:
    """16-bit samples scaled to 0-255 (65535 becomes 255); Pillow's own conversion would clip them."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _through_profile(colour: Image.Image, profile: bytes) -> Image.Image | None:
    """The colours through an embedded profile, None where it is broken or is of another colour space."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _PROFILE_MODES.get(source.profile.xcolor_space.strip().upper())
        fitted = _in_mode(colour, mode)
        if fitted is None:
            return None
        return ImageCms.profileToProfile(fitted, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _in_mode(colour: Image.Image, mode: str | None) -> Image.Image | None:
    """The picture in the mode of a profile's colour space, None where the two do not belong together."""
    if colour.mode == mode:
        return colour
    if mode == "RGB" and colour.mode == "L":
        return colour.convert("RGB")
    if mode == "L" and colour.mode == "RGB" and _is_grey(colour):  # a grey photo saved with a palette or as RGB
        return colour.getchannel("R")
    return None


def _is_grey(colour: Image.Image) -> bool:
    red, green, blue = (np.asarray(channel) for channel in colour.split())
    return bool(np.array_equal(red, green) and np.array_equal(red, blue))


def _plain(colour: Image.Image) -> Image.Image:
    """The colours as RGB where no profile says more."""
    if colour.mode == "LAB":  # Pillow has no other way from it
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(colour, lab, srgb, outputMode="RGB")
        if converted is None:
            raise ValueError("the Lab colours cannot be converted")
        return converted
    return colour.convert("RGB")
