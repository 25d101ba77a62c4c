"""Labels of the criteria as states that stay possible, each label with the weight at which it counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skinclip.model.criteria import STATE_COUNTS
from skinclip.training.losses.checks import MISSING, check_target, require, shape_of

MOST_STATES = 1 + max(STATE_COUNTS)  # of a criterion, "absent" included


@dataclass(frozen=True)
class CriterionTargets:
    """`possible` [B, Q, S] bool: "absent" first, then the criterion's states; `weight` [B, Q], 0 where not labelled."""

    possible: Tensor
    weight: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> CriterionTargets:
        """From one sure label of each criterion, [B, Q] long, MISSING where there is none.

        Raises ValueError for another shape or a state that a criterion does not have.
        """
        wanted = (len(labels), len(STATE_COUNTS))
        require(labels.shape == wanted, f"labels must be {list(wanted)}, got {shape_of(labels)}")
        for q, n in enumerate(STATE_COUNTS):
            check_target(labels[:, q], (len(labels), 1 + n))
        states = torch.arange(MOST_STATES, device=labels.device)
        return cls(labels.unsqueeze(-1) == states, (labels != MISSING).float())

    def __post_init__(self) -> None:
        """Raises ValueError where the shapes do not go together or a weighted label leaves no state possible."""
        b, q = len(self.weight), len(STATE_COUNTS)
        require(
            self.weight.shape == (b, q) and self.possible.shape == (b, q, MOST_STATES),
            f"need possible [B, {q}, {MOST_STATES}] and weight [B, {q}], "
            f"got {shape_of(self.possible)} and {shape_of(self.weight)}",
        )
        empty = (self.weight > 0) & ~self.possible.any(-1)
        require(not empty.any(), "a label that counts must leave a state possible")

    def __getitem__(self, index: Tensor) -> CriterionTargets:
        """Those of the photos numbered `index`."""
        return CriterionTargets(self.possible[index], self.weight[index])

    def to(self, device: torch.device | str) -> CriterionTargets:
        return CriterionTargets(self.possible.to(device), self.weight.to(device))
