"""Measures the limits that the page states: `python -m eval_study.limits --data ROOT` writes `assets/limits.json`.

Two things, of the model as it is shipped and by the same call as the page makes:

- what a referral threshold costs: sensitivity and specificity at every threshold, on HAM10000's calibration photos;
- how often the referral errs by kind of photo, skin tone, body site, sex, age and source, at the model's own threshold,
  on photos that neither training nor calibration saw (HAM10000 valid, MILK10k valid, PAD-UFES-20).

Photos of lesions that two sets share are left out. Intervals are 95 % bootstraps over lesions.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from skinclip.core.paths import ASSETS
from skinclip.core.vocabulary import is_malignant
from skinclip.data.cases import Case, DataError, close_up
from skinclip.data.readers import read_cases
from skinclip.data.splits import known_duplicates, without_shared
from skinclip.evaluation import metrics
from skinclip.imaging.photo import PhotoError, load_photo
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting.limits import Group, MeasuredLimits, OperatingCurve

THRESHOLDS = [round(0.01 * i, 2) for i in range(1, 100)]
FEWEST = 10  # photos on which a share is stated
SEED, RESAMPLES, BATCH = 0, 1000, 16
_AGES = ((0, 40, "under 40"), (40, 60, "40 to 59"), (60, 200, "60 and older"))
_TONES = {0: "very dark", 1: "dark", 2: "brown", 3: "medium", 4: "light", 5: "very light"}


@dataclass(frozen=True)
class LabelledAnswers:
    """The model's answers to labelled photos.

    Attributes:
        malignancy, malignant, refer, abstained: [n] probability, truth, decision, and no answer given.
        lesions: [n], to resample by.
    """

    cases: tuple[Case, ...]
    malignancy: np.ndarray
    malignant: np.ndarray
    refer: np.ndarray
    abstained: np.ndarray

    @property
    def lesions(self) -> list[str]:
        return [f"{case.source}/{case.patient_id or case.lesion_id}" for case in self.cases]

    def pick(self, wanted: Callable[[Case], bool]) -> LabelledAnswers:
        """The answers to the photos of some cases."""
        keep = np.array([wanted(case) for case in self.cases], bool)
        cases = tuple(case for case, kept in zip(self.cases, keep, strict=True) if kept)
        return LabelledAnswers(cases, *(a[keep] for a in (self.malignancy, self.malignant, self.refer, self.abstained)))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m eval_study.limits", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=ASSETS / "limits.json")
    parser.add_argument("--most", type=int, help="photos of each set at most, for a quick look")
    asked = parser.parse_args(arguments)
    torch.manual_seed(SEED)
    assessor = Assessor.load("mini")
    command = shlex.join(["python", "-m", "eval_study.limits", "--data", "$SKINCLIP_DATA"])
    limits = measure(assessor, asked.data, command, asked.most)
    asked.out.write_text(json.dumps(limits.model_dump(), indent=1) + "\n")
    print(f"{asked.out}: {len(limits.groups)} groups")


def measure(assessor: Assessor, data: Path, command: str, most: int | None = None) -> MeasuredLimits:
    """Every figure of `assets/limits.json`."""
    calib = answers(assessor, cases_of(data / "ham10000", "calib"), most)
    valid = answers(assessor, cases_of(data / "ham10000", "valid"), most)
    pairs = cases_of(data / "milk10k", "valid")
    dermoscopy = answers(assessor, [c for c in pairs if c.kind == "dermoscopy"], most)
    clinical = answers(
        assessor,
        [close_up(c) if c.clinical_image else c for c in pairs if c.clinical_image or c.kind == "clinical"],
        most,
    )
    phone = answers(assessor, cases_of(data / "pad_ufes", None), most)
    return MeasuredLimits(
        weights_sha256=assessor.model_info.weights_sha256,
        command=command,
        date=datetime.date.today().isoformat(),
        seed=SEED,
        curve=curve(calib),
        groups=[
            group("kind of photo", "dermoscopy", "HAM10000 valid", valid),
            group("kind of photo", "dermoscopy, another clinic", "MILK10k valid", dermoscopy),
            group("kind of photo", "clinical close-up", "MILK10k valid", clinical),
            group("kind of photo", "smartphone", "PAD-UFES-20", phone),
            *_by(valid, dermoscopy, phone),
        ],
    )


def _by(valid: LabelledAnswers, dermoscopy: LabelledAnswers, phone: LabelledAnswers) -> Iterator[Group]:
    for tone, name in _TONES.items():
        part = dermoscopy.pick(lambda case, tone=tone: case.skin_tone == tone)
        if part.cases:
            yield group("skin tone, dermoscopy", name, "MILK10k valid", part)
    for types, name in (((1, 2), "Fitzpatrick I-II"), ((3, 4), "Fitzpatrick III-IV"), ((5, 6), "Fitzpatrick V-VI")):
        part = phone.pick(lambda c, types=types: (c.fitzpatrick or int((c.group or "FST0")[3:])) in types)
        if part.cases:
            yield group("skin tone, smartphone", name, "PAD-UFES-20", part)
    for site in sorted({case.context.site for case in valid.cases if case.context.site}):
        yield group("body site", site, "HAM10000 valid", valid.pick(lambda case, site=site: case.context.site == site))
    for sex in ("female", "male"):
        yield group("sex", sex, "HAM10000 valid", valid.pick(lambda case, sex=sex: case.context.sex == sex))
    for low, high, name in _AGES:
        part = valid.pick(lambda c, low=low, high=high: c.context.age is not None and low <= c.context.age < high)
        yield group("age", name, "HAM10000 valid", part)


def cases_of(folder: Path, split: str | None) -> list[Case]:
    """The cases of a split whose malignancy is known, less lesions of two sets. Raises DataError without any."""
    table = read_cases(folder)
    cases = table.cases if split is None else table.split(split)
    apart = without_shared(cases, known_duplicates(folder.parent))
    known = [case for case in apart if truth(case) is not None]
    if not known:
        raise DataError(f"{folder} has no photo of split {split!r} whose malignancy is known")
    return known


def truth(case: Case) -> bool | None:
    """The malignancy of a case: its diagnosis as the vocabulary counts it, else what the set itself says."""
    known = is_malignant(case.diagnosis)
    return case.malignant if known is None else known


def answers(assessor: Assessor, cases: Sequence[Case], most: int | None) -> LabelledAnswers:
    """The model's answers; a photo that cannot be read is left out."""
    read, rows = [], []
    cases = list(cases[:most])
    for start in range(0, len(cases), BATCH):
        batch = []
        for case in cases[start : start + BATCH]:
            try:
                batch.append((case, load_photo(case.image)))
            except PhotoError as problem:
                print(f"left out: {case.image.name}: {problem}", file=sys.stderr)
        predictions = assessor.predict([image for _, image in batch], [case.context for case, _ in batch])
        read += [case for case, _ in batch]
        rows += [(p.malignancy, p.refer, not (p.in_domain and p.confident)) for p in predictions]
    malignancy, refer, abstained = zip(*rows, strict=True)
    malignant = np.array([bool(truth(case)) for case in read])
    return LabelledAnswers(tuple(read), np.array(malignancy), malignant, np.array(refer), np.array(abstained))


def curve(a: LabelledAnswers) -> OperatingCurve:
    """Sensitivity and specificity at each of `THRESHOLDS`."""
    resamples = metrics.GroupBootstrap(a.lesions, RESAMPLES, SEED)
    pairs = [(a.malignancy >= t, t) for t in THRESHOLDS]
    return OperatingCurve(
        data="HAM10000",
        split="calib",
        n_malignant=int(a.malignant.sum()),
        n_benign=int((~a.malignant).sum()),
        thresholds=THRESHOLDS,
        sensitivity=[_figure(resamples, metrics.share(refer, a.malignant)) for refer, _ in pairs],
        specificity=[_figure(resamples, metrics.share(~refer, ~a.malignant)) for refer, _ in pairs],
    )


def group(kind: str, name: str, data: str, a: LabelledAnswers) -> Group:
    """The figures of one group; None where a share would rest on fewer than `FEWEST` photos."""
    resamples = metrics.GroupBootstrap(a.lesions, RESAMPLES, SEED)
    many, few = int(a.malignant.sum()), int((~a.malignant).sum())
    both = min(many, few) >= FEWEST
    return Group(
        kind=kind,
        name=name,
        data=data,
        n=len(a.cases),
        n_malignant=many,
        missed=_figure(resamples, metrics.share(~a.refer, a.malignant)) if many >= FEWEST else None,
        needless=_figure(resamples, metrics.share(a.refer, ~a.malignant)) if few >= FEWEST else None,
        abstained=round(float(a.abstained.mean()), 4) if len(a.cases) else 0.0,
        auroc=_figure(resamples, metrics.auroc(a.malignancy, a.malignant)) if both else None,
    )


def _figure(resamples: metrics.GroupBootstrap, metric: metrics.Metric) -> tuple[float, float, float]:
    found = resamples.interval(metric)
    assert found is not None, "a share of no photos"
    low, high = (found["value"] if found[end] is None else found[end] for end in ("low", "high"))
    return round(float(found["value"]), 4), round(float(low), 4), round(float(high), 4)


if __name__ == "__main__":
    main()
