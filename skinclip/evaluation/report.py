"""A report of `evaluate` as a page to read: one HTML file that needs no network, no script and no other file.

    page(json.loads(path.read_text()))      # the page can be made again from the report alone

Everything that comes from data or from the command line is escaped where it enters the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from skinclip import RESEARCH_USE_ONLY, __version__
from skinclip.core.vocabulary import CRITERIA, DIAGNOSES
from skinclip.reporting import charts

Report = Mapping[str, Any]
Interval = Mapping[str, Any] | None

# Report key -> (name, what it says). In the order of the page.
FIGURES: dict[str, tuple[str, str]] = {
    "balanced_accuracy": ("Balanced accuracy", "mean recall of the classes present, as in ISIC 2018 Task 3"),
    "balanced_accuracy_argmax": ("Balanced accuracy of the displayed diagnosis", "by the probabilities as shown"),
    "accuracy": ("Accuracy", "share of photos whose most probable diagnosis is right"),
    "auroc_macro": ("AUROC, one against the rest", "mean of the classes present"),
    "auroc_malignant": ("AUROC, malignant against benign", "of P(malignant)"),
    "sensitivity": ("Referral sensitivity", "share of malignant lesions that are referred"),
    "specificity": ("Referral specificity", "share of benign lesions that are not referred"),
    "melanoma_sensitivity": ("Melanoma sensitivity", "share of melanomas diagnosed as such"),
    "melanoma_precision": ("Melanoma precision", "share of melanoma diagnoses that are right"),
    "melanoma_sensitivity_at_90_specificity": ("Melanoma sensitivity at 0.9 specificity", "read from the ROC curve"),
    "ece": ("Calibration error", "15 equally wide bins of the top probability; lower is better"),
    "ece_noise_floor": (
        "Calibration error of a perfectly calibrated system",
        "on as many photos, by chance alone; low and high are the middle 95 % of the draws",
    ),
    "adaptive_ece": ("Calibration error, adaptive", "15 bins of equally many photos; lower is better"),
    "classwise_ece": ("Calibration error, class by class", "mean over the seven classes; lower is better"),
    "brier": ("Brier score", "0 to 2; lower is better"),
    "nll": ("Negative log-likelihood", "nats; lower is better"),
    "aurc": ("Area under the risk-coverage curve", "lower is better"),
    "coverage": ("Coverage of the prediction set", "share of photos whose set holds the true diagnosis"),
    "set_size": ("Size of the prediction set", "diagnoses, mean"),
    "lesion_iou": ("Lesion mask, mean IoU", "against the reference mask"),
    "agreement": ("Rationale agrees", "its first-named diagnosis is the leading one; on a sample of photos"),
    "in_domain": ("In domain", "share of photos that look like those of training"),
    "diag_accuracy": ("Derm7pt diagnosis, five groups", "accuracy"),
    "criteria_mean_accuracy": ("7-point criteria", "mean accuracy"),
}
HEADLINES = ("balanced_accuracy", "auroc_malignant", "sensitivity", "specificity", "accuracy", "ece")
GROUP_FIGURES = ("balanced_accuracy", "auroc_malignant", "sensitivity", "specificity", "ece", "coverage")
_MISSING = "–"
_INTERVAL = re.compile(r"\(?[+-]?\d\.\d+(?:-| to )[+-]?\d\.\d+\)?")


def page(report: Report) -> str:
    """The whole page of one report, as `evaluate` returns it or as its JSON file holds it."""
    meta = report["meta"]
    title = f"Evaluation of {meta['system']['name']}"
    sections = [
        _headlines(report),
        _charts(report),
        html_section("All figures", _all_figures(report)),
        html_section("Class by class", _classes(report)),
        html_section("7-point criteria", _criteria(report)),
        html_section("By group", _groups(report)),
        html_section("Comparison", _comparison(report)),
        html_section("Left out", _left_out(report)),
        html_section("How to read this", _notes(report)),
        html_section("How this was made", _made(report)),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # A page made from others' data: even if something slipped through, nothing may run or be fetched.
            """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title><style>{CSS}</style></head><body>",
            f'<p class="banner" role="note">{escape(RESEARCH_USE_ONLY)}</p>',
            f"<header><h1>{escape(title)}</h1><p>{escape(_where(report))}</p></header>",
            "<main>",
            *(section for section in sections if section),
            "</main>",
            f"<footer>SkinCLIP-VL {escape(__version__)}. {escape(RESEARCH_USE_ONLY)}.</footer></body></html>\n",
        ]
    )


def _where(report: Report) -> str:
    meta = report["meta"]
    split = f"split {meta['split']}" if meta["split"] else "all photos"
    n, lesions = f"{report['n']:,} photos", f"{meta['n_lesions']:,} lesions"
    return f"{', '.join(meta['data'])}, {split}: {n} of {lesions}, {meta['date']}"


# --- sections -----------------------------------------------------------------------------------------------------


def _headlines(report: Report) -> str:
    tiles = [
        f"<div><dt>{escape(FIGURES[name][0])}</dt><dd><b>{_value(figure)}</b> <span>{_range(figure)}</span></dd></div>"
        for name in HEADLINES
        if (figure := report.get(name))
    ]
    return f'<dl class="tiles" aria-label="Main figures">{"".join(tiles)}</dl>' if tiles else ""


def _charts(report: Report) -> str:
    curves, drawn = report["curves"], []
    if curves["roc"]:
        words = f"Area {_text(report['auroc_malignant'])}."
        if report["sensitivity"] and report["specificity"]:
            referral = f"sensitivity {_text(report['sensitivity'])}, specificity {_text(report['specificity'])}"
            words += f" The point is the referral decision: {referral}."
        drawn.append(("Malignant or benign: ROC curve", charts.roc(curves["roc"], report, "roc"), words, ""))
    if report["per_class_recall"]:
        words = f"Decided by {_rule(report['meta'], 'per_class_recall')}; lines are 95 % intervals."
        drawn.append(("Recall of each class", charts.recalls(report["per_class_recall"], "recall"), words, ""))
    if curves["confusion"]:
        words = f"Rows are the true diagnosis, columns the one decided by {_rule(report['meta'], 'confusion')}. "
        words += "Shaded by the share of the row."
        numbers = _confusion_table(curves["confusion"])
        drawn.append(("Confusion matrix", charts.confusion(curves["confusion"], "confusion"), words, numbers))
    if curves["reliability"]:
        words = f"{_calibration_words(report)} On the diagonal, confidence is right; bars are the shares of the photos."
        numbers = _reliability_table(curves["reliability"])
        drawn.append(("Reliability", charts.reliability(curves["reliability"], "reliability"), words, numbers))
    if curves["risk_coverage"]:
        words = f"Photos are answered from the most confident on. Area {_text(report['aurc'])}; the band is 95 %."
        numbers = _risk_table(curves["risk_coverage"])
        drawn.append(("Risk and coverage", charts.risk_coverage(curves["risk_coverage"], "risk"), words, numbers))
    return (
        html_section("Charts", f'<div class="charts">{"".join(_chart(*one) for one in drawn)}</div>') if drawn else ""
    )


def _chart(title: str, svg: str, words: str, numbers: str) -> str:
    label = escape(f"{title}. {words}", quote=True)
    more = f"<details><summary>Numbers of this chart</summary>{numbers}</details>" if numbers else ""
    return (
        f'<figure><h3>{escape(title)}</h3><div role="img" aria-label="{label}">{svg}</div>'
        f"<figcaption>{escape(words)}</figcaption>{more}</figure>"
    )


def _calibration_words(report: Report) -> str:
    error, floor = report["ece"], report.get("ece_noise_floor")
    words = f"Calibration error {_text(error)}"
    if not floor:
        return f"{words}."
    chance = f"{floor['low']:.3f}-{floor['high']:.3f}"
    if error["value"] <= floor["high"]:
        return f"{words}, no more than chance gives a perfectly calibrated system here ({chance})."
    return f"{words}, above what chance gives a perfectly calibrated system here ({chance})."


def _all_figures(report: Report) -> str:
    rows = [
        ((name, note), _value(figure), _range(figure), _rule(report["meta"], key))
        for key, (name, note) in FIGURES.items()
        if (figure := report.get(key))
    ]
    table = html_table("Every figure, with its 95 % interval", ("Figure", "Value", "95 % interval", "Decided by"), rows)
    absent = [name for key, (name, _) in FIGURES.items() if not report.get(key)]
    if not absent:
        return table
    return f"{table}<p class=small>Not measured, for want of labels or answers: {escape('; '.join(absent))}.</p>"


def _classes(report: Report) -> str:
    if not report["per_class_recall"]:
        return ""
    counts = report["curves"]["confusion"]
    rows = [
        (f"{d.name} ({d.code})", sum(counts[c]), _value(recall), _range(recall))
        for c, d in enumerate(DIAGNOSES)
        if (recall := report["per_class_recall"][d.code]) or sum(counts[c])
    ]
    caption = f"Recall, decided by {_rule(report['meta'], 'per_class_recall')}"
    return html_table(caption, ("Diagnosis", "Photos", "Recall", "95 % interval"), rows)


def _criteria(report: Report) -> str:
    names = {criterion.code: criterion.name for criterion in CRITERIA}
    rows = [
        (names[code], *(cell for name in ("accuracy", "auroc") for cell in (_value(found[name]), _range(found[name]))))
        for code, found in (report["criteria"] or {}).items()
    ]
    header = ("Criterion", "Accuracy", "95 % interval", "AUROC", "95 % interval")
    return html_table("States of each criterion that is labelled", header, rows) if rows else ""


def _groups(report: Report) -> str:
    groups = report["groups"] or {}
    shown = [name for name in GROUP_FIGURES if any(group[name] for group in groups.values())]
    rows = [(name, group["n"], *(_text(group[key]) for key in shown)) for name, group in groups.items()]
    header = ("Group", "Photos", *(FIGURES[name][0] for name in shown))
    return html_table("The same figures for each group of photos, with 95 % intervals", header, rows) if rows else ""


def _comparison(report: Report) -> str:
    found = report.get("comparison")
    if not found:
        return ""
    here, there = report["meta"]["system"]["name"], found["against"]["name"]
    rows = [
        (
            (name, _rules_of_both(report, key)),
            *(_text(found[side][key]) for side in ("first", "second")),
            _signed(figure),
            _verdict(figure),
        )
        for key, (name, _) in FIGURES.items()
        if (figure := found["differences"].get(key))
    ]
    caption = f"{here} and {there} on the same {found['n']:,} photos; differences are {here} less {there}, paired"
    table = html_table(caption, ("Figure", here, there, "Difference", "95 % interval"), rows)
    return table + _mcnemar_words(found["mcnemar_accuracy"], here, there)


def _rules_of_both(report: Report, key: str) -> str:
    """Where the systems decide a figure by different rules, which."""
    here, there = _rule(report["meta"], key), _rule(report["comparison"]["against"], key)
    return "" if here == there else f"{here}; for {report['comparison']['against']['name']} {there}"


def _verdict(difference: Mapping[str, Any]) -> str:
    if difference["low"] is None:
        return _MISSING
    return "excludes 0" if difference["low"] > 0 or difference["high"] < 0 else "includes 0"


def _mcnemar_words(test: Mapping[str, Any] | None, here: str, there: str) -> str:
    if not test:
        return ""
    words = f"McNemar's exact test of accuracy (argmax p) on {test['n']:,} photos: p = {test['p_value']:.3g}. "
    words += f"{test['only_a_right']:,} are right with {here} only, {test['only_b_right']:,} with {there} only. "
    words += "The test takes photos as independent, which several photos of one lesion are not; the intervals do not."
    return f"<p>{escape(words)}</p>"


def _left_out(report: Report) -> str:
    meta, lines = report["meta"], []
    for system in _systems(report):
        if system.get("missing"):
            more = ", ..." if system["missing"] > len(system["missing_first"]) else ""
            photos = f"{', '.join(system['missing_first'])}{more}"
            lines.append(f"Photos without a prediction of {system['name']}, {system['missing']:,}: {photos}")
        if system.get("rows_of_other_splits"):
            lines.append(f"Rows of {system['name']} for photos of other splits: {system['rows_of_other_splits']:,}")
    if meta["not_scored"]:
        lines.append(f"Not scored, as in the official scorer of ISIC 2018: {', '.join(meta['not_scored'])}")
    lines += meta["problem_lines"]
    more = meta["problems"] - len(meta["problem_lines"])
    if more:
        lines.append(f"More rows or photos: {more:,}")
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _systems(report: Report) -> list[Mapping[str, Any]]:
    """What is known of the system measured and, where there is one, of the other."""
    return [report["meta"]["system"], *([report["comparison"]["against"]] if report.get("comparison") else [])]


def _notes(report: Report) -> str:
    meta = report["meta"]
    notes = [
        f"Intervals are 95 % percentile intervals of {meta['resamples']:,} bootstrap resamples of lesions (of "
        "patients, where they are known), because photos of one lesion are no independent evidence.",
        "Probabilities are taken at natural prevalence. Balanced accuracy is decided by dividing them by the classes' "
        "shares first; where a system's shares are not known, both rules are the same.",
        "A calibration error is never 0 on a finite number of photos. Read it beside the error of a perfectly "
        "calibrated system.",
        "These figures hold for photos like these. They say nothing about another clinic, camera or skin type.",
    ]
    for system in _systems(report):
        if system.get("renormalised"):
            sums = f"from {system['lowest_sum']:.4g} to {system['highest_sum']:.4g}"
            notes.append(
                f"Rows of {system['name']} that did not sum to 1 and were divided by their sum: "
                f"{system['renormalised']:,} (sums {sums})."
            )
    return f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"


def _made(report: Report) -> str:
    meta = report["meta"]
    system = meta["system"]
    rows = [
        ("System", system["name"]),
        ("sha256 of the weights" if system["kind"] == "model" else "sha256 of the predictions", system["sha256"]),
        ("Prior", _prior(system.get("prior"))) if system["kind"] == "predictions" else None,
        ("Compared with", report["comparison"]["against"]["name"]) if report.get("comparison") else None,
        ("sha256 of that", report["comparison"]["against"]["sha256"]) if report.get("comparison") else None,
        ("Data", ", ".join(meta["data"])),
        ("Layout", meta["layout"] or _MISSING),
        ("Split", meta["split"] or "all"),
        ("Photos", f"{report['n']:,}"),
        ("Lesions", f"{meta['n_lesions']:,}"),
        ("Seed", meta["seed"]),
        ("Bootstrap resamples", f"{meta['resamples']:,}"),
        ("Rationales read", f"{meta['n_rationales']:,}"),
        ("Date", meta["date"]),
        ("Command", meta["command"] or _MISSING),
    ]
    return html_table("What made this page", ("", ""), [row for row in rows if row], klass="made")


def _prior(prior: Mapping[str, float] | None) -> str:
    return ", ".join(f"{code} {share:.3g}" for code, share in prior.items()) if prior else "not given"


# --- parts --------------------------------------------------------------------------------------------------------


def html_section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def html_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]], klass: str = "numbers") -> str:
    """A table in a frame that scrolls sideways where it is too wide; all cells are escaped."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = "".join(_table_row(*row) for row in rows)
    thead = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    frame = f'<div class="frame" role="region" tabindex="0" aria-label="{escape(caption, quote=True)}">'
    table = f'<table class="{klass}"><caption>{escape(caption)}</caption>{thead}<tbody>{body}</tbody></table>'
    return f"{frame}{table}</div>"


def _table_row(first: object, *cells: object) -> str:
    """One row; a first cell that is a pair is a name and a note on it."""
    name, note = first if isinstance(first, tuple) else (first, "")
    small = f'<span class="note">{escape(note)}</span>' if note else ""
    rest = "".join(f"<td>{_unbroken(escape(str(cell)))}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(str(name))}{small}</th>{rest}</tr>'


def _unbroken(text: str) -> str:
    """The escaped text with every interval in it kept on one line."""
    return _INTERVAL.sub(r'<span class="interval">\g<0></span>', text)


def _confusion_table(counts: Sequence[Sequence[int]]) -> str:
    codes = [d.code for d in DIAGNOSES]
    rows = [(code, *row) for code, row in zip(codes, counts, strict=True)]
    return html_table("Photos by true diagnosis (rows) and decided one (columns)", ("true", *codes), rows)


def _reliability_table(points: Sequence[Mapping[str, Any]]) -> str:
    rows = [(f"{p['confidence']:.3f}", p["n"], _value(p["rate"]), _range(p["rate"])) for p in points]
    return html_table("Bins of stated confidence", ("Mean confidence", "Photos", "Right", "95 % interval"), rows)


def _risk_table(points: Sequence[Mapping[str, Any]]) -> str:
    rows = [(f"{p['coverage']:.0%}", _value(p["risk"]), _range(p["risk"])) for p in points]
    return html_table("Error rate of the most confident photos", ("Answered", "Wrong", "95 % interval"), rows)


def _rule(about: Mapping[str, Any], key: str) -> str:
    """The decision rule of a figure, empty where there is none to make."""
    return str(next((rule for names, rule in about["rules"].items() if key in names.split(", ")), ""))


def _value(figure: Interval) -> str:
    return f"{figure['value']:.3f}" if figure else _MISSING


def _range(figure: Interval) -> str:
    return f"{figure['low']:.3f}-{figure['high']:.3f}" if figure and figure["low"] is not None else _MISSING


def _text(figure: Interval) -> str:
    """Value and interval in one cell."""
    return f"{_value(figure)} ({_range(figure)})" if figure and figure["low"] is not None else _value(figure)


def _signed(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:+.3f}"
    return f"{figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f})"


CSS = """
:root { color-scheme: light dark; --page: #f6f8f9; --card: #ffffff; --ink: #15212b; --subdued: #4c5d69;
  --line: #d5dde2; --grid: #8b99a3; --series: #0a6aa6; --second: #b84a00; --banner: #7a1f1f; }
@media (prefers-color-scheme: dark) { :root { --page: #0e151b; --card: #16202a; --ink: #e6edf2; --subdued: #a9b8c3;
  --line: #2c3a46; --grid: #71828f; --series: #58aee6; --second: #f2894b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
.banner { margin: 0; padding: 6px 16px; background: var(--banner); color: #fff; text-align: center; font-weight: 700;
  font-size: .9rem; position: sticky; top: 0; z-index: 1; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 clamp(12px, 3vw, 28px); }
header { padding-top: 22px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
header p { margin: 4px 0 0; color: var(--subdued); overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 30px 0 10px; }
h3 { font-size: 1rem; margin: 0 0 6px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 10px; margin: 20px 0 0; }
.tiles div, figure, .frame { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.tiles div { padding: 10px 14px; display: flex; flex-direction: column; justify-content: space-between; }
dt { font-size: .84rem; line-height: 1.3; color: var(--subdued); }
dd { margin: 4px 0 0; }
dd b { font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; display: block; }
dd span { font-size: .84rem; color: var(--subdued); font-variant-numeric: tabular-nums; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: 12px; }
figure { margin: 0; padding: 14px 16px; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 25rem; margin: 0 auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-family: inherit !important; }
figcaption, .small { font-size: .86rem; color: var(--subdued); margin-top: 6px; }
details { margin-top: 8px; font-size: .9rem; }
summary { cursor: pointer; color: var(--series); }
details .frame { margin-top: 8px; }
.frame { overflow-x: auto; }
.frame:focus-visible, summary:focus-visible { outline: 3px solid var(--series); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
caption { text-align: left; padding: 10px 14px 6px; color: var(--subdued); font-size: .86rem; }
th, td { padding: 6px 14px; text-align: left; vertical-align: baseline; border-top: 1px solid var(--line); }
tbody th { font-weight: 500; }
thead th { font-size: .84rem; color: var(--subdued); font-weight: 600; border-top: 0; }
.note { display: block; font-size: .82rem; font-weight: 400; color: var(--subdued); }
.numbers td { font-variant-numeric: tabular-nums; }
.interval { white-space: nowrap; }
.made th { white-space: nowrap; width: 1%; }
.made td { overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 1.2em; }
li { margin: 4px 0; overflow-wrap: anywhere; }
footer { margin: 34px auto 24px; color: var(--subdued); font-size: .84rem; }
figure:last-child:nth-child(odd) { grid-column: 1 / -1; }
@media (max-width: 36rem) { th, td { padding: 6px; } .frame table { font-size: .86rem; }
  main > section > .frame .numbers tbody th { min-width: 7rem; } .made th { white-space: normal; width: 32%; } }
@media print { :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --subdued: #333; --line: #bbb;
    --grid: #777; --series: #0a6aa6; --second: #b84a00; }
  body { font-size: 11pt; } .banner { position: static; color: #000; background: none; border: 2px solid #000; }
  figure, .tiles div, tr { break-inside: avoid; } h2, caption { break-after: avoid; } details { display: none; }
  .frame { overflow: visible; } .charts { grid-template-columns: 1fr 1fr; } }
"""
