"""The report of a study: a summary in plain words, then tables and figures, as HTML and PDF with all their data.

    write(tables, Path("out"))      # report.html, report.pdf, analysis.json, data/, figures/, R/

Only words and layout are made here; every number comes from `statistics.analyse`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from skinclip.reporting.document import (
    Block,
    Document,
    Paragraph,
    Picture,
    Section,
    Table,
    Tiles,
    write_pictures,
)
from skinclip.reporting.html_page import to_html
from skinclip.reporting.pdf_pages import to_pdf
from skinclip.reporting.style import Plot
from skinclip.study.analysis import plots, r_scripts
from skinclip.study.analysis.analysis_plan import DEFAULT_PLAN, AnalysisPlan
from skinclip.study.analysis.plots import arm_name, contrast_name
from skinclip.study.analysis.report_cells import (
    DASH,
    Result,
    count_words,
    interval_cell,
    p_cell,
    p_words,
    percent_words,
    points,
    share_words,
    value_cell,
)
from skinclip.study.analysis.report_notes import ANSWER_NAMES, provenance, reading_notes
from skinclip.study.analysis.statistics import analyse
from skinclip.study.analysis.tables import REHEARSAL, SIMULATED, StudyTables

# What a summary begins with where the data are no real study's.
MARKED = {
    SIMULATED: "These are simulated readers: the figures say nothing about real ones. ",
    REHEARSAL: "This was a rehearsal: the figures are no result, whatever they are. ",
}


def write(tables: StudyTables, folder: Path, plan: AnalysisPlan = DEFAULT_PLAN, command: str = "") -> dict[str, Path]:
    """Analyses the study and writes everything into `folder`; returns the main files by name.

    `report.html` and `report.pdf` to read, `analysis.json` with every result, `data/` the tables with their dictionary,
    `figures/` each figure with its data, `R/` scripts for lme4, iMRMC and MRMCaov.
    """
    analysis = analyse(tables, plan)
    report = document(analysis, command)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name for name in ("report.html", "report.pdf", "analysis.json")}
    files["analysis.json"].write_text(json.dumps(analysis, indent=1, allow_nan=False) + "\n")
    files["report.html"].write_text(to_html(report))
    files["report.pdf"].write_bytes(to_pdf(report))
    marks = {"data_kind": tables.mark} if tables.mark else {}
    tables.write(folder / "data")
    write_pictures(report, folder / "figures", marks)
    (folder / "R").mkdir(exist_ok=True)
    for name, script in r_scripts.scripts(tables, analysis).items():
        (folder / "R" / name).write_text(script)
    return files


def document(analysis: Result, command: str = "") -> Document:
    """The report as sections of blocks; it can be made again from `analysis.json` alone."""
    mark = analysis["mark"]
    flow = analysis["flow"]
    subtitle = f"{flow['analysed']} readers, {flow['cases']} cases, {flow['answers']:,} answers. Primary: "
    subtitle += f"{_endpoint_label(analysis)}, {contrast_name(_primary_contrast(analysis))}."
    sections = [
        Section("Summary", (Paragraph(summary(analysis), lead=True), *_tiles(analysis))),
        Section("Who took part", _participants(analysis)),
        Section("Primary endpoint", _primary(analysis, mark)),
        Section("Safety endpoint", _safety(analysis, mark)),
        Section("Secondary endpoints", _secondary(analysis, mark)),
        Section("Accuracy and reliance", _reliance(analysis, mark)),
        Section("Confidence", _confidence(analysis, mark)),
        Section("Scales and preferences", _opinions(analysis, mark)),
        Section("Agreement", _agreement(analysis)),
        Section("Cases out of distribution", _ood(analysis)),
        Section("How to read this", (reading_notes(analysis),)),
        Section("How this was made", (provenance(analysis, command),)),
    ]
    title = f"Reader study {analysis['study']}"
    return Document(title, subtitle, mark, tuple(section for section in sections if section.blocks))


# --- the summary --------------------------------------------------------------------------------------------------


def summary(analysis: Result) -> str:
    """The study in one paragraph: who and how many, the primary result, the safety result."""
    who = _who(analysis["flow"])
    return f"{MARKED.get(analysis['mark'], '')}{who} {_primary_words(analysis)} {_safety_words(analysis)}"


def _who(flow: Result) -> str:
    left = f"{flow['finished']} finished and {flow['withdrawn']} withdrew"
    words = f"Of {count_words(flow['enrolled'], 'reader')} enrolled at {count_words(flow['sites'], 'site')}, {left}; "
    words += f"{flow['analysed']} are analysed. They saw {count_words(flow['cases'], 'case')}, "
    words += f"{flow['cases_ai_wrong']} of them real errors of the AI"
    return words + (f", and {flow['cases_ood']} out of distribution." if flow["cases_ood"] else ".")


def _primary_words(analysis: Result) -> str:
    primary = analysis["primary"]
    if "not_estimable" in primary:
        return f"The primary result is not estimable: {primary['not_estimable']}."
    arm, against = (arm_name(analysis["plan"]["primary"][side]) for side in ("arm", "reference"))
    direction = "higher" if primary["value"] >= 0 else "lower"
    points_apart = f"{abs(primary['value']):.2f} points"
    words = f"{_endpoint_label(analysis)} was {points_apart} {direction} with {arm} than with {against} "
    words += f"({_level(analysis)} interval {interval_cell(primary, sign=True)}, {p_words(primary['p'])})"
    significant = primary["p"] < analysis["plan"]["alpha"]
    words += ": a difference beyond chance. " if significant else ": no difference beyond chance was shown. "
    return f"{words}The plan's smallest difference of interest is {analysis['plan']['smallest_effect']:g} points."


def _safety_words(analysis: Result) -> str:
    safety = analysis["safety"]
    if "not_estimable" in safety:
        return f"The safety result is not estimable: {safety['not_estimable']}."
    arm, against = (arm_name(analysis["plan"]["safety"][side]) for side in ("arm", "reference"))
    verdict = {
        "non-inferior": "By the plan, this is not inferior.",
        "inferior": "By the plan, this is inferior: it misleads more.",
        "not shown": "Non-inferiority was not shown.",
    }[safety["decision"]]
    rate, reference = share_words(safety["rate"]), share_words(safety["rate_reference"])
    low, high = points(safety["low"]), points(safety["high"])
    words = f"Where the AI errs, readers left a right diagnosis for a wrong one in {rate} of answers "
    words += f"with {arm} and {reference} with {against}: a difference of {points(safety['value'])} "
    words += f"percentage points ({low} to {high}) against a margin of "
    return f"{words}{points(safety['margin'])}. {verdict}"


def _tiles(analysis: Result) -> list[Block]:
    flow, contrast, safe = analysis["flow"], analysis["primary"], analysis["safety"]
    primary, safety = (DASH, "not estimable"), (DASH, "not estimable")
    if "value" in contrast:
        primary = (value_cell(contrast, sign=True), f"{interval_cell(contrast, sign=True)}, {p_words(contrast['p'])}")
    if "value" in safe:
        safety = (
            f"{points(safe['value'])} pp",
            f"{points(safe['low'])} to {points(safe['high'])}: {safe['decision']}",
        )
    return [
        Tiles(
            (
                ("Readers analysed", str(flow["analysed"]), f"of {flow['enrolled']} enrolled"),
                ("Cases", str(flow["cases"]), f"{flow['cases_ai_wrong']} AI errors"),
                (f"{_endpoint_label(analysis)}, difference", *primary),
                ("Switch to wrong, difference", *safety),
            )
        )
    ]


# --- sections -----------------------------------------------------------------------------------------------------


def _participants(analysis: Result) -> tuple[Block, ...]:
    flow, enough = analysis["flow"], share_words(analysis["plan"]["completion"], 0)
    names = {
        "enrolled": "Readers enrolled",
        "withdrawn": "Readers withdrawn, answers erased",
        "finished": "Readers who finished the session",
        "analysed": "Readers analysed: with any answer",
        "completers": f"Completers: rated at least {enough} of the cases",
        "cases": "Cases",
        "cases_ai_wrong": "Cases on which the AI errs",
        "cases_ood": "Cases out of distribution, analysed apart",
        "answers": "Answers in the main analysis",
        "repeats": "Repeats, for agreement with oneself only",
    }
    counted = tuple((name, f"{flow[key]:,}") for key, name in names.items())
    gaps = tuple(
        (ANSWER_NAMES[row["item"]], f"{row['asked']:,}", row["missing"], percent_words(row["missing"], row["asked"]))
        for row in analysis["missing"]
    )
    return (
        Table("From enrolment to analysis", ("", "n"), counted),
        Table(
            "Answers missing, among those asked; items on the explanation are not asked in the arm without one",
            ("Answer", "Asked", "Missing", "Share"),
            gaps,
        ),
    )


def _primary(analysis: Result, mark: str) -> tuple[Block, ...]:
    rows = [{"name": "Primary: " + contrast_name(_primary_contrast(analysis)), "strong": True, **analysis["primary"]}]
    rows += [{"name": row["analysis"], **row} for row in analysis["sensitivity"]]
    rows += [
        {"name": contrast_name(row["contrast"]), **row}
        for row in (*analysis["secondary"], *analysis["described"])
        if row["endpoint"] == analysis["plan"]["endpoint"]
    ]
    kept = ("name", "strong", "value", "low", "high", "p", "not_estimable")
    rows = [{key: row[key] for key in kept if key in row} for row in rows]
    label = f"difference in {_endpoint_label(analysis).lower()}, points"
    means = tuple((arm_name(row["arm"]), value_cell(row), interval_cell(row)) for row in analysis["trust_by_arm"])
    blocks = [
        Table(
            f"Mean {_endpoint_label(analysis).lower()} by the model", ("Arm", "Mean", _interval_head(analysis)), means
        ),
        *_picture(
            "forest_primary",
            "Primary contrast, sensitivity analyses and further contrasts",
            "Differences in points: right of 0 the arm named first has more. The square is the planned analysis.",
            plots.forest(rows, label, mark),
        ),
        _difference_table("The same figures", rows, analysis),
        *_picture(
            "raincloud",
            f"Readers' mean {_endpoint_label(analysis).lower()} by arm",
            "Each dot is a reader, cases unweighted; above it the density, the bar spans the quartiles.",
            plots.raincloud(analysis["reader_means"], analysis["arms"], _endpoint_label(analysis).lower(), mark),
        ),
        *_variances(analysis["primary"]),
        _wilcoxon(analysis),
    ]
    return tuple(blocks)


def _difference_table(caption: str, rows: Sequence[Result], analysis: Result) -> Table:
    lines = tuple((row["name"], value_cell(row, sign=True), interval_cell(row, sign=True), p_cell(row)) for row in rows)
    return Table(caption, ("", "Difference", _interval_head(analysis), "p"), lines)


def _variances(primary: Result) -> list[Block]:
    if "variances" not in primary:
        return []
    total = sum(primary["variances"].values())
    rows = tuple(
        (n, f"{v:.3f}", f"{v**0.5:.2f}", f"{share_words(v / total, 0)}") for n, v in primary["variances"].items()
    )
    head = ("Source", "Variance", "SD, points", "Share")
    return [Table("Where the ratings' variance comes from, by the primary model", head, rows)]


def _wilcoxon(analysis: Result) -> Table:
    rows = tuple(
        (row["label"], row["readers"], value_cell(row, sign=not row["ratio"]), p_cell(row), p_cell(row, "p_holm"))
        for row in analysis["wilcoxon"]
    )
    caption = "A sensitivity analysis by rank: Wilcoxon's signed-rank test of readers' unweighted means, "
    caption += f"{contrast_name(_primary_contrast(analysis))}; median difference (of time, ratio); Holm's p over the "
    caption += "secondary endpoints in this table"
    return Table(caption, ("Endpoint", "Readers", "Median", "p", "p, Holm"), rows)


def _safety(analysis: Result, mark: str) -> tuple[Block, ...]:
    safety = analysis["safety"]
    if "not_estimable" in safety:
        return (Paragraph(f"Not estimable: {safety['not_estimable']}."),)
    percent = {end: 100 * safety[end] for end in ("value", "low", "high")}
    row = {"name": contrast_name(safety["contrast"]), "strong": True, **percent}
    return (
        Paragraph(_safety_words(analysis)),
        *_picture(
            "safety",
            "Switch to wrong where the AI errs",
            "Non-inferior where the whole interval lies left of the margin.",
            plots.forest([row], "difference, percentage points", mark, margin=100 * safety["margin"]),
        ),
    )


def _secondary(analysis: Result, mark: str) -> tuple[Block, ...]:
    rows, head = analysis["secondary"], _interval_head(analysis)
    tested = sum("p_holm" in row for row in rows)
    family = tuple((*_difference_cells(row), row["test"], p_cell(row), p_cell(row, "p_holm")) for row in rows)
    apart = (*analysis["described"], analysis["time_without_outliers"])
    standardised = [row for row in (*rows, *analysis["described"]) if row.get("standardised")]
    drawn = [
        {"name": row["label"], **row["standardised"]}
        for row in standardised
        if row["endpoint"] != analysis["plan"]["endpoint"]
    ]
    return (
        Table(
            f"One family: the {len(rows)} secondary endpoints and contrasts that the plan names, {tested} of which "
            "could be tested; Holm's p over all of them",
            ("Endpoint", "Difference", head, "Test", "p", "p, Holm"),
            family,
        ),
        Table(
            "Not in the family: described, not tested; last, time without outliers",
            ("Endpoint", "Difference", head),
            tuple(map(_difference_cells, apart)),
        ),
        *_picture(
            "forest_secondary",
            f"Ratings and time, {contrast_name(_primary_contrast(analysis))}",
            "Differences over the answers' standard deviation, so that unlike units share an axis.",
            plots.forest(drawn, "standardised difference", mark),
        ),
    )


def _difference_cells(row: Result) -> tuple[object, str, str]:
    """What is compared (or why it cannot be), the difference and its interval."""
    words = f"{contrast_name(row['contrast'])}; {row['unit']}"
    if "not_estimable" in row:
        words = f"not testable: {row['not_estimable']}"
    sign = not row.get("ratio", False)
    return (row["label"], words), value_cell(row, sign=sign), interval_cell(row, sign=sign)


def _reliance(analysis: Result, mark: str) -> tuple[Block, ...]:
    accuracy = tuple(
        (
            arm_name(row["arm"]),
            row["n"],
            *(
                cell
                for phase in ("before", "after")
                for cell in (value_cell(row[phase], 3), interval_cell(row[phase], 3))
            ),
            *(value_cell(row["change"], 3, True), interval_cell(row["change"], 3, True)),
        )
        for row in analysis["accuracy"]
    )
    head = _interval_head(analysis)
    rates = tuple(
        (
            (arm_name(row["arm"]), row["label"]),
            share_words(row["value"]) if "value" in row else DASH,
            f"{share_words(row['low'])} to {share_words(row['high'])}" if "value" in row else DASH,
            f"{row['hits']} of {row['n']}",
        )
        for row in analysis["switching"]
    )
    return (
        *_picture(
            "accuracy",
            "Balanced accuracy, unaided (hollow) and with the aid",
            "Lines are intervals over readers and cases.",
            plots.dumbbells(analysis["accuracy"], "balanced accuracy", mark),
        ),
        Table(
            "Balanced accuracy of the readers",
            ("Arm", "Answers", "Unaided", head, "With the aid", head, "Change", head),
            accuracy,
        ),
        *_picture(
            "switches",
            "Where answers went: unaided (left) to aided (right)",
            "Blue stayed right, green became right, orange became wrong, grey stayed wrong.",
            plots.switches(analysis["switches"], analysis["arms"], mark),
        ),
        Table("How readers took the AI's answer", ("Arm", "Rate", head, "Answers"), rates),
    )


def _confidence(analysis: Result, mark: str) -> tuple[Block, ...]:
    words = "On the diagonal, readers are right as often as they say. Bins of 20 points; size is the number of answers."
    drawn = plots.calibration(analysis["calibration"], analysis["arms"], mark)
    return tuple(_picture("calibration", "Calibration of readers' confidence", words, drawn))


def _opinions(analysis: Result, mark: str) -> tuple[Block, ...]:
    rows = []
    for scale in analysis["scales"]:
        by_arm = {row["arm"]: row for row in scale["by_arm"]}
        cells = [value_cell(by_arm[arm]) if arm in by_arm else DASH for arm in analysis["arms"]]
        difference = scale["difference"]
        estimate = f"{value_cell(difference, sign=True)} ({interval_cell(difference, sign=True)})"
        rows.append(
            (
                scale["label"],
                *cells,
                estimate if "value" in difference else DASH,
                value_cell(scale["cronbach"]),
            )
        )
    header = ("Scale", *(arm_name(arm) for arm in analysis["arms"]), "Difference", "Cronbach α")
    contrast = contrast_name(_primary_contrast(analysis))
    caption = f"Scales asked after each block: means, and {contrast} within readers"
    return (Table(caption, header, tuple(rows)), *_preferences(analysis, mark))


def _preferences(analysis: Result, mark: str) -> list[Block]:
    preferences = analysis["preferences"]
    if "not_estimable" in preferences:
        return [Paragraph(f"Preferences are not estimable: {preferences['not_estimable']}.")]
    drawn = [{"name": arm_name(row["arm"]), **row} for row in preferences["strengths"]]
    known = [row for row in drawn if row["low"] is not None]
    wins = tuple(
        (
            arm_name(row["arm"]),
            arm_name(row["against"]),
            f"{row['won']} of {row['of']}",
            percent_words(row["won"], row["of"]),
        )
        for row in preferences["wins"]
        if row["of"]
    )
    side = preferences["side_a"]
    words = f"{preferences['pairs']} pairs of {preferences['readers']} readers. "
    words += f"Side A was chosen in {side['chosen']} of them."
    return [
        *_picture(
            "preferences",
            "Side by side: strength of preference",
            "Bradley-Terry log-odds, 0 is the mean aid; intervals over readers.",
            plots.forest(known, "log-odds of being preferred", mark),
        ),
        Table("Pairs won", ("Aid", "Against", "Won", "Share"), wins),
        Paragraph(words),
    ]


def _agreement(analysis: Result) -> tuple[Block, ...]:
    between = tuple(
        (
            (ANSWER_NAMES[row["answer"]], "before any aid" if row["arm"] == "all" else arm_name(row["arm"])),
            row["n"],
            f"{value_cell(row['alpha'])} ({interval_cell(row['alpha'])})" if "value" in row["alpha"] else DASH,
            value_cell(row["kappa"]),
            *(value_cell({"value": row["icc"].get(kind)}) for kind in ("single", "average")),
        )
        for row in analysis["agreement"]
    )
    within = tuple(
        (
            ANSWER_NAMES[row["answer"]],
            row.get("pairs", 0),
            share_words(row["equal"], 0) if "equal" in row else DASH,
            value_cell(row.get("kappa", {})),
            value_cell({"value": row.get("within_sd")}),
        )
        for row in analysis["retest"]
    )
    return (
        Table(
            "Between readers, same case and aid: Krippendorff's α (interval over cases), κ (quadratic weights where "
            "ordinal), intraclass correlation of absolute agreement",
            ("Answer", "Answers", f"α ({_interval_head(analysis)})", "κ", "ICC, one reader", "ICC, mean"),
            between,
        ),
        Table(
            "Within readers, first answer against the repeat",
            ("Answer", "Pairs", "Equal", "κ", "Within-reader SD"),
            within,
        ),
    )


def _ood(analysis: Result) -> tuple[Block, ...]:
    outside = analysis["ood"]
    if not outside["cases"]:
        return ()
    names = ("trust", "confidence_before", "confidence_after")
    rows = tuple((arm_name(r["arm"]), r["n"], *(value_cell({"value": r[n]}) for n in names)) for r in outside["by_arm"])
    primary = outside["primary"]
    words = f"The primary contrast on these {outside['cases']} cases: "
    words += (
        f"not estimable, {primary['not_estimable']}."
        if "not_estimable" in primary
        else f"{value_cell(primary, sign=True)} ({interval_cell(primary, sign=True)})."
    )
    header = ("Arm", "Answers", "Trust", "Confidence, unaided", "Confidence, with the aid")
    return (Table("Means on cases out of distribution", header, rows), Paragraph(words))


# --- parts --------------------------------------------------------------------------------------------------------


def _picture(name: str, title: str, words: str, plot: Plot | None) -> list[Block]:
    return [Picture(name, title, words, plot)] if plot else []


def _primary_contrast(analysis: Result) -> str:
    return f"{analysis['plan']['primary']['arm']} - {analysis['plan']['primary']['reference']}"


def _endpoint_label(analysis: Result) -> str:
    return str(analysis["primary_endpoint"]["label"])


def _level(analysis: Result) -> str:
    return f"{100 * (1 - analysis['plan']['alpha']):g} %"


def _interval_head(analysis: Result) -> str:
    return f"{_level(analysis)} interval"
