"""The main table: seven diagnoses and malignancy on HAM10000's held-out lesions, whole and by group.

`valid` stands beside `test`, so that a reader sees how far choosing on valid carried. HAM10000's photo size leaks the
class (see `photo_size_auroc`), so the photos of each size are measured apart as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.common import Bench, Measured, malignancy_metrics
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_CODES
from skinclip.data.cases import Case, DataError
from skinclip.evaluation import metrics
from skinclip.reporting import style
from skinclip.reporting.document import Block, Picture, Section, Table

NAME = "diagnosis"
DATA = "ham10000"
SPLITS = ("valid", "test")
MIN_GROUP = 30  # photos from which a group is reported
MIN_MALIGNANT = 10  # malignant photos of a group from which its sensitivity and AUROC are
SPECIFICITIES = (0.90, 0.95)
AGE_BANDS = ((0, 30, "under 30"), (30, 45, "30-44"), (45, 60, "45-59"), (60, 75, "60-74"), (75, 200, "75 and over"))
UNKNOWN = "not given"
_ROC_GRID = np.linspace(0, 1, 51)  # specificities at which the ROC and its band are figured
_MELANOMA = DIAGNOSIS_CODES.index("mel")


@dataclass(frozen=True)
class _Rows:
    """Measured photos with the resamples that all their figures share."""

    m: Measured
    resamples: metrics.GroupBootstrap

    @classmethod
    def of(cls, bench: Bench, m: Measured) -> _Rows:
        return cls(m, metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed))

    @property
    def counts(self) -> dict[str, int]:
        return {
            "n": len(self.m),
            "n_groups": self.resamples.n_groups,
            "n_malignant": int((self.m.malignant == 1).sum()),
        }

    def intervals(self, wanted: Mapping[str, metrics.Metric]) -> dict[str, metrics.Interval | None]:
        return {name: self.resamples.interval(metric) for name, metric in wanted.items()}


def run(bench: Bench, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
    """The block of each of `splits` that the data set has. Raises DataError where it has none of them."""
    blocks = {split: measure(bench, split) for split in splits if bench.cases(DATA, split)}
    if not blocks:
        raise DataError(f"{bench.data} has no cases of {DATA}, split {' or '.join(splits)}")
    return {"meta": bench.meta(data=DATA, splits=list(blocks)), "splits": blocks}


def measure(bench: Bench, split: str) -> dict[str, Any]:
    """Every figure of one split, with what the two figures of the section are drawn from."""
    m = bench.measured(DATA, split)
    rows, side = _Rows.of(bench, m), photo_sides(m.cases)
    malignant, known = m.malignant == 1, m.malignant >= 0
    return {
        "split": split,
        "seed": bench.seed,
        "referral_threshold": bench.assessor.calibrator.referral.threshold,
        "all": whole(rows),
        "photo_sizes": {f"{s} px": whole(_Rows.of(bench, m.where(side == s))) for s in np.unique(side)},
        "photo_size_auroc": rows.resamples.interval(metrics.auroc(-side, malignant, known)),
        "groups": {
            kind: {name: in_short(_Rows.of(bench, m.where(names == name))) for name in _large_enough(names)}
            for kind, names in groupings(m.cases).items()
        },
        "confusion": {
            "argmax p / prior": confusion(m.labels, m.balanced.argmax(axis=1)),
            "argmax p": confusion(m.labels, m.probabilities.argmax(axis=1)),
        },
        "roc": roc(rows),
    }


def photo_sides(cases: Sequence[Case]) -> np.ndarray:
    """[n] shorter side of each photo in pixels, from the file's header."""
    sides = []
    for case in cases:
        with Image.open(case.image) as photo:
            sides.append(min(photo.size))
    return np.array(sides, dtype=np.int64)


def groupings(cases: Sequence[Case]) -> dict[str, np.ndarray]:
    """Kind of group -> [n] the group of each case, by what the clinician is asked for."""
    return {
        "sex": np.array([c.context.sex or UNKNOWN for c in cases], dtype=object),
        "age": np.array([age_band(c.context.age) for c in cases], dtype=object),
        "site": np.array([c.context.site or UNKNOWN for c in cases], dtype=object),
    }


def age_band(age: float | None) -> str:
    """Name of the band that an age lies in, `UNKNOWN` for none."""
    return next((name for low, high, name in AGE_BANDS if age is not None and low <= age < high), UNKNOWN)


def _large_enough(names: np.ndarray) -> list[str]:
    """Names of the groups of at least MIN_GROUP rows; age bands in their order, others largest first."""
    present, counts = np.unique(names.astype(str), return_counts=True)
    order = {name: i for i, (*_, name) in enumerate(AGE_BANDS)}
    kept = [(order.get(str(n), len(order)), -int(k), str(n)) for n, k in zip(present, counts, strict=True)]
    return [name for *_, minus_k, name in sorted(kept) if -minus_k >= MIN_GROUP]


# --- figures ----------------------------------------------------------------------------------------------------------


def whole(rows: _Rows) -> dict[str, Any]:
    """All figures of `rows`, each class's included."""
    m = rows.m
    melanoma = {
        f"melanoma_sensitivity_at_{s:.2f}": metrics.sensitivity_at_specificity(
            m.probabilities[:, _MELANOMA], m.labels == _MELANOMA, m.labels >= 0, s
        )
        for s in SPECIFICITIES
    }
    wanted = {**_overall(m), "auroc_macro": metrics.auroc_macro(m.probabilities, m.labels), **melanoma}
    iou = {"lesion_iou": metrics.mean(m.iou)}
    return {
        **rows.counts,
        **rows.intervals(wanted | malignancy_metrics(m) | iou),
        "classes": _classes(rows),
    }


def in_short(rows: _Rows) -> dict[str, Any]:
    """Figures that a group of patients is large enough for; `n_classes` says over how many the recall is a mean."""
    present = len(np.unique(rows.m.labels[rows.m.labels >= 0]))
    figures = {
        **rows.counts,
        "n_classes": present,
        **rows.intervals(_overall(rows.m) | malignancy_metrics(rows.m)),
    }
    if figures["n_malignant"] < MIN_MALIGNANT:  # resamples of three lesions say nothing of a fourth
        figures |= {"auroc_malignant": None, "sensitivity": None}
    return figures


def _overall(m: Measured) -> dict[str, metrics.Metric]:
    guess = m.probabilities.argmax(axis=1)
    return {
        "balanced_accuracy": metrics.balanced_accuracy(m.labels, m.balanced.argmax(axis=1)),
        "balanced_accuracy_argmax": metrics.balanced_accuracy(m.labels, guess),
        "accuracy": metrics.accuracy(m.labels, guess),
    }


def _classes(rows: _Rows) -> dict[str, dict[str, Any]]:
    m, by_class = rows.m, {}
    for c, code in enumerate(DIAGNOSIS_CODES):
        of_class = m.labels == c
        wanted = {
            "recall": metrics.recall(m.labels, m.balanced.argmax(axis=1), c),
            "recall_argmax": metrics.recall(m.labels, m.probabilities.argmax(axis=1), c),
            "auroc": metrics.auroc(m.probabilities[:, c], of_class, m.labels >= 0),
        }
        by_class[code] = {
            "n": int(of_class.sum()),
            "n_groups": len(np.unique(m.groups[of_class])),
            **rows.intervals(wanted),
        }
    return by_class


def confusion(labels: np.ndarray, predicted: np.ndarray) -> list[list[int]]:
    """[C, C] counts, true class by row, in the order of `DIAGNOSIS_CODES`; rows labelled -1 are left out."""
    counts = np.zeros((len(DIAGNOSIS_CODES),) * 2, dtype=np.int64)
    np.add.at(counts, (labels[labels >= 0], predicted[labels >= 0]), 1)
    return counts.tolist()


def roc(rows: _Rows) -> list[dict[str, Any]]:
    """Sensitivity for malignancy, with its interval, at each of a grid of specificities."""
    m = rows.m
    points = []
    for specificity in _ROC_GRID:
        metric = metrics.sensitivity_at_specificity(
            m.malignancy, m.malignant == 1, m.malignant >= 0, float(specificity)
        )
        points.append({"specificity": float(specificity), "sensitivity": rows.resamples.interval(metric)})
    return points


# --- the report's section ---------------------------------------------------------------------------------------------

_NAMES = {
    "balanced_accuracy": "balanced accuracy (argmax p / prior)",
    "balanced_accuracy_argmax": "balanced accuracy (argmax p)",
    "accuracy": "accuracy (argmax p)",
    "auroc_macro": "macro AUROC, one against the rest",
    "melanoma_sensitivity_at_0.90": "melanoma sensitivity at 0.90 specificity",
    "melanoma_sensitivity_at_0.95": "melanoma sensitivity at 0.95 specificity",
    "auroc_malignant": "AUROC, malignant against benign",
    "sensitivity": "sensitivity for malignancy at the referral threshold",
    "specificity": "specificity at the referral threshold",
    "lesion_iou": "lesion mask, mean IoU",
}


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    blocks = result["splits"]
    last = blocks["test"] if "test" in blocks else next(reversed(blocks.values()))
    meta, split = result["meta"], last["split"]
    parts: list[Block | str] = [
        f"HAM10000, split by lesion; 95 % intervals over {meta['resamples']} bootstrap resamples of lesions, seed "
        f"{meta['seed']}, weights `{meta['weights_sha256'][:12]}`. Everything was chosen on `train`, `calib` and "
        "`valid`; how far `valid` lies above `test` is what choosing on it flattered.",
        _main_table(blocks),
        f"### Each diagnosis, `{split}`",
        _class_table(last["all"]["classes"]),
        _few(last["all"]["classes"]),
        _recall_chart(last),
        _confusion_chart(last),
        "### Malignancy",
        f"The referral threshold, {last['referral_threshold']:.3f}, was set on `calib`.",
        _roc_chart(last),
        f"### Photo size, `{split}`",
        _size_text(last),
        _size_table(last),
        f"### Sex, age and body site, `{split}`",
        f"Groups of at least {MIN_GROUP} photos. Balanced accuracy is a mean over the diagnoses that a group has, so "
        "it compares between groups only where those are the same number. Sensitivity and AUROC need at least "
        f"{MIN_MALIGNANT} malignant photos.",
        _group_table(last["groups"]),
    ]
    return Section.of("Diagnosis", parts)


def _main_table(blocks: Mapping[str, Any]) -> Table:
    header = ["figure", *(f"{split}" for split in blocks)]
    counts = [
        [text, *(str(block["all"][key]) for block in blocks.values())]
        for key, text in (("n", "photos"), ("n_groups", "lesions"), ("n_malignant", "malignant photos"))
    ]
    rows = [[text, *(with_interval(b["all"].get(key)) for b in blocks.values())] for key, text in _NAMES.items()]
    return table(header, counts + rows)


def _class_table(classes: Mapping[str, Any]) -> Table:
    header = ["diagnosis", "photos", "lesions", "recall (argmax p / prior)", "recall (argmax p)", "AUROC"]
    rows = [
        [
            f"{d.name} (`{d.code}`)",
            c["n"],
            c["n_groups"],
            *(with_interval(c[k]) for k in ("recall", "recall_argmax", "auroc")),
        ]
        for d in DIAGNOSES
        if (c := classes[d.code])
    ]
    return table(header, rows)


def _few(classes: Mapping[str, Any]) -> str:
    few = [code for code, c in classes.items() if 0 < c["n_groups"] < MIN_GROUP]
    named = ", ".join(f"`{code}`" for code in few)
    return f"Fewer than {MIN_GROUP} lesions each, too few to steer by: {named}." if few else ""


def _size_text(block: Mapping[str, Any]) -> str:
    leak = with_interval(block["photo_size_auroc"])
    return (
        "In HAM10000 lesions with several photos are malignant more often, and in this copy the photos differ in "
        f"size. The photo's side alone, read as smaller for malignant, has an AUROC of {leak}: away from 0.5 it "
        "is a shortcut. Figures that hold on the photos of one size do not rest on it."
    )


def _size_table(block: Mapping[str, Any]) -> Table:
    columns = {"all": block["all"], **block["photo_sizes"]}
    counts = [
        ["photos", *(c["n"] for c in columns.values())],
        ["malignant", *(c["n_malignant"] for c in columns.values())],
    ]
    rows = [[text, *(with_interval(c.get(key)) for c in columns.values())] for key, text in _NAMES.items()]
    return table(["figure", *columns], counts + rows)


def _group_table(groups: Mapping[str, Any]) -> Table:
    keys = ("balanced_accuracy", "accuracy", "auroc_malignant", "sensitivity", "specificity")
    header = ["group", "photos", "malignant", "diagnoses", *(k.replace("_", " ") for k in keys)]
    rows = [
        [f"{kind}: {name}", g["n"], g["n_malignant"], g["n_classes"], *(with_interval(g[k], 2) for k in keys)]
        for kind, by_name in groups.items()
        for name, g in by_name.items()
    ]
    return table(header, rows)


@style.styled
def _recall_chart(block: Mapping[str, Any]) -> Picture:
    figure, (axes,) = style.charts(width=6.4, height=3.0)
    classes, at = block["all"]["classes"], np.arange(len(DIAGNOSIS_CODES))
    for shift, key, colour, text in (
        (-0.2, "recall", style.BLUE, "argmax p / prior"),
        (0.2, "recall_argmax", style.ORANGE, "argmax p"),
    ):
        values, errors = style.whiskers([classes[code][key] for code in DIAGNOSIS_CODES])
        axes.bar(at + shift, values, 0.38, color=colour, label=text)
        axes.errorbar(at + shift, values, errors, fmt="none", ecolor=style.INK, elinewidth=0.8, capsize=2)
    axes.set_xticks(at, [f"{code}\nn={classes[code]['n']}" for code in DIAGNOSIS_CODES])
    axes.set(ylim=(0, 1.02), ylabel="recall")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2)
    return picture(figure, "diagnosis_recall", "Recall of each diagnosis under both decision rules")


@style.styled
def _confusion_chart(block: Mapping[str, Any]) -> Picture:
    rules = block["confusion"]
    figure, axes = style.charts(len(rules), width=4.4, height=4.4)
    for ax, (rule, counts) in zip(axes, rules.items(), strict=True):
        n = np.array(counts)
        shares = n / np.maximum(n.sum(axis=1, keepdims=True), 1)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (i, j), share in np.ndenumerate(shares):
            colour = "white" if share > 0.55 else style.INK
            ax.text(j, i, f"{n[i, j]}\n{share:.0%}", ha="center", va="center", fontsize=6.5, color=colour)
        ax.set_xticks(range(len(n)), DIAGNOSIS_CODES)
        ax.set_yticks(range(len(n)), DIAGNOSIS_CODES)
        ax.set(title=rule, xlabel="predicted", ylabel="true diagnosis")
        ax.spines[:].set_visible(False)
    return picture(figure, "diagnosis_confusion", "Confusion matrices: photos, and shares of each row")


@style.styled
def _roc_chart(block: Mapping[str, Any]) -> Picture:
    figure, (axes,) = style.charts(width=4.4, height=4.2)
    points = [p for p in block["roc"] if p["sensitivity"]]
    x = [1 - p["specificity"] for p in points]
    y = [p["sensitivity"]["value"] for p in points]
    if all(p["sensitivity"]["low"] is not None for p in points):
        low, high = ([p["sensitivity"][end] for p in points] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=style.SKY, alpha=0.35, linewidth=0, label="95 % interval")
    area = with_interval(block["all"]["auroc_malignant"])
    axes.plot(x, y, color=style.BLUE, label=f"AUROC {area}")
    sensitivity, specificity = block["all"]["sensitivity"], block["all"]["specificity"]
    if sensitivity and specificity:
        (sens,), up = style.whiskers([sensitivity])
        (spec,), across = style.whiskers([specificity])
        axes.errorbar([1 - spec], [sens], up, across[::-1], fmt="o", color=style.RED, ms=5, label="referral threshold")
    axes.plot([0, 1], [0, 1], color=style.PALE, linewidth=0.8, zorder=0)
    style.unit_axes(axes, "1 - specificity", "sensitivity for malignancy")
    axes.legend(loc="lower right")
    return picture(figure, "diagnosis_roc", "ROC of malignant against benign with the referral threshold")
