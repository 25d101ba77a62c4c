"""Synthetic lesion photos drawn by a program: the examples of the page and the made-up photos of the tests.

They look like dermoscopy but show nobody. `python -m skinclip.imaging.examples --out assets/examples` makes the
example files.

Colour follows the optics in the simplest form: skin reflects light, and melanin and blood absorb it (Beer-Lambert),
blue most. So a lesion is a map of how much melanin and how much blood lies where, structures are added to these maps,
and brown, black and red come out by themselves. Lengths are shares of the photo's shorter side.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

# Absorption in R, G, B for one unit of pigment.
MELANIN = np.array([0.62, 0.90, 1.16], np.float32)
BLOOD = np.array([0.22, 1.05, 0.74], np.float32)
SKIN = np.array([246, 212, 198], np.float32)
VEIL = np.array([136, 140, 158], np.float32)
SCAR = np.array([240, 216, 208], np.float32)
CYST = np.array([238, 224, 196], np.float32)
GELATIN = np.array([214, 160, 170], np.float32)


@dataclass(frozen=True)
class Look:
    """Looks of a kind of lesion. `ragged` is how far its outline strays, `soft` how wide its edge fades."""

    radius: float
    ragged: float
    soft: float
    melanin: float
    structures: tuple[str, ...]
    hairs: int = 7


@dataclass
class Canvas:
    """The lesion while it is drawn. All maps are float32 [H, W]; `paint` holds (colour, opacity map) laid on top."""

    rng: np.random.Generator
    look: Look
    field: np.ndarray  # > 0 inside; depth below the outline as a share of the shorter side
    cover: np.ndarray  # 0 outside ... 1 inside, the fading edge between
    melanin: np.ndarray
    blood: np.ndarray
    paint: list[tuple[np.ndarray, np.ndarray]]

    @property
    def shape(self) -> tuple[int, int]:
        return self.field.shape[0], self.field.shape[1]

    @property
    def depth(self) -> np.ndarray:
        """0 at the outline and beyond, 1 at the centre."""
        return (self.field / self.look.radius).clip(0, 1)

    def noise(self, scale: float) -> np.ndarray:
        return _noise(self.rng, self.shape, scale)


LOOKS: dict[str, Look] = {
    "nevus": Look(0.25, 0.12, 0.026, 0.74, ("network", "globules")),
    "melanoma": Look(0.31, 0.30, 0.014, 0.95, ("thick_network", "blotches", "streaks", "uneven_globules", "veil")),
    "keratosis": Look(0.29, 0.16, 0.006, 0.62, ("fissures", "openings", "cysts"), hairs=3),
    "angioma": Look(0.22, 0.12, 0.008, 0.05, ("lacunae",), hairs=4),
    "dermatofibroma": Look(0.24, 0.12, 0.040, 0.52, ("network", "scar")),
}


def draw(kind: str, seed: int, size: tuple[int, int] = (640, 480)) -> np.ndarray:
    """A photo of that kind, uint8 [height, width, 3]; `size` is (width, height) in pixels."""
    return draw_with_mask(kind, seed, size)[0]


def draw_with_mask(kind: str, seed: int, size: tuple[int, int] = (640, 480)) -> tuple[np.ndarray, np.ndarray]:
    """The photo and the lesion's mask, bool [height, width]. Raises ValueError for an unknown kind."""
    if kind not in LOOKS:
        raise ValueError(f"no look {kind!r}; there are {', '.join(LOOKS)}")
    look, rng = LOOKS[kind], np.random.default_rng([seed, sorted(LOOKS).index(kind)])
    canvas = _blank_lesion(look, rng, (size[1], size[0]))
    for structure in look.structures:
        STRUCTURES[structure](canvas)
    photo = _skin(rng, canvas.shape) * _transmission(canvas)
    for colour, opacity in canvas.paint:
        alpha = (opacity * canvas.cover).clip(0, 1)[..., None]
        photo = photo * (1 - alpha) + colour * alpha
    photo = _glints(_hairs(photo, look.hairs, rng), rng)
    return _camera(photo, rng), canvas.field > 0


# --- noise and outline --------------------------------------------------------------------------------------------


def _noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Smooth noise of mean 0 and spread 1, float32 [H, W]; `scale` is the size of its blobs."""
    height, width = shape
    sigma = max(0.7, scale * min(shape))
    step = max(1, int(sigma / 3))  # made small and enlarged: the same looks for a fraction of the time
    grains = rng.normal(size=(height // step + 4, width // step + 4)).astype(np.float32)
    smooth = cv2.GaussianBlur(grains, (0, 0), sigma / step)
    noise = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.mean()) / (noise.std() + 1e-6)


def _step(values: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """A smooth step from 0 to 1 around 0."""
    return 1 / (1 + np.exp(-(values / width).clip(-30, 30)))


def _blank_lesion(look: Look, rng: np.random.Generator, shape: tuple[int, int]) -> Canvas:
    field = _outline(look, rng, shape)
    # one side of an edge is often sharper than the other
    cover = _step(field, look.soft * np.exp(0.35 * _noise(rng, shape, 0.15)))
    tone = np.exp(0.16 * _noise(rng, shape, 0.10) + 0.10 * _noise(rng, shape, 0.03) + 0.05 * _noise(rng, shape, 0.008))
    rise = 0.72 + 0.28 * (field / look.radius * 1.6).clip(0, 1)
    melanin = (look.melanin * cover * tone * rise).astype(np.float32)
    blood = (0.10 * cover * np.exp(0.3 * _noise(rng, shape, 0.06))).astype(np.float32)
    return Canvas(rng, look, field, cover.astype(np.float32), melanin, blood, [])


def _outline(look: Look, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Signed depth, float32 [H, W]: an ellipse whose coordinates are bent by noise of three sizes."""
    height, width = shape
    side = min(shape)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    shift = rng.normal(0, 0.025, 2)
    dx, dy = (x - width / 2) / side - shift[0], (y - height / 2) / side - shift[1]
    for scale, weight in ((0.13, 0.16), (0.05, 0.06), (0.02, 0.025)):
        bend = look.ragged * weight
        dx, dy = dx + bend * _noise(rng, shape, scale), dy + bend * _noise(rng, shape, scale)
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.05, 1.2)
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / stretch
    v = (-dx * np.sin(angle) + dy * np.cos(angle)) * stretch
    return look.radius * (1 + 0.35 * look.ragged * _noise(rng, shape, 0.16)) - np.hypot(u, v)


# --- structures: each changes the canvas ---------------------------------------------------------------------------


def _cells(canvas: Canvas, pitch: float, jitter: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cellular noise: distance to the nearest and the second nearest seed in pitches, and the nearest seed's number."""
    height, width = canvas.shape
    step = max(3.0, pitch * min(canvas.shape))
    rows, cols = np.mgrid[-step : height + step : step, -step : width + step : step]
    cols[::2] += step / 2  # hexagonal, as skin's papillae are
    seeds = np.stack([rows.ravel(), cols.ravel()], 1)
    seeds += canvas.rng.normal(0, jitter * step, seeds.shape)
    points = np.stack(list(np.mgrid[:height, :width]), -1).reshape(-1, 2).astype(np.float32)
    points += 0.005 * min(canvas.shape) * np.stack([canvas.noise(0.012).ravel(), canvas.noise(0.012).ravel()], 1)
    distance, index = cKDTree(seeds).query(points, k=2)
    near, far = (distance.astype(np.float32) / step).T
    return near.reshape(canvas.shape), far.reshape(canvas.shape), index[:, 0].reshape(canvas.shape)


def _mesh(canvas: Canvas, pitch: float, jitter: float, line: float, strength: float) -> None:
    """A pigment network: lines between pale holes, strong in patches and fading to the middle and the edge."""
    near, far, _ = _cells(canvas, pitch, jitter)
    lines = np.exp(-np.square((far - near) / (line * np.exp(0.35 * canvas.noise(0.04)))))
    lines = cv2.GaussianBlur(lines.astype(np.float32), (0, 0), max(0.4, 0.0016 * min(canvas.shape)))
    patches = _step(canvas.noise(0.09) + 0.6, 0.5) * (1.15 - 0.55 * canvas.depth)
    canvas.melanin += strength * canvas.cover * patches * (lines - 0.38)
    canvas.melanin[:] = canvas.melanin.clip(0, None)


def _network(canvas: Canvas) -> None:
    _mesh(canvas, 0.021, 0.16, 0.28, 1.1 * canvas.look.melanin)


def _thick_network(canvas: Canvas) -> None:
    _mesh(canvas, 0.030, 0.30, 0.38, 0.8 * canvas.look.melanin)


def _discs(canvas: Canvas, count: int, low: float, high: float, where: np.ndarray) -> np.ndarray:
    """Soft round spots at random places of `where` (bool [H, W]), 0..1, float32 [H, W]."""
    layer = np.zeros(canvas.shape, np.float32)
    places = np.argwhere(where)
    side = min(canvas.shape)
    for _ in range(count if len(places) else 0):
        y, x = places[canvas.rng.integers(len(places))]
        radius = side * np.exp(canvas.rng.uniform(np.log(low), np.log(high)))
        axes = (max(1, round(16 * radius)), max(1, round(16 * radius * canvas.rng.uniform(0.75, 1))))
        angle, strength = canvas.rng.uniform(0, 180), canvas.rng.uniform(0.55, 1)
        spot = np.zeros_like(layer)
        cv2.ellipse(spot, (int(x) * 16, int(y) * 16), axes, angle, 0, 360, strength, -1, cv2.LINE_AA, shift=4)
        layer = np.maximum(layer, spot)
    return cv2.GaussianBlur(layer, (0, 0), max(0.5, 0.0022 * side))


def _globules(canvas: Canvas) -> None:
    rim = (canvas.depth > 0.06) & (canvas.depth < 0.5)
    canvas.melanin += 0.55 * _discs(canvas, 45, 0.004, 0.007, rim) * canvas.cover


def _uneven_globules(canvas: Canvas) -> None:
    side = (canvas.noise(0.25) > 0) & (canvas.depth > 0.03)  # on one side of the lesion only
    canvas.melanin += 1.1 * _discs(canvas, 60, 0.003, 0.013, side) * canvas.cover


def _blotches(canvas: Canvas) -> None:
    """Several browns and black, off the centre, and a paler part where pigment has gone."""
    canvas.melanin *= np.exp(0.42 * canvas.noise(0.13)) * (1 - 0.55 * _step(canvas.noise(0.10) - 1.1, 0.25))
    canvas.melanin += 1.5 * _step(canvas.noise(0.09) + 0.6 * canvas.depth - 1.1, 0.22) * canvas.cover
    canvas.blood += 0.30 * _step(canvas.noise(0.09) - 0.9, 0.3) * canvas.cover


def _streaks(canvas: Canvas) -> None:
    """Radial lines across part of the edge, where the depth field's own noise stretched towards the centre."""
    height, width = canvas.shape
    centre = np.argwhere(canvas.field > 0).mean(0)
    polar = canvas.rng.normal(size=(64, 220)).astype(np.float32)  # [radius, angle]
    polar = gaussian_filter(polar, (14, 0.8), mode=("nearest", "wrap"))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = (np.arctan2(y - centre[0], x - centre[1]) / (2 * np.pi) + 0.5) * 219
    radius = np.hypot(y - centre[0], x - centre[1]) / np.hypot(height, width) * 63
    rays = cv2.remap(polar / polar.std(), angle.astype(np.float32), radius.astype(np.float32), cv2.INTER_LINEAR)
    edge = np.exp(-np.square(canvas.field / 0.03)) * _step(canvas.noise(0.25) - 0.2, 0.15)
    canvas.melanin += (0.55 * canvas.look.melanin * edge * _step(rays - 0.5, 0.25)).astype(np.float32)


def _veil(canvas: Canvas) -> None:
    """A blue-whitish veil: pigment deep in the skin under a white haze, with no sharp edge and no structure of it."""
    haze = _step(canvas.noise(0.085) + 0.9 * canvas.depth - 1.0, 0.22) * _step(canvas.field - 0.05, 0.012)
    haze = haze * (0.58 + 0.13 * canvas.noise(0.025) + 0.07 * canvas.noise(0.007))
    canvas.paint.append((VEIL, haze.clip(0, 0.82)))


def _scar(canvas: Canvas) -> None:
    """The white centre of a dermatofibroma, crossed by shiny lines."""
    centre = _step(canvas.depth - 0.52 + 0.09 * canvas.noise(0.05), 0.07)
    near, far, _ = _cells(canvas, 0.06, 0.4)
    shine = np.exp(-np.square((far - near) / 0.07)) * _step(canvas.noise(0.05), 0.4)
    canvas.blood += 0.18 * np.exp(-np.square((canvas.depth - 0.4) / 0.15)) * canvas.cover
    canvas.paint.append((SCAR, centre * (0.62 + 0.08 * canvas.noise(0.015)).clip(0, 1)))
    canvas.paint.append((SCAR + 10, 0.55 * centre * shine))


def _fissures(canvas: Canvas) -> None:
    """The brain-like surface of a seborrheic keratosis: dark furrows between waxy ridges."""
    ridge = np.abs(canvas.noise(0.03) + 0.35 * canvas.noise(0.012))
    furrow = np.exp(-np.square(ridge / 0.26)) * _step(canvas.noise(0.10) - 0.2, 0.35)
    canvas.melanin *= np.exp(0.30 * canvas.noise(0.05) + 0.16 * canvas.noise(0.015) + 0.12 * canvas.noise(0.006))
    canvas.melanin += 0.26 * furrow * canvas.cover


def _openings(canvas: Canvas) -> None:
    canvas.melanin += 1.1 * _discs(canvas, 20, 0.005, 0.013, canvas.depth > 0.12) * canvas.cover


def _cysts(canvas: Canvas) -> None:
    canvas.paint.append((CYST, 0.75 * _discs(canvas, 32, 0.003, 0.008, canvas.depth > 0.12)))


def _lacunae(canvas: Canvas) -> None:
    """Blood-filled lagoons, red to purple, with paler walls between them."""
    near, far, seed = _cells(canvas, 0.072, 0.22)
    fill = canvas.rng.uniform(0.6, 1.5, int(seed.max()) + 1).astype(np.float32)[seed]
    dark = canvas.rng.uniform(-0.25, 0.45, int(seed.max()) + 1).astype(np.float32)[seed]
    # round where a seed is near, and never over the wall to the next cell
    shape = np.minimum(0.47 - near, far - near - 0.10) + 0.04 * canvas.noise(0.02)
    lagoon = cv2.GaussianBlur(_step(shape, 0.04).astype(np.float32), (0, 0), 0.003 * min(canvas.shape))
    canvas.blood += (0.55 + lagoon * fill) * canvas.cover * np.exp(0.12 * canvas.noise(0.012))
    canvas.melanin += lagoon * dark.clip(0, None) * canvas.cover
    canvas.paint.append((GELATIN, 0.30 * (1 - lagoon) * _step(canvas.noise(0.05) + 0.4, 0.4)))


STRUCTURES: dict[str, Callable[[Canvas], None]] = {
    "network": _network,
    "thick_network": _thick_network,
    "globules": _globules,
    "uneven_globules": _uneven_globules,
    "blotches": _blotches,
    "streaks": _streaks,
    "veil": _veil,
    "scar": _scar,
    "fissures": _fissures,
    "openings": _openings,
    "cysts": _cysts,
    "lacunae": _lacunae,
}


# --- skin, hairs, camera -------------------------------------------------------------------------------------------


def _transmission(canvas: Canvas) -> np.ndarray:
    """What the lesion's pigment lets through, float32 [H, W, 3]."""
    return np.exp(-canvas.melanin[..., None] * MELANIN - canvas.blood[..., None] * BLOOD)


def _skin(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Skin around and under the lesion: its own melanin and blood, fine furrows, a few small vessels."""
    melanin = 0.10 + 0.06 * rng.random() + 0.020 * _noise(rng, shape, 0.12) + 0.022 * _noise(rng, shape, 0.012)
    freckles = 0.10 * _step(_noise(rng, shape, 0.018) - 2.1, 0.2)
    blood = 0.09 + 0.05 * rng.random() + 0.030 * _noise(rng, shape, 0.10) + 0.022 * _noise(rng, shape, 0.02)
    vessels = np.exp(-np.square(_noise(rng, shape, 0.05) / 0.035)) * _step(_noise(rng, shape, 0.08) - 0.7, 0.25)
    blood = blood + 0.10 * cv2.GaussianBlur(vessels.astype(np.float32), (0, 0), max(0.5, 0.002 * min(shape)))
    furrows = np.exp(-np.square(_noise(rng, shape, 0.009) / 0.22))
    light = 1 - 0.022 * furrows + 0.010 * _noise(rng, shape, 0.003) + 0.012 * _noise(rng, shape, 0.3)
    absorbed = (melanin + freckles)[..., None] * MELANIN + blood[..., None] * BLOOD
    return SKIN * 1.08 * light[..., None] * np.exp(-absorbed)


def _hairs(photo: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Hairs that bend, taper and lie partly out of focus."""
    height, width = photo.shape[:2]
    side = min(height, width)
    for _ in range(count):
        start = rng.uniform([-0.1 * width, -0.1 * height], [1.1 * width, 1.1 * height])
        turn = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.02, 60)) + np.linspace(0, rng.normal(0, 0.7), 60)
        path = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1), 0) * rng.uniform(0.3, 0.9) * side / 60
        alpha = _thread(path, rng.uniform(0.0022, 0.0046) * side, (height, width)) * rng.uniform(0.5, 0.95)
        blurred = cv2.GaussianBlur(alpha, (0, 0), max(0.3, rng.uniform(0.0004, 0.0016) * side))[..., None]
        colour = np.array([64, 48, 42]) * rng.uniform(0.7, 1.5)
        photo = photo * (1 - blurred) + colour * blurred
    return photo


def _thread(path: np.ndarray, thick: float, shape: tuple[int, int]) -> np.ndarray:
    """A line along `path` ([n, 2], x and y in pixels) that tapers to its end, 0..1, float32 [H, W]."""
    fine = 4  # drawn larger: line widths are whole pixels, and their steps would show
    layer = np.zeros((shape[0] * fine, shape[1] * fine), np.uint8)
    ends = np.round(path * fine).astype(np.int32).tolist()
    for k, (start, end) in enumerate(itertools.pairwise(ends)):
        cv2.line(layer, start, end, 255, max(1, round(fine * thick * (1 - 0.7 * k / len(ends)))))
    small = cv2.resize(layer, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _glints(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Small bright reflections of the contact fluid, one bubble ring among them."""
    height, width = photo.shape[:2]
    side = min(height, width)
    layer = np.zeros((height, width), np.float32)
    for _ in range(7):
        centre = rng.uniform([0, 0], [width, height]).astype(int)
        cv2.circle(layer, centre.tolist(), max(1, round(rng.uniform(0.0008, 0.002) * side)), 0.7, -1, cv2.LINE_AA)
    bubble = rng.uniform([0.04 * width, 0.04 * height], [0.2 * width, 0.25 * height]).astype(int)
    cv2.circle(layer, bubble.tolist(), round(rng.uniform(0.012, 0.022) * side), 0.22, 1, cv2.LINE_AA)
    alpha = cv2.GaussianBlur(layer, (0, 0), max(0.5, 0.0012 * side))[..., None]
    return photo * (1 - alpha) + 250 * alpha


def _camera(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A ring light's fall-off to the corners, the lens's slight blur, the sensor's grain."""
    height, width = photo.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    fall = 1.02 - 0.10 * (x**2 + y**2) - 0.06 * (x**2 + y**2) ** 2
    photo = photo * fall[..., None]
    photo = cv2.GaussianBlur(photo, (0, 0), max(0.3, 0.0011 * min(height, width)))
    return (photo + rng.normal(0, 1.5, photo.shape)).clip(0, 255).astype(np.uint8)


# Picked so that `mini` takes the drawing for dermoscopy and agrees with the intended look.
SHIPPED_SEEDS = {"melanoma": 14, "nevus": 36, "keratosis": 11, "angioma": 26, "dermatofibroma": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/examples"))
    parser.add_argument("--seed", type=int, help="of every photo (default: the seeds of those that are shipped)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in LOOKS:
        seed = SHIPPED_SEEDS[kind] if args.seed is None else args.seed
        photo = cv2.cvtColor(draw(kind, seed), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(args.out / f"synthetic_{kind}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
