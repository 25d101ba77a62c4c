"""CFA whole: what a batch offers to it, and the weighted sum of all parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from skinclip.core.config import LossConfig
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.training.losses.alignment import AlignmentLoss
from skinclip.training.losses.calibration import CalibrationLoss
from skinclip.training.losses.checks import require, shape_of, with_sum
from skinclip.training.losses.consistency import ConsistencyLoss
from skinclip.training.losses.criterion_targets import CriterionTargets
from skinclip.training.losses.focal import FocalLoss


@dataclass
class CFAInputs:
    """The tensors of a batch that CFA reads. A part whose tensors are None was not measured and is left out.

    Attributes:
        logits: [B, C] of the diagnosis head.
        target: [B] long, -1 missing.
        weight: [B] weight of each photo in the focal part.
        logits_second_view: [B, C] of the same photos under another augmentation.
        has_second_view: [B] bool, photos that have one; None is all.
        spelled_logits: [B, C] over the diagnoses that the rationale's own tokens spell out.
        has_spelled: [B] bool, photos that carry a rationale; None is all.
        embeddings: [B, E] lesion-pooled tokens in the joint space.
        descriptions: [C, P, E] embeddings of P descriptions per diagnosis.
        criterion_scores: [B, K] one score per criterion state, in the order of `vocabulary.EVIDENCE_STATES`.
        criterion_labels: [B, Q] long, 0 absent, 1.. the criterion's states in order, -1 missing; or the states that the
            labels leave possible.
        maps: [B, K, h, w] evidence maps, not negative.
        lesion: [B, h, w] lesion mask in 0..1 on the grid of the maps.
        has_mask: [B] bool, photos whose lesion is labelled; None is all.
        language_loss: scalar, cross-entropy of rationale tokens.
        confidence_mask: [B] bool, photos that stage 0 never saw, on which confidence may be learnt; None is all.
        log_prior: [B, C] log shares of the diagnoses in each photo's own source; None takes those of all photos.
        read: [B, C] logits of the linear readout that the answer starts from.
        has_read: [B] bool, photos where it does; None is all.
    """

    logits: Tensor
    target: Tensor
    weight: Tensor | None = None
    logits_second_view: Tensor | None = None
    has_second_view: Tensor | None = None
    spelled_logits: Tensor | None = None
    has_spelled: Tensor | None = None
    embeddings: Tensor | None = None
    descriptions: Tensor | None = None
    criterion_scores: Tensor | None = None
    criterion_labels: Tensor | CriterionTargets | None = None
    maps: Tensor | None = None
    lesion: Tensor | None = None
    has_mask: Tensor | None = None
    language_loss: Tensor | None = None
    confidence_mask: Tensor | None = None
    log_prior: Tensor | None = None
    read: Tensor | None = None
    has_read: Tensor | None = None


class CFALoss(nn.Module):
    """The weighted sum of all parts; the module docstring states it in full."""

    def __init__(
        self,
        config: LossConfig | None = None,
        class_counts: Sequence[int] | None = None,
        criterion_weights: Sequence[Sequence[float]] | None = None,
        n_classes: int = len(DIAGNOSIS_CODES),
    ) -> None:
        """
        Args:
            config: weights and hyperparameters; None is the defaults
            class_counts: training photos of each diagnosis, for the focal part
            criterion_weights: see `CriterionLoss`
            n_classes: C
        """
        super().__init__()
        c = config or LossConfig()
        self.config = c
        self.weights = {
            "focal": 1.0,
            "alignment": c.w_align,
            "calibration": c.w_cal,
            "consistency": c.w_con,
            "language": c.w_lang,
            "departure": c.w_departure,
        }
        self.focal = FocalLoss(class_counts, c.beta, c.gamma, c.label_smoothing, c.tau)
        self.alignment = AlignmentLoss(
            c.w_contrast, c.w_criteria, c.w_outside, c.contrast_temperature, c.outside_eps, criterion_weights
        )
        self.calibration = CalibrationLoss(n_classes, c.calibration_queue, c.calibration_temperature)
        self.consistency = ConsistencyLoss(c.w_views, c.w_spelled)

    def forward(self, x: CFAInputs) -> dict[str, Tensor]:
        """Named scalars, unweighted, and "total", their weighted sum.

        A part whose weight is 0 or whose tensors are None is not computed, and its name is not in the result.
        "alignment" and "consistency" come with their own parts beside them.
        """
        parts = {"focal": self.focal(x.logits, x.target, x.weight, x.log_prior)}
        if self.weights["alignment"]:
            parts |= self._align(x)
        if self.weights["calibration"]:
            parts["calibration"] = self.calibration(
                self.focal.adjusted(x.logits, x.log_prior), x.target, x.confidence_mask
            )
        if self.weights["consistency"]:
            parts |= self.consistency(
                x.logits, x.logits_second_view, x.spelled_logits, x.has_second_view, x.has_spelled
            )
        if self.weights["language"] and x.language_loss is not None:
            require(x.language_loss.ndim == 0, f"language_loss must be a scalar, got {shape_of(x.language_loss)}")
            parts["language"] = x.language_loss
        if self.weights["departure"] and x.read is not None:
            parts["departure"] = departure(x.logits, x.read, x.has_read)
        return with_sum(parts, self.weights, "total")

    def _align(self, x: CFAInputs) -> dict[str, Tensor]:
        return self.alignment(
            x.target,
            contrast=(x.embeddings, x.descriptions),
            criteria=(x.criterion_scores, x.criterion_labels),
            outside=(x.maps, x.lesion),
            has_mask=x.has_mask,
        )


def departure(logits: Tensor, read: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean squared distance of answers [B, C] from those of a linear readout, over `counted` [B] photos.

    The readout is hard to beat from few photos: what the language part adds has to earn its place.
    """
    squared = (logits - read.detach()).square().mean(1)
    if counted is None:
        return squared.mean()
    return (squared * counted).sum() / counted.sum().clamp_min(1)
