"""Fitting on a trained model: calibration on `calib`, the thresholds of findings on `valid`.

Photos are read and processed as an Assessment does it, so that a threshold means on the page what it meant here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from skinclip.calibration.calibrator import Calibrator
from skinclip.core.assessment import ModelInfo
from skinclip.core.vocabulary import CRITERION_CODES
from skinclip.data.cases import Case, DataError
from skinclip.imaging.photo import LesionImage, PhotoError, load_photo
from skinclip.imaging.transform import PhotoTransform
from skinclip.model.criteria import criterion_log_probs
from skinclip.model.inference import forward_batch, lesion_windows
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.pipeline.assessor import Assessor
from skinclip.training.losses import MISSING
from skinclip.training.photo_sets import (
    PhotoSet,
    criterion_labels,
    diagnosis_labels,
    held_out_keys,
    is_close_up,
    photo_key,
)
from skinclip.training.sampling import natural_prior

NEVER = 2.0  # the threshold of a criterion that is recognised too poorly to be cited
MIN_PRECISION, MIN_CITED = 0.5, 3
RATE = 0.2  # of the criteria cited, those that may be absent
RECALL = 0.53  # of the criteria that are there, those to be cited: a little above one half, to hold on other photos
STYLE_SAMPLE = 600  # training photos of each source whose style the shift score is fitted on


def features(model: SkinClipVL, cases: Sequence[Case]) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Diagnosis logits [n, C], style [n, S] and evidence scores [n, K].

    Raises DataError naming a photo that cannot be read.
    """
    transform = PhotoTransform(model.config.photo_side)
    logits, styles, scores = [], [], []
    for part in _parts(model, cases):
        output = forward_batch(model, transform, [_photo(c) for c in part], [c.context for c in part])
        logits.append(output.logits.double().numpy())
        styles.append(output.tokens.style.double().numpy())
        scores.append(output.evidence.scores)
    return np.concatenate(logits), np.concatenate(styles), torch.cat(scores)


def _parts(model: SkinClipVL, cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    batch = model.config.batch
    return (cases[start : start + batch] for start in range(0, len(cases), batch))


def _photo(case: Case) -> LesionImage:
    try:
        return load_photo(case.image)
    except PhotoError as error:
        raise DataError(f"{case.image}: {error}") from error


def fit(
    model: SkinClipVL, train: PhotoSet, calib: Sequence[Case], valid: Sequence[Case], trained_prior: Tensor
) -> Assessor:
    """The model with what makes its logits trustworthy.

    The natural prior is that of the training photos of the data sets that `calib` is from: those whose prevalence the
    displayed probabilities are to have.
    """
    sources = {c.source for c in calib}
    home = torch.tensor([c.source in sources for c in train.cases])
    prior = natural_prior(train.diagnosis[home])
    logits, calib_style, _ = features(model, calib)
    learnt_style, held_style = styles(model, train)
    calibrator = Calibrator.fit(
        logits,
        diagnosis_labels(calib).numpy(),
        np.concatenate([learnt_style, held_style]),
        np.concatenate([held_style, calib_style]),
        prior.numpy(),
        (prior.log() - trained_prior.log()).numpy(),
        np.array([f"{c.source}/{c.lesion_id}" for c in calib]),
    )
    transform = PhotoTransform(model.config.photo_side)
    info = ModelInfo(model.config.preset, "training", "")
    return Assessor(model, transform, calibrator, finding_thresholds(model, valid), info)


def styles(model: SkinClipVL, train: PhotoSet) -> tuple[np.ndarray, np.ndarray]:
    """Style of a sample of the dermoscopy photos that the tower learnt from [m, S], and of those held out [k, S].

    As many of each source as can be, so that another clinic's dermoscopy is not out of domain merely because one source
    is the largest. Close-ups are out of domain, so they are left out. A published tower learnt from none of them: half
    of the lesions then stand for those learnt from, a sample of the others for those held out.
    """
    unseen, published = train.unseen, bool(train.unseen.all())
    if published:
        halves = held_out_keys(train.cases, 0.5, 0)
        unseen = torch.tensor([photo_key(c) in halves for c in train.cases])
    dermoscopy = torch.tensor([not is_close_up(c) for c in train.cases])
    generator = torch.Generator().manual_seed(0)

    def sample(of: Tensor) -> list[int]:
        drawn: list[int] = []
        for source in sorted({c.source for c in train.cases}):
            own = (of & torch.tensor([c.source == source for c in train.cases])).nonzero()[:, 0]
            drawn += own[torch.randperm(len(own), generator=generator)[:STYLE_SAMPLE]].tolist()
        return drawn

    learnt = sample(dermoscopy & ~unseen)
    held = sample(dermoscopy & unseen) if published else (dermoscopy & unseen).nonzero()[:, 0].tolist()
    samples = [style(model, [train.cases[i] for i in index]) for index in (learnt, held) if index]
    return samples[0], samples[-1]


@torch.inference_mode()
def style(model: SkinClipVL, cases: Sequence[Case]) -> np.ndarray:
    """Style [n, S] alone, which the tower gives without the reasoner. Raises DataError as `features`."""
    transform = PhotoTransform(model.config.photo_side)
    rows = []
    for part in _parts(model, cases):
        photos = [_photo(c) for c in part]
        windows = lesion_windows(model, transform, photos)
        cut = torch.stack([transform(p.pixels, w) for p, w in zip(photos, windows, strict=True)])
        tokens = model.perceive(cut, model.config.perception.flips, own_too=False)
        rows.append(tokens.style.double().cpu().numpy())
    return np.concatenate(rows)


def finding_thresholds(model: SkinClipVL, valid: Sequence[Case]) -> dict[str, float]:
    """Criterion -> probability of its being there, in any state, from which it is cited; from labelled photos."""
    labelled = [c for c in valid if c.criteria]
    if not labelled:
        return dict.fromkeys(model.config.criteria, NEVER)
    rows = criterion_log_probs(features(model, labelled)[2])
    present = np.stack([1 - row[:, 0].exp().numpy() for row in rows], 1)
    labels = np.array([criterion_labels(c) for c in labelled])
    thresholds = zip(CRITERION_CODES, presence_thresholds(present, labels).tolist(), strict=True)
    return {code: threshold for code, threshold in thresholds if code in model.config.criteria}


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
