"""The alignment part of CFA: evidence where the lesion is, saying what the labels say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.model.criteria import STATE_COUNTS, split_by_criterion, state_log_probs
from skinclip.training.losses.checks import MISSING, check_target, full, mean, pair, require, rows, shape_of, with_sum
from skinclip.training.losses.criterion_targets import CriterionTargets

TensorPair = tuple[Tensor | None, Tensor | None]


class RegionTextContrast(nn.Module):
    """Multi-positive InfoNCE (van den Oord et al. 2018) of lesion regions against diagnosis descriptions.

    All descriptions of a photo's diagnosis are positives, all others negatives.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        require(temperature > 0, f"temperature must be positive, got {temperature}")
        self.temperature = temperature

    def forward(self, embeddings: Tensor, descriptions: Tensor, target: Tensor) -> Tensor:
        """The mean over labelled photos, a scalar.

        Args:
            embeddings: [B, E] lesion-pooled, any length (normalised here)
            descriptions: [C, P, E] P descriptions per diagnosis, any length (normalised here)
            target: [B] long, -1 missing
        """
        require(
            embeddings.ndim == 2 and descriptions.ndim == 3 and embeddings.shape[1] == descriptions.shape[2],
            f"need embeddings [B, E] and descriptions [C, P, E], "
            f"got {shape_of(embeddings)} and {shape_of(descriptions)}",
        )
        check_target(target, (len(embeddings), len(descriptions)))
        labelled = target != MISSING
        regions = F.normalize(full(embeddings[labelled]), dim=-1)  # [M, E]
        texts = F.normalize(full(descriptions), dim=-1)
        similarity = torch.einsum("me,cpe->mcp", regions, texts) / self.temperature
        # A softmax over classes of the summed exponentials is exactly "positives over all".
        class_logits = similarity.logsumexp(dim=-1)  # [M, C]
        return mean(F.cross_entropy(class_logits, target[labelled], reduction="none"))


class CriterionLoss(nn.Module):
    """Cross-entropy of the states of each criterion with those that its label leaves possible.

    A sure label leaves one state, and this is plain cross-entropy. Of a label that leaves several it is minus the
    logarithm of their probability together (partial labels; Jin & Ghahramani 2002).
    """

    def __init__(self, class_weights: Sequence[Sequence[float]] | None = None) -> None:
        """
        Args:
            class_weights: for each criterion the weights of "absent" and of its states, mean 1; None is all alike.
        """
        super().__init__()
        if class_weights is not None:
            given = [len(w) for w in class_weights]
            wanted = [1 + n for n in STATE_COUNTS]
            require(given == wanted, f"class_weights need {wanted} numbers (absent, states...), got {given}")
        self.class_weights = class_weights

    def forward(self, scores: Tensor, labels: Tensor | CriterionTargets) -> Tensor:
        """The mean over labelled (photo, criterion) pairs, each by the weight of its label, a scalar.

        Args:
            scores: [B, K] in the order of `vocabulary.EVIDENCE_STATES`
            labels: [B, Q] long, 0 absent, 1.. the criterion's states in order, -1 missing; or states that are possible
        """
        targets = labels if isinstance(labels, CriterionTargets) else CriterionTargets.of(labels)
        wanted = (len(scores), len(STATE_COUNTS))
        require(targets.weight.shape == wanted, f"labels must be {list(wanted)}, got {shape_of(targets.weight)}")
        losses, weights = [], []
        for q, own in enumerate(split_by_criterion(scores)):
            labelled = targets.weight[:, q] > 0
            log_p = state_log_probs(own[labelled])  # [M, 1 + states]
            possible = targets.possible[labelled, q, : log_p.shape[1]]
            loss = -log_p.masked_fill(~possible, -torch.inf).logsumexp(-1)
            if self.class_weights is not None:
                own_weights = log_p.new_tensor(self.class_weights[q])
                loss = loss * (possible * own_weights).sum(-1) / possible.sum(-1)
            weights.append(targets.weight[labelled, q].to(loss.dtype))
            losses.append(loss * weights[-1])
        total = torch.cat(weights).sum()
        return torch.cat(losses).sum() / total.clamp_min(torch.finfo(total.dtype).tiny)


class OutsideMass(nn.Module):
    """The fraction of an evidence map's mass that lies outside the lesion.

    A fraction, not an amount, so that fading a map away gains nothing. `eps` adds a small uniform mass to every cell:
    an all-zero map then scores what a uniform map scores, the share of the photo outside the lesion, and the loss
    stays smooth all the way there.
    """

    def __init__(self, eps: float = 0.01) -> None:
        super().__init__()
        require(eps > 0, f"eps must be positive, or an all-zero map has no fraction; got {eps}")
        self.eps = eps

    def forward(self, maps: Tensor, lesion: Tensor, has_mask: Tensor | None = None) -> Tensor:
        """The mean over maps of photos with a mask, a scalar in 0..1.

        Args:
            maps: [B, K, h, w] not negative, e.g. after a sigmoid
            lesion: [B, h, w] in 0..1, taken as given: no gradient flows into it
            has_mask: [B] bool, photos whose lesion is labelled; None is all
        """
        require(
            maps.ndim == 4 and lesion.shape == (len(maps), *maps.shape[2:]),
            f"need maps [B, K, h, w] and lesion [B, h, w] on the same grid, "
            f"got {shape_of(maps)} and {shape_of(lesion)}",
        )
        kept = rows(has_mask, maps)
        mass = full(maps[kept]) + self.eps  # [M, K, h, w]
        outside = 1 - lesion.detach()[kept].to(mass.dtype)  # [M, h, w]
        return mean((mass * outside[:, None]).sum(dim=(2, 3)) / mass.sum(dim=(2, 3)))


class AlignmentLoss(nn.Module):
    """Evidence where the lesion is, saying what the labels say: contrast, criteria and outside mass."""

    def __init__(
        self,
        w_contrast: float = 1.0,
        w_criteria: float = 1.0,
        w_outside: float = 1.0,
        temperature: float = 0.07,
        eps: float = 0.01,
        criterion_weights: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.weights = {"contrast": w_contrast, "criteria": w_criteria, "outside": w_outside}
        self.contrast = RegionTextContrast(temperature)
        self.criteria = CriterionLoss(criterion_weights)
        self.outside = OutsideMass(eps)

    def forward(
        self,
        target: Tensor,
        contrast: TensorPair = (None, None),
        criteria: tuple[Tensor | None, Tensor | CriterionTargets | None] = (None, None),
        outside: TensorPair = (None, None),
        has_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Named parts, unweighted, and "alignment", their weighted sum; empty where no part is given.

        A part is left out when its weight is 0 or its tensors are None; shapes as in `CFAInputs`.
        Raises ValueError where only one tensor of a pair is given.

        Args:
            contrast: embeddings and descriptions.
            criteria: criterion scores and labels.
            outside: evidence maps and lesion.
        """
        parts: dict[str, Tensor] = {}
        if self.weights["contrast"] and pair(embeddings=contrast[0], descriptions=contrast[1]):
            parts["contrast"] = self.contrast(*contrast, target)
        scores, labels = criteria
        if self.weights["criteria"] and pair(criterion_scores=scores, criterion_labels=labels):
            parts["criteria"] = self.criteria(scores, labels)
        if self.weights["outside"] and pair(maps=outside[0], lesion=outside[1]):
            parts["outside"] = self.outside(*outside, has_mask)
        return with_sum(parts, self.weights, "alignment")
