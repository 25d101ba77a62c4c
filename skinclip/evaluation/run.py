"""Measuring a system on a set of labelled cases: our own model, or another system's file of probabilities.

Photos are read and predicted batch by batch and only a row of numbers a photo is kept, so memory does not grow with
photo size. Rationales are slower by far and are written for a seeded sample only. What the figures are, and by which
rule each decides, is documented in `scores`; `report` makes the page of them.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import os
import random
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from skinclip.core.safe_text import safe_name
from skinclip.core.vocabulary import DIAGNOSIS_CODES, MALIGNANT_CODES
from skinclip.data.cases import PHOTOS, Case, CaseTable, DataError, close_up, words_of_unknown
from skinclip.data.masks import read_mask
from skinclip.data.splits import without_shared
from skinclip.evaluation import grouping, metrics, scores
from skinclip.evaluation.prediction_file import NOT_SCORED, PredictionFile, as_table
from skinclip.evaluation.scores import ISIC2018_CODES, RULES, Row

if TYPE_CHECKING:
    from skinclip.imaging.photo import LesionImage
    from skinclip.pipeline.assessor import Assessor, Prediction

LEDGER = "test_ledger.csv"
LEDGER_COLUMNS = ("date", "weights_sha256", "data", "split", "n", "reason")
_PROBLEM_LINES = 20  # problems written out in a report; all are counted


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a measurement.

    Attributes:
        split: measure these cases only; all where None.
        rationales: number of photos, drawn by `seed`, whose rationale is written and read for `agreement`; or "all".
        batch_size: photos predicted together; the preset's own where None.
        seed: of the sample of rationales and of the bootstrap.
        n_boot: bootstrap resamples of lesions (patients, where known).
        strict: stop at a photo or mask that cannot be read, which is otherwise left out and counted.
        by: names of `grouping.GROUPINGS`; all figures are given again for each group.
        command, layout: noted in the report.
        photos: one of `PHOTOS`: which photos of a lesion are seen.
        shared: pairs of photos (`splits.known_duplicates`) whose lesions are left out: another data set holds them
            too, and the model may have learnt from them there.
    """

    split: str | None = None
    rationales: int | str = 200
    batch_size: int | None = None
    seed: int = 0
    n_boot: int = 1000
    progress: bool = True
    strict: bool = False
    by: tuple[str, ...] = ()
    command: str | None = None
    layout: str | None = None
    photos: str = "dermoscopy"
    shared: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise DataError(f"{self.seed} is no seed; give a whole number of at least 0")
        if self.photos not in PHOTOS:
            raise DataError(f"no photos {self.photos!r}; choose one of {', '.join(PHOTOS)}")


def evaluate(
    system: Assessor | PredictionFile,
    table: CaseTable,
    options: Options | None = None,
    against: Assessor | PredictionFile | None = None,
) -> tuple[dict[str, Any], list[Row]]:
    """The report of `system` on `table`, and its answers to each photo.

    A benchmark that labels ISIC 2018's seven diagnoses alone is scored on these, renormalised, as a file of predictions
    is everywhere; the report names them.

    Args:
        system: our model, or a file of probabilities for the same split.
        against: another one, compared with `system` on the photos that both have.

    Raises DataError where the split has no case, or no photo could be read, or (strict) one could not.
    """
    options = options or Options()
    selected = select(table, options.split)
    apart = without_shared(selected, options.shared)
    chosen, single = with_photos(apart, options.photos)
    known = _known_codes(system, against)
    cases, unknown = _known(chosen, known)
    problems = [*table.problems, *single, *unknown]
    rows = _rows(system, cases, options, options.rationales, problems)
    other = None if against is None else _rows(against, cases, options, 0, problems)
    codes = tuple(code for code in scores.scored_codes(cases) if code in known)
    scored, n_boot, seed = _scored(rows, codes), options.n_boot, options.seed
    report = {**scores.figures(scored, n_boot, seed), "groups": _groups(scored, n_boot, seed)}
    if options.by:
        report["by"] = {by: _figures_by(scored, by, n_boot, seed) for by in options.by}
    report["curves"] = scores.curves(scored, n_boot, seed)
    if against is not None and other is not None:
        compared = scores.compare(scored, _scored(other, codes), n_boot, seed)
        report["comparison"] = compared and {"against": {**_about(against), "rules": _rules(against)}, **compared}
    report["meta"] = {
        "date": datetime.date.today().isoformat(),
        "command": options.command,
        "data": sorted({case.source for case in cases}),
        "layout": options.layout,
        "split": options.split,
        "photos": options.photos,
        "left_out_shared": len(selected) - len(apart) if options.shared else None,
        "seed": seed,
        "resamples": n_boot,
        "known_diagnoses": list(_known_codes(system)),
        "scored_diagnoses": list(codes),
        **_counts(rows, scored),
        "problems": len(problems),
        "problem_lines": problems[:_PROBLEM_LINES],
        "model": None if isinstance(system, PredictionFile) else dataclasses.asdict(system.model_info),
        "system": _about(system),
        "rules": _rules(system),
    }
    return report, rows


def _known_codes(*systems: Assessor | PredictionFile | None) -> tuple[str, ...]:
    """The diagnoses that every system knows."""
    known = [s.codes if isinstance(s, PredictionFile) else s.config.diagnoses for s in systems if s is not None]
    return tuple(code for code in DIAGNOSIS_CODES if all(code in codes for codes in known))


def _rows(
    system: Assessor | PredictionFile,
    cases: Sequence[Case],
    options: Options,
    rationales: int | str,
    problems: list[str],
) -> list[Row]:
    """One system's answers to those of `cases` that it has or can read; `problems` gets a line for each other one."""
    if isinstance(system, PredictionFile):
        return rows_of_file(system, cases)

    def note(problem: str) -> None:
        if options.strict:
            raise DataError(problem)
        problems.append(problem)

    sampled, batch_size = _sampled(len(cases), rationales, options.seed), options.batch_size or system.config.batch
    rows = list(_measure(system, cases, sampled, batch_size, options, note))
    if not rows:
        raise DataError(f"none of {len(cases)} photos could be read; the last problem is: {problems[-1]}")
    return rows


def _groups(rows: Sequence[Row], n_boot: int, seed: int) -> dict[str, Any] | None:
    """All figures again for each group of cases, None where the data set has no groups."""
    names = sorted({row.case.group for row in rows if row.case.group})
    return {name: scores.figures([r for r in rows if r.case.group == name], n_boot, seed) for name in names} or None


def _figures_by(rows: Sequence[Row], by: str, n_boot: int, seed: int) -> dict[str, Any]:
    """All figures of each group of at least `MIN_GROUP` photos, of a smaller one their number."""
    return {
        name: scores.figures(own, n_boot, seed) if len(own) >= grouping.MIN_GROUP else {"n": len(own)}
        for name, own in grouping.grouped(rows, by).items()
    }


def _scored(rows: Sequence[Row], codes: Sequence[str]) -> list[Row]:
    return [row.scored_on(codes) for row in rows if row.case.image_id not in NOT_SCORED]


def _counts(rows: Sequence[Row], scored: Sequence[Row]) -> dict[str, Any]:
    return {
        "n_lesions": len({(row.case.source, row.case.lesion_id) for row in scored}),
        "n_resampled_groups": len({scores.cluster(row.case) for row in scored}),
        "n_rationales": sum(bool(np.isfinite(row.agrees)) for row in scored),
        "not_scored": sorted(row.case.image_id for row in rows if row.case.image_id in NOT_SCORED),
    }


def identity(system: Assessor | PredictionFile) -> str:
    """The sha256 of a model's weights or of the file."""
    return system.sha256 if isinstance(system, PredictionFile) else system.model_info.weights_sha256


def _about(system: Assessor | PredictionFile) -> dict[str, Any]:
    """The record of a system, and of what was done to its numbers before they were measured."""
    if not isinstance(system, PredictionFile):
        name = f"SkinCLIP-VL {system.model_info.preset}"
        at = system.calibrator.prevalence
        return {"kind": "model", "name": name, "sha256": identity(system), "prevalence": at}
    prior = None if system.prior is None else dict(zip(system.codes, system.prior.tolist(), strict=True))
    return {
        "kind": "predictions",
        "name": system.name,
        "sha256": system.sha256,
        "prior": prior,
        "missing": len(system.missing),
        "missing_first": list(system.missing[:_PROBLEM_LINES]),
        "renormalised": system.renormalised,
        "lowest_sum": system.sums[0],
        "highest_sum": system.sums[1],
        "rows_of_other_splits": system.other_splits,
    }


def _rules(system: Assessor | PredictionFile) -> dict[str, str]:
    """The decision rules, which fall together where nothing is known of a file's prior."""
    if not isinstance(system, PredictionFile):
        return RULES
    rules = {name: rule for name, rule in RULES.items() if name != "sensitivity, specificity"}
    return rules if system.prior is not None else {n: r.replace("p / prior", "p") for n, r in rules.items()}


def select(table: CaseTable, split: str | None) -> tuple[Case, ...]:
    """The cases of `split`, all where None. Raises DataError where there are none."""
    cases = table.cases if split is None else table.split(split)
    if not cases:
        splits = sorted({case.split or "(none)" for case in table.cases})
        raise DataError(
            f"no case{'' if split is None else f' of split {split!r}'}; splits found: {', '.join(splits) or 'none'}"
        )
    return cases


def _known(cases: tuple[Case, ...], known: Collection[str]) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """The cases, without the diagnosis where it is not among those `known`, and a sentence that counts these."""
    unknown = words_of_unknown(cases, known)
    if unknown is None:
        return cases, ()
    kept = tuple(c if c.diagnosis in known else dataclasses.replace(c, diagnosis=None) for c in cases)
    return kept, (f"{unknown}: of these only malignancy and masks are measured",)


def submission(rows: Sequence[Row]) -> pd.DataFrame:
    """ISIC 2018 Task 3's submission, one row per photo: p / prior renormalised, as its balanced accuracy rewards."""
    rows = [row.scored_on(ISIC2018_CODES) for row in rows]
    return as_table([row.case.image_id for row in rows], [row.balanced for row in rows], ISIC2018_CODES)


def probabilities(rows: Sequence[Row]) -> pd.DataFrame:
    """The same table with calibrated probabilities at natural prevalence: what `--predictions` and `--against` take."""
    codes = rows[0].codes if rows else DIAGNOSIS_CODES
    return as_table([row.case.image_id for row in rows], [row.probabilities for row in rows], codes)


def rows_of_file(file: PredictionFile, cases: Sequence[Case]) -> list[Row]:
    """The rows of those `cases` that the file has. No referral, prediction set, mask or criterion is known of it."""
    answered = [(case, file.probabilities[case.image_id]) for case in cases if case.image_id in file.probabilities]
    malignant = np.array([code in MALIGNANT_CODES for code in file.codes])  # [C]
    return [Row(c, p, file.balanced(p), malignancy=float(p[malignant].sum()), codes=file.codes) for c, p in answered]


# --- predicting -------------------------------------------------------------------------------------------------


def _sampled(n: int, rationales: int | str, seed: int) -> frozenset[int]:
    """The numbers of those of `n` cases that get a rationale."""
    count = n if rationales == "all" else min(n, int(rationales))
    return frozenset(random.Random(seed).sample(range(n), count))


def _measure(
    assessor: Assessor,
    cases: Sequence[Case],
    sampled: frozenset[int],
    batch_size: int,
    options: Options,
    note: Callable[[str], None],
) -> Iterator[Row]:
    """The rows of all photos that can be read, of what the model knows; `note` gets a line for each other one."""
    from tqdm import tqdm

    with tqdm(total=len(cases), desc="photos", unit="photo", disable=not options.progress) as bar:
        for start in range(0, len(cases), batch_size):
            numbers = range(start, min(start + batch_size, len(cases)))
            loaded = [(i, cases[i], image) for i in numbers if (image := _load(cases[i], note)) is not None]
            if loaded:
                others = [_close_up(case, options, note) for _, case, _ in loaded]
                contexts = [case.context for _, case, _ in loaded]
                predictions = assessor.predict([image for *_, image in loaded], contexts, others)
                for (i, case, image), other, prediction in zip(loaded, others, predictions, strict=True):
                    agrees = _agrees(assessor, image, other, case) if i in sampled else float("nan")
                    yield _row(case, prediction, agrees, note).scored_on(assessor.config.diagnoses)
            bar.update(len(numbers))


def with_photos(cases: Sequence[Case], photos: str) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """The cases whose lesions have the photos asked for, and a sentence that counts the others.

    Raises DataError where none has them.
    """
    if photos == "dermoscopy":
        return tuple(cases), ()
    kept = [case for case in cases if case.clinical_image is not None]
    if not kept:
        raise DataError(f"no case has a clinical photo beside its first one, so there is nothing for --photos {photos}")
    left = len(cases) - len(kept)
    sentence = (f"{left} lesions have no clinical photo beside their first one and are left out",) if left else ()
    return tuple(close_up(case) if photos == "clinical" else case for case in kept), sentence


def _load(case: Case, note: Callable[[str], None], photo: Path | None = None) -> LesionImage | None:
    from skinclip.imaging.photo import PhotoError, load_photo

    path = photo or case.image
    try:
        return load_photo(path)
    except (PhotoError, OSError) as error:
        note(f"photo {path.name}: {' '.join(str(error).split())}")
        return None


def _close_up(case: Case, options: Options, note: Callable[[str], None]) -> LesionImage | None:
    """The clinical photo beside a case's first one, where both are to be seen."""
    return _load(case, note, case.clinical_image) if options.photos == "both" else None


def _agrees(assessor: Assessor, image: LesionImage, other: LesionImage | None, case: Case) -> float:
    """1 where the rationale's first-named diagnosis is the diagnosis, 0 where not, NaN where no rationale is given."""
    from skinclip.language.rationale_check import read_rationale

    assessment = assessor.assess(image, case.context, clinical=other)
    if assessment.abstained or not assessment.rationale:
        return float("nan")
    return float(read_rationale(assessment.rationale).leading == assessment.diagnosis[0].code)


def _row(case: Case, prediction: Prediction, agrees: float, note: Callable[[str], None]) -> Row:
    return Row(
        case=case,
        probabilities=np.asarray(prediction.probabilities, dtype=np.float64),
        balanced=np.asarray(prediction.balanced, dtype=np.float64),
        malignancy=float(prediction.malignancy),
        criteria=prediction.criteria if case.criteria else {},
        refer=bool(prediction.refer),
        set_codes=tuple(prediction.set_codes),
        in_domain=bool(prediction.in_domain),
        answered=bool(prediction.in_domain and prediction.confident),
        kind=prediction.kind,
        ita=prediction.ita,
        iou=_lesion_iou(case, np.asarray(prediction.lesion_mask, dtype=bool), note),
        agrees=agrees,
    )


def _lesion_iou(case: Case, predicted: np.ndarray, note: Callable[[str], None]) -> float:
    """`lesion_iou`, or NaN and a note where the mask's file cannot be read."""
    try:
        return lesion_iou(case, predicted)
    except DataError as error:
        note(f"mask {Path(str(case.mask)).name}: {' '.join(str(error).split())}")
        return float("nan")


def lesion_iou(case: Case, predicted: np.ndarray) -> float:
    """IoU on the photo's own pixels, [H, W]; NaN without a mask. A mask file may have another size than its photo.

    Raises DataError for a mask that cannot be read.
    """
    if case.mask is None:
        return float("nan")
    reference = Image.fromarray(read_mask(case.mask)).resize(predicted.shape[::-1], Image.Resampling.NEAREST)
    return metrics.mask_iou(predicted, np.asarray(reference))


# --- the command ------------------------------------------------------------------------------------------------


def log_test_use(path: Path, weights_sha256: str, data: str, split: str | None, n: int, reason: str) -> None:
    """Appends one run on test photos to the ledger, which it starts where there is none yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(LEDGER_COLUMNS)
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        writer.writerow(map(safe_name, [date, weights_sha256, data, split or "all", n, reason]))


def ledger_beside(report: Path) -> Path:
    """The ledger of whoever measures: beside the report that a run writes."""
    return report.parent / LEDGER


def command_line(argv: Sequence[str]) -> str:
    """The command as one would type it again, with the data folder named by $SKINCLIP_DATA where it lies there."""
    root = os.environ.get("SKINCLIP_DATA")
    words = ["python", "-m", "skinclip", *argv]
    if root:
        root = root.rstrip("/")
        words = [f"$SKINCLIP_DATA{word[len(root) :]}" if f"{word}/".startswith(f"{root}/") else word for word in words]
    return " ".join(word if word.startswith("$SKINCLIP_DATA") else shlex.quote(word) for word in words)
