"""A report of `evaluate` as a document to read.

page(json.loads(path.read_text()))      # the page can be made again from the report alone
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinclip.core.formatting import MISSING, range_of, value_of, with_interval
from skinclip.core.known import FIRST_DIAGNOSES
from skinclip.core.measures import MEASURES
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_BY_CODE
from skinclip.reporting import charts
from skinclip.reporting.document import Block, Bullets, Document, Gallery, Paragraph, Picture, Section, Table, Tiles
from skinclip.reporting.html_page import to_html

Report = Mapping[str, Any]

HEADLINES = ("balanced_accuracy", "auroc_malignant", "sensitivity", "specificity", "accuracy", "ece")
GROUP_MEASURES = (
    *("balanced_accuracy", "accuracy", "auroc_malignant", "sensitivity", "specificity", "ece", "coverage"),
    *("answered", "accuracy_answered"),
)


def page(report: Report) -> str:
    """One HTML file that needs no network, no script and no other file."""
    return to_html(document(report))


def document(report: Report) -> Document:
    """The sections of a report, as `evaluate` returns it or as its JSON file holds it."""
    sections = [
        Section("", _headlines(report)),
        Section("Charts", _charts(report)),
        Section("All figures", _all_figures(report)),
        Section("Class by class", _classes(report)),
        Section("7-point criteria", _criteria(report)),
        Section("By group", (*_groups(report), *_by(report))),
        Section("Comparison", _comparison(report)),
        Section("Left out", _left_out(report)),
        Section("How to read this", _notes(report)),
        Section("How this was made", _made(report)),
    ]
    title = f"Evaluation of {report['meta']['system']['name']}"
    return Document(title, _where(report), "", tuple(section for section in sections if section.blocks))


def _where(report: Report) -> str:
    meta = report["meta"]
    split = f"split {meta['split']}" if meta["split"] else "all photos"
    n, lesions = f"{report['n']:,} photos", f"{meta['n_lesions']:,} lesions"
    return f"{', '.join(meta['data'])}, {split}: {n} of {lesions}, {meta['date']}"


# --- sections -----------------------------------------------------------------------------------------------------


def _headlines(report: Report) -> tuple[Block, ...]:
    tiles = tuple(
        (MEASURES[name][0], value_of(figure), range_of(figure)) for name in HEADLINES if (figure := report.get(name))
    )
    return (Tiles(tiles),) if tiles else ()


def _charts(report: Report) -> tuple[Block, ...]:
    drawn = tuple(
        picture
        for draw in (_roc, _recalls, _confusion, _reliability, _risk_coverage)
        if (picture := draw(report)) is not None
    )
    return (Gallery(drawn),) if drawn else ()


def _roc(report: Report) -> Picture | None:
    curve = report["curves"]["roc"]
    if not curve:
        return None
    caption = f"Area {with_interval(report['auroc_malignant'])}."
    if report["sensitivity"] and report["specificity"]:
        referral = f"sensitivity {with_interval(report['sensitivity'])}"
        referral += f", specificity {with_interval(report['specificity'])}"
        caption += f" The point is the referral decision: {referral}."
    return Picture("roc", "Malignant or benign: ROC curve", caption, charts.roc(curve, report))


def _recalls(report: Report) -> Picture | None:
    recalls = report["per_class_recall"]
    if not recalls:
        return None
    caption = f"Decided by {_rule(report['meta'], 'per_class_recall')}; lines are 95 % intervals."
    return Picture("recall", "Recall of each class", caption, charts.recalls(recalls))


def _confusion(report: Report) -> Picture | None:
    counts = report["curves"]["confusion"]
    if not counts:
        return None
    caption = f"Rows are the true diagnosis, columns the one decided by {_rule(report['meta'], 'confusion')}. "
    caption += "Shaded by the share of the row."
    codes = _scored_codes(report)
    rows = tuple((code, *row) for code, row in zip(codes, counts, strict=True))
    numbers = Table("Photos by true diagnosis (rows) and decided one (columns)", ("true", *codes), rows)
    return Picture("confusion", "Confusion matrix", caption, charts.confusion(counts, codes), numbers)


def _reliability(report: Report) -> Picture | None:
    points = report["curves"]["reliability"]
    if not points:
        return None
    caption = f"{_calibration_words(report)} On the diagonal, confidence is right; bars are the shares of the photos."
    rows = tuple((f"{p['confidence']:.3f}", p["n"], value_of(p["rate"]), range_of(p["rate"])) for p in points)
    header = ("Mean confidence", "Photos", "Right", "95 % interval")
    numbers = Table("Bins of stated confidence", header, rows)
    return Picture("reliability", "Reliability", caption, charts.reliability(points), numbers)


def _risk_coverage(report: Report) -> Picture | None:
    points = report["curves"]["risk_coverage"]
    if not points:
        return None
    caption = "Photos are answered from the most confident on. "
    caption += f"Area {with_interval(report['aurc'])}; the band is 95 %."
    rows = tuple((f"{p['coverage']:.0%}", value_of(p["risk"]), range_of(p["risk"])) for p in points)
    numbers = Table("Error rate of the most confident photos", ("Answered", "Wrong", "95 % interval"), rows)
    return Picture("risk", "Risk and coverage", caption, charts.risk_coverage(points), numbers)


def _calibration_words(report: Report) -> str:
    error, floor = report["ece"], report.get("ece_noise_floor")
    words = f"Calibration error {with_interval(error)}"
    if not floor:
        return f"{words}."
    if error["value"] <= floor["high"]:
        return f"{words}, no more than chance gives a perfectly calibrated system here ({range_of(floor)})."
    return f"{words}, above what chance gives a perfectly calibrated system here ({range_of(floor)})."


def _all_figures(report: Report) -> tuple[Block, ...]:
    rows = tuple(
        ((name, note), value_of(figure), range_of(figure), _rule(report["meta"], key))
        for key, (name, note) in MEASURES.items()
        if (figure := report.get(key))
    )
    header = ("Figure", "Value", "95 % interval", "Decided by")
    table = Table("Every figure, with its 95 % interval", header, rows)
    absent = [name for key, (name, _) in MEASURES.items() if not report.get(key)]
    if not absent:
        return (table,)
    return table, Paragraph(f"Not measured, for want of labels or answers: {'; '.join(absent)}.", small=True)


def _classes(report: Report) -> tuple[Block, ...]:
    if not report["per_class_recall"]:
        return ()
    counts = report["curves"]["confusion"]
    rows = tuple(
        (f"{DIAGNOSIS_BY_CODE[code].name} ({code})", sum(counts[c]), value_of(recall), range_of(recall))
        for c, code in enumerate(_scored_codes(report))
        if (recall := report["per_class_recall"][code]) or sum(counts[c])
    )
    caption = f"Recall, decided by {_rule(report['meta'], 'per_class_recall')}"
    return (Table(caption, ("Diagnosis", "Photos", "Recall", "95 % interval"), rows),)


def _criteria(report: Report) -> tuple[Block, ...]:
    names = {criterion.code: criterion.name for criterion in CRITERIA}
    rows = tuple(
        (
            names[code],
            *(cell for name in ("accuracy", "auroc") for cell in (value_of(figures[name]), range_of(figures[name]))),
        )
        for code, figures in (report["criteria"] or {}).items()
    )
    header = ("Criterion", "Accuracy", "95 % interval", "AUROC", "95 % interval")
    return (Table("States of each criterion that is labelled", header, rows),) if rows else ()


def _groups(report: Report) -> tuple[Block, ...]:
    return _group_table(report["groups"] or {}, "Group", "The same figures for each group of photos")


def _by(report: Report) -> tuple[Block, ...]:
    """A table for each grouping that was asked for; the page of a report made before there were any has none."""
    tables = [
        _group_table(groups, by.replace("_", " ").capitalize(), f"The same figures by {by.replace('_', ' ')}")
        for by, groups in (report.get("by") or {}).items()
    ]
    return tuple(block for blocks in tables for block in blocks)


def _group_table(groups: Mapping[str, Any], header: str, caption: str) -> tuple[Block, ...]:
    known = [name for name in GROUP_MEASURES if any(group.get(name) for group in groups.values())]
    rows = tuple(
        (name, group["n"], *(with_interval(group.get(key)) for key in known)) for name, group in groups.items()
    )
    columns = (header, "Photos", *(MEASURES[name][0] for name in known))
    return (Table(f"{caption}, with 95 % intervals", columns, rows),) if rows else ()


def _comparison(report: Report) -> tuple[Block, ...]:
    comparison = report.get("comparison")
    if not comparison:
        return ()
    here, there = report["meta"]["system"]["name"], comparison["against"]["name"]
    rows = tuple(
        (
            (name, _rules_of_both(report, key)),
            *(with_interval(comparison[side][key]) for side in ("first", "second")),
            with_interval(figure, sign=True),
            _verdict(figure),
        )
        for key, (name, _) in MEASURES.items()
        if (figure := comparison["differences"].get(key))
    )
    caption = f"{here} and {there} on the same {comparison['n']:,} photos; differences are {here} less {there}, paired"
    table = Table(caption, ("Figure", here, there, "Difference", "95 % interval"), rows)
    return (table, *_mcnemar(comparison["mcnemar_accuracy"], here, there))


def _rules_of_both(report: Report, key: str) -> str:
    """The rules that the systems decide a figure by, where they differ."""
    here, there = _rule(report["meta"], key), _rule(report["comparison"]["against"], key)
    return "" if here == there else f"{here}; for {report['comparison']['against']['name']} {there}"


def _verdict(difference: Mapping[str, Any]) -> str:
    if difference["low"] is None:
        return MISSING
    return "excludes 0" if difference["low"] > 0 or difference["high"] < 0 else "includes 0"


def _mcnemar(test: Mapping[str, Any] | None, here: str, there: str) -> tuple[Block, ...]:
    if not test:
        return ()
    text = f"McNemar's exact test of accuracy (argmax p) on {test['n']:,} photos: p = {test['p_value']:.3g}. "
    text += f"{test['only_a_right']:,} are right with {here} only, {test['only_b_right']:,} with {there} only. "
    text += "The test takes photos as independent, which several photos of one lesion are not; the intervals do not."
    return (Paragraph(text),)


def _left_out(report: Report) -> tuple[Block, ...]:
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
    return (Bullets(tuple(lines)),) if lines else ()


def _systems(report: Report) -> list[Mapping[str, Any]]:
    """The records of the system measured and, where there is one, of the other."""
    return [report["meta"]["system"], *([report["comparison"]["against"]] if report.get("comparison") else [])]


def _notes(report: Report) -> tuple[Block, ...]:
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
    if scored := scored_note(meta):
        notes.insert(2, scored)
    for system in _systems(report):
        if system.get("renormalised"):
            sums = f"from {system['lowest_sum']:.4g} to {system['highest_sum']:.4g}"
            notes.append(
                f"Rows of {system['name']} that did not sum to 1 and were divided by their sum: "
                f"{system['renormalised']:,} (sums {sums})."
            )
    return (Bullets(tuple(notes)),)


def scored_note(meta: Mapping[str, Any]) -> str:
    """On which diagnoses a model of more was scored; empty where it was scored on all that it knows."""
    scored, known = meta.get("scored_diagnoses") or [], meta.get("known_diagnoses") or FIRST_DIAGNOSES
    if len(scored) in (0, len(known)):
        return ""
    return (
        f"The system knows {len(known)} diagnoses, of which {len(scored)} are scored here: probabilities are those of "
        f"{', '.join(scored)} alone, renormalised to sum to 1."
    )


def _made(report: Report) -> tuple[Block, ...]:
    meta = report["meta"]
    system = meta["system"]
    rows = [
        ("System", system["name"]),
        ("sha256 of the weights" if system["kind"] == "model" else "sha256 of the predictions", system["sha256"]),
        ("Prior", _prior(system.get("prior"))) if system["kind"] == "predictions" else None,
        ("Compared with", report["comparison"]["against"]["name"]) if report.get("comparison") else None,
        ("sha256 of that", report["comparison"]["against"]["sha256"]) if report.get("comparison") else None,
        ("Data", ", ".join(meta["data"])),
        ("Layout", meta["layout"] or MISSING),
        ("Split", meta["split"] or "all"),
        ("Photos", f"{report['n']:,}"),
        ("Lesions", f"{meta['n_lesions']:,}"),
        ("Seed", meta["seed"]),
        ("Bootstrap resamples", f"{meta['resamples']:,}"),
        ("Rationales read", f"{meta['n_rationales']:,}"),
        ("Date", meta["date"]),
        ("Command", meta["command"] or MISSING),
    ]
    return (Table("What made this page", ("", ""), tuple(row for row in rows if row), kind="made"),)


def _prior(prior: Mapping[str, float] | None) -> str:
    return ", ".join(f"{code} {share:.3g}" for code, share in prior.items()) if prior else "not given"


def _scored_codes(report: Report) -> tuple[str, ...]:
    """The diagnoses that the figures are of, in the order of the confusion matrix."""
    return tuple(report["meta"].get("scored_diagnoses") or report["per_class_recall"])


def _rule(about: Mapping[str, Any], key: str) -> str:
    """The decision rule of a figure, empty where there is none to make."""
    return str(next((rule for names, rule in about["rules"].items() if key in names.split(", ")), ""))
