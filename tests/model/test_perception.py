from __future__ import annotations

import pytest
import torch

from skinclip.core.config import PerceptionConfig
from skinclip.model.perception import Perception


@pytest.fixture(scope="module")
def tower() -> Perception:
    torch.manual_seed(0)
    return Perception(PerceptionConfig()).freeze()


def test_grid_is_fine_enough_and_shapes_hold(tower: Perception) -> None:
    seen = tower(torch.rand(2, 3, 160, 160))
    assert seen.grid[0] >= 14 and seen.grid[1] >= 14
    assert seen.tokens.shape == (2, seen.grid[0] * seen.grid[1], tower.width)
    torch.testing.assert_close(seen.embedding.norm(dim=-1), torch.ones(2))


def test_token_k_is_patch_k(tower: Perception) -> None:
    """A change in one corner changes the tokens of that corner most, and the finest level there alone."""
    photo = torch.rand(1, 3, 160, 160)
    changed = photo.clone()
    changed[:, :, 136:, 0:24] = 1 - changed[:, :, 136:, 0:24]  # bottom left: last rows, first columns
    with torch.no_grad():
        before, after = tower(photo), tower(changed)
    h, w = before.grid
    finest = before.levels[2].shape[1]  # the deeper levels see far around each patch
    difference = (before.tokens - after.tokens)[..., :finest].abs().sum(-1).view(h, w)
    row, column = divmod(int(difference.argmax()), w)
    assert row >= h - 4 and column < 4
    assert difference[: h // 2, w // 2 :].max() == 0


def test_tokens_are_the_levels_row_by_row(tower: Perception) -> None:
    with torch.no_grad():
        seen = tower(torch.rand(1, 3, 160, 160))
    finest = seen.levels[2]  # [1, D, h, w]
    torch.testing.assert_close(seen.tokens[0, 3 * seen.grid[1] + 5, : finest.shape[1]], finest[0, :, 3, 5])


@pytest.mark.parametrize("axes", [(3,), (2,), (2, 3)])
def test_mirrored_photo_gives_mirrored_tokens(tower: Perception, axes: tuple[int, ...]) -> None:
    photo = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        straight, mirrored = tower.from_all_sides(photo), tower.from_all_sides(photo.flip(axes))
    assert not torch.allclose(straight.tokens, mirrored.tokens, atol=1e-3)
    torch.testing.assert_close(straight.tokens, mirrored.turned(axes).tokens, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(straight.embedding, mirrored.embedding, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(straight.style, mirrored.style, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(straight.embedding.norm(dim=-1), torch.ones(2))


def test_frozen_stays_in_eval_and_has_no_gradient(tower: Perception) -> None:
    tower.train()
    assert not tower.training
    assert not any(p.requires_grad for p in tower.parameters())


def test_vit_tower_gives_maps_too() -> None:
    tower = Perception(
        PerceptionConfig(
            model="ViT-B-32", image_size=224, levels=(5, 10), token_levels=(10,), mean=(0.5,) * 3, std=(0.5,) * 3
        )
    )
    assert tower.grid == (7, 7)


def test_unknown_model_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no-such-model"):
        Perception(PerceptionConfig(model="no-such-model"))
