"""Calibrator: turns the model's outputs into what a clinician is shown.

Fitted once on photos kept for it, of several sources and kinds, stored with the checkpoint as plain arrays, applied to
every photo: calibrated probabilities, prediction set, P(malignant) with the referral decision, the shift score, and
the calibrated scores of the criteria. The calibration photos' logits and labels are stored too (numbers, no photo), so
that sets and threshold can be fitted anew for another prevalence, see `at`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from skinclip.calibration.conformal import Conformal, ranking
from skinclip.calibration.criteria import CriteriaCalibration
from skinclip.calibration.kind import (
    NO_SHARE,
    KindCalibration,
    fit_probabilities,
    padded,
    sets_and_threshold,
    text_array,
    texts,
    usual_ita,
)
from skinclip.calibration.outputs import DERMOSCOPY, MALIGNANT, NEITHER, PAIR, LabelledOutputs, balanced_weights
from skinclip.calibration.referral import Referral
from skinclip.calibration.selective import leading_confidence, least_confidence
from skinclip.calibration.shift import ShiftDetector, fit_shift
from skinclip.calibration.temperature import Calibration
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.hub.layout import CALIBRATION_ARRAYS, is_calibration_array
from skinclip.model.criteria import STATE_COUNTS

__all__ = ["MALIGNANT", "CalibratedPrediction", "Calibrator", "StyleSample"]

TRAINING_PHOTOS = "training photos"  # the prevalence of a checkpoint that does not name it
NEITHER_SCORE = 0.995  # shift score for every kind above which a photo is of none: 1 in 200 of their own are
LEAST_SHARE = 1e-4  # a share of 0 would rule a diagnosis out for good


@dataclass(frozen=True)
class StyleSample:
    """Style of photos of one kind: `learnt` [m, S] of training photos, `held_out` [k, S] of photos that the tower was
    not trained on."""

    learnt: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class CalibratedPrediction:
    """One row per photo. `probabilities` are at the calibrator's prevalence; `balanced` is p / prior, renormalised,
    whose argmax is the decision rule for balanced accuracy; `sets` are codes, most probable first. `confident` says
    that the balanced probability of the leading diagnosis is high enough for such a photo to be answered; `kinds` is
    the calibration that each photo got, `photo_kinds` what each is by itself, of a pair the first."""

    probabilities: np.ndarray  # [n, C]
    balanced: np.ndarray  # [n, C]
    malignancy: np.ndarray  # [n]
    refer: np.ndarray  # [n] bool
    sets: list[tuple[str, ...]]
    shift_score: np.ndarray  # [n], 0-1
    in_domain: np.ndarray  # [n] bool
    confident: np.ndarray  # [n] bool
    kinds: tuple[str, ...]  # n
    photo_kinds: tuple[str, ...]  # n

    @property
    def ranking(self) -> np.ndarray:
        """[n, C] class numbers of each photo, most probable first; equals keep the vocabulary's order."""
        return ranking(self.probabilities)


@dataclass(frozen=True)
class Calibrator:
    """The fitted parts.

    Each part has a place for every diagnosis. One that the model does not know has a bias of -inf, so the probability
    0, a prior of `NO_SHARE`, and is in no set.

    Attributes:
        by_kind: kind of photo -> its calibration; a photo of any other kind gets the first.
        natural_prior: [C] the prevalence that probabilities are at.
        prevalence: its name.
        criteria: the calibration of evidence scores.
        photos: the calibration photos, as `LabelledOutputs` without style and evidence; None in an old checkpoint.
    """

    by_kind: Mapping[str, KindCalibration]
    natural_prior: tuple[float, ...]
    prevalence: str = TRAINING_PHOTOS
    criteria: CriteriaCalibration = field(default_factory=CriteriaCalibration.identity)
    photos: LabelledOutputs | None = None

    @property
    def first(self) -> KindCalibration:
        """The calibration of dermoscopy, or of the only kind there is."""
        return self.by_kind.get(DERMOSCOPY) or next(iter(self.by_kind.values()))

    def of(self, kind: str) -> KindCalibration:
        """The calibration of a kind of photo."""
        return self.by_kind.get(kind, self.first)

    @property
    def calibration(self) -> Calibration:
        """Temperature and bias of the first kind."""
        return self.first.calibration

    @property
    def conformal(self) -> Conformal:
        """Prediction sets of the first kind."""
        return self.first.conformal

    @property
    def referral(self) -> Referral:
        """The referral threshold of the first kind."""
        return self.first.referral

    @property
    def shift(self) -> ShiftDetector:
        """The shift score of the first kind."""
        return self.first.shift

    @property
    def known(self) -> np.ndarray:
        """Numbers of the diagnoses that the model knows."""
        return np.flatnonzero(np.asarray(self.natural_prior) > NO_SHARE)

    # ---- fitting -----------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        photos: LabelledOutputs,
        styles: Mapping[str, StyleSample],
        natural_prior: np.ndarray,
        log_prior_shift: np.ndarray,
        source_priors: Mapping[str, np.ndarray] | None = None,
    ) -> Calibrator:
        """Fits every part but the criteria for each kind of photo that `styles` has.

        Args:
            photos: of every source and kind; those of a kind that `styles` lacks are left out. Logits are -inf for a
                diagnosis that the model does not know; a photo labelled with such a one counts for malignancy alone.
            styles: kind of photo -> style of training photos and of others.
            natural_prior: [C] the prevalence that probabilities are to be at; all of those known above 0.
            log_prior_shift: [C] log natural prior less log prior as drawn in training (0 where drawn naturally).
            source_priors: source -> [C] its own shares of the diagnoses; one that is not named has the natural ones.

        Raises ValueError where shapes disagree, a prior is 0, or calibration photos or malignant ones are missing.
        """
        known = np.flatnonzero(~np.isneginf(photos.logits).all(axis=0))
        prior = _checked_prior(natural_prior, known)
        photos = photos.where(np.isin(photos.kinds, list(styles)))
        offsets = _offsets(photos.sources, prior, source_priors or {}, known)
        by_kind = {}
        for kind, style in styles.items():
            own = photos.kinds == kind
            calibration = fit_probabilities(photos.where(own), np.asarray(log_prior_shift), offsets[own], known)
            sets, referral = sets_and_threshold(calibration, photos.where(own), known)
            shift, ita = fit_shift(style.learnt, style.held_out), usual_ita(photos.ita[own])
            by_kind[kind] = KindCalibration(calibration, sets, referral, shift, ita_range=ita)
        fitted = cls(by_kind, tuple(float(p) for p in prior), photos=photos.bare())
        return fitted.abstaining()

    def abstaining(self) -> Calibrator:
        """The same with the least confidence of each kind chosen so that what is answered of it is diagnosed as well
        as dermoscopy photos are, on the calibration photos.

        Raises ValueError where the checkpoint keeps none.
        """
        if self.photos is None:
            raise ValueError("this checkpoint keeps no calibration photos to choose by; fit its calibration again")
        known = self.photos.where(np.isin(self.photos.labels, self.known))
        usual = next(kind for kind, part in self.by_kind.items() if part is self.first)
        p = np.zeros(known.logits.shape)
        for kind, part in self.by_kind.items():
            p[known.kinds == kind] = part.calibration.apply(known.logits[known.kinds == kind])
        confidence, correct = leading_confidence(p, self.balanced(p)), p.argmax(axis=1) == known.labels
        weights = np.zeros(len(known))
        for kind in self.by_kind:
            own = known.kinds == kind
            weights[own] = balanced_weights(known.sources[own], known.kinds[own])
        first = known.kinds == usual
        accuracy = float(np.average(correct[first], weights=weights[first])) if first.any() else 0.0
        by_kind = dict(self.by_kind)
        for kind in set(by_kind) - {usual}:
            own = known.kinds == kind
            least = least_confidence(confidence[own], correct[own], weights[own], accuracy)
            by_kind[kind] = replace(by_kind[kind], min_confidence=least)
        return replace(self, by_kind=by_kind)

    # ---- applying ----------------------------------------------------------------------------------------------------

    def kinds_of(self, style: np.ndarray) -> tuple[str, ...]:
        """The kind of each photo by its `style` [n, S]: the one whose training photos it is most like, or `NEITHER`.

        That two photos were seen together is no matter of style; whoever did so says `PAIR` to `apply`.
        """
        names = [kind for kind in self.by_kind if kind != PAIR] or list(self.by_kind)
        if len(names) == 1:
            return tuple(names * len(style))
        shifts = [self.by_kind[name].shift for name in names]
        nearest = np.stack([shift.log_density(style) for shift in shifts]).argmax(axis=0)
        unlike = np.min([shift.score(style) for shift in shifts], axis=0) > NEITHER_SCORE
        return tuple(NEITHER if far else names[i] for i, far in zip(nearest, unlike, strict=True))

    def apply(
        self, logits: np.ndarray, style: np.ndarray, kinds: Sequence[str | None] | None = None
    ) -> CalibratedPrediction:
        """Computes what is shown for photos with `logits` [n, C] and `style` [n, S].

        Args:
            kinds: kind of each photo where it is known; any other is recognised by its style. One of neither kind has
                the first calibration, by which it is out of domain.
        """
        recognised = single = self.kinds_of(style)
        if kinds is not None:
            recognised = tuple(k if k and k in self.by_kind else r for k, r in zip(kinds, recognised, strict=True))
            single = tuple(r if k == PAIR else k for k, r in zip(recognised, single, strict=True))
        p, score = np.zeros(np.shape(logits)), np.zeros(len(style))
        refer, enough = np.zeros(len(style), dtype=bool), np.zeros(len(style))
        sets: list[tuple[str, ...]] = [()] * len(style)
        in_domain = np.zeros(len(style), dtype=bool)
        for kind in dict.fromkeys(recognised):
            part, own = self.of(kind), np.flatnonzero([k == kind for k in recognised])
            p[own] = part.calibration.apply(np.asarray(logits)[own])
            refer[own] = part.referral.refer(p[own][:, MALIGNANT].sum(axis=1))
            score[own] = part.shift.score(np.asarray(style)[own])
            in_domain[own] = part.shift.in_domain(score[own])
            enough[own] = part.min_confidence
            for i, codes in zip(own, part.conformal.sets(p[own], DIAGNOSIS_CODES), strict=True):
                sets[i] = codes
        balanced = self.balanced(p)
        return CalibratedPrediction(
            probabilities=p,
            balanced=balanced,
            malignancy=p[:, MALIGNANT].sum(axis=1),
            refer=refer,
            sets=sets,
            shift_score=score,
            in_domain=in_domain,
            confident=leading_confidence(p, balanced) >= enough,
            kinds=recognised,
            photo_kinds=single,
        )

    def balanced(self, probabilities: np.ndarray) -> np.ndarray:
        """p / prior, renormalised, [n, C]: the same at every prevalence."""
        prior = np.asarray(self.natural_prior)
        ratio = probabilities / prior
        shares: np.ndarray = ratio / ratio.sum(axis=1, keepdims=True)
        return shares

    def at(self, shares: np.ndarray, name: str) -> Calibrator:
        """The same at another prevalence.

        Probabilities are re-weighted by the ratio of prevalences (Saerens et al. 2002), and sets and referral threshold
        are fitted anew to the re-weighted probabilities of the calibration photos. So a set still holds the truth in
        the stated share of the photos of each diagnosis, and with it in any mix of them, and the threshold's
        sensitivity is still promised in each source, for the mix of malignant diagnoses that this source has. Both rest
        on a diagnosis looking the same wherever it is seen (label shift).

        Args:
            shares: [C] prevalence of each diagnosis; of those that the model does not know it is left out, and a share
                below `LEAST_SHARE` is read as that.

        Raises ValueError for shares of another length, negative ones or none above 0, and where the checkpoint keeps
        no calibration photos.
        """
        given, known = np.asarray(shares, dtype=np.float64), self.known
        if given.shape != (len(DIAGNOSIS_CODES),) or not np.isfinite(given).all() or (given < 0).any():
            raise ValueError(f"a prevalence has {len(DIAGNOSIS_CODES)} shares of at least 0, one per diagnosis")
        if given[known].sum() <= 0:
            raise ValueError(f"the prevalence {name!r} has no share above 0 among the diagnoses that the model knows")
        if self.photos is None:
            raise ValueError(
                "this checkpoint keeps no calibration photos, so its prevalence cannot be changed; fit its calibration "
                "again with `skinclip calibrate`, or leave the prevalence out"
            )
        raised = np.maximum(given[known] / given[known].sum(), LEAST_SHARE)
        new = np.array(padded("natural_prior", raised / raised.sum(), known))
        change = np.zeros(len(given))
        change[known] = np.log(new[known]) - np.log(np.asarray(self.natural_prior)[known])
        by_kind = {
            kind: part.at(change, self.photos.where(self.photos.kinds == kind), known)
            for kind, part in self.by_kind.items()
        }
        return replace(self, by_kind=by_kind, natural_prior=tuple(float(p) for p in new), prevalence=name)

    # ---- storing -----------------------------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Named arrays that say everything, ready for safetensors; `from_arrays` is the exact inverse.

        Those of the first kind have bare names, those of another kind its name in front.
        """
        arrays = {"natural_prior": np.array(self.natural_prior), "prevalence": text_array([self.prevalence])}
        others = [kind for kind, part in self.by_kind.items() if part is not self.first]
        first = next(kind for kind, part in self.by_kind.items() if part is self.first)
        arrays |= self.first.to_arrays() | {"kinds": text_array([first, *others])}
        for kind in others:
            arrays |= {f"{kind}/{name}": array for name, array in self.by_kind[kind].to_arrays().items()}
        if not self.criteria.is_identity:
            c = self.criteria
            arrays |= {"criteria.slope": c.slope, "criteria.bias": c.bias}
            arrays |= {"criteria.state_slope": c.state_slope, "criteria.state_bias": c.state_bias}
        if self.photos is not None:
            arrays |= {f"photos.{name}": array for name, array in self.photos.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], diagnoses: Sequence[str] = DIAGNOSIS_CODES) -> Calibrator:
        """The same Calibrator again, also of arrays that hold places for `diagnoses` alone, those that the model knows.

        Arrays that a checkpoint made before they were stored lacks are read as "no change". Raises ValueError for
        missing or unknown names, and for arrays of other lengths.
        """
        missing = sorted(CALIBRATION_ARRAYS - set(arrays))
        unknown = sorted(name for name in arrays if not is_calibration_array(name))
        if missing or unknown:
            raise ValueError(f"not the arrays of a fitted Calibrator: missing {missing}, unknown {unknown}")
        known = np.array([DIAGNOSIS_CODES.index(code) for code in diagnoses])
        first, *others = texts(arrays.get("kinds")) or [DERMOSCOPY]
        by_kind = {first: KindCalibration.from_arrays({n: a for n, a in arrays.items() if "/" not in n}, known)}
        for kind in others:
            own = {n.removeprefix(f"{kind}/"): a for n, a in arrays.items() if n.startswith(f"{kind}/")}
            by_kind[kind] = KindCalibration.from_arrays(own, known)
        kept = {n.removeprefix("photos."): a for n, a in arrays.items() if n.startswith("photos.")}
        return cls(
            by_kind=by_kind,
            natural_prior=padded("natural_prior", arrays["natural_prior"], known),
            prevalence=(texts(arrays.get("prevalence")) or [TRAINING_PHOTOS])[0],
            criteria=_criteria(arrays),
            photos=LabelledOutputs.from_arrays(kept) if kept else None,
        )


def _criteria(arrays: Mapping[str, np.ndarray]) -> CriteriaCalibration:
    """The criteria's calibration in `arrays`, "as it is" where there is none. Raises ValueError for other lengths."""
    if "criteria.slope" not in arrays:
        return CriteriaCalibration.identity()
    q, k = len(STATE_COUNTS), sum(STATE_COUNTS)
    fitted = {"slope": q, "bias": q, "state_slope": q, "state_bias": k}
    wrong = [n for n, size in fitted.items() if arrays.get(f"criteria.{n}", np.zeros(0)).shape != (size,)]
    if wrong:
        raise ValueError(f"criteria.{wrong[0]} must hold {fitted[wrong[0]]} numbers; fit the calibration again")
    return CriteriaCalibration(**{name: np.asarray(arrays[f"criteria.{name}"]) for name in fitted})


def _offsets(
    sources: np.ndarray, prior: np.ndarray, source_priors: Mapping[str, np.ndarray], known: np.ndarray
) -> np.ndarray:
    """[n, C] log prior of each photo's source less the log natural prior; 0 where the source is not named."""
    offsets = np.zeros((len(sources), len(prior)))
    for source, shares in source_priors.items():
        own = np.zeros(len(prior))
        own[known] = np.log(_checked_prior(shares, known)[known]) - np.log(prior[known])
        offsets[sources == source] = own
    return offsets


def _checked_prior(prior: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The shares of the diagnoses `known`, padded. Raises ValueError where one is missing or not above 0."""
    prior = np.asarray(prior, dtype=np.float64)
    if prior.shape != (len(DIAGNOSIS_CODES),) or not (prior[known] > 0).all():
        raise ValueError(
            f"a prior must hold {len(DIAGNOSIS_CODES)} shares above 0, one per diagnosis that is known; got {prior}"
        )
    return np.array(padded("natural_prior", prior[known] / prior[known].sum(), known))
