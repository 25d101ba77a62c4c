"""Measuring an Assessor on a set of labelled cases: every figure with its interval, and ISIC's submission file.

Photos are read and predicted batch by batch and only a row of numbers a photo is kept, so memory does not grow with
photo size. Rationales are slower by far and are written for a seeded sample only. A figure that the labels do not allow
is null.

Decision rules: `accuracy`, `balanced_accuracy_argmax`, calibration figures, `coverage` and `diag_accuracy` read the
displayed probabilities, at natural prevalence; `balanced_accuracy` and `per_class_recall` decide by argmax p / prior;
`sensitivity` and `specificity` are those of the referral decision.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import os
import random
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from skinclip import metrics
from skinclip.clinical import (
    CODE_TO_DERM7PT_GROUP,
    CRITERIA,
    DERM7PT_GROUPS,
    DIAGNOSIS_CODES,
    ISIC2018_COLUMNS,
)
from skinclip.data.cases import Case, CaseTable, DataError

if TYPE_CHECKING:
    from skinclip.assess import Assessor, Prediction
    from skinclip.images import LesionImage

# The official scorer of ISIC 2018 Task 3 gives this test photo weight 0; it is predicted, and left out of figures.
NOT_SCORED = frozenset({"ISIC_0035068"})
RULES = {
    "accuracy": "argmax p",
    "balanced_accuracy": "argmax p / prior",
    "balanced_accuracy_argmax": "argmax p",
    "per_class_recall": "argmax p / prior",
    "sensitivity, specificity": "P(malignant) >= referral threshold",
    "diag_accuracy": "argmax of p summed by group",
}
LEDGER = Path("eval_study/results/test_ledger.csv")
LEDGER_COLUMNS = ("date", "weights_sha256", "data", "split", "n", "reason")
_PROBLEM_LINES = 20  # problems written out in a report; all are counted


@dataclass(frozen=True)
class Row:
    """What is kept of one photo. `iou` and `agrees` are NaN where there is no mask or no rationale."""

    case: Case
    probabilities: np.ndarray  # [C]
    balanced: np.ndarray  # [C]
    criteria: dict[str, dict[str, float]]
    malignancy: float
    refer: bool
    set_codes: tuple[str, ...]
    in_domain: bool
    iou: float
    agrees: float


def evaluate(
    assessor: Assessor,
    table: CaseTable,
    *,
    split: str | None = None,
    rationales: int | str = 200,
    batch_size: int = 32,
    seed: int = 0,
    n_boot: int = 1000,
    progress: bool = True,
    strict: bool = False,
    command: str | None = None,
    layout: str | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The report of `assessor` on `table`, and its predictions in ISIC's submission format.

    Args:
        split: measure these cases only; all where None.
        rationales: number of photos, drawn by `seed`, whose rationale is written and read for `agreement`; or "all".
        n_boot: bootstrap resamples of lesions (patients, where known).
        strict: stop at a photo or mask that cannot be read, which is otherwise left out and counted.
        command, layout: noted in the report.

    Raises DataError where the split has no case, or no photo could be read, or (strict) one could not.
    """
    cases = select(table, split)
    problems = list(table.problems)

    def note(problem: str) -> None:
        if strict:
            raise DataError(problem)
        problems.append(problem)

    sampled = _sampled(len(cases), rationales, seed)
    rows = list(_measure(assessor, cases, sampled, batch_size, progress, note))
    if not rows:
        raise DataError(f"none of {len(cases)} photos could be read; the last problem is: {problems[-1]}")
    scored = [row for row in rows if row.case.image_id not in NOT_SCORED]
    report: dict[str, Any] = figures(scored, n_boot, seed)
    groups = sorted({row.case.group for row in scored if row.case.group})
    report["groups"] = {g: figures([r for r in scored if r.case.group == g], n_boot, seed) for g in groups} or None
    report["meta"] = {
        "date": datetime.date.today().isoformat(),
        "command": command,
        "data": _sources(cases),
        "layout": layout,
        "split": split,
        "seed": seed,
        "resamples": n_boot,
        **_counts(rows, scored),
        "problems": len(problems),
        "problem_lines": problems[:_PROBLEM_LINES],
        "model": dataclasses.asdict(assessor.model_info),
        "rules": RULES,
    }
    return report, submission(rows)


def _sources(cases: Sequence[Case]) -> list[str]:
    return sorted({case.source for case in cases})


def _counts(rows: Sequence[Row], scored: Sequence[Row]) -> dict[str, Any]:
    return {
        "n_lesions": len({(row.case.source, row.case.lesion_id) for row in scored}),
        "n_resampled_groups": len({_cluster(row.case) for row in scored}),
        "n_rationales": sum(bool(np.isfinite(row.agrees)) for row in scored),
        "not_scored": sorted(row.case.image_id for row in rows if row.case.image_id in NOT_SCORED),
    }


def select(table: CaseTable, split: str | None) -> tuple[Case, ...]:
    """The cases of `split`, all where None. Raises DataError where there are none."""
    cases = table.split(split) if split else table.cases
    if not cases:
        found = sorted({case.split or "(none)" for case in table.cases})
        raise DataError(f"no case{f' of split {split!r}' if split else ''}; splits found: {', '.join(found) or 'none'}")
    return cases


def submission(rows: Sequence[Row]) -> pd.DataFrame:
    """ISIC 2018 Task 3's submission format, one row a photo, values p / prior renormalised."""
    values: dict[str, Any] = {"image": [row.case.image_id for row in rows]}
    for column, code in ISIC2018_COLUMNS.items():
        c = DIAGNOSIS_CODES.index(code)
        values[column] = [float(row.balanced[c]) for row in rows]
    return pd.DataFrame(values)


# --- predicting -------------------------------------------------------------------------------------------------


def _sampled(n: int, rationales: int | str, seed: int) -> frozenset[int]:
    """Which of `n` cases get a rationale."""
    count = n if rationales == "all" else min(n, int(rationales))
    return frozenset(random.Random(seed).sample(range(n), count))


def _measure(
    assessor: Assessor,
    cases: Sequence[Case],
    sampled: frozenset[int],
    batch_size: int,
    progress: bool,
    note: Callable[[str], None],
) -> Iterator[Row]:
    """The rows of all photos that can be read; `note` gets a line for each other one."""
    from tqdm import tqdm

    with tqdm(total=len(cases), desc="photos", unit="photo", disable=not progress) as bar:
        for start in range(0, len(cases), batch_size):
            numbers = range(start, min(start + batch_size, len(cases)))
            loaded = [(i, cases[i], image) for i in numbers if (image := _load(cases[i], note)) is not None]
            if loaded:
                predictions = assessor.predict([image for *_, image in loaded], [case.context for _, case, _ in loaded])
                for (i, case, image), prediction in zip(loaded, predictions, strict=True):
                    agrees = _agrees(assessor, image, case) if i in sampled else float("nan")
                    yield _row(case, prediction, agrees, note)
            bar.update(len(numbers))


def _load(case: Case, note: Callable[[str], None]) -> LesionImage | None:
    from skinclip import images

    try:
        return images.load(case.image)
    except (images.PhotoError, OSError) as error:
        note(f"photo {case.image.name}: {' '.join(str(error).split())}")
        return None


def _agrees(assessor: Assessor, image: LesionImage, case: Case) -> float:
    """1 where the rationale's first-named diagnosis is the diagnosis, 0 where not, NaN where no rationale is given."""
    from skinclip.data.rationales import read_rationale

    assessment = assessor.assess(image, case.context)
    if assessment.abstained or not assessment.rationale:
        return float("nan")
    return float(read_rationale(assessment.rationale).leading == assessment.diagnosis[0].code)


def _row(case: Case, prediction: Prediction, agrees: float, note: Callable[[str], None]) -> Row:
    return Row(
        case=case,
        probabilities=np.asarray(prediction.probabilities, dtype=np.float64),
        balanced=np.asarray(prediction.balanced, dtype=np.float64),
        criteria=prediction.criteria if case.criteria else {},
        malignancy=float(prediction.malignancy),
        refer=bool(prediction.refer),
        set_codes=tuple(prediction.set_codes),
        in_domain=bool(prediction.in_domain),
        iou=_lesion_iou(case, np.asarray(prediction.lesion_mask, dtype=bool), note),
        agrees=agrees,
    )


def _lesion_iou(case: Case, predicted: np.ndarray, note: Callable[[str], None]) -> float:
    """IoU on the photo's own pixels, [H, W]; NaN without a mask. A mask file may have another size than its photo."""
    if case.mask is None:
        return float("nan")
    try:
        with Image.open(case.mask) as file:
            fitted = file.convert("L").resize(predicted.shape[::-1], Image.Resampling.NEAREST)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        note(f"mask {case.mask.name}: {' '.join(str(error).split())}")
        return float("nan")
    return metrics.mask_iou(predicted, np.asarray(fitted) > 127)


# --- figures ----------------------------------------------------------------------------------------------------


def figures(rows: Sequence[Row], n_boot: int, seed: int) -> dict[str, Any]:
    """All figures of `rows`, each `{"value", "low", "high"}` or None."""
    resamples = metrics.GroupBootstrap([_cluster(row.case) for row in rows], n_boot, seed)
    criteria = _criteria(rows, resamples)
    return {
        "n": len(rows),
        **{name: resamples.interval(metric) for name, metric in _diagnosis_metrics(rows).items()},
        "per_class_recall": _per_class_recall(rows, resamples),
        **{name: resamples.interval(metric) for name, metric in _malignancy_metrics(rows).items()},
        "lesion_iou": resamples.interval(metrics.mean(np.array([row.iou for row in rows]))),
        "agreement": resamples.interval(metrics.mean(np.array([row.agrees for row in rows]))),
        "in_domain": resamples.interval(metrics.mean(np.array([row.in_domain for row in rows], dtype=float))),
        "diag_accuracy": resamples.interval(_diag_accuracy(rows)),
        "criteria": criteria or None,
        "criteria_mean_accuracy": resamples.interval(
            metrics.mean_of([metrics.accuracy(*_criterion_decisions(rows, c)) for c in criteria])
        ),
    }


def _cluster(case: Case) -> str:
    """What is resampled as one: the patient where known, else the lesion; lesion ids repeat between sources."""
    return f"{case.source}/{case.patient_id or case.lesion_id}"


def _labels(rows: Sequence[Row]) -> np.ndarray:
    """[n] number of the true diagnosis, -1 where it is missing."""
    return np.array([DIAGNOSIS_CODES.index(d) if (d := row.case.diagnosis) else -1 for row in rows], dtype=np.int64)


def _stack(vectors: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(vectors) if vectors else np.zeros((0, len(DIAGNOSIS_CODES)))


def _diagnosis_metrics(rows: Sequence[Row]) -> dict[str, metrics.Metric]:
    labels = _labels(rows)
    p, balanced = _stack([row.probabilities for row in rows]), _stack([row.balanced for row in rows])
    inside = np.array([row.case.diagnosis in row.set_codes for row in rows], dtype=bool)
    sizes = np.array([len(row.set_codes) for row in rows], dtype=np.float64)
    return {
        "accuracy": metrics.accuracy(labels, p.argmax(axis=1)),
        "balanced_accuracy": metrics.balanced_accuracy(labels, balanced.argmax(axis=1)),
        "balanced_accuracy_argmax": metrics.balanced_accuracy(labels, p.argmax(axis=1)),
        "auroc_macro": metrics.auroc_macro(p, labels),
        "ece": metrics.ece(p, labels),
        "brier": metrics.brier(p, labels),
        "nll": metrics.nll(p, labels),
        "coverage": metrics.share(inside, labels >= 0),
        "set_size": metrics.mean(sizes),
    }


def _per_class_recall(
    rows: Sequence[Row], resamples: metrics.GroupBootstrap
) -> dict[str, metrics.Interval | None] | None:
    labels, predicted = _labels(rows), _stack([row.balanced for row in rows]).argmax(axis=1)
    if not (labels >= 0).any():
        return None
    return {code: resamples.interval(metrics.recall(labels, predicted, c)) for c, code in enumerate(DIAGNOSIS_CODES)}


def _malignancy_metrics(rows: Sequence[Row]) -> dict[str, metrics.Metric]:
    known = np.array([row.case.malignant is not None for row in rows], dtype=bool)
    malignant = np.array([bool(row.case.malignant) for row in rows], dtype=bool)
    refer = np.array([row.refer for row in rows], dtype=bool)
    return {
        "auroc_malignant": metrics.auroc(np.array([row.malignancy for row in rows]), malignant, known),
        "sensitivity": metrics.share(refer, malignant & known),
        "specificity": metrics.share(~refer, ~malignant & known),
    }


def _criteria(rows: Sequence[Row], resamples: metrics.GroupBootstrap) -> dict[str, dict[str, metrics.Interval | None]]:
    """Accuracy and macro one-versus-rest AUROC of each criterion that has a label."""
    found = {}
    for criterion in CRITERIA:
        labels, predicted = _criterion_decisions(rows, criterion.code)
        if (labels >= 0).any():
            found[criterion.code] = {
                "accuracy": resamples.interval(metrics.accuracy(labels, predicted)),
                "auroc": resamples.interval(
                    metrics.auroc_macro(_criterion_probabilities(rows, criterion.code), labels)
                ),
            }
    return found


def _criterion_states(criterion: str) -> tuple[str, ...]:
    return next(c.labels for c in CRITERIA if c.code == criterion)


def _criterion_probabilities(rows: Sequence[Row], criterion: str) -> np.ndarray:
    """[n, S] probabilities of the criterion's states; 0 in rows without that label, which no metric reads."""
    states = _criterion_states(criterion)
    return np.array(
        [[row.criteria[criterion][s] if criterion in row.case.criteria else 0.0 for s in states] for row in rows]
    ).reshape(len(rows), len(states))


def _criterion_decisions(rows: Sequence[Row], criterion: str) -> tuple[np.ndarray, np.ndarray]:
    """([n] true state, -1 where unlabelled, [n] most probable state)."""
    states = _criterion_states(criterion)
    labels = [states.index(s) if (s := row.case.criteria.get(criterion)) else -1 for row in rows]
    return np.array(labels, dtype=np.int64), _criterion_probabilities(rows, criterion).argmax(axis=1)


def _diag_accuracy(rows: Sequence[Row]) -> metrics.Metric:
    """Accuracy in Derm7pt's five diagnosis groups (Kawahara et al. 2019)."""
    to_group = np.array([[CODE_TO_DERM7PT_GROUP[code] == g for g in DERM7PT_GROUPS] for code in DIAGNOSIS_CODES])
    grouped = _stack([row.probabilities for row in rows]) @ to_group.astype(np.float64)  # [n, 5]
    labels = [DERM7PT_GROUPS.index(g) if (g := row.case.diagnosis_group) else -1 for row in rows]
    return metrics.accuracy(np.array(labels, dtype=np.int64), grouped.argmax(axis=1))


# --- the command ------------------------------------------------------------------------------------------------


def log_test_use(path: Path, weights_sha256: str, data: str, split: str | None, n: int, reason: str) -> None:
    """Appends one run on test photos to the ledger, which it starts where there is none yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(LEDGER_COLUMNS)
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        writer.writerow([date, weights_sha256, data, split or "all", n, reason])


def default_ledger() -> Path | None:
    """The project's own ledger where the command runs in the project, else None."""
    return LEDGER if LEDGER.parent.is_dir() else None


def command_line(argv: Sequence[str]) -> str:
    """The command as one would type it again, with the data folder named by $SKINCLIP_DATA where it lies there."""
    root = os.environ.get("SKINCLIP_DATA")
    words = ["python", "-m", "skinclip", *argv]
    if root:
        root = root.rstrip("/")
        words = [f"$SKINCLIP_DATA{word[len(root) :]}" if f"{word}/".startswith(f"{root}/") else word for word in words]
    return " ".join(word if word.startswith("$SKINCLIP_DATA") else shlex.quote(word) for word in words)
