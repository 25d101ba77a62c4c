"""Augmentation that is drawn apart from being applied."""

from __future__ import annotations

import torch

from skinclip.data.augmentation import Augmentation, augment

GENERATOR = torch.Generator()


def batch(n: int = 6) -> torch.Tensor:
    return torch.rand(n, 4, 40, 40, generator=torch.Generator().manual_seed(1))


def test_a_share_of_a_batch_looks_as_it_does_within_the_batch() -> None:
    drawn = Augmentation.draw(6, GENERATOR.manual_seed(3), strength=0.7)
    whole, share = drawn(batch(), 32), torch.tensor([1, 4, 5])
    assert whole.shape == (6, 4, 32, 32) and whole[:, :3].min() >= 0 and whole[:, :3].max() <= 1
    torch.testing.assert_close(drawn.pick(share)(batch()[share], 32), whole[share])
    assert torch.equal(augment(batch(), 32, GENERATOR.manual_seed(3), 0.7), whole)


def test_parts_drawn_one_by_one_are_applied_together() -> None:
    parts = [Augmentation.draw(1, GENERATOR.manual_seed(i)) for i in range(6)]
    together = Augmentation.cat(parts)(batch(), 32)
    assert len({float(p.shrink) for p in parts}) > 2  # each lost resolution by its own factor
    for i, part in enumerate(parts):
        torch.testing.assert_close(part(batch()[i : i + 1], 32)[0], together[i])


def test_without_strength_a_photo_stays_as_it_is() -> None:
    before = GENERATOR.manual_seed(3).get_state()
    drawn = Augmentation.draw(6, GENERATOR, strength=0.0)
    torch.testing.assert_close(drawn(batch(), 40), batch(), atol=1e-5, rtol=0)
    again = Augmentation.cat([drawn.pick(torch.tensor([i])) for i in range(6)])
    assert torch.equal(again(batch(), 40), drawn(batch(), 40)) and torch.equal(GENERATOR.get_state(), before)
    slight = Augmentation.draw(6, GENERATOR, strength=1e-9)
    assert (slight.angle != 0).all() and not torch.allclose(slight(batch(), 40), batch(), atol=0.01)
