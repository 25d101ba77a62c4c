"""Reference pictures of the page's states (`python -m eval_study.screenshot --states`), compared with tolerance."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from eval_study.screenshot import SCHEMES, SCREENS, STATES, WIDTHS, chromium, served, tour

pytestmark = pytest.mark.browser
ROUGHLY = 24  # of 255, mean difference of blocks of 16 pixels: fonts and smoothing differ between machines
MOST_MEGABYTES = 6


def test_references_are_there_and_small() -> None:
    names = {file.stem for file in SCREENS.glob("*.webp")}
    assert names == {f"{state}-{width}-{scheme}" for state, *_ in STATES for width in WIDTHS for scheme in SCHEMES}
    assert sum(file.stat().st_size for file in SCREENS.glob("*.webp")) < MOST_MEGABYTES * 1e6


def blocks(picture: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as opened:
        grey = np.asarray(opened.convert("L"), np.float32)
    h, w = (side // 16 for side in grey.shape)
    return grey[: h * 16, : w * 16].reshape(h, 16, w, 16).mean((1, 3))


def test_the_page_looks_like_its_references() -> None:
    different = []
    with served("-m", "tests.browser.quick_page") as url, chromium() as browser:
        for width, scheme in ((1440, "light"), (390, "dark")):
            for state, picture in tour(browser, url, width, scheme):
                name = f"{state}-{width}-{scheme}"
                now, then = blocks(picture), blocks((SCREENS / f"{name}.webp").read_bytes())
                height = min(len(now), len(then))
                if abs(len(now) - len(then)) > 0.06 * len(then):
                    different.append(f"{name}: {len(now)} rows of blocks where {len(then)} stood")
                elif (apart := float(np.mean(np.abs(now[:height] - then[:height]) > ROUGHLY))) > 0.05:
                    different.append(f"{name}: {apart:.0%} of the blocks differ")
    assert different == []
