"""What is left of the answers on photos of another kind, and does the shift score tell that they are?

Held against HAM10000's `test` photos stand: dermoscopy of another source (ISIC 2017), smartphone photos (PAD-UFES-20),
every further set whose cases all are for testing, pictures without skin, and HAM10000 `valid` photos corrupted by kind
and severity. A set that labels fewer than the seven diagnoses is measured by the seven-way rule and by the rule
restricted to its own. Abstaining is leaving out what the shift score calls out of domain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from eval_study.benchmarks import corruptions, figures, pictures
from eval_study.benchmarks.common import (
    Bench,
    Measured,
    diagnosis_metrics,
    fingerprint,
    malignancy_metrics,
    predict,
    save_arrays,
    with_labels,
)
from skinclip.calibration.calibrator import MALIGNANT
from skinclip.calibration.shift import IN_DOMAIN_SCORE
from skinclip.core.vocabulary import DIAGNOSIS_CODES
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
NO_GROUP = "not given"
MIN_GROUP = 30  # photos below which a group shows nothing
MAX_WIDTH = 0.25  # width of an accuracy's interval above which it shows nothing
DARK = ("FST5", "FST6")
TITLES = {DATA: "HAM10000", OFFICIAL: "ISIC 2017, other dermoscopy", "pad_ufes": "PAD-UFES-20, smartphone"}
_LEVELS = np.linspace(0, 1, 101)

Wanted = Mapping[str, metrics.Metric]
Found = dict[str, Any]


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
    pictures.located()  # what is missing is told before hours of measuring
    own = bench.measured(DATA, reference)
    sets = {DATA: {**block(bench, own, None), "split": reference}}
    for name, split in other_sets(bench, reference).items():
        m = bench.measured(name, split)
        found = block(bench, m, own)
        sets[name] = {**found, "split": split or "all", "groups": by_group(bench, m, own)}
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
    found: dict[str, str | None] = {}
    for name, table in bench.tables.items():
        splits = {case.split for case in table.cases}
        if name == DATA or not splits:
            continue
        if name == OFFICIAL and official_split in splits:
            found[name] = official_split
        elif "shift" in splits:
            found[name] = "shift"
        elif splits <= {"test", None}:
            found[name] = None
    return found


# --- figures of one set -----------------------------------------------------------------------------------------------


def block(bench: Bench, m: Measured, reference: Measured | None) -> Found:
    """Every figure of one set; `reference` is what its shift score is held against, None for the reference itself."""
    resamples = metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed)
    present = np.unique(m.labels[m.labels >= 0])
    labelled = m.labels >= 0
    floor = metrics.ece_noise_floor(m.probabilities[labelled], bench.n_boot, bench.seed)

    def intervals(wanted: Wanted) -> Found:
        return {name: resamples.interval(metric) for name, metric in wanted.items()}

    restricted = None
    if 1 < len(present) < len(DIAGNOSIS_CODES):
        p, labels, balanced = to_classes(m, present)
        restricted = intervals(diagnosis_metrics(p, labels, balanced.argmax(axis=1)))
    return {
        "n": len(m),
        "n_groups": resamples.n_groups,
        "n_labelled": int(labelled.sum()),
        "n_malignant": int((m.malignant == 1).sum()),
        "n_benign": int((m.malignant == 0).sum()),
        "seed": bench.seed,
        "classes": [DIAGNOSIS_CODES[c] for c in present],
        **intervals(diagnosis_metrics(m.probabilities, m.labels, m.balanced.argmax(axis=1))),
        "ece_noise_floor": {"value": floor["mean"], "low": floor["low"], "high": floor["high"]},
        **intervals(malignancy_metrics(m)),
        "restricted": restricted,
        "malignant_by_class": _malignant_by_class(m, intervals),
        "shift": shift_figures(bench, m, reference),
        "abstaining": intervals(abstaining(m, ~out_of_domain(bench, m))),
        "scores": np.quantile(m.shift, _LEVELS).tolist(),
    }


def to_classes(m: Measured, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities over the classes `present` [P] alone, labels by place in `present`, and p / prior of those classes.

    The page would not know which diagnoses a set is made of: this tells how much of the error is confusion with others.
    """
    p = m.probabilities[:, present]
    place = np.full(len(DIAGNOSIS_CODES) + 1, -1)  # the last one is for the label -1
    place[present] = np.arange(len(present))
    return p / np.maximum(p.sum(axis=1, keepdims=True), 1e-12), place[m.labels], m.balanced[:, present]


def _malignant_by_class(m: Measured, intervals: Callable[[Wanted], Found]) -> Found | None:
    """Figures with malignancy as the model counts it, by diagnosis, where a set's own labels differ from that."""
    by_class = np.where(m.labels >= 0, MALIGNANT[m.labels].astype(np.int64), m.malignant)
    differs = (m.labels >= 0) & (m.malignant >= 0) & (by_class != m.malignant)
    if not differs.any():
        return None
    codes = [DIAGNOSIS_CODES[c] for c in np.unique(m.labels[differs])]
    return {"n_differs": int(differs.sum()), "classes": codes, **intervals(malignancy_metrics(m, by_class))}


def out_of_domain(bench: Bench, m: Measured) -> np.ndarray:
    """[n] bool."""
    return ~bench.assessor.calibrator.shift.in_domain(m.shift)


def shift_figures(bench: Bench, m: Measured, reference: Measured | None) -> Found:
    """Share called out of domain, and the AUROC of the shift score against `reference`; groups of both are resampled.

    Photos of one lesion in both sets are resampled together.
    """
    called = bench.interval(metrics.mean(out_of_domain(bench, m).astype(float)), list(m.groups))
    if reference is None:
        return {"out_of_domain": called, "auroc": None}
    scores = np.concatenate([m.shift, reference.shift])
    shifted = np.arange(len(scores)) < len(m)
    auroc = bench.interval(metrics.auroc(scores, shifted), [*m.groups, *reference.groups])
    if auroc and len(set(m.groups)) < 2:  # the reference's photos alone would make up the interval
        auroc |= {"low": None, "high": None}
    return {"out_of_domain": called, "auroc": auroc}


def abstaining(m: Measured, kept: np.ndarray) -> dict[str, metrics.Metric]:
    """The share `kept` [n] bool, and accuracy, sensitivity and specificity of those kept, with the gain over all."""
    right = m.probabilities.argmax(axis=1) == m.labels
    of = {
        "accuracy": (right, m.labels >= 0),
        "sensitivity": (m.refer, m.malignant == 1),
        "specificity": (~m.refer, m.malignant == 0),
    }
    found = {"kept": metrics.mean(kept.astype(float))}
    for name, (hits, among) in of.items():
        found[f"{name}_kept"] = metrics.share(hits, among & kept)
        found[f"{name}_gain"] = metrics.difference(metrics.share(hits, among & kept), metrics.share(hits, among))
    return found


def by_group(bench: Bench, m: Measured, reference: Measured) -> dict[str, Found] | None:
    """The figures of each group of a set (Fitzpatrick types of PAD-UFES-20), None where it has none."""
    names = np.array([case.group or NO_GROUP for case in m.cases], dtype=object)
    found = sorted(set(names) - {NO_GROUP})
    if not found:
        return None
    if (names == NO_GROUP).any():
        found.append(NO_GROUP)
    return {name: block(bench, m.where(names == name), reference) for name in found}


# --- pictures and corruptions -----------------------------------------------------------------------------------------


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
    found = []
    for case in cases:
        with Image.open(case.image) as photo:
            found.append((photo.height, photo.width))
    return found


def _not_skin(bench: Bench, own: Measured) -> Found:
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
        "scores": np.quantile(m.shift, _LEVELS).tolist(),
        "photographs": photographs,
    }


def _corruptions(
    bench: Bench, own: Measured, sample: int, kinds: Sequence[str], severities: Sequence[int]
) -> Found | None:
    everything = bench.cases(DATA, CORRUPTED)
    if not everything:
        return None
    chosen = np.sort(np.random.default_rng(bench.seed).permutation(len(everything))[:sample])
    plain = bench.measured(DATA, CORRUPTED).where(np.isin(np.arange(len(everything)), chosen))
    found = {
        kind: {str(severity): _corrupted(bench, plain, own, kind, severity) for severity in severities}
        for kind in kinds
    }
    about = {kind: {"parameter": (c := corruptions.KINDS[kind]).parameter, "source": c.source} for kind in kinds}
    return {
        "split": CORRUPTED,
        "n": len(plain),
        "seed": bench.seed,
        UNCORRUPTED: {**block(bench, plain, own), "lesion_iou": _iou(bench, plain)},
        "kinds": found,
        "about": about,
    }


def _corrupted(bench: Bench, plain: Measured, own: Measured, kind: str, severity: int) -> Found:
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


# --- section ----------------------------------------------------------------------------------------------------------


def section(result: dict[str, Any], folder: Path) -> str:
    meta, sets = result["meta"], result["sets"]
    text = [
        "## Shift: photos of another kind",
        "",
        f"Held against HAM10000 `{meta['reference']}`. Out of domain is a shift score above "
        f"{result['in_domain_score']}: by design one photo in a hundred of the model's own kind. AUROC of the shift "
        f"score: how often a shifted photo scores above one of the reference. Seed {meta['seed']}.",
        "",
        _diagnosis_table(sets),
        "",
        _restricted_table(sets),
        "",
        "What the referral does, and what abstaining on photos out of domain buys (gain: those kept less all).",
        "",
        _trust_table(sets),
        "",
        *_malignancy_notes(sets),
        *_group_text(sets),
        *_corruption_text(result["corruptions"]),
        *_not_skin_text(result["not_skin"]),
        _score_chart(result, folder),
    ]
    if result["corruptions"]:
        text += ["", _corruption_chart(result["corruptions"], folder)]
    return "\n".join(text)


def _title(name: str, found: Mapping[str, Any]) -> str:
    return f"{TITLES.get(name, name)}, `{found['split']}`"


def _counted(found: Mapping[str, Any]) -> list[str]:
    return [str(found["n"]), f"{found['n_malignant']} / {found['n_benign']}"]


_DIAGNOSIS_HEADER = (
    *("balanced accuracy (p / prior)", "balanced accuracy (argmax p)", "accuracy", "macro AUROC"),
    *("ECE", "Brier", "NLL"),
)
_DIAGNOSIS_KEYS = (
    *("balanced_accuracy", "balanced_accuracy_argmax", "accuracy", "auroc_macro"),
    *("ece", "brier", "nll"),
)


def _diagnosis_table(sets: Mapping[str, Any]) -> str:
    header = ["set", "n", "malignant / benign", *_DIAGNOSIS_HEADER, "ECE of a calibrated model"]
    rows = [
        [
            _title(name, found),
            *_counted(found),
            *(figures.shown(found[key]) for key in (*_DIAGNOSIS_KEYS, "ece_noise_floor")),
        ]
        for name, found in sets.items()
    ]
    return figures.table(header, rows)


def _restricted_table(sets: Mapping[str, Any]) -> str:
    rows = [
        [
            _title(name, found),
            ", ".join(found["classes"]),
            str(found["n_labelled"]),
            *(figures.shown(found["restricted"][key]) for key in _DIAGNOSIS_KEYS),
        ]
        for name, found in sets.items()
        if found["restricted"]
    ]
    if not rows:
        return "Every set labels all seven diagnoses."
    said = "Probabilities restricted to the diagnoses that the set labels, renormalised:"
    return f"{said}\n\n" + figures.table(["set", "diagnoses", "n", *_DIAGNOSIS_HEADER], rows)


_TRUST_HEADER = (
    *("malignant AUROC", "sensitivity", "specificity", "out of domain", "shift AUROC", "kept"),
    *("accuracy of kept", "accuracy gain", "sensitivity of kept", "sensitivity gain", "specificity gain"),
)


def _trust_cells(found: Mapping[str, Any]) -> list[str]:
    spared = found["abstaining"]
    plain = [found["auroc_malignant"], found["sensitivity"], found["specificity"]]
    plain += [found["shift"]["out_of_domain"], found["shift"]["auroc"], spared["kept"]]
    return [
        *(figures.shown(f) for f in plain),
        figures.shown(spared["accuracy_kept"]),
        figures.shown(spared["accuracy_gain"], sign=True),
        figures.shown(spared["sensitivity_kept"]),
        figures.shown(spared["sensitivity_gain"], sign=True),
        figures.shown(spared["specificity_gain"], sign=True),
    ]


def _trust_table(sets: Mapping[str, Any]) -> str:
    rows = [[_title(name, found), *_trust_cells(found)] for name, found in sets.items()]
    return figures.table(["set", *_TRUST_HEADER], rows)


def _malignancy_notes(sets: Mapping[str, Any]) -> list[str]:
    """Where a set counts malignancy otherwise than the model: said, and figured the model's way as well."""
    text = []
    for name, found in sets.items():
        other = found["malignant_by_class"]
        if other:
            text += [
                f"{_title(name, found)} counts {other['n_differs']} photos of {', '.join(other['classes'])} otherwise "
                "than the model, whose P(malignant) sums mel, bcc and akiec. By the model's count: malignant AUROC "
                f"{figures.shown(other['auroc_malignant'])}, sensitivity {figures.shown(other['sensitivity'])}, "
                f"specificity {figures.shown(other['specificity'])}.",
                "",
            ]
    return text


def _group_text(sets: Mapping[str, Any]) -> list[str]:
    text = []
    for name, found in sets.items():
        groups = found.get("groups")
        if not groups:
            continue
        rows = [
            [
                group,
                *_counted(g),
                figures.shown(g["accuracy"]),
                figures.shown(g["balanced_accuracy"]),
                figures.shown(g["ece"]),
                figures.shown(g["brier"]),
                *_trust_cells(g),
            ]
            for group, g in groups.items()
        ]
        header = ["type", "n", "malignant / benign", "accuracy", "balanced accuracy (p / prior)", "ECE", "Brier"]
        header += _TRUST_HEADER
        text += [f"### {TITLES.get(name, name)} by Fitzpatrick type", "", figures.table(header, rows), ""]
        text += [too_few(groups), ""]
    return text


def too_few(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """In plain words, which groups have too few photos to show anything, and what cannot be figured at all."""
    typed = {name: g for name, g in groups.items() if name != NO_GROUP}
    small = {name: g for name, g in typed.items() if shows_nothing(g)}
    said = []
    if small:
        listed = "; ".join(f"{name} ({_photos(g['n'])}, {_width(g['accuracy'])})" for name, g in small.items())
        said.append(
            f"Too few photos to show anything: {listed}. A difference between these types and the others could be "
            "large and would not be seen here."
        )
    large = [f"{name} ({_photos(g['n'])}, {_width(g['accuracy'])})" for name, g in typed.items() if name not in small]
    if large:
        said.append(f"Enough for a rough figure: {'; '.join(large)}.")
    dark = sum(g["n"] for name, g in typed.items() if name in DARK)
    if dark < MIN_GROUP and any(name.startswith("FST") for name in typed):
        said.append(
            f"Of types V and VI there are {_photos(dark)} together: nothing can be said of how the model does on dark "
            "skin."
        )
    unknown = groups.get(NO_GROUP)
    if unknown:
        said.append(f"{_photos(unknown['n'])} have no type, {unknown['n_malignant']} of them malignant.")
    return " ".join(said)


def shows_nothing(group: Mapping[str, Any]) -> bool:
    """Fewer than MIN_GROUP photos, or an accuracy whose interval is wider than MAX_WIDTH or not to be had."""
    accuracy = group["accuracy"]
    if group["n"] < MIN_GROUP or accuracy is None or accuracy["low"] is None:
        return True
    return bool(accuracy["high"] - accuracy["low"] > MAX_WIDTH)


def _photos(n: int) -> str:
    return f"{n} photo" if n == 1 else f"{n} photos"


def _width(accuracy: Mapping[str, Any] | None) -> str:
    if accuracy is None or accuracy["low"] is None:
        return "no interval to be had"
    return f"accuracy's interval {accuracy['high'] - accuracy['low']:.2f} wide"


def _corruption_text(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    header = ["corruption", "severity", "parameter", "accuracy", "change", "balanced accuracy (p / prior)"]
    header += ["malignant AUROC", "sensitivity", "specificity", "ECE", "Brier", "NLL", "lesion IoU"]
    header += ["out of domain", "shift AUROC", "kept", "accuracy gain"]
    rows = [_corruption_row(UNCORRUPTED, "", "", found[UNCORRUPTED])]
    for kind, by_severity in found["kinds"].items():
        for severity, f in by_severity.items():
            parameter = f"{f['level']:g} ({found['about'][kind]['parameter']})"
            rows.append(_corruption_row(kind.replace("_", " "), severity, parameter, f))
    ours = [kind.replace("_", " ") for kind, about in found["about"].items() if about["source"].startswith("ours")]
    return [
        "### Corruptions",
        "",
        f"{found['n']} seeded photos of HAM10000 `{found['split']}`, each corrupted by the same chance at every "
        f"severity; change: accuracy less that of the same photos uncorrupted. Parameters of "
        f"{corruptions.IMAGENET_C} (ImageNet-C)" + (f", our own for {', '.join(ours)}." if ours else "."),
        "",
        figures.table(header, rows),
        "",
    ]


def _corruption_row(kind: str, severity: str, parameter: str, f: Mapping[str, Any]) -> list[str]:
    keys = ("balanced_accuracy", "auroc_malignant", "sensitivity", "specificity", "ece", "brier", "nll", "lesion_iou")
    return [
        *(kind, severity, parameter, figures.shown(f["accuracy"])),
        figures.shown(f.get("accuracy_change"), sign=True),
        *(figures.shown(f[key]) for key in keys),
        figures.shown(f["shift"]["out_of_domain"]),
        figures.shown(f["shift"]["auroc"]),
        figures.shown(f["abstaining"]["kept"]),
        figures.shown(f["abstaining"]["accuracy_gain"], sign=True),
    ]


def _not_skin_text(found: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            f"{row['package']} {row['version']}",
            row["file"].rsplit("/", 1)[-1],
            row["shows"],
            row["licence"],
            row["author"] or figures.MISSING,
            row["crops"],
            f"{row['out_of_domain']:.2f}",
        ]
        for row in found["photographs"]
    ]
    coloured = found["coloured"]
    return [
        "### Pictures without skin",
        "",
        f"{found['n']} crops of {found['n_photographs']} photographs, in the reference's photo sizes; crops of one "
        f"photograph are resampled as one. Called out of domain: {figures.shown(found['out_of_domain'])}; shift AUROC "
        f"{figures.shown(found['auroc'])}. Of the {coloured['n']} in colour: "
        f"{figures.shown(coloured['out_of_domain'])} and {figures.shown(coloured['auroc'])}. Without the shift score, "
        f"{figures.shown(found['referred'])} of all would be referred as malignant.",
        "",
        figures.table(["package", "file", "shows", "licence", "author", "crops", "out of domain"], rows),
        "",
    ]


@figures.styled
def _score_chart(result: Mapping[str, Any], folder: Path) -> str:
    """Share of each set's photos at or below every shift score."""
    figure, (axes,) = figures.charts(width=5.4, height=3.6)
    curves = {_title(name, f).replace("`", ""): f["scores"] for name, f in result["sets"].items()}
    curves["pictures without skin"] = result["not_skin"]["scores"]
    for i, (name, scores) in enumerate(curves.items()):
        colour = figures.INK if i == 0 else figures.CYCLE[(i - 1) % len(figures.CYCLE)]
        axes.step(scores, _LEVELS, where="post", color=colour, label=name, linewidth=1.4)
    axes.axvline(result["in_domain_score"], color=figures.GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="shift score (dotted: out of domain above)", ylabel="share of photos at or below it")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01))
    axes.legend(loc="upper left")
    return figures.save(figure, folder, "shift_scores", "Distribution of the shift score in each set")


@figures.styled
def _corruption_chart(found: Mapping[str, Any], folder: Path) -> str:
    """Small multiples: accuracy and share called out of domain by severity, one panel a kind."""
    kinds = list(found["kinds"])
    across = min(4, len(kinds))
    figure = Figure(figsize=(2.3 * across, 1.9 * -(-len(kinds) // across)), layout="constrained")
    panels = figure.subplots(-(-len(kinds) // across), across, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, kind in zip(panels, kinds, strict=False):
        points = {0: found[UNCORRUPTED]} | {int(s): f for s, f in found["kinds"][kind].items()}
        pairs = (("accuracy", figures.BLUE), ("out of domain", figures.ORANGE))
        for label, colour in pairs:
            drawn = [f["accuracy"] if label == "accuracy" else f["shift"]["out_of_domain"] for f in points.values()]
            values, errors = figures.whiskers(drawn)
            ax.errorbar(list(points), values, errors, fmt="o-", color=colour, ms=3, capsize=2, lw=1, label=label)
        ax.set_title(kind.replace("_", " "))
        ax.set(ylim=(-0.02, 1.02), xticks=list(points))
    for ax in panels[len(kinds) :]:
        ax.set_axis_off()
    figure.supxlabel("severity", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figures.save(figure, folder, "shift_corruptions", "Accuracy and share out of domain by kind and severity")
