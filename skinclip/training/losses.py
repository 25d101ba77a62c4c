"""The Consistency-aware Focal Alignment (CFA) loss: what stage 2 of training minimises.

    CFA       = focal + w_align * alignment + w_cal * calibration + w_con * consistency + w_lang * language
    focal     = mean_i  a[y_i] * (1 - p_i[y_i])^gamma * CE(q_i, p_i),  p_i = softmax(z_i + tau * log pi)
                pi[c] = n_c / n, the classes' shares of the training photos: logit adjustment (Menon et al. 2021)
                a[c] ~ (1 - beta) / (1 - beta^n_c), mean 1 over classes; q_i is the smoothed one-hot label
    alignment = w_contrast * contrast + w_criteria * criteria + w_outside * outside
      contrast = mean_i -log( sum_{d in D[y_i]} exp(cos(v_i, d) / t) / sum_{d in all D} exp(cos(v_i, d) / t) )
                 v_i: lesion-pooled tokens; D[c]: description embeddings of diagnosis c
      criteria = mean CE over labelled (photo, criterion) pairs, softmax over [0 for absent, score of each state]
      outside  = mean over maps m of sum((m + eps) * (1 - lesion)) / sum(m + eps)
    calibration = mean_c | mean p[c] - mean 1[y = c] | over this batch and a queue of recent predictions, p as in focal
    consistency = w_views * JS(p, p of a second view) + w_spelled * JS(stopgrad p, diagnosis the rationale spells)
    language  = next-token cross-entropy on rationale tokens, computed by the language model itself

CFA is named in the SkinCLIP-VL paper (arXiv 2603.21010), whose exact formula and code are not public: this one is
our own. Habits shared by all parts: each is an `nn.Module` that can be read and tested alone; -1 is a missing label;
rows whose label is missing are dropped before any arithmetic, so they change neither value nor gradient; a batch with
nothing to learn from gives 0 that still has a gradient graph; half precision is computed in float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES

MISSING = -1  # a label that the data set does not give
STATE_COUNTS: tuple[int, ...] = tuple(len(criterion.states) for criterion in CRITERIA)  # present states of each of Q


@dataclass(frozen=True)
class LossConfig:
    """Weights and hyperparameters of CFA; a part whose weight is 0 is not computed."""

    w_align: float = 0.5
    w_cal: float = 3.0
    w_con: float = 0.5
    w_lang: float = 1.0
    gamma: float = 0.0
    beta: float = 0.0
    tau: float = 1.0
    label_smoothing: float = 0.0
    w_contrast: float = 1.0
    w_criteria: float = 3.0
    w_outside: float = 1.0
    contrast_temperature: float = 0.07
    outside_eps: float = 0.01
    calibration_queue: int = 512
    calibration_temperature: float = 1.0
    w_views: float = 1.0
    w_spelled: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for a negative weight; the parts check their own hyperparameters."""
        for name, value in dataclasses.asdict(self).items():
            if name.startswith("w_"):
                _require(value >= 0, f"{name} must not be negative, got {value}")


@dataclass
class CFAInputs:
    """What one batch offers to CFA. A part whose tensors are None was not measured on this batch and is left out.

    Attributes:
        logits: [B, C] of the diagnosis head.
        target: [B] long, -1 missing.
        weight: [B] weight of each photo in the focal part.
        logits_second_view: [B, C] of the same photos under another augmentation.
        has_second_view: [B] bool, photos that have one; None is all.
        spelled_logits: [B, C] over the diagnoses that the rationale's own tokens spell out.
        has_spelled: [B] bool, photos that carry a rationale; None is all.
        embeddings: [B, E] lesion-pooled tokens in the joint space.
        descriptions: [C, P, E] embeddings of P descriptions a diagnosis.
        criterion_scores: [B, K] one score a criterion state, in the order of `vocabulary.EVIDENCE_STATES`.
        criterion_labels: [B, Q] long, 0 absent, 1.. the criterion's states in order, -1 missing.
        maps: [B, K, h, w] evidence maps, not negative.
        lesion: [B, h, w] lesion mask in 0..1 on the grid of the maps.
        has_mask: [B] bool, photos whose lesion is labelled; None is all.
        language_loss: scalar, cross-entropy of rationale tokens.
        confidence_mask: [B] bool, photos that stage 0 never saw, on which confidence may be learnt; None is all.
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
    criterion_labels: Tensor | None = None
    maps: Tensor | None = None
    lesion: Tensor | None = None
    has_mask: Tensor | None = None
    language_loss: Tensor | None = None
    confidence_mask: Tensor | None = None


def class_balanced_weights(counts: Sequence[int], beta: float) -> Tensor:
    """Weights [C] ~ 1 / effective number of samples, (1 - beta) / (1 - beta^n) (Cui et al. 2019), mean 1.

    A class without any sample gets weight 1 and does not take part in the mean: it would otherwise outweigh all others.
    Raises ValueError for negative or all-zero counts and for beta outside [0, 1).
    """
    _require(0 <= beta < 1, f"beta must lie in [0, 1), got {beta}")
    _require(len(counts) > 0 and min(counts) >= 0, f"class counts must not be negative, got {list(counts)}")
    _require(max(counts) > 0, "no class has a sample: count the training split's labels first")
    n = torch.tensor(counts, dtype=torch.float64)
    seen = n > 0
    inverse = (1 - beta) / (1 - beta ** n[seen])
    weights = torch.ones_like(n)
    weights[seen] = inverse / inverse.mean()
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
        _require(tau >= 0, f"tau must not be negative, got {tau}")
        _require(gamma >= 0, f"gamma must not be negative, got {gamma}")
        _require(0 <= label_smoothing < 1, f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        weight = None if class_counts is None else class_balanced_weights(class_counts, beta)
        # both come from the data, not from the checkpoint
        self.register_buffer("class_weight", weight, persistent=False)
        adjustment = None if class_counts is None or tau == 0 else tau * log_shares(class_counts)
        self.register_buffer("adjustment", adjustment, persistent=False)

    def adjusted(self, logits: Tensor) -> Tensor:
        """z + tau * log pi, [B, C]: the logits at the prior that the photos are drawn from."""
        return logits if self.adjustment is None else logits + self.adjustment.to(logits.dtype)

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The mean over labelled photos, a scalar; with `weight` the weighted mean.

        Args:
            logits: [B, C]
            target: [B] long, -1 missing
            weight: [B], not negative; None is all alike
        """
        _check_target(target, logits.shape)
        if self.class_weight is not None:
            n = len(self.class_weight)
            _require(logits.shape[1] == n, f"class_counts name {n} classes, logits {logits.shape[1]}")
        labelled = target != MISSING
        log_p = self.adjusted(_full(logits[labelled])).log_softmax(dim=-1)  # [M, C], M labelled photos
        losses = self._per_photo(log_p, target[labelled])  # [M]
        if weight is None:
            return _mean(losses)
        _require(weight.shape == target.shape, f"weight must be {_shape(target)} like target, got {_shape(weight)}")
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


class RegionTextContrast(nn.Module):
    """Multi-positive InfoNCE (van den Oord et al. 2018) of lesion regions against diagnosis descriptions.

    All descriptions of a photo's diagnosis are positives, all others negatives.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        _require(temperature > 0, f"temperature must be positive, got {temperature}")
        self.temperature = temperature

    def forward(self, embeddings: Tensor, descriptions: Tensor, target: Tensor) -> Tensor:
        """The mean over labelled photos, a scalar.

        Args:
            embeddings: [B, E] lesion-pooled, any length (normalised here)
            descriptions: [C, P, E] P descriptions a diagnosis, any length (normalised here)
            target: [B] long, -1 missing
        """
        _require(
            embeddings.ndim == 2 and descriptions.ndim == 3 and embeddings.shape[1] == descriptions.shape[2],
            f"need embeddings [B, E] and descriptions [C, P, E], got {_shape(embeddings)} and {_shape(descriptions)}",
        )
        _check_target(target, (len(embeddings), len(descriptions)))
        labelled = target != MISSING
        regions = F.normalize(_full(embeddings[labelled]), dim=-1)  # [M, E]
        texts = F.normalize(_full(descriptions), dim=-1)
        similarity = torch.einsum("me,cpe->mcp", regions, texts) / self.temperature
        # A softmax over classes of the summed exponentials is exactly "positives over all".
        class_logits = similarity.logsumexp(dim=-1)  # [M, C]
        return _mean(F.cross_entropy(class_logits, target[labelled], reduction="none"))


def criterion_log_probs(scores: Tensor) -> list[Tensor]:
    """Log-probabilities of the states of each criterion; "absent" has the fixed logit 0.

    The model reads its criterion probabilities from the same function that the loss trains.

    Args:
        scores: [B, K] one score a criterion state, in the order of `vocabulary.EVIDENCE_STATES`

    Returns:
        Q tensors [B, 1 + states], "absent" first, in the order of `vocabulary.CRITERIA`.
    """
    return [_state_log_probs(s) for s in _by_criterion(scores)]


def _by_criterion(scores: Tensor) -> tuple[Tensor, ...]:
    """Scores [B, K] as Q tensors [B, states]."""
    n = sum(STATE_COUNTS)
    _require(scores.ndim == 2 and scores.shape[1] == n, f"scores must be [B, {n}], got {_shape(scores)}")
    return scores.split(STATE_COUNTS, dim=1)


def _state_log_probs(scores: Tensor) -> Tensor:
    """Scores [B, states] of one criterion as log-probabilities [B, 1 + states], "absent" first."""
    return F.pad(_full(scores), (1, 0)).log_softmax(dim=-1)


class CriterionLoss(nn.Module):
    """Cross-entropy of the states of each criterion of the 7-point checklist."""

    def __init__(self, class_weights: Sequence[Sequence[float]] | None = None) -> None:
        """
        Args:
            class_weights: for each criterion the weights of "absent" and of its states, mean 1; None is all alike.
        """
        super().__init__()
        if class_weights is not None:
            given = [len(w) for w in class_weights]
            wanted = [1 + n for n in STATE_COUNTS]
            _require(given == wanted, f"class_weights need {wanted} numbers (absent, states...), got {given}")
        self.class_weights = class_weights

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The mean over labelled (photo, criterion) pairs, a scalar.

        Args:
            scores: [B, K] in the order of `vocabulary.EVIDENCE_STATES`
            labels: [B, Q] long, 0 absent, 1.. the criterion's states in order, -1 missing
        """
        wanted = (len(scores), len(STATE_COUNTS))
        _require(labels.shape == wanted, f"labels must be {list(wanted)}, got {_shape(labels)}")
        losses = []
        for q, own in enumerate(_by_criterion(scores)):
            label = labels[:, q]
            _check_target(label, (len(own), 1 + STATE_COUNTS[q]))
            labelled = label != MISSING
            log_p = _state_log_probs(own[labelled])
            weight = None if self.class_weights is None else log_p.new_tensor(self.class_weights[q])
            losses.append(F.nll_loss(log_p, label[labelled], weight, reduction="none"))
        return _mean(torch.cat(losses))


class OutsideMass(nn.Module):
    """The fraction of an evidence map's mass that lies outside the lesion.

    A fraction, not an amount, so that fading a map away gains nothing. `eps` adds a small uniform mass to every cell:
    an all-zero map then scores what a uniform map scores, the share of the photo outside the lesion, and the loss
    stays smooth all the way there.
    """

    def __init__(self, eps: float = 0.01) -> None:
        super().__init__()
        _require(eps > 0, f"eps must be positive, or an all-zero map has no fraction; got {eps}")
        self.eps = eps

    def forward(self, maps: Tensor, lesion: Tensor, has_mask: Tensor | None = None) -> Tensor:
        """The mean over maps of photos with a mask, a scalar in 0..1.

        Args:
            maps: [B, K, h, w] not negative, e.g. after a sigmoid
            lesion: [B, h, w] in 0..1, taken as given: no gradient flows into it
            has_mask: [B] bool, photos whose lesion is labelled; None is all
        """
        _require(
            maps.ndim == 4 and lesion.shape == (len(maps), *maps.shape[2:]),
            f"need maps [B, K, h, w] and lesion [B, h, w] on the same grid, got {_shape(maps)} and {_shape(lesion)}",
        )
        kept = _rows(has_mask, maps)
        mass = _full(maps[kept]) + self.eps  # [M, K, h, w]
        outside = 1 - lesion.detach()[kept].to(mass.dtype)  # [M, h, w]
        return _mean((mass * outside[:, None]).sum(dim=(2, 3)) / mass.sum(dim=(2, 3)))


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
        embeddings: Tensor | None = None,
        descriptions: Tensor | None = None,
        scores: Tensor | None = None,
        labels: Tensor | None = None,
        maps: Tensor | None = None,
        lesion: Tensor | None = None,
        has_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Named parts, unweighted, and "alignment", their weighted sum; empty where no part is given.

        A part is left out when its weight is 0 or its tensors are None; shapes as in `CFAInputs`.
        Raises ValueError where only one tensor of a pair is given.
        """
        parts: dict[str, Tensor] = {}
        if self.weights["contrast"] and _pair(embeddings=embeddings, descriptions=descriptions):
            parts["contrast"] = self.contrast(embeddings, descriptions, target)
        if self.weights["criteria"] and _pair(criterion_scores=scores, criterion_labels=labels):
            parts["criteria"] = self.criteria(scores, labels)
        if self.weights["outside"] and _pair(maps=maps, lesion=lesion):
            parts["outside"] = self.outside(maps, lesion, has_mask)
        return _with_sum(parts, self.weights, "alignment")


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
        _require(n_classes > 0, f"n_classes must be positive, got {n_classes}")
        _require(queue_size >= 0, f"queue_size must not be negative, got {queue_size}")
        _require(temperature > 0, f"temperature must be positive, got {temperature}")
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
        _check_target(target, logits.shape)
        _require(logits.shape[1] == n_classes, f"logits must be [B, {n_classes}], got {_shape(logits)}")
        kept = (target != MISSING) & _rows(mask, logits)
        probs = (_full(logits[kept]) / self.temperature).softmax(dim=-1)  # [M, C]
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


def js(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats [B], 0 for equal predictions, log 2 for disjoint ones (Lin 1991).

    Args:
        logits_a: [B, C], finite
        logits_b: [B, C], finite
    """
    same = logits_a.ndim == 2 and logits_a.shape == logits_b.shape
    _require(same, f"need two [B, C] of one shape, got {_shape(logits_a)} and {_shape(logits_b)}")
    log_a, log_b = _full(logits_a).log_softmax(dim=-1), _full(logits_b).log_softmax(dim=-1)
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
        return _with_sum(parts, self.weights, "consistency")

    @staticmethod
    def _mean_js(logits_a: Tensor, logits_b: Tensor, mask: Tensor | None) -> Tensor:
        kept = _rows(mask, logits_b)
        return _mean(js(logits_a[kept], logits_b[kept]))


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
        parts = {"focal": self.focal(x.logits, x.target, x.weight)}
        if self.weights["alignment"]:
            parts |= self._align(x)
        if self.weights["calibration"]:
            parts["calibration"] = self.calibration(self.focal.adjusted(x.logits), x.target, x.confidence_mask)
        if self.weights["consistency"]:
            parts |= self.consistency(
                x.logits, x.logits_second_view, x.spelled_logits, x.has_second_view, x.has_spelled
            )
        if self.weights["language"] and x.language_loss is not None:
            _require(x.language_loss.ndim == 0, f"language_loss must be a scalar, got {_shape(x.language_loss)}")
            parts["language"] = x.language_loss
        return _with_sum(parts, self.weights, "total")

    def _align(self, x: CFAInputs) -> dict[str, Tensor]:
        return self.alignment(
            x.target,
            x.embeddings,
            x.descriptions,
            x.criterion_scores,
            x.criterion_labels,
            x.maps,
            x.lesion,
            x.has_mask,
        )


def _with_sum(parts: dict[str, Tensor], weights: dict[str, float], name: str) -> dict[str, Tensor]:
    """`parts` and, under `name`, the weighted sum of those that have a weight; empty stays empty."""
    terms = [weights[part] * value for part, value in parts.items() if part in weights]
    return parts | {name: sum(terms[1:], terms[0])} if terms else parts


def _mean(losses: Tensor) -> Tensor:
    """The mean of [M]...; of none 0, still in the graph."""
    return losses.sum() / max(losses.numel(), 1)


def _full(x: Tensor) -> Tensor:
    """`x` in float32 or better: bfloat16 would round away small divergences and sums over a grid."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _rows(mask: Tensor | None, like: Tensor) -> Tensor:
    """The mask [B], all true for None. Raises ValueError for another shape or type."""
    if mask is None:
        return torch.ones(len(like), dtype=torch.bool, device=like.device)
    ok = mask.dtype == torch.bool and mask.shape == like.shape[:1]
    _require(ok, f"a mask must be bool [{len(like)}], got {mask.dtype} {_shape(mask)}")
    return mask


def _check_target(target: Tensor, logits_shape: Sequence[int]) -> None:
    """Raises ValueError unless target is integers [B] in -1..C-1, for logits [B, C]."""
    _require(len(logits_shape) == 2, f"logits must be [B, C], got {list(logits_shape)}")
    n, n_classes = logits_shape
    ok = target.shape == (n,) and not target.is_floating_point()
    _require(ok, f"target must be integers [{n}], got {target.dtype} {_shape(target)}")
    wrong = target[(target < MISSING) | (target >= n_classes)]
    _require(len(wrong) == 0, f"labels must lie in -1 (missing) to {n_classes - 1}, got {wrong.tolist()}")


def _pair(**tensors: Tensor | None) -> bool:
    """Whether the tensors are given. Raises ValueError where only some are: a forgotten one must not pass silently."""
    missing = [name for name, tensor in tensors.items() if tensor is None]
    _require(len(missing) in (0, len(tensors)), f"{', '.join(tensors)} go together; {', '.join(missing)} is missing")
    return not missing


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
