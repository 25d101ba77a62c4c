"""The README's picture of the page stays small enough to be loaded at once."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from eval_study.screenshot import OUT, quantised


def test_the_picture_is_small() -> None:
    assert OUT.stat().st_size < 400_000


def test_few_colours_stay_close_to_the_picture() -> None:
    ramp = np.add.outer(np.arange(64), 2 * np.arange(64))
    pixels = np.stack([ramp, ramp[::-1], np.full_like(ramp, 90)], axis=-1).clip(0, 255).astype(np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    with Image.open(io.BytesIO(quantised(held.getvalue()))) as few:
        assert few.mode == "P" and few.size == (64, 64)
        assert np.abs(np.asarray(few.convert("RGB"), int) - pixels).mean() < 8
