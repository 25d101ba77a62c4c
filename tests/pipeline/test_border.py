"""A lesion is said to be cut off only where its outline meets the photo's border."""

from __future__ import annotations

import numpy as np
import pytest

from skinclip.core.assessment import Lesion
from skinclip.imaging.photo import MAX_BORDER_SHARE, border_share, from_array
from skinclip.pipeline.findings import outlined_places


@pytest.mark.parametrize(
    ("box", "cut_off"),
    [((60, 40, 200, 160), False), ((3, 40, 200, 160), False), ((0, 40, 200, 160), True), ((60, 40, 320, 240), True)],
)
def test_only_an_outline_at_the_border_is_cut_off(box: tuple[int, int, int, int], cut_off: bool) -> None:
    x0, y0, x1, y1 = box
    image = from_array(np.full((240, 320, 3), 200, np.uint8))
    lesion = Lesion(box=box, polygons=(((x0, y0), (x1, y0), (x1, y1), (x0, y1)),), area_fraction=0.1)
    assert (border_share(outlined_places(lesion, image)) > MAX_BORDER_SHARE) == cut_off


def test_without_an_outline_nothing_is_cut_off() -> None:
    image = from_array(np.full((240, 320, 3), 200, np.uint8))
    assert not outlined_places(Lesion(box=None, polygons=(), area_fraction=0.0), image).any()
