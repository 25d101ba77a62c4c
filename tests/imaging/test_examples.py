from __future__ import annotations

import numpy as np
import pytest

from skinclip.imaging.examples import LOOKS, draw, draw_with_mask


@pytest.mark.parametrize("kind", sorted(LOOKS))
def test_same_seed_same_photo_with_a_lesion_in_it(kind: str) -> None:
    photo, mask = draw_with_mask(kind, 3, (160, 120))
    assert photo.shape == (120, 160, 3) and photo.dtype == np.uint8
    assert np.array_equal(photo, draw(kind, 3, (160, 120)))
    assert not np.array_equal(photo, draw(kind, 4, (160, 120)))
    assert 0.05 < mask.mean() < 0.6
    assert np.abs(photo[mask].mean(0) - photo[~mask].mean(0)).max() > 15


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="no look"):
        draw("wart", 0)
