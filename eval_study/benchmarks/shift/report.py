"""The shift benchmark's section of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from eval_study.benchmarks import corruptions
from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.shift.measure import DATA, OFFICIAL, UNCORRUPTED
from eval_study.benchmarks.shift.one_set import LEVELS, NO_GROUP
from skinclip.core.formatting import MISSING, with_interval
from skinclip.reporting import style
from skinclip.reporting.document import Block, Picture, Section, Table

MIN_GROUP = 30  # photos below which a group shows nothing
MAX_WIDTH = 0.25  # width of an accuracy's interval above which it shows nothing
DARK = ("FST5", "FST6")
TITLES = {DATA: "HAM10000", OFFICIAL: "ISIC 2017, other dermoscopy", "pad_ufes": "PAD-UFES-20, smartphone"}


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    meta, sets = result["meta"], result["sets"]
    text: list[Block | str] = [
        f"Held against HAM10000 `{meta['reference']}`. Out of domain is a shift score above "
        f"{result['in_domain_score']}: by design one photo in a hundred of the model's own kind. AUROC of the shift "
        f"score: how often a shifted photo scores above one of the reference. Seed {meta['seed']}.",
        _diagnosis_table(sets),
        *_restricted(sets),
        "What the referral does, and what abstaining on photos out of domain buys (gain: those kept less all).",
        _referral_table(sets),
        *_malignancy_notes(sets),
        *_group_text(sets),
        *_corruption_text(result["corruptions"]),
        *_not_skin_text(result["not_skin"]),
        _score_chart(result),
    ]
    if result["corruptions"]:
        text += [_corruption_chart(result["corruptions"])]
    return Section.of("Shift: photos of another kind", text)


def _title(name: str, figures: Mapping[str, Any]) -> str:
    return f"{TITLES.get(name, name)}, `{figures['split']}`"


def _counted(figures: Mapping[str, Any]) -> list[str]:
    return [str(figures["n"]), f"{figures['n_malignant']} / {figures['n_benign']}"]


_DIAGNOSIS_HEADER = (
    *("balanced accuracy (p / prior)", "balanced accuracy (argmax p)", "accuracy", "macro AUROC"),
    *("ECE", "Brier", "NLL"),
)
_DIAGNOSIS_KEYS = (
    *("balanced_accuracy", "balanced_accuracy_argmax", "accuracy", "auroc_macro"),
    *("ece", "brier", "nll"),
)


def _diagnosis_table(sets: Mapping[str, Any]) -> Table:
    header = ["set", "n", "malignant / benign", *_DIAGNOSIS_HEADER, "ECE of a calibrated model"]
    rows = [
        [
            _title(name, figures),
            *_counted(figures),
            *(with_interval(figures[key]) for key in (*_DIAGNOSIS_KEYS, "ece_noise_floor")),
        ]
        for name, figures in sets.items()
    ]
    return table(header, rows)


def _restricted(sets: Mapping[str, Any]) -> list[Block | str]:
    rows = [
        [
            _title(name, figures),
            ", ".join(figures["classes"]),
            str(figures["n_labelled"]),
            *(with_interval(figures["restricted"][key]) for key in _DIAGNOSIS_KEYS),
        ]
        for name, figures in sets.items()
        if figures["restricted"]
    ]
    if not rows:
        return ["Every set labels all diagnoses."]
    text = "Probabilities restricted to the diagnoses that the set labels, renormalised:"
    return [text, table(["set", "diagnoses", "n", *_DIAGNOSIS_HEADER], rows)]


_REFERRAL_HEADER = (
    *("malignant AUROC", "sensitivity", "specificity", "out of domain", "of neither kind", "shift AUROC", "kept"),
    *("accuracy of kept", "accuracy gain", "sensitivity of kept", "sensitivity gain", "specificity gain"),
)


def _referral_cells(figures: Mapping[str, Any]) -> list[str]:
    spared = figures["abstaining"]
    plain = [figures["auroc_malignant"], figures["sensitivity"], figures["specificity"]]
    plain += [*(figures["shift"][name] for name in ("out_of_domain", "neither", "auroc")), spared["kept"]]
    return [
        *(with_interval(f) for f in plain),
        with_interval(spared["accuracy_kept"]),
        with_interval(spared["accuracy_gain"], sign=True),
        with_interval(spared["sensitivity_kept"]),
        with_interval(spared["sensitivity_gain"], sign=True),
        with_interval(spared["specificity_gain"], sign=True),
    ]


def _referral_table(sets: Mapping[str, Any]) -> Table:
    rows = [[_title(name, figures), *_referral_cells(figures)] for name, figures in sets.items()]
    return table(["set", *_REFERRAL_HEADER], rows)


def _malignancy_notes(sets: Mapping[str, Any]) -> list[str]:
    """Notes on sets that count malignancy otherwise than the model, with the figures by the model's count."""
    text = []
    for name, figures in sets.items():
        other = figures["malignant_by_class"]
        if other:
            text += [
                f"{_title(name, figures)} counts {other['n_differs']} photos of {', '.join(other['classes'])} "
                "otherwise than the model, whose P(malignant) sums mel, bcc and akiec. By the model's count: malignant "
                f"AUROC {with_interval(other['auroc_malignant'])}, sensitivity {with_interval(other['sensitivity'])}, "
                f"specificity {with_interval(other['specificity'])}.",
            ]
    return text


def _group_text(sets: Mapping[str, Any]) -> list[Block | str]:
    text: list[Block | str] = []
    for name, figures in sets.items():
        groups = figures.get("groups")
        if not groups:
            continue
        rows = [
            [
                group,
                *_counted(g),
                with_interval(g["accuracy"]),
                with_interval(g["balanced_accuracy"]),
                with_interval(g["ece"]),
                with_interval(g["brier"]),
                *_referral_cells(g),
            ]
            for group, g in groups.items()
        ]
        header = ["type", "n", "malignant / benign", "accuracy", "balanced accuracy (p / prior)", "ECE", "Brier"]
        header += _REFERRAL_HEADER
        text += [f"### {TITLES.get(name, name)} by Fitzpatrick type", table(header, rows)]
        text += [too_few(groups)]
    return text


def too_few(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Sentences on groups with too few photos for a figure, and on figures that cannot be had at all."""
    typed = {name: g for name, g in groups.items() if name != NO_GROUP}
    small = {name: g for name, g in typed.items() if shows_nothing(g)}
    sentences = []
    if small:
        listed = "; ".join(f"{name} ({_photos(g['n'])}, {_width(g['accuracy'])})" for name, g in small.items())
        sentences.append(
            f"Too few photos to show anything: {listed}. A difference between these types and the others could be "
            "large and would not be seen here."
        )
    large = [f"{name} ({_photos(g['n'])}, {_width(g['accuracy'])})" for name, g in typed.items() if name not in small]
    if large:
        sentences.append(f"Enough for a rough figure: {'; '.join(large)}.")
    dark = sum(g["n"] for name, g in typed.items() if name in DARK)
    if dark < MIN_GROUP and any(name.startswith("FST") for name in typed):
        sentences.append(
            f"Of types V and VI there are {_photos(dark)} together: nothing can be said of how the model does on dark "
            "skin."
        )
    unknown = groups.get(NO_GROUP)
    if unknown:
        sentences.append(f"{_photos(unknown['n'])} have no type, {unknown['n_malignant']} of them malignant.")
    return " ".join(sentences)


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


def _corruption_text(corrupted: Mapping[str, Any] | None) -> list[Block | str]:
    if not corrupted:
        return []
    header = ["corruption", "severity", "parameter", "accuracy", "change", "balanced accuracy (p / prior)"]
    header += ["malignant AUROC", "sensitivity", "specificity", "ECE", "Brier", "NLL", "lesion IoU"]
    header += ["out of domain", "shift AUROC", "kept", "accuracy gain"]
    rows = [_corruption_row(UNCORRUPTED, "", "", corrupted[UNCORRUPTED])]
    for kind, by_severity in corrupted["kinds"].items():
        for severity, f in by_severity.items():
            parameter = f"{f['level']:g} ({corrupted['about'][kind]['parameter']})"
            rows.append(_corruption_row(kind.replace("_", " "), severity, parameter, f))
    ours = [kind.replace("_", " ") for kind, about in corrupted["about"].items() if about["source"].startswith("ours")]
    return [
        "### Corruptions",
        f"{corrupted['n']} seeded photos of HAM10000 `{corrupted['split']}`, each corrupted by the same chance at "
        f"every severity; change: accuracy less that of the same photos uncorrupted. Parameters of "
        f"{corruptions.IMAGENET_C} (ImageNet-C)" + (f", our own for {', '.join(ours)}." if ours else "."),
        table(header, rows),
    ]


def _corruption_row(kind: str, severity: str, parameter: str, f: Mapping[str, Any]) -> list[str]:
    keys = ("balanced_accuracy", "auroc_malignant", "sensitivity", "specificity", "ece", "brier", "nll", "lesion_iou")
    return [
        *(kind, severity, parameter, with_interval(f["accuracy"])),
        with_interval(f.get("accuracy_change"), sign=True),
        *(with_interval(f[key]) for key in keys),
        with_interval(f["shift"]["out_of_domain"]),
        with_interval(f["shift"]["auroc"]),
        with_interval(f["abstaining"]["kept"]),
        with_interval(f["abstaining"]["accuracy_gain"], sign=True),
    ]


def _not_skin_text(pictures: Mapping[str, Any]) -> list[Block | str]:
    rows = [
        [
            f"{row['package']} {row['version']}",
            row["file"].rsplit("/", 1)[-1],
            row["shows"],
            row["licence"],
            row["author"] or MISSING,
            row["crops"],
            f"{row['out_of_domain']:.2f}",
        ]
        for row in pictures["photographs"]
    ]
    coloured = pictures["coloured"]
    return [
        "### Pictures without skin",
        f"{pictures['n']} crops of {pictures['n_photographs']} photographs, in the reference's photo sizes; crops of "
        f"one photograph are resampled as one. Called out of domain: {with_interval(pictures['out_of_domain'])}; "
        f"recognised as neither dermoscopy nor a close-up: {with_interval(pictures['neither'])}; shift "
        f"AUROC {with_interval(pictures['auroc'])}. Of the {coloured['n']} in colour: "
        f"{with_interval(coloured['out_of_domain'])} and {with_interval(coloured['auroc'])}. Without the shift score, "
        f"{with_interval(pictures['referred'])} of all would be referred as malignant.",
        table(["package", "file", "shows", "licence", "author", "crops", "out of domain"], rows),
    ]


@style.styled
def _score_chart(result: Mapping[str, Any]) -> Picture:
    """Share of each set's photos at or below every shift score."""
    figure, (axes,) = style.charts(width=5.4, height=3.6)
    curves = {_title(name, f).replace("`", ""): f["scores"] for name, f in result["sets"].items()}
    curves["pictures without skin"] = result["not_skin"]["scores"]
    for i, (name, scores) in enumerate(curves.items()):
        colour = style.INK if i == 0 else style.CYCLE[(i - 1) % len(style.CYCLE)]
        axes.step(scores, LEVELS, where="post", color=colour, label=name, linewidth=1.4)
    axes.axvline(result["in_domain_score"], color=style.GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="shift score (dotted: out of domain above)", ylabel="share of photos at or below it")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01))
    axes.legend(loc="upper left")
    return picture(figure, "shift_scores", "Distribution of the shift score in each set")


@style.styled
def _corruption_chart(corrupted: Mapping[str, Any]) -> Picture:
    """Small multiples: accuracy and share called out of domain by severity, one panel per kind."""
    kinds = list(corrupted["kinds"])
    across = min(4, len(kinds))
    figure = Figure(figsize=(2.3 * across, 1.9 * -(-len(kinds) // across)), layout="constrained")
    panels = figure.subplots(-(-len(kinds) // across), across, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, kind in zip(panels, kinds, strict=False):
        points = {0: corrupted[UNCORRUPTED]} | {int(s): f for s, f in corrupted["kinds"][kind].items()}
        pairs = (("accuracy", style.BLUE), ("out of domain", style.ORANGE))
        for label, colour in pairs:
            drawn = [f["accuracy"] if label == "accuracy" else f["shift"]["out_of_domain"] for f in points.values()]
            values, errors = style.whiskers(drawn)
            ax.errorbar(list(points), values, errors, fmt="o-", color=colour, ms=3, capsize=2, lw=1, label=label)
        ax.set_title(kind.replace("_", " "))
        ax.set(ylim=(-0.02, 1.02), xticks=list(points))
    for ax in panels[len(kinds) :]:
        ax.set_axis_off()
    figure.supxlabel("severity", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return picture(figure, "shift_corruptions", "Accuracy and share out of domain by kind and severity")
