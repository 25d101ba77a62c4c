"""The calibration part of CFA: the gap between confidence and accuracy of each class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.training.losses.checks import MISSING, check_target, full, require, rows, shape_of


class CalibrationLoss(nn.Module):
    """Gap between confidence and accuracy of each class over a queue of recent predictions (MDCA, Hebbalaguppe 2022).

    The accuracy of a class means little within one batch and nothing within a batch of one, so recent predictions,
    detached, are pooled with the current ones. The queue is a persistent buffer: a resumed run continues exactly.
    """

    queue_probs: Tensor
    queue_target: Tensor

    def __init__(self, n_classes: int, queue_size: int = 512, temperature: float = 1.0) -> None:
        """
        Args:
            n_classes: C
            queue_size: predictions remembered; 0 is the current batch alone
            temperature: divides the logits, where the model's confidence is read at another one than 1
        """
        super().__init__()
        require(n_classes > 0, f"n_classes must be positive, got {n_classes}")
        require(queue_size >= 0, f"queue_size must not be negative, got {queue_size}")
        require(temperature > 0, f"temperature must be positive, got {temperature}")
        self.temperature = temperature
        self.register_buffer("queue_probs", torch.zeros(queue_size, n_classes))
        self.register_buffer("queue_target", torch.full((queue_size,), MISSING))  # oldest first; -1 is an empty slot

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean over classes of |mean p - share of labels|, a scalar; in training mode the queue moves on.

        The value is that of queue and batch pooled. The gradient is that of the batch's own mean confidence, with the
        pooled gap's sign: through the pooled mean it would shrink by batch / (batch + queue), which would leave the
        part without effect as the queue fills.

        Args:
            logits: [B, C]
            target: [B] long, -1 missing
            mask: [B] bool, photos on which confidence may be learnt; None is all
        """
        n_classes = self.queue_probs.shape[1]
        check_target(target, logits.shape)
        require(logits.shape[1] == n_classes, f"logits must be [B, {n_classes}], got {shape_of(logits)}")
        kept = (target != MISSING) & rows(mask, logits)
        probs = (full(logits[kept]) / self.temperature).softmax(dim=-1)  # [M, C]
        if len(probs) == 0:
            return probs.sum()
        gap = self._pooled_gap(probs.detach(), target[kept])  # [C]
        confidence = probs.mean(dim=0)
        if self.training:
            self._remember(probs.detach(), target[kept])
        return (gap + confidence - confidence.detach()).abs().mean()

    def _pooled_gap(self, probs: Tensor, target: Tensor) -> Tensor:
        """Mean confidence less share of labels [C], over the queue's filled slots and the batch."""
        filled = self.queue_target != MISSING
        probs = torch.cat([self.queue_probs[filled].to(probs.dtype), probs])
        target = torch.cat([self.queue_target[filled], target])
        return (probs - F.one_hot(target, probs.shape[1])).mean(dim=0)

    @torch.no_grad()
    def _remember(self, probs: Tensor, target: Tensor) -> None:
        """Appends a batch [M, C], [M] and lets the oldest predictions go."""
        size = len(self.queue_target)
        recent = torch.cat([self.queue_probs, probs.to(self.queue_probs.dtype)])
        labels = torch.cat([self.queue_target, target])
        self.queue_probs.copy_(recent[len(recent) - size :])
        self.queue_target.copy_(labels[len(labels) - size :])
