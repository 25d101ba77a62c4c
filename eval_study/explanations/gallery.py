"""Photos to look at: where the cited regions matter most, at the median and least. Written outside version control."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from eval_study.benchmarks.common import Bench
from skinclip import RESEARCH_USE_ONLY
from skinclip.data.cases import Case
from skinclip.explain.methods import METHODS, reported
from skinclip.explain.registry import GALLERY
from skinclip.explain.subject import Subject, on_photo
from skinclip.imaging.overlay import heatmap_overlay, region_overlay
from skinclip.imaging.photo import load_photo
from skinclip.pipeline.assessor import Assessor

EACH = 4  # photos of a kind
GALLERY_METHODS = reported(GALLERY)
SIDE = 360  # px, longer side of a picture


def write(bench: Bench, cases: list[Case], worth: np.ndarray, name: str) -> Path:
    """One page with the best, median and worst photos of a set.

    Args:
        worth: [n] by which the photos are sorted, more is better; NaN is left out.
    """
    folder = bench.work / "explanations" / "gallery" / name
    folder.mkdir(parents=True, exist_ok=True)
    photos = []
    for kind, i in picked(worth):
        subject = bench.assessor.subject(load_photo(cases[i].image), cases[i].context)
        pictures = [
            (title, _picture(folder, f"{kind}-{i}", title, pixels)) for title, pixels in views(bench.assessor, subject)
        ]
        caption = (
            f"{kind}: {cases[i].image_id}, {worth[i]:+.3f}; explained: {METHODS['evidence'].maps(subject)[0].label}"
        )
        photos.append((caption, pictures))
    page = folder / "index.html"
    page.write_text(to_html(name, photos), encoding="utf-8")
    return page


def to_html(title: str, photos: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """The page of a gallery, everything in it escaped.

    Args:
        photos: caption of each photo, and title and file name of each of its pictures.
    """
    folder = FileSystemLoader(Path(__file__).with_name("templates"))
    template = Environment(loader=folder, autoescape=True, undefined=StrictUndefined).get_template("gallery.html.j2")
    return template.render(title=title, notice=RESEARCH_USE_ONLY, photos=photos)


def picked(worth: np.ndarray) -> list[tuple[str, int]]:
    """("best" | "median" | "worst", index) of up to `EACH` photos of each kind, none twice."""
    order = [int(i) for i in np.argsort(-worth, kind="stable") if np.isfinite(worth[i])]
    each = min(EACH, len(order) // 3)
    middle = (len(order) - each) // 2
    parts = {"best": order[:each], "median": order[middle : middle + each], "worst": order[len(order) - each :]}
    return [(kind, i) for kind, part in parts.items() for i in part]


def views(assessor: Assessor, subject: Subject) -> list[tuple[str, np.ndarray]]:
    """Title and picture: the photo, its regions, and the heat of some methods."""
    pixels = subject.image.pixels
    assessment = assessor.assess(subject.image, subject.context)
    heats = [
        (METHODS[key].title, heatmap_overlay(pixels, on_photo(METHODS[key].maps(subject)[0].heat, subject)))
        for key in GALLERY_METHODS
    ]
    return [("Photo", pixels), ("Regions", region_overlay(pixels, assessment)), *heats]


def _picture(folder: Path, stem: str, title: str, pixels: np.ndarray) -> str:
    """Writes a picture, reduced to SIDE, and returns its file name."""
    scale = min(1.0, SIDE / max(pixels.shape))
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    path = folder / f"{stem}-{title.split()[0].lower()}.jpg"
    cv2.imwrite(str(path), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    return path.name
