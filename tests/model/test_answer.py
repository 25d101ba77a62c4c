"""Logits of answers in the joint space, by hand."""

from __future__ import annotations

import math

import torch

from skinclip.model.answer import Start, answer_logits

DESCRIPTIONS = torch.eye(3)
SCALE = torch.tensor(math.log(10.0))
WHOLE, READ = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[2.0, 1.0, -1.0]])
DIRECTION = torch.tensor([[3.0, 4.0, 0.0]])


def test_logits_are_scaled_cosines() -> None:
    direction = torch.cat([DIRECTION, torch.zeros(1, 3)])
    logits = answer_logits(direction, DESCRIPTIONS, SCALE)
    torch.testing.assert_close(logits, torch.tensor([[6.0, 8.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(answer_logits(direction, DESCRIPTIONS, torch.tensor(9.0)), logits * 4)  # at most 40
    moved = answer_logits(DIRECTION, DESCRIPTIONS, SCALE, torch.tensor([[0.0, -4.0, 0.0]]))
    torch.testing.assert_close(moved, torch.tensor([[10.0, 0.0, 0.0]]))


def test_a_readout_is_moved_by_a_share_of_what_the_answer_is_moved() -> None:
    torch.testing.assert_close(answer_logits(WHOLE, DESCRIPTIONS, SCALE, start=Start(WHOLE, READ, 0.3)), READ)
    moved = answer_logits(DIRECTION, DESCRIPTIONS, SCALE, start=Start(WHOLE, READ, 0.25))
    torch.testing.assert_close(moved, READ + 0.25 * torch.tensor([[6.0 - 10.0, 8.0, 0.0]]))


def test_the_checklist_moves_a_readout_in_full() -> None:
    checklist = torch.tensor([[0.0, -4.0, 0.0]])
    moved = answer_logits(DIRECTION, DESCRIPTIONS, SCALE, checklist, Start(WHOLE, READ, 0.0))
    torch.testing.assert_close(moved, READ + torch.tensor([[10.0 - 6.0, -8.0, 0.0]]))


def test_a_hidden_photo_has_nothing_to_start_from() -> None:
    hidden = Start(torch.zeros_like(WHOLE), torch.zeros_like(READ), 0.25)
    logits = answer_logits(DIRECTION, DESCRIPTIONS, SCALE, start=hidden)
    torch.testing.assert_close(logits, answer_logits(DIRECTION, DESCRIPTIONS, SCALE))
