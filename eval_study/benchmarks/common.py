"""Common ground of the benchmarks: data, the model under test, its predictions (made once), and kept results."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from skinclip.calibration.calibrated_model import CalibratedOutput
from skinclip.calibration.calibrator import MALIGNANT
from skinclip.core.assessment import Context
from skinclip.core.config import TrainConfig
from skinclip.core.paths import ASSETS
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES
from skinclip.core.whole_files import whole_file
from skinclip.data.cases import Case, DataError
from skinclip.data.readers import discover
from skinclip.data.splits import known_duplicates, without_shared
from skinclip.evaluation import metrics
from skinclip.evaluation.run import LEDGER, lesion_iou, log_test_use
from skinclip.evaluation.scores import cluster, scored_codes
from skinclip.imaging.photo import LesionImage, load_photo
from skinclip.model.checkpoint import weights_sha256
from skinclip.model.skinclip_vl import NO_LOGIT
from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.findings import photo_mask
from skinclip.training.photo_sets import criterion_labels, diagnosis_labels
from skinclip.training.recalibrate import recipe_beside

BATCH = 32


@dataclass(frozen=True)
class Measured:
    """The model's answers to n photos of one split; unlabelled is -1.

    Attributes:
        cases: n cases.
        labels: [n] number of the true diagnosis.
        malignant: [n] 1, 0, or -1.
        criteria: [n, Q] index into `Criterion.labels`.
        groups: [n] patient or lesion, resampled as one.
        logits: [n, C] raw; probabilities [n, C] calibrated, at natural prevalence; balanced [n, C] p / prior.
        scores: [n, K] scores of the criteria's states, before calibration.
        embeddings: [n, E] photo embeddings, unit length.
        style: [n, S] what the shift score reads beside the embedding; see `Perception`.
        shift: [n] shift score, 0-1.
        inside: [n, C] bool, members of the prediction set.
        refer: [n] bool.
        iou: [n] of predicted and reference lesion mask, NaN without one.
    """

    cases: list[Case]
    labels: np.ndarray
    malignant: np.ndarray
    criteria: np.ndarray
    groups: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    balanced: np.ndarray
    scores: np.ndarray
    embeddings: np.ndarray
    style: np.ndarray
    shift: np.ndarray
    inside: np.ndarray
    refer: np.ndarray
    iou: np.ndarray

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def malignancy(self) -> np.ndarray:
        """[n] P(malignant)."""
        return self.probabilities[:, MALIGNANT].sum(axis=1)

    def where(self, chosen: np.ndarray) -> Measured:
        """The rows where `chosen` [n] bool holds."""
        index = np.flatnonzero(chosen)
        rest = {n: getattr(self, n)[index] for n in self.__dataclass_fields__ if n != "cases"}
        return Measured([self.cases[i] for i in index], **rest)


_ARRAYS = ("logits", "probabilities", "balanced", "scores", "embeddings", "style", "shift", "inside", "refer", "iou")


@dataclass
class Bench:
    """One run of the benchmarks.

    Attributes:
        data: folder with one subfolder per data set.
        out: where results, report and figures go.
        work: where predictions, features and training checkpoints are kept; not part of the project.
        reason: why test photos are used, for the ledger.
        n_boot: bootstrap resamples.
    """

    data: Path
    out: Path
    work: Path
    weights: Path | None = None
    reason: str = ""
    command: str = ""
    seed: int = 0
    n_boot: int = 1000
    _measured: dict[tuple[str, str], Measured] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        """File in which each use of test photos is noted, beside the results."""
        return self.out / LEDGER

    @cached_property
    def assessor(self) -> Assessor:
        """The model under test."""
        return Assessor.load("mini", self.weights)

    @cached_property
    def sha(self) -> str:
        """SHA-256 of the model's weights."""
        return weights_sha256(self.weights or ASSETS / "mini")

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """Thresholds of the findings, which the hash of the weights does not cover."""
        return json.loads(((self.weights or ASSETS / "mini") / "findings.json").read_text())

    @cached_property
    def recipe(self) -> TrainConfig:
        """The recipe that the model was trained by, the usual one where its checkpoint keeps none."""
        return recipe_beside(self.weights or ASSETS / "mini")

    @cached_property
    def tables(self) -> dict[str, Any]:
        """Name -> table of each data set in the folder `data`."""
        return discover(self.data)

    def cases(self, name: str, *splits: str) -> list[Case]:
        """Cases of the named splits of a data set; all where no split is named; none where the set is not there.

        Lesions that another data set holds too are left out: the model may have learnt from them there.
        """
        if name not in self.tables:
            return []
        table = self.tables[name]
        return without_shared(table.split(*splits) if splits else table.cases, known_duplicates(self.data))

    def measured(self, name: str, split: str | None) -> Measured:
        """The predictions on a split, made once for each weights hash. Raises DataError where it has no case.

        A test split is noted in the ledger before its first photo is predicted.
        """
        key = (name, split or "all")
        if key not in self._measured:
            cases = self.cases(name, *([split] if split else []))
            if not cases:
                raise DataError(f"{self.data} has no cases of {name}, split {split or 'all'}")
            path = self.work / "predictions" / f"{name}-{split or 'all'}-{self.sha[:12]}-{fingerprint(cases)}.npz"
            if not path.exists():
                self.touch_test(name, cases)
                save_arrays(path, predict(self.assessor, cases))
            self._measured[key] = with_labels(cases, dict(np.load(path)))
        return self._measured[key]

    def interval(self, metric: metrics.Metric, groups: Sequence[str]) -> metrics.Interval | None:
        """A metric with its 95 % bootstrap interval over `groups`."""
        return metrics.GroupBootstrap(groups, self.n_boot, self.seed).interval(metric)

    def touch_test(self, name: str, cases: Sequence[Case]) -> None:
        """Notes in the ledger that test photos among `cases` are about to be read."""
        tested = [c for c in cases if c.split == "test"]
        if tested:
            log_test_use(self.ledger, self.sha, name, "test", len(tested), self.reason)

    def meta(self, **more: Any) -> dict[str, Any]:
        """The record of how a result was made, part of each result."""
        return {
            "date": datetime.date.today().isoformat(),
            "command": self.command,
            "weights_sha256": self.sha,
            "seed": self.seed,
            "resamples": self.n_boot,
            "threads": torch.get_num_threads(),
            **more,
        }

    def save(self, name: str, result: dict[str, Any]) -> Path:
        """Writes a result as NAME.json and returns its path."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{name}.json"
        path.write_text(json.dumps(finite(result), indent=1, allow_nan=False) + "\n")
        return path

    def forget(self, name: str) -> None:
        """Removes the result of an earlier run."""
        (self.out / f"{name}.json").unlink(missing_ok=True)

    def kept(self, name: str) -> dict[str, Any] | None:
        """The result of an earlier run with these weights, and these thresholds where it depends on them, or None."""
        path = self.out / f"{name}.json"
        if not path.exists():
            return None
        result = json.loads(path.read_text())
        meta = result.get("meta", {})
        same = meta.get("weights_sha256") == self.sha
        return result if same and meta.get("thresholds") in (None, finite(self.thresholds)) else None


def finite(value: Any) -> Any:
    """`value` with numpy numbers as Python's, rounded to 6 digits, and NaN as None, ready for JSON."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [finite(v) for v in value]
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, (np.integer, int)):
        return int(value)
    if isinstance(value, (np.floating, float)):
        return round(float(value), 6) if math.isfinite(value) else None
    return value


def fingerprint(cases: Sequence[Case]) -> str:
    """Eight hex digits that tell two lists of cases, their contexts included, apart."""
    names = "\n".join(f"{c.source}/{c.image_id}/{c.context}" for c in cases)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the arrays into one file, so that a kill leaves nothing half."""
    with whole_file(path) as part:
        np.savez(part, **arrays)


def labels_of(cases: Sequence[Case]) -> np.ndarray:
    """[n] number of the diagnosis, -1 where it is not labelled."""
    return diagnosis_labels(cases).numpy()


def malignant_of(cases: Sequence[Case]) -> np.ndarray:
    """[n] 1, 0, or -1 where it is not labelled."""
    return np.array([-1 if c.malignant is None else int(c.malignant) for c in cases], dtype=np.int64)


def criteria_of(cases: Sequence[Case]) -> np.ndarray:
    """[n, Q] number of each criterion's state, 0 is absent, -1 where it is not labelled."""
    return np.array([criterion_labels(c) for c in cases], dtype=np.int64).reshape(len(cases), len(CRITERIA))


def with_labels(cases: list[Case], arrays: dict[str, np.ndarray]) -> Measured:
    """Predictions with the cases' labels and groups beside them."""
    groups = np.array([cluster(c) for c in cases])
    kept = on_scored({name: arrays[name] for name in _ARRAYS}, scored_codes(cases))
    return Measured(cases, labels_of(cases), malignant_of(cases), criteria_of(cases), groups, **kept)


def on_scored(arrays: Mapping[str, np.ndarray], codes: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays with answers for `codes` alone, in the columns of `vocabulary.DIAGNOSIS_CODES`: probabilities
    renormalised, other logits and memberships gone."""
    p = {name: _renormalised(arrays[name], codes) for name in ("probabilities", "balanced")}
    inside = arrays["inside"] & ~_gone(codes)
    return {**arrays, **p, "logits": scored_logits(arrays["logits"], codes), "inside": inside}


def scored_logits(logits: np.ndarray, codes: Collection[str]) -> np.ndarray:
    """Logits [n, C], `NO_LOGIT` for what is not scored or not known: a fit needs finite numbers."""
    return np.where(_gone(codes) | np.isneginf(logits), NO_LOGIT, logits)


def _gone(codes: Collection[str]) -> np.ndarray:
    """[C] bool, the diagnoses that are not scored."""
    return np.array([code not in codes for code in DIAGNOSIS_CODES])


def _renormalised(p: np.ndarray, codes: Collection[str]) -> np.ndarray:
    """Probabilities [n, C] of `codes` alone; to the last digit as they were where none lies elsewhere."""
    kept = np.where(_gone(codes), 0.0, p)
    whole = ~(p[:, _gone(codes)] != 0).any(axis=1, keepdims=True)
    return np.where(whole, kept, kept / np.maximum(kept.sum(axis=1, keepdims=True), 1e-300))


def predict(
    assessor: Assessor, cases: Sequence[Case], photos: Sequence[LesionImage] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of `Measured` for `cases`, read from their files or given as `photos` in the same order.

    Raises PhotoError for a photo that cannot be read: the numbers of a benchmark leave none out.
    """
    rows: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
    for start in tqdm(range(0, len(cases), BATCH), desc="predicting", mininterval=10):
        part = cases[start : start + BATCH]
        loaded = [load_photo(c.image) for c in part] if photos is None else list(photos[start : start + BATCH])
        output = assessor.forward(loaded, [c.context for c in part])
        for name, values in zip(_ARRAYS, _columns(output, part, loaded), strict=True):
            rows[name].append(np.asarray(values))
    return {name: np.concatenate(values) for name, values in rows.items()}


def _columns(output: CalibratedOutput, cases: Sequence[Case], photos: Sequence[LesionImage]) -> tuple[np.ndarray, ...]:
    """The arrays named by `_ARRAYS` of one batch."""
    t = output.calibrated
    inside = np.array([[code in s for code in DIAGNOSIS_CODES] for s in t.sets])
    return (
        *(output.logits.double().numpy(), t.probabilities, t.balanced, output.evidence.criterion_scores.numpy()),
        *(output.tokens.embedding.numpy(), output.tokens.style.numpy()),
        *(t.shift_score, inside, t.refer, _lesion_ious(output, cases, photos)),
    )


def _lesion_ious(output: CalibratedOutput, cases: Sequence[Case], photos: Sequence[LesionImage]) -> np.ndarray:
    """[n] IoU of each predicted and reference lesion mask, NaN without a reference."""
    masks = [
        photo_mask(logits, window, photo.height, photo.width)
        for logits, window, photo in zip(output.evidence.mask_logits, output.windows, photos, strict=True)
    ]
    return np.array([lesion_iou(case, mask) for case, mask in zip(cases, masks, strict=True)])


def diagnosis_metrics(p: np.ndarray, labels: np.ndarray, balanced: np.ndarray) -> dict[str, metrics.Metric]:
    """Metrics of probabilities `p` [n, C]; `balanced` [n] is the class that p / prior decides for."""
    guess = p.argmax(axis=1)
    return {
        "accuracy": metrics.accuracy(labels, guess),
        "balanced_accuracy": metrics.balanced_accuracy(labels, balanced),
        "balanced_accuracy_argmax": metrics.balanced_accuracy(labels, guess),
        "auroc_macro": metrics.auroc_macro(p, labels),
        "ece": metrics.ece(p, labels),
        "brier": metrics.brier(p, labels),
        "nll": metrics.nll(p, labels),
    }


def malignancy_metrics(m: Measured, malignant: np.ndarray | None = None) -> dict[str, metrics.Metric]:
    """Metrics of P(malignant) and of the referral, for labels `malignant` [n] 1, 0 or -1; None is the set's own."""
    malignant = m.malignant if malignant is None else malignant
    return {
        "auroc_malignant": metrics.auroc(m.malignancy, malignant == 1, malignant >= 0),
        "sensitivity": metrics.share(m.refer, malignant == 1),
        "specificity": metrics.share(~m.refer, malignant == 0),
    }


def drawn_case(image_id: str, context: Context | None = None) -> Case:
    """A case without any label, for photos that come from no data set."""
    return Case(Path(image_id), image_id, "drawn", image_id, context=context or Context())
