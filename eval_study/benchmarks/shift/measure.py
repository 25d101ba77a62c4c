"""The shift benchmark's measurement: other data sets, pictures without skin, and corrupted photos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from eval_study.benchmarks import corruptions, pictures
from eval_study.benchmarks.common import (
    Bench,
    Measured,
    fingerprint,
    predict,
    save_arrays,
    with_labels,
)
from eval_study.benchmarks.shift.one_set import LEVELS, Figures, block, by_group, out_of_domain, shift_figures
from skinclip.calibration.shift import IN_DOMAIN_SCORE
from skinclip.data.cases import Case
from skinclip.evaluation import metrics
from skinclip.imaging.photo import LesionImage, from_array, load_photo

NAME = "shift"
DATA = "ham10000"
REFERENCE = "test"
OFFICIAL = "isic2017"  # has splits to learn from; only its test split is another source's
CORRUPTED = "valid"  # no test photo is spent on corruptions
SAMPLE = 150
SEVERITIES = (1, 3, 5)
UNCORRUPTED = "none"


def run(bench: Bench) -> dict[str, Any]:
    """Every set and corruption against the reference's `test` photos. Raises DataError where those are not there, and
    MissingPhotographs where the packages with the not-skin photographs are not installed."""
    return measure(bench, REFERENCE)


def measure(
    bench: Bench,
    reference: str,
    sample: int = SAMPLE,
    kinds: Sequence[str] = tuple(corruptions.KINDS),
    severities: Sequence[int] = SEVERITIES,
) -> dict[str, Any]:
    """As `run`, with another split as reference (of OFFICIAL as well), fewer corrupted photos, kinds or severities."""
    pictures.located()  # raises for missing photographs before hours of measuring
    own = bench.measured(DATA, reference)
    sets = {DATA: {**block(bench, own, None), "split": reference}}
    for name, split in other_sets(bench, reference).items():
        m = bench.measured(name, split)
        figures = block(bench, m, own)
        sets[name] = {**figures, "split": split or "all", "groups": by_group(bench, m, own)}
    return {
        "meta": bench.meta(data=DATA, reference=reference, corrupted=CORRUPTED, sample=sample),
        "in_domain_score": IN_DOMAIN_SCORE,
        "sets": sets,
        "not_skin": _not_skin(bench, own),
        "corruptions": _corruptions(bench, own, sample, kinds, severities),
    }


def other_sets(bench: Bench, official_split: str = REFERENCE) -> dict[str, str | None]:
    """Data set -> the split to measure, None for all of it.

    A set is measured where its cases have the split "shift", or none has a split other than "test"; and OFFICIAL.
    """
    split_of: dict[str, str | None] = {}
    for name, cases in bench.tables.items():
        splits = {case.split for case in cases.cases}
        if name == DATA or not splits:
            continue
        if name == OFFICIAL and official_split in splits:
            split_of[name] = official_split
        elif "shift" in splits:
            split_of[name] = "shift"
        elif splits <= {"test", None}:
            split_of[name] = None
    return split_of


def _kept(bench: Bench, name: str, cases: list[Case], photos: Callable[[], list[LesionImage]]) -> Measured:
    """Predictions on made photos, kept as `Bench.measured` keeps its own; `name` must tell how they were made."""
    path = bench.work / "predictions" / f"{name}-{bench.sha[:12]}-{fingerprint(cases)}.npz"
    if not path.exists():
        save_arrays(path, predict(bench.assessor, cases, photos()))
    return with_labels(cases, dict(np.load(path)))


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def photo_sizes(cases: Sequence[Case]) -> list[tuple[int, int]]:
    """(height, width) of each photo, from the file's header."""
    sizes = []
    for case in cases:
        with Image.open(case.image) as photo:
            sizes.append((photo.height, photo.width))
    return sizes


def _not_skin(bench: Bench, own: Measured) -> Figures:
    made = pictures.crops(photo_sizes(own.cases), bench.seed)
    cases = pictures.cases_of(made)
    name = f"{pictures.SOURCE}-{_hash(*(c.image.sha256 for c in made))}"
    m = _kept(bench, name, cases, lambda: [c.image for c in made])
    coloured = np.array([c.coloured for c in made])
    called = out_of_domain(bench, m)
    photographs = [
        {**row, "out_of_domain": float(called[[c.photograph.path == row["file"] for c in made]].mean())}
        for row in pictures.listing(made)
    ]
    return {
        "n": len(m),
        "n_photographs": len(photographs),
        "seed": bench.seed,
        **shift_figures(bench, m, own),
        "coloured": {"n": int(coloured.sum()), **shift_figures(bench, m.where(coloured), own)},
        "referred": bench.interval(metrics.mean(m.refer.astype(float)), list(m.groups)),
        "scores": np.quantile(m.shift, LEVELS).tolist(),
        "photographs": photographs,
    }


def _corruptions(
    bench: Bench, own: Measured, sample: int, kinds: Sequence[str], severities: Sequence[int]
) -> Figures | None:
    everything = bench.cases(DATA, CORRUPTED)
    if not everything:
        return None
    chosen = np.sort(np.random.default_rng(bench.seed).permutation(len(everything))[:sample])
    plain = bench.measured(DATA, CORRUPTED).where(np.isin(np.arange(len(everything)), chosen))
    by_kind = {
        kind: {str(severity): _corrupted(bench, plain, own, kind, severity) for severity in severities}
        for kind in kinds
    }
    about = {kind: {"parameter": (c := corruptions.KINDS[kind]).parameter, "source": c.source} for kind in kinds}
    return {
        "split": CORRUPTED,
        "n": len(plain),
        "seed": bench.seed,
        UNCORRUPTED: {**block(bench, plain, own), "lesion_iou": _iou(bench, plain)},
        "kinds": by_kind,
        "about": about,
    }


def _corrupted(bench: Bench, plain: Measured, own: Measured, kind: str, severity: int) -> Figures:
    level = corruptions.KINDS[kind].levels[severity - 1]
    name = f"corrupted-{kind}-{severity}-{_hash(level, bench.seed)}"
    m = _kept(bench, name, plain.cases, lambda: corrupted_photos(plain.cases, kind, severity, bench.seed))
    lost = metrics.difference(_right(m), _right(plain))
    return {
        "level": level,
        **block(bench, m, own),
        "lesion_iou": _iou(bench, m),
        "accuracy_change": bench.interval(lost, list(plain.groups)),
    }


def corrupted_photos(cases: Sequence[Case], kind: str, severity: int, seed: int) -> list[LesionImage]:
    """The cases' photos, each corrupted with chance of its own; at all severities with the same."""
    number = list(corruptions.KINDS).index(kind)
    return [
        from_array(
            corruptions.corrupt(load_photo(c.image).pixels, kind, severity, np.random.default_rng([seed, number, i]))
        )
        for i, c in enumerate(cases)
    ]


def _right(m: Measured) -> metrics.Metric:
    return metrics.accuracy(m.labels, m.probabilities.argmax(axis=1))


def _iou(bench: Bench, m: Measured) -> metrics.Interval | None:
    return bench.interval(metrics.mean(m.iou), list(m.groups))
