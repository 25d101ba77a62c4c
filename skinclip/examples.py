"""Synthetic lesion photos drawn by a program: the examples of the page and the made-up photos of the tests.

They look like dermoscopy but show nobody. `python -m skinclip.examples --out assets/examples` makes the example files.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True)
class Look:
    """How a kind of lesion is drawn. Colours are sRGB; sizes are shares of the shorter side."""

    core: tuple[int, int, int]
    rim: tuple[int, int, int]
    radius: float
    irregular: float
    network: float = 0.0
    globules: int = 0
    veil: bool = False
    lacunae: int = 0
    pale_centre: bool = False
    hairs: int = 6


LOOKS: dict[str, Look] = {
    "nevus": Look((112, 72, 52), (164, 118, 92), 0.27, 0.05, network=0.55, globules=40),
    "melanoma": Look((62, 42, 38), (122, 78, 60), 0.33, 0.24, network=0.8, globules=70, veil=True),
    "keratosis": Look((134, 98, 70), (158, 120, 90), 0.30, 0.08, globules=60, hairs=2),
    "angioma": Look((132, 32, 52), (176, 78, 88), 0.24, 0.05, lacunae=26, hairs=3),
    "dermatofibroma": Look((176, 140, 116), (142, 100, 76), 0.24, 0.06, network=0.35, pale_centre=True),
}


def draw(kind: str, seed: int, size: tuple[int, int] = (640, 480)) -> np.ndarray:
    """A photo of that kind, uint8 [height, width, 3]; `size` is (width, height) in pixels."""
    return draw_with_mask(kind, seed, size)[0]


def draw_with_mask(kind: str, seed: int, size: tuple[int, int] = (640, 480)) -> tuple[np.ndarray, np.ndarray]:
    """The photo and the lesion's mask, bool [height, width]. Raises ValueError for an unknown kind."""
    if kind not in LOOKS:
        raise ValueError(f"no look {kind!r}; there are {', '.join(LOOKS)}")
    look, rng = LOOKS[kind], np.random.default_rng([seed, sorted(LOOKS).index(kind)])
    width, height = size
    field = _signed_field(look, rng, width, height)  # > 0 inside, in shares of the shorter side
    soft = 1 / (1 + np.exp(-field / 0.012))
    photo = _skin(rng, width, height)
    lesion = _lesion(look, rng, field)
    photo = photo * (1 - soft[..., None]) + lesion * soft[..., None]
    photo = _hairs(photo, look.hairs, rng)
    photo = photo * _vignette(width, height)[..., None]
    photo = cv2.GaussianBlur(photo, (0, 0), 0.0012 * min(size)) + rng.normal(0, 1.6, photo.shape)
    return photo.clip(0, 255).astype(np.uint8), field > 0


def _noise(rng: np.random.Generator, width: int, height: int, scale: float) -> np.ndarray:
    """Smooth noise of mean 0 and spread 1; `scale` is the blob size as a share of the shorter side."""
    sigma = max(0.8, scale * min(width, height))
    step = max(1, int(sigma / 3))  # made small and enlarged: the same looks for a fraction of the time
    grains = rng.normal(size=(height // step + 2, width // step + 2)).astype(np.float32)
    smooth = cv2.GaussianBlur(grains, (0, 0), sigma / step)
    noise = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.mean()) / (noise.std() + 1e-6)


def _signed_field(look: Look, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    side = min(width, height)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre = np.array([width / 2, height / 2]) + rng.normal(0, 0.02 * side, 2)
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.3)
    dx, dy = (x - centre[0]) / side, (y - centre[1]) / side
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / stretch
    v = (-dx * np.sin(angle) + dy * np.cos(angle)) * stretch
    wobble = look.irregular * 0.5 * _noise(rng, width, height, 0.09) + 0.008 * _noise(rng, width, height, 0.02)
    return look.radius - np.hypot(u, v) + look.radius * wobble * 0.7


def _skin(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    base = np.array([214, 168, 152]) + rng.normal(0, 6, 3)
    tone = (
        4.5 * _noise(rng, width, height, 0.25)
        + 2.5 * _noise(rng, width, height, 0.02)
        + _noise(rng, width, height, 0.006)
    )
    redness = np.stack(
        [np.zeros_like(tone), -1.4 * _noise(rng, width, height, 0.06), -_noise(rng, width, height, 0.08)], -1
    )
    return base + tone[..., None] + redness


def _lesion(look: Look, rng: np.random.Generator, field: np.ndarray) -> np.ndarray:
    height, width = field.shape
    depth = (field / look.radius).clip(0, 1)
    mottle = 0.16 * _noise(rng, width, height, 0.07) * (1 + 4 * look.irregular) + 0.06 * _noise(
        rng, width, height, 0.02
    )
    share = ((1 - depth if look.pale_centre else depth) * 1.25 + mottle).clip(0, 1)[..., None]
    colour = np.array(look.rim) * (1 - share) + np.array(look.core) * share
    if look.pale_centre:
        pale = (1 / (1 + np.exp(-(depth - 0.62) / 0.06)))[..., None]
        colour = colour * (1 - 0.75 * pale) + np.array([226, 200, 186]) * 0.75 * pale
    if look.network:
        colour = colour * (1 - 0.38 * look.network * _network(look, rng, field)[..., None])
    for _ in range(look.globules):
        _spot(colour, rng, field, rng.uniform(0.004, 0.011 + 0.02 * look.irregular), np.array(look.core) * 0.62, 0.75)
    for _ in range(look.lacunae):
        _spot(colour, rng, field, rng.uniform(0.02, 0.045), np.array([118, 12, 40]) + rng.normal(0, 12, 3), 0.8)
    if look.veil:
        haze = 1 / (1 + np.exp(-(_noise(rng, width, height, 0.11) - 0.75) / 0.22))
        haze = (haze * (depth > 0.12) * 0.72)[..., None]
        colour = colour * (1 - haze) + np.array([112, 122, 150]) * haze
    return colour


def _network(look: Look, rng: np.random.Generator, field: np.ndarray) -> np.ndarray:
    """Dark lines around pale holes: the ridges of cellular noise, 0..1."""
    height, width = field.shape
    side = min(height, width)
    pitch = 0.030 * side * (1 + look.irregular)
    yy, xx = np.mgrid[0 : height + pitch : pitch, 0 : width + pitch : pitch]
    jitter = rng.normal(0, 0.24 * pitch * (1 + 2 * look.irregular), (2, *yy.shape))
    seeds = np.ones((height, width), np.uint8)
    rows = (yy + jitter[0]).round().astype(int).clip(0, height - 1)
    seeds[rows, (xx + jitter[1]).round().astype(int).clip(0, width - 1)] = 0
    distance = cv2.distanceTransform(seeds, cv2.DIST_L2, 5) / pitch
    lines = ((distance - 0.34) / 0.2).clip(0, 1)
    fade = (0.55 + 0.45 * _noise(rng, width, height, 0.12)).clip(0.1, 1)
    return cv2.GaussianBlur(lines.astype(np.float32), (0, 0), 0.002 * side) * fade


def _spot(
    colour: np.ndarray, rng: np.random.Generator, field: np.ndarray, radius: float, ink: np.ndarray, weight: float
) -> None:
    height, width = field.shape
    side = min(height, width)
    inside = np.argwhere(field > radius * 0.8)
    if not len(inside):
        return
    y, x = inside[rng.integers(len(inside))]
    r = max(1.0, radius * side)
    y0, y1, x0, x1 = int(max(0, y - 2 * r)), int(y + 2 * r) + 1, int(max(0, x - 2 * r)), int(x + 2 * r) + 1
    yy, xx = np.mgrid[y0 : min(y1, height), x0 : min(x1, width)]
    edge = (weight / (1 + np.exp((np.hypot(yy - y, (xx - x) * rng.uniform(0.85, 1.15)) - r) / (0.14 * r))))[..., None]
    part = colour[y0 : min(y1, height), x0 : min(x1, width)]
    part[:] = part * (1 - edge) + ink * edge


def _hairs(photo: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.shape[:2]
    side = min(height, width)
    layer = np.zeros((height, width), np.float32)
    for _ in range(count):
        start = rng.uniform([0, 0], [width, height])
        angle, length, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.8) * side, rng.normal(0, 0.5)
        t = np.linspace(0, 1, 40)
        turn = angle + bend * t
        path = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1), 0) * length / len(t)
        line = np.round(path).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(layer, [line], False, 1.0, max(1, round(0.0035 * side)), cv2.LINE_AA)
    alpha = (cv2.GaussianBlur(layer, (0, 0), 0.7) * 0.75)[..., None]
    return photo * (1 - alpha) + np.array([58, 44, 40]) * alpha


def _vignette(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return 1.03 - 0.14 * (x**2 + y**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/examples"))
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in LOOKS:
        photo = cv2.cvtColor(draw(kind, args.seed), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(args.out / f"synthetic_{kind}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
