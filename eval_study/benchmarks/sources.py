"""Probabilities to rely on, by source: calibration error, sets, referral and abstention, on photos not fitted to.

Each group is one kind of photo of one source, of its `valid` photos less those that the calibration was fitted on
(`training.calibration_photos`); PAD-UFES, on which nothing was fitted or chosen, is measured whole. The worst group
stands beside the mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.common import Bench, fingerprint, save_arrays
from skinclip.calibration.calibrator import CalibratedPrediction
from skinclip.calibration.outputs import NEITHER, LabelledOutputs
from skinclip.calibration.prevalence import observed
from skinclip.calibration.referral import SENSITIVITY, SourceSensitivity
from skinclip.calibration.selective import leading_confidence
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import Case, DataError
from skinclip.data.splits import known_duplicates, without_shared
from skinclip.evaluation import metrics
from skinclip.reporting import style
from skinclip.reporting.document import Picture, Section
from skinclip.training.calibrate import outputs
from skinclip.training.calibration_photos import calibration_cases, source_of
from skinclip.training.photo_sets import gather, photo_key, with_clinical

NAME = "sources"
APART = "pad_ufes"  # smartphone photos
MIN_PHOTOS = 20
_FIGURES = {
    "accuracy": "accuracy",
    "ece": "calibration error",
    "ece_own_prevalence": "at its own prevalence",
    "coverage": "coverage of sets",
    "set_size": "size",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "answered": "answered",
    "accuracy_answered": "accuracy of these",
    "accuracy_not_answered": "of the others",
    "aurc": "AURC",
}


def measured_cases(bench: Bench) -> dict[str, list[Case]]:
    """Group -> its cases, none of which the calibration was fitted on."""
    by_split = gather(bench.data)
    valid = without_shared(by_split.get("valid", []), known_duplicates(bench.data))
    fitted = {photo_key(c) for c in calibration_cases(by_split.get("calib", []), valid)}
    groups: dict[str, list[Case]] = {}
    seen = set()
    for case in with_clinical([c for c in valid if c.diagnosis or c.malignant is not None]):
        key = (source_of(case), case.image_id)
        if photo_key(case) not in fitted and key not in seen:
            seen.add(key)
            groups.setdefault(f"{source_of(case)} {case.kind or 'dermoscopy'}", []).append(case)
    known = [c for c in bench.cases(APART) if c.split != "test"]
    if known:
        groups[f"{APART} clinical"] = known
    return {name: cases for name, cases in sorted(groups.items()) if len(cases) >= MIN_PHOTOS}


def answers(bench: Bench, name: str, cases: list[Case]) -> LabelledOutputs:
    """The model's outputs on `cases`, made once for each weights hash."""
    words = name.replace(" ", "-")
    path = bench.work / "predictions" / f"outputs-{words}-{bench.sha[:12]}-{fingerprint(cases)}.npz"
    if not path.exists():
        made = outputs(bench.assessor.model, cases)
        save_arrays(path, {n: getattr(made, n) for n in made.__dataclass_fields__})
    return LabelledOutputs(**dict(np.load(path)))


def run(bench: Bench) -> dict[str, Any]:
    """Every figure of each group. Raises DataError where there is no photo to measure on."""
    groups = measured_cases(bench)
    if not groups:
        raise DataError(f"{bench.data} has no valid photos to measure probabilities on")
    calibrator = bench.assessor.calibrator
    figures = {name: group_figures(bench, answers(bench, name, cases)) for name, cases in groups.items()}
    return {
        "meta": bench.meta(prevalence=calibrator.prevalence, target=SENSITIVITY),
        "temperatures": {kind: part.calibration.temperature for kind, part in calibrator.by_kind.items()},
        "thresholds": {kind: part.referral.threshold for kind, part in calibrator.by_kind.items()},
        "least_confidence": {kind: part.min_confidence for kind, part in calibrator.by_kind.items()},
        "promised": {kind: [_promise(g) for g in part.referral.by_group] for kind, part in calibrator.by_kind.items()},
        "groups": figures,
    }


def _promise(group: SourceSensitivity) -> dict[str, Any]:
    """The referral on the calibration photos of one group."""
    return dataclasses.asdict(group)


def group_figures(bench: Bench, photos: LabelledOutputs) -> dict[str, Any]:
    """The figures of one group, each with its interval."""
    calibrator = bench.assessor.calibrator
    out = calibrator.apply(photos.logits, photos.style)
    own = calibrator if calibrator.photos is None else calibrator.at(observed("own", photos.labels).vector(), "own")
    there = own.apply(photos.logits, photos.style, out.kinds).probabilities
    resamples = metrics.GroupBootstrap(list(photos.lesions), bench.n_boot, bench.seed)
    wanted = group_metrics(photos, out) | {"ece_own_prevalence": metrics.ece(there, photos.labels)}
    labelled = out.probabilities[photos.labels >= 0]
    return {
        "n": len(photos),
        "n_malignant": int((photos.malignant == 1).sum()),
        **{name: resamples.interval(metric) for name, metric in wanted.items()},
        "ece_noise_floor": metrics.ece_noise_floor(labelled, bench.n_boot, bench.seed),
        "recognised": {kind: float(np.mean([k == kind for k in out.kinds])) for kind in (*calibrator.by_kind, NEITHER)},
        "risk_coverage": curve(photos, out),
        "aurc_of": aurc_of(photos, out),
    }


def group_metrics(photos: LabelledOutputs, out: CalibratedPrediction) -> dict[str, metrics.Metric]:
    """Metrics of the answers to one group."""
    labels, p = photos.labels, out.probabilities
    known, right, answered = labels >= 0, p.argmax(axis=1) == labels, out.in_domain & out.confident
    held = np.array([DIAGNOSIS_CODES[n] in s if n >= 0 else False for n, s in zip(labels, out.sets, strict=True)])
    return {
        "accuracy": metrics.share(right, known),
        "ece": metrics.ece(p, labels),
        "coverage": metrics.share(held, known),
        "set_size": metrics.mean(np.array([len(s) for s in out.sets], dtype=np.float64)),
        "sensitivity": metrics.share(out.refer, photos.malignant == 1),
        "specificity": metrics.share(~out.refer, photos.malignant == 0),
        "answered": metrics.mean(answered.astype(np.float64)),
        "in_domain": metrics.mean(out.in_domain.astype(np.float64)),
        "accuracy_answered": metrics.share(right, known & answered),
        "accuracy_not_answered": metrics.share(right, known & ~answered),
        "aurc": metrics.aurc(leading_confidence(p, out.balanced), right, known),
    }


def aurc_of(photos: LabelledOutputs, out: CalibratedPrediction) -> dict[str, float]:
    """Area under the risk-coverage curve of what one might abstain by; lower is better."""
    known, p = photos.labels >= 0, out.probabilities
    right, one = p.argmax(axis=1) == photos.labels, np.ones((1, len(photos)))
    by = {
        "balanced probability of the leading diagnosis": leading_confidence(p, out.balanced),
        "its probability": p.max(axis=1),
        "shift score": -out.shift_score,
    }
    return {name: float(metrics.aurc(confidence, right, known)(one)[0]) for name, confidence in by.items()}


def curve(photos: LabelledOutputs, out: CalibratedPrediction) -> list[dict[str, float]]:
    """Error rate of the most confident share of the photos, at twenty shares."""
    known, right = photos.labels >= 0, out.probabilities.argmax(axis=1) == photos.labels
    confidence, one = leading_confidence(out.probabilities, out.balanced), np.ones((1, len(photos)))
    shares = np.arange(1, 21) / 20
    risks = [float(metrics.risk_at_coverage(confidence, right, float(s), known)(one)[0]) for s in shares]
    return [{"coverage": float(s), "risk": r} for s, r in zip(shares, risks, strict=True)]


# --- the report's section ---------------------------------------------------------------------------------------------


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    groups = result["groups"]
    header = ["group", "photos", *_FIGURES.values(), "calibration error by chance"]
    return Section.of(
        "Probabilities by source",
        [
            f"Prevalence: `{result['meta']['prevalence']}`. Photos that no part of the calibration was fitted on; of "
            "Derm7pt and ISIC 2017, which have no `calib` split, the part of `valid` that was left. *At its own "
            "prevalence*: probabilities re-weighted to the group's own shares of the diagnoses. *Answered*: in the "
            "domain, and with evidence enough for its kind; accuracy of these beside that of the others.",
            table(header, [_row(name, g) for name, g in groups.items()]),
            _worst(groups, result["meta"]["target"]),
            "Sensitivity on the calibration lesions, by conformal risk control at least the target on average for a "
            "new lesion of the group, and its one-sided 90 % bound (Clopper-Pearson) for these very lesions:",
            table(["group", "malignant lesions", "sensitivity", "bound"], _promises(result["promised"])),
            "Area under the risk-coverage curve of three things to abstain by:",
            table(["group", *next(iter(groups.values()))["aurc_of"]], _areas(groups)),
            _chart(groups),
        ],
    )


def _row(name: str, g: Mapping[str, Any]) -> list[object]:
    return [name, g["n"], *(with_interval(g[key]) for key in _FIGURES), f"{g['ece_noise_floor']['mean']:.3f}"]


def _worst(groups: Mapping[str, Any], target: float) -> str:
    known = {name: g["sensitivity"] for name, g in groups.items() if g["sensitivity"]}
    if not known:
        return ""
    worst = min(known, key=lambda name: known[name]["value"])
    return f"Worst sensitivity at the referral threshold (target {target}): {worst}, {with_interval(known[worst])}."


def _promises(promised: Mapping[str, Any]) -> list[list[object]]:
    every = [p for of_kind in promised.values() for p in of_kind if p["n"]]
    return [[p["group"], p["n"], f"{p['sensitivity']:.3f}", f"{p['bound']:.3f}"] for p in every]


def _areas(groups: Mapping[str, Any]) -> list[list[str]]:
    return [[name, *(f"{value:.3f}" for value in g["aurc_of"].values())] for name, g in groups.items()]


@style.styled
def _chart(groups: Mapping[str, Any]) -> Picture:
    figure, (axes,) = style.charts(width=6.0, height=4.0)
    for name, g in groups.items():
        points = [p for p in g["risk_coverage"] if p["risk"] is not None]
        line = "--" if name.endswith("clinical") else "-"
        axes.plot([p["coverage"] for p in points], [1 - p["risk"] for p in points], line, label=name)
    axes.set(xlabel="share of photos answered, the most confident first", ylabel="accuracy", ylim=(0, 1.02))
    axes.legend(loc="lower left")
    return picture(figure, "sources_risk_coverage", "Accuracy of the most confident share of each group's photos")
