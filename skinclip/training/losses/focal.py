"""The focal part of CFA: class-balanced focal cross-entropy on the diagnosis logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skinclip.training.losses.checks import MISSING, check_target, full, mean, require, shape_of


def class_balanced_weights(counts: Sequence[int], beta: float) -> Tensor:
    """Weights [C] ~ 1 / effective number of samples, (1 - beta) / (1 - beta^n) (Cui et al. 2019), mean 1.

    A class without any sample gets weight 1 and does not take part in the mean: it would otherwise outweigh all others.
    Raises ValueError for negative or all-zero counts and for beta outside [0, 1).
    """
    require(0 <= beta < 1, f"beta must lie in [0, 1), got {beta}")
    require(len(counts) > 0 and min(counts) >= 0, f"class counts must not be negative, got {list(counts)}")
    require(max(counts) > 0, "no class has a sample: count the training split's labels first")
    n = torch.tensor(counts, dtype=torch.float64)
    present = n > 0
    inverse = (1 - beta) / (1 - beta ** n[present])
    weights = torch.ones_like(n)
    weights[present] = inverse / inverse.mean()
    return weights.float()


def log_shares(counts: Sequence[int]) -> Tensor:
    """log pi [C], the classes' shares of `counts` photos; a class without any counts as one photo."""
    n = torch.tensor(counts, dtype=torch.float64).clamp_min(1)
    return (n / n.sum()).log().float()


def prior_tilt(counts: Sequence[int], beta: float, tau: float) -> Tensor:
    """[C] what a balanced focal part in effect multiplies the prior of the drawn photos by.

    Its class weights, over the shares that its logit adjustment takes out of the logits.
    """
    return class_balanced_weights(counts, beta) * (-tau * log_shares(counts)).exp()


class FocalLoss(nn.Module):
    """Focal cross-entropy (Lin 2017), balanced by logit adjustment (Menon 2021), class weights (Cui 2019) or both.

    Weights turn up the gradient of rare classes; adjustment asks for a larger margin from them, and its minimum is
    known: logits of the balanced posterior. Which of them serves is a matter of measurement.
    """

    class_weight: Tensor | None
    adjustment: Tensor | None

    def __init__(
        self,
        class_counts: Sequence[int] | None = None,
        beta: float = 0.999,
        gamma: float = 1.5,
        label_smoothing: float = 0.0,
        tau: float = 0.0,
    ) -> None:
        """
        Args:
            class_counts: training photos of each class; None treats all classes alike.
            beta: 0 weighs all classes alike, towards 1 by inverse frequency.
            gamma: 0 is plain cross-entropy; more turns away from photos that are already right.
            label_smoothing: share of the label spread over all classes.
            tau: strength of the logit adjustment; 0 is none, 1 makes the logits' softmax the balanced posterior.
        """
        super().__init__()
        require(tau >= 0, f"tau must not be negative, got {tau}")
        require(gamma >= 0, f"gamma must not be negative, got {gamma}")
        require(0 <= label_smoothing < 1, f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.gamma = gamma
        self.tau = tau
        self.label_smoothing = label_smoothing
        weight = None if class_counts is None else class_balanced_weights(class_counts, beta)
        # both come from the data, not from the checkpoint
        self.register_buffer("class_weight", weight, persistent=False)
        adjustment = None if class_counts is None or tau == 0 else tau * log_shares(class_counts)
        self.register_buffer("adjustment", adjustment, persistent=False)

    def adjusted(self, logits: Tensor, log_prior: Tensor | None = None) -> Tensor:
        """z + tau * log pi, [B, C]: the logits at the prior that the photos are drawn from.

        Args:
            log_prior: [B, C] log pi of each photo's own source; None is that of all photos.
        """
        if log_prior is not None:
            return logits + self.tau * log_prior.to(logits.dtype)
        return logits if self.adjustment is None else logits + self.adjustment.to(logits.dtype)

    def forward(
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None, log_prior: Tensor | None = None
    ) -> Tensor:
        """The mean over labelled photos, a scalar; with `weight` the weighted mean.

        Args:
            logits: [B, C]
            target: [B] long, -1 missing
            weight: [B], not negative; None is all alike
            log_prior: [B, C], see `adjusted`
        """
        check_target(target, logits.shape)
        if self.class_weight is not None:
            n = len(self.class_weight)
            require(logits.shape[1] == n, f"class_counts name {n} classes, logits {logits.shape[1]}")
        labelled = target != MISSING
        own = None if log_prior is None else log_prior[labelled]
        log_p = self.adjusted(full(logits[labelled]), own).log_softmax(dim=-1)  # [M, C], M labelled photos
        losses = self._per_photo(log_p, target[labelled])  # [M]
        if weight is None:
            return mean(losses)
        require(weight.shape == target.shape, f"weight must be {shape_of(target)} like target, got {shape_of(weight)}")
        weight = weight[labelled].to(losses.dtype)
        return (weight * losses).sum() / weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)

    def _per_photo(self, log_p: Tensor, target: Tensor) -> Tensor:
        """Weighted focal cross-entropy [M] from log-probabilities [M, C] and labels [M]."""
        log_p_true = log_p.gather(1, target[:, None]).squeeze(1)
        cross_entropy = -(1 - self.label_smoothing) * log_p_true - self.label_smoothing * log_p.mean(dim=-1)
        # expm1 keeps 1 - p exact near p = 1; the floor keeps the gradient of a power below 1 finite there.
        hardness = (-torch.expm1(log_p_true)).clamp_min(torch.finfo(log_p.dtype).eps)
        losses = hardness**self.gamma * cross_entropy
        return losses if self.class_weight is None else self.class_weight.to(losses.dtype)[target] * losses
