"""The calibration benchmark's section of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.calibration.sets import TOLERANCE
from eval_study.benchmarks.calibration.settings import BINS, FOLDS, SHIPPED
from skinclip.calibration.conformal import COVERAGE, MIN_LESIONS
from skinclip.calibration.referral import SENSITIVITY
from skinclip.core.formatting import MISSING, number, with_interval
from skinclip.reporting import style
from skinclip.reporting.document import Block, Picture, Section, Table


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    blocks, meta, calib = result["splits"], result["meta"], result["calib"]
    last = blocks["test"] if "test" in blocks else blocks["valid"]
    parts: list[Block | str] = [
        f"HAM10000. Fitted on `calib` ({calib['n']} photos of {calib['n_groups']} lesions), chosen on `valid`, "
        f"reported on `{last['split']}` ({last['n']} photos of {last['n_groups']} lesions); 95 % intervals over "
        f"{meta['resamples']} bootstrap resamples of lesions, seed {meta['seed']}, weights "
        f"`{meta['weights_sha256'][:12]}`.",
        "### Probabilities",
        _map_text(result),
        *(part for name, block in blocks.items() for part in (f"`{name}`:", _map_table(block["maps"]))),
        f"`{last['split']}`, the noise floor of each calibration error and both decision rules:",
        _floor_table(last["maps"]),
        _reliability_chart(last),
        "### Prediction sets",
        _set_text(result),
        *(part for name, block in blocks.items() for part in (f"`{name}`:", _set_table(block["sets"]))),
        f"`{last['split']}`, coverage of each diagnosis:",
        _class_coverage(last["sets"]),
        _cross_text(result["cross_fitting"]),
        _cross_table(result["cross_fitting"]),
        "### Referral",
        _referral_text(result, last),
        _referral_table(blocks),
        _referral_chart(last),
        "### Risk and coverage",
        "Error among the photos that the model is surest of, as the least sure are left out; a model whose confidence "
        "says nothing would have a level line.",
        _risk_chart(last),
    ]
    return Section.of("Calibration, prediction sets and referral", parts)


def _map_text(result: dict[str, Any]) -> str:
    choice = result["choice"]["map"]
    best, blocks = choice["lowest_nll"], result["splits"]
    last = blocks["test"] if "test" in blocks else blocks["valid"]  # the gap on `valid` chose the map
    gap = with_interval(last["maps"][best]["nll_above_shipped"], 4)
    verdict = "which is a true difference: it should replace it" if choice["change"] else "no reason to replace it"
    if best == SHIPPED:
        verdict, gap = "so it stays", "0"
    return (
        "ECE: 15 equally wide bins of the top class, L1; adaptive: bins of equally many photos; classwise: mean over "
        "the diagnoses. The noise floor is what a perfectly calibrated model would show at this n, simulated: a figure "
        "within it is as good as can be measured. A bootstrap can only add noise to a calibration error, so its "
        f"interval sits high. By negative log-likelihood on `valid`, `{best}` is best; on "
        f"`{last['split']}` it is {gap} against `{SHIPPED}`: {verdict}. "
        "Isotonic regression gives probabilities of exactly 0, for which its log-likelihood pays."
    )


def _map_table(maps: Mapping[str, Any]) -> Table:
    keys = ("ece", "adaptive_ece", "classwise_ece", "brier", "nll")
    header = ["map", "ECE", "adaptive ECE", "classwise ECE", "Brier", "NLL", "NLL above shipped"]
    rows = [
        [name, *(with_interval(m[k]) for k in keys), with_interval(m["nll_above_shipped"], 4)]
        for name, m in maps.items()
    ]
    return table(header, rows)


def _floor_table(maps: Mapping[str, Any]) -> Table:
    def floor(m: Mapping[str, Any], key: str) -> str:
        f = m["noise_floor"][key]
        return f"{m[key]['value']:.3f}; {f['mean']:.3f} ({f['low']:.3f}-{f['high']:.3f})"

    header = ["map", "ECE; floor", "adaptive; floor", "classwise; floor", "ECE of argmax p / prior", "accuracy"]
    header += ["balanced accuracy (p / prior)", "balanced accuracy (p)"]
    keys = ("ece_balanced_rule", "accuracy", "balanced_accuracy", "balanced_accuracy_argmax")
    rows = [
        [name, *(floor(m, k) for k in ("ece", "adaptive_ece", "classwise_ece")), *(with_interval(m[k]) for k in keys)]
        for name, m in maps.items()
    ]
    return table(header, rows)


def _set_text(result: dict[str, Any]) -> str:
    choice = result["choice"]["sets"]
    fair = ", ".join(choice["fair"]) or "none"
    verdict = "differs from what is shipped" if choice["change"] else "is what is shipped"
    return (
        f"Stated coverage {COVERAGE:.0%}. Marginal rules promise it over all photos, rules by class within each class "
        "(or group of classes) that has a quantile of its own; with fewer than nine calibration photos such a class is "
        "in every set. Calibration photos of one lesion are no independent photos, so the promise is a little weaker "
        f"than its proof. Chosen on `valid`: the smallest sets that leave no diagnosis of at least {MIN_LESIONS} "
        f"lesions more than {TOLERANCE:.2f} below the stated coverage (rules that do: {fair}). Rules some of whose "
        "sets are out of order (a diagnosis ruled out, a less probable one kept) are not to be shown to anybody. "
        f"That is **{choice['chosen']}**, which {verdict}."
    )


def _set_table(sets: Mapping[str, Any]) -> Table:
    header = [
        "sets",
        "coverage",
        "malignant",
        "mean size",
        "one diagnosis",
        "of these right",
        "worst diagnosis",
        "out of order",
    ]
    rows = [
        [
            name,
            with_interval(s["coverage"]),
            with_interval(s["malignant_coverage"]),
            with_interval(s["set_size"], 2),
            with_interval(s["singletons"]),
            with_interval(s["singleton_accuracy"]),
            f"{s['worst_class'] or MISSING} {number(s['worst_coverage'])}",
            f"{s['out_of_order']:.1%}",
        ]
        for name, s in sets.items()
    ]
    return table(header, rows)


def _class_coverage(sets: Mapping[str, Any]) -> str:
    first = next(iter(sets.values()))["classes"]
    header = ["sets", *(f"{code} ({c['n']} photos, {c['n_groups']} lesions)" for code, c in first.items())]
    rows = [[name, *(with_interval(c["coverage"], 2) for c in s["classes"].values())] for name, s in sets.items()]
    return table(header, rows)


def _cross_text(crossed: Mapping[str, Any]) -> str:
    moved = [name for name, c in crossed.items() if any(_differs(i) for i in c["coverage_gained"].values())]
    verdict = "On `valid` it matters for " + ", ".join(moved) if moved else "On `valid` it matters for no map"
    return (
        "Sets and threshold are fitted on the photos that the map was fitted on, which could flatter them. The remedy "
        f"would be to fit them on probabilities from maps fitted without each lesion ({FOLDS} folds). {verdict} (a "
        "difference in coverage whose interval leaves out 0). The shipped map is read from the weights and cannot be "
        "refitted; the line below it is the same kind of map fitted here."
    )


def _differs(interval: Mapping[str, Any] | None) -> bool:
    return bool(interval and interval["low"] is not None and (interval["low"] > 0 or interval["high"] < 0))


def _cross_table(crossed: Mapping[str, Any]) -> Table:
    rules = next(iter(crossed.values()))["coverage_gained"]
    header = ["map"]
    for rule in rules:
        header += [f"{rule}: coverage, same photos", "gained by cross-fitting"]
    header += ["threshold: same photos, cross-fitted", "sensitivity: same photos", "cross-fitted"]
    rows = []
    for name, c in crossed.items():
        same, other = c["same photos"], c["cross-fitted"]
        row = [name]
        for rule in rules:
            row += [with_interval(same["coverage"][rule]), with_interval(c["coverage_gained"][rule])]
        row.append(f"{same['threshold']:.3f}, {other['threshold']:.3f}")
        rows.append([*row, with_interval(same["sensitivity"]), with_interval(other["sensitivity"])])
    return table(header, rows)


def _referral_text(result: dict[str, Any], last: Mapping[str, Any]) -> str:
    t, r = result["threshold"], last["referral"]["range_by_threshold"]
    return (
        f"Refer where P(malignant) reaches the threshold, chosen on `calib` for a sensitivity of {t['target']:.2f}. "
        f"Shipped: {t['shipped']:.3f}; chosen on the same photos here: {with_interval(t['threshold'])}, the range "
        f"being what other calibration lesions would give ({t['n_malignant']} malignant photos). On "
        f"`{last['split']}` that alone moves the sensitivity between {number(r['sensitivity']['low'])} and "
        f"{number(r['sensitivity']['high'])} and the specificity between "
        f"{number(r['specificity']['low'])} and {number(r['specificity']['high'])}. A prospective "
        "study of ADAE in eight hospitals found 0.921 and 0.673: other patients, so a landmark, not a comparison."
    )


def _referral_table(blocks: Mapping[str, Any]) -> Table:
    header = ["threshold", "P(malignant) from"]
    for name in blocks:
        header += [f"`{name}` sensitivity", f"`{name}` specificity"]
    first = next(iter(blocks.values()))["referral"]
    rows: list[list[str]] = []
    for i, point in enumerate([first["shipped"], *first["curve"]]):
        name = f"for {point['target']:.2f} on `calib`" if "target" in point else SHIPPED
        row = [name, number(point["threshold"])]
        for block in blocks.values():
            own = [block["referral"]["shipped"], *block["referral"]["curve"]][i]
            row += [with_interval(own["sensitivity"]), with_interval(own["specificity"])]
        rows.append(row)
    return table(header, rows)


@style.styled
def _reliability_chart(block: Mapping[str, Any]) -> Picture:
    names = {"none": "before (softmax of the logits)", SHIPPED: "after (as shipped)"}
    figure, axes = style.charts(2, width=3.8, height=3.9)
    for ax, (name, title) in zip(axes, names.items(), strict=True):
        bins = block["reliability"][name]
        x = [b["confidence"] for b in bins]
        ax.bar(
            [b["from"] for b in bins],
            [b["n"] / block["n"] for b in bins],
            width=1 / BINS,
            align="edge",
            color=style.PALE,
        )
        ax.fill_between(x, [b["low"] for b in bins], [b["high"] for b in bins], color=style.ORANGE, alpha=0.3, lw=0)
        ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8)
        ax.plot(x, [b["accuracy"] for b in bins], "o-", color=style.BLUE, ms=4)
        m = block["maps"][name]
        ax.set_title(f"{title}\nECE {m['ece']['value']:.3f}, floor {m['noise_floor']['ece']['mean']:.3f}")
        style.unit_axes(ax, "confidence in the leading diagnosis", "share that was right")
    caption = "Orange: where a perfectly calibrated model would lie; bars: share of photos."
    return picture(figure, "calibration_reliability", "Reliability before and after", caption)


@style.styled
def _referral_chart(block: Mapping[str, Any]) -> Picture:
    figure, (axes,) = style.charts(width=4.8, height=3.6)
    curve = block["referral"]["curve"]
    x = np.array([point["target"] for point in curve])
    for key, colour, shift in (("sensitivity", style.BLUE, -0.001), ("specificity", style.ORANGE, 0.001)):
        values, errors = style.whiskers([point[key] for point in curve])
        axes.errorbar(x + shift, values, errors, fmt="o-", color=colour, ms=4, capsize=2, elinewidth=0.9, label=key)
    axes.plot([x.min(), x.max()], [x.min(), x.max()], color=style.GREY, linewidth=0.8, label="as aimed at")
    axes.axvline(SENSITIVITY, color=style.PALE, zorder=0)
    axes.set(xlabel="sensitivity aimed at on calib", ylabel=f"achieved on {block['split']}", ylim=(0, 1.02))
    axes.legend(loc="lower left")
    return picture(figure, "calibration_referral", "Sensitivity aimed at, and what is achieved")


@style.styled
def _risk_chart(block: Mapping[str, Any]) -> Picture:
    figure, (axes,) = style.charts(width=4.8, height=3.4)
    for (rule, figures), colour in zip(block["risk"].items(), (style.BLUE, style.ORANGE), strict=True):
        points = [p for p in figures["curve"] if p["risk"]]
        x = [p["coverage"] for p in points]
        values, (below, above) = style.whiskers([p["risk"] for p in points])
        low, high = np.subtract(values, below), np.add(values, above)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, values, color=colour, label=f"{rule}: area {with_interval(figures['aurc'])}")
    axes.set(xlabel="share of photos answered, surest first", ylabel="error among them", xlim=(0, 1.01))
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    return picture(figure, "calibration_risk", "Risk-coverage curve under both decision rules")
