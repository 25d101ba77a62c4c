"""The consistency part of CFA: one photo, one answer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from skinclip.training.losses.checks import full, mean, require, rows, shape_of, with_sum


def js(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats [B], 0 for equal predictions, log 2 for disjoint ones (Lin 1991).

    Args:
        logits_a: [B, C], finite
        logits_b: [B, C], finite
    """
    same = logits_a.ndim == 2 and logits_a.shape == logits_b.shape
    require(same, f"need two [B, C] of one shape, got {shape_of(logits_a)} and {shape_of(logits_b)}")
    log_a, log_b = full(logits_a).log_softmax(dim=-1), full(logits_b).log_softmax(dim=-1)
    log_mean = torch.logaddexp(log_a, log_b) - math.log(2)
    return 0.5 * (log_a.exp() * (log_a - log_mean) + log_b.exp() * (log_b - log_mean)).sum(dim=-1)


class ConsistencyLoss(nn.Module):
    """One photo, one answer: the same for two views of it, and the same in the rationale as in the diagnosis."""

    def __init__(self, w_views: float = 1.0, w_spelled: float = 1.0) -> None:
        super().__init__()
        self.weights = {"views": w_views, "spelled": w_spelled}

    def forward(
        self,
        logits: Tensor,
        second_view: Tensor | None = None,
        spelled: Tensor | None = None,
        has_second_view: Tensor | None = None,
        has_spelled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Named parts, unweighted, and "consistency", their weighted sum; empty where no part is given.

        Args:
            logits: [B, C] of the diagnosis head
            second_view: [B, C] of the same photos under another augmentation; both views learn
            spelled: [B, C] logits over the diagnoses that the rationale's own tokens spell out. Only they learn here:
                the text follows the diagnosis, never the diagnosis the text
            has_second_view, has_spelled: [B] bool, photos that have one; None is all
        """
        parts: dict[str, Tensor] = {}
        if self.weights["views"] and second_view is not None:
            parts["views"] = self._mean_js(logits, second_view, has_second_view)
        if self.weights["spelled"] and spelled is not None:
            parts["spelled"] = self._mean_js(logits.detach(), spelled, has_spelled)
        return with_sum(parts, self.weights, "consistency")

    @staticmethod
    def _mean_js(logits_a: Tensor, logits_b: Tensor, mask: Tensor | None) -> Tensor:
        kept = rows(mask, logits_b)
        return mean(js(logits_a[kept], logits_b[kept]))
