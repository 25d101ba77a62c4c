"""Fitting on a trained model: calibration on photos kept for it, the criteria and their thresholds on `valid`.

Photos are read and processed as an Assessment does it, so that a threshold means on the page what it meant here. Each
photo goes through the model once; `fit_calibrator` then reads the outputs alone, of whatever model they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skinclip.calibration.calibrator import Calibrator, StyleSample
from skinclip.calibration.criteria import fit_criteria
from skinclip.calibration.outputs import DERMOSCOPY, PAIR, LabelledOutputs
from skinclip.calibration.prevalence import HAM10000, Prevalence, observed
from skinclip.core.assessment import ModelInfo
from skinclip.core.vocabulary import CRITERIA, CRITERION_CODES
from skinclip.data.cases import Case, DataError, close_up
from skinclip.data.possible_states import certain_labels
from skinclip.imaging.photo import LesionImage, PhotoError, load_photo
from skinclip.imaging.skin_tone import individual_typology_angle
from skinclip.imaging.transform import PhotoTransform
from skinclip.model.criteria import criterion_log_probs
from skinclip.model.inference import forward_batch, look
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.findings import photo_mask
from skinclip.training.calibration_photos import calibration_cases, source_of
from skinclip.training.losses import MISSING
from skinclip.training.photo_sets import (
    PhotoSet,
    criterion_labels,
    diagnosis_labels,
    held_out_keys,
    photo_key,
)

NEVER = 2.0  # the threshold of a criterion that is recognised too poorly to be cited
MIN_PRECISION, MIN_CITED = 0.5, 3
RATE = 0.2  # of the criteria cited, those that may be absent
RECALL = 0.53  # of the criteria that are there, those to be cited: a little above one half, to hold on other photos
LEAST_PAIRS = 100  # lesions with two photos; with fewer, a pair gets the calibration of its first photo
STYLE_SAMPLE = 100  # training photos of each source and kind whose style the shift score is fitted on
HELD_STYLES = 100  # photos of each kind, held out of stage 0, beside the calibration photos


@dataclass(frozen=True)
class FitData:
    """All that a calibration is fitted on, whatever model the outputs are of.

    Attributes:
        photos: the calibration photos (`calibration_cases`).
        marked: photos with labelled criteria, which the model was not trained on.
        styles: kind of photo -> style of training photos and of others.
    """

    photos: LabelledOutputs
    marked: LabelledOutputs
    styles: Mapping[str, StyleSample]


def fit(
    model: SkinClipVL, train: PhotoSet, calib: Sequence[Case], valid: Sequence[Case], trained_prior: Tensor
) -> Assessor:
    """The model with what makes its answers trustworthy."""
    data = fit_data(model, train, calib, valid)
    sources, learnt = np.array([source_of(c) for c in train.cases]), train.diagnosis.numpy()
    calib_sources, labelled = data.photos.sources, data.photos.labels
    labels = {s: np.concatenate([learnt[sources == s], labelled[calib_sources == s]]) for s in np.unique(calib_sources)}
    calibrator, thresholds = fit_calibrator(data, labels, trained_prior.log().numpy(), model.config.criteria)
    transform = PhotoTransform(model.config.photo_side)
    return Assessor(model, transform, calibrator, thresholds, ModelInfo(model.config.preset, "training", ""))


def fit_calibrator(
    data: FitData,
    labels_by_source: Mapping[str, np.ndarray],
    log_trained_prior: np.ndarray,
    criteria: Sequence[str] = CRITERION_CODES,
) -> tuple[Calibrator, dict[str, float]]:
    """The calibrator, and the thresholds of findings, from outputs alone.

    Args:
        labels_by_source: source -> diagnoses of its photos [m], from which its own prevalence follows; -1 is none.
        log_trained_prior: [C] log of the prior that the diagnosis head was trained at.
        criteria: those that the model knows.
    """
    natural = natural_prevalence(labels_by_source, data.photos.sources)
    own = {source: observed(source, labels).vector() for source, labels in labels_by_source.items()}
    shift = np.log(np.maximum(natural.vector(), 1e-12)) - log_trained_prior
    calibrator = Calibrator.fit(data.photos, data.styles, natural.vector(), shift, own)
    calibrator = replace(calibrator, prevalence=natural.name)
    if len(data.marked):
        unknown = np.array([code not in criteria for code in CRITERION_CODES])
        labels = np.where(unknown, MISSING, data.marked.criteria)
        calibrator = replace(calibrator, criteria=fit_criteria(data.marked.scores, labels))
    return calibrator, finding_thresholds(calibrator, data.marked, criteria)


def natural_prevalence(labels_by_source: Mapping[str, np.ndarray], sources: np.ndarray) -> Prevalence:
    """The prevalence that displayed probabilities are at: HAM10000's, or else that of the source with most photos."""
    if HAM10000.name in labels_by_source:
        return HAM10000
    names, counts = np.unique(sources, return_counts=True)
    home = str(names[counts.argmax()])
    return observed(home, labels_by_source[home])


def fit_data(model: SkinClipVL, train: PhotoSet, calib: Sequence[Case], valid: Sequence[Case]) -> FitData:
    """The model's outputs on all photos that a fit reads; each photo goes through it once."""
    chosen = calibration_cases(calib, valid)
    taken = {photo_key(c) for c in chosen}
    marked = [c for c in valid if certain_labels(c) and photo_key(c) not in taken]
    every = outputs(model, [*chosen, *marked])
    photos = every.where(np.arange(len(every)) < len(chosen))
    pairs = [c for c in chosen if c.clinical_image is not None and kind_of(c) == DERMOSCOPY]
    if len(pairs) >= LEAST_PAIRS:
        photos = LabelledOutputs.joined([photos, outputs(model, pairs, together=True)])
    return FitData(
        photos,
        every.where((every.criteria != MISSING).any(axis=1)),
        styles(model, train, photos),
    )


def outputs(model: SkinClipVL, cases: Sequence[Case], together: bool = False) -> LabelledOutputs:
    """The model's answers to `cases`, with their labels. Raises DataError naming a photo that cannot be read.

    Args:
        together: whether each photo is seen with the clinical one beside it, as a `PAIR`.
    """
    logits, style, scores, ita = features(model, cases, together)
    return LabelledOutputs(
        logits=logits,
        style=style,
        scores=scores.numpy(),
        labels=diagnosis_labels(cases).numpy(),
        malignant=np.array([-1 if c.malignant is None else int(c.malignant) for c in cases]),
        criteria=np.array([criterion_labels(c) for c in cases]).reshape(len(cases), len(CRITERIA)),
        sources=np.array([source_of(c) for c in cases], dtype=str),
        kinds=np.array([PAIR if together else kind_of(c) for c in cases], dtype=str),
        lesions=np.array([c.lesion_id for c in cases], dtype=str),
        ita=ita,
    )


def kind_of(case: Case) -> str:
    """The kind of a case's photo; dermoscopy where its source does not say."""
    return case.kind or DERMOSCOPY


def features(
    model: SkinClipVL, cases: Sequence[Case], together: bool = False
) -> tuple[np.ndarray, np.ndarray, Tensor, np.ndarray]:
    """Diagnosis logits [n, C], style [n, S], scores of criteria [n, K] and ITA of the skin in degrees [n].

    Args:
        together: see `outputs`.

    Raises DataError naming a photo that cannot be read.
    """
    transform = PhotoTransform(model.config.photo_side)
    logits, styles, scores, ita = [], [], [], []
    for part in _parts(model, cases):
        photos = [_photo(c) for c in part]
        others = [_photo(close_up(c)) for c in part] if together else None
        output = forward_batch(model, transform, photos, [c.context for c in part], others)
        logits.append(output.logits.double().numpy())
        styles.append(output.style.double().numpy())
        scores.append(output.evidence.criterion_scores)
        for photo, mask, window in zip(photos, output.evidence.mask_logits, output.windows, strict=True):
            ita.append(individual_typology_angle(photo.pixels, photo_mask(mask, window, photo.height, photo.width)))
    return np.concatenate(logits), np.concatenate(styles), torch.cat(scores), np.array(ita)


def _parts(model: SkinClipVL, cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    batch = model.config.batch
    return (cases[start : start + batch] for start in range(0, len(cases), batch))


def _photo(case: Case) -> LesionImage:
    try:
        return load_photo(case.image)
    except PhotoError as error:
        raise DataError(f"{case.image}: {error}") from error


def styles(model: SkinClipVL, train: PhotoSet, calib: LabelledOutputs) -> dict[str, StyleSample]:
    """Style of a sample of the photos that the tower learnt from, and of those held out, for each kind in `calib`.

    As many of each source as can be, so that another clinic's photos are not out of domain merely because one source
    is the largest. A published tower learnt from none of them: half of the lesions then stand for those learnt from, a
    sample of the others for those held out.
    """
    unseen, published = train.unseen, bool(train.unseen.all())
    if published:
        halves = held_out_keys(train.cases, 0.5, 0)
        unseen = torch.tensor([photo_key(c) in halves for c in train.cases])
    kinds = np.array([kind_of(c) for c in train.cases])
    sources = np.array([source_of(c) for c in train.cases])
    generator = torch.Generator().manual_seed(0)

    def sample(of: Tensor, n: int) -> list[int]:
        drawn = of.nonzero()[:, 0]
        return drawn[torch.randperm(len(drawn), generator=generator)[:n]].tolist()

    samples = {}
    for kind in dict.fromkeys(k for k in calib.kinds.tolist() if k != PAIR):
        own = torch.from_numpy(kinds == kind)
        learnt: list[int] = []
        for source in sorted(set(sources.tolist())):
            learnt += sample(own & ~unseen & torch.from_numpy(sources == source), STYLE_SAMPLE)
        if not learnt:  # no photo of this kind was learnt from: it has no calibration of its own
            continue
        held = sample(own & unseen, HELD_STYLES)
        seen, apart = (
            style(model, [train.cases[i] for i in index]) if index else calib.style[:0] for index in (learnt, held)
        )
        known = calib.style[calib.kinds == kind]
        samples[kind] = StyleSample(np.concatenate([seen, apart]), np.concatenate([apart, known]))
    if PAIR in calib.kinds and DERMOSCOPY in samples:
        samples[PAIR] = samples[DERMOSCOPY]  # the style of a pair is that of its first photo
    return samples


@torch.inference_mode()
def style(model: SkinClipVL, cases: Sequence[Case]) -> np.ndarray:
    """Style [n, S] alone, which the tower gives without the reasoner. Raises DataError as `features`."""
    transform = PhotoTransform(model.config.photo_side)
    rows = []
    for part in _parts(model, cases):
        photos = [_photo(c) for c in part]
        tokens = look(model, transform, photos, own_too=False).tokens
        rows.append(tokens.style.double().cpu().numpy())
    return np.concatenate(rows)


def finding_thresholds(
    calibrator: Calibrator, marked: LabelledOutputs, criteria: Sequence[str] = CRITERION_CODES
) -> dict[str, float]:
    """Criterion -> calibrated probability of its being there, in any state, from which it is cited."""
    if not len(marked):
        return dict.fromkeys(criteria, NEVER)
    rows = criterion_log_probs(torch.from_numpy(calibrator.criteria.apply(marked.scores)))
    present = np.stack([1 - row[:, 0].exp().numpy() for row in rows], 1)
    thresholds = zip(CRITERION_CODES, presence_thresholds(present, marked.criteria).tolist(), strict=True)
    return {code: threshold for code, threshold in thresholds if code in criteria}


def presence_thresholds(present: np.ndarray, labels: np.ndarray, recall: float = RECALL) -> np.ndarray:
    """Thresholds [Q] with the fewest false citations among those of this macro recall.

    With w the worth of recall, a citation of a criterion that a share s of the photos has, and this one with a
    probability p, gains w p / s and loses 1 - p, less the RATE that is allowed; so it pays from
    p = (1 - RATE) s / (s + w). One number, w, is fitted, not one for each criterion: few photos are labelled, and it is
    to hold on others. A criterion that is absent in most photos that would cite it, or labelled present in none, is
    never cited: saying nothing is better than a guess.

    Args:
        present: [n, Q] probability that the criterion is there in any state.
        labels: [n, Q] number of its state, 0 where absent, MISSING where not labelled.
        recall: mean over criteria of the share of present ones that are to be cited, before some never are.
    """
    known, there = labels != MISSING, labels > 0
    share = np.array([t[k].mean() if t.any() else np.nan for t, k in zip(there.T, known.T, strict=True)])
    thresholds = np.full(len(share), NEVER)
    for worth in np.geomspace(1e-3, 10, 400):
        thresholds = np.where(np.isnan(share), NEVER, (1 - RATE) * share / (share + worth))
        reached = [(p >= t)[has].mean() for p, t, has in zip(present.T, thresholds, there.T, strict=True) if has.any()]
        if not reached or np.mean(reached) >= recall:
            break
    cited = (present >= thresholds) & known
    right = (cited & there).sum(0) / np.maximum(cited.sum(0), 1)
    return np.where((cited.sum(0) < MIN_CITED) | (right < MIN_PRECISION), NEVER, thresholds)
