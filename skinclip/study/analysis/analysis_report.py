"""The report of a study: a summary in plain words, then tables and figures, as HTML and PDF with all their data.

    write(tables, Path("out"))      # report.html, report.pdf, analysis.json, data/, figures/, R/

Only words and layout are made here; every number comes from `statistics.analyse`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skinclip import RESEARCH_USE_ONLY
from skinclip.reporting.document import (
    Block,
    Bullets,
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
from skinclip.study.analysis.statistics import analyse
from skinclip.study.analysis.tables import REHEARSAL, SIMULATED, StudyTables

Result = Mapping[str, Any]
_DASH = "–"
# What a summary begins with where the data are no real study's.
MARKED = {
    SIMULATED: "These are simulated readers: the figures say nothing about real ones. ",
    REHEARSAL: "This was a rehearsal: the figures are no result, whatever they are. ",
}
_ANSWER_NAMES = {
    "diagnosis_before": "Diagnosis, unaided",
    "diagnosis_after": "Diagnosis, with the aid",
    "act_after": "Would biopsy or refer, with the aid",
    "confidence_before": "Confidence, unaided",
    "confidence_after": "Confidence, with the aid",
    "trust": "Trust in this answer",
    "correct": "Explanation correct",
    "grounded": "Explanation grounded",
    "complete": "Explanation complete",
    "harmful": "Explanation harmful",
    "seconds_after": "Time with the aid",
}
_NAMES = {
    **_ANSWER_NAMES,
    "primary": "the primary endpoint",
    "safety": "the safety endpoint",
    "agreement": "agreement between readers",
    "retest": "agreement with oneself",
    "ood": "cases out of distribution",
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
        Section("How to read this", (_notes(analysis),)),
        Section("How this was made", (_made(analysis, command),)),
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
    words = f"Of {_count(flow['enrolled'], 'reader')} enrolled at {_count(flow['sites'], 'site')}, {left}; "
    words += f"{flow['analysed']} are analysed. They saw {_count(flow['cases'], 'case')}, "
    words += f"{flow['cases_ai_wrong']} of them real errors of the AI"
    return words + (f", and {flow['cases_ood']} out of distribution." if flow["cases_ood"] else ".")


def _primary_words(analysis: Result) -> str:
    found = analysis["primary"]
    if "not_estimable" in found:
        return f"The primary result is not estimable: {found['not_estimable']}."
    arm, against = (arm_name(analysis["plan"]["primary"][side]) for side in ("arm", "reference"))
    direction = "higher" if found["value"] >= 0 else "lower"
    words = (
        f"{_endpoint_label(analysis)} was {abs(found['value']):.2f} points {direction} with {arm} than with {against} "
    )
    words += f"({_level(analysis)} interval {_interval(found, sign=True)}, {_p(found['p'])})"
    shown = found["p"] < analysis["plan"]["alpha"]
    words += ": a difference beyond chance. " if shown else ": no difference beyond chance was shown. "
    return f"{words}The plan's smallest difference of interest is {analysis['plan']['smallest_effect']:g} points."


def _safety_words(analysis: Result) -> str:
    found = analysis["safety"]
    if "not_estimable" in found:
        return f"The safety result is not estimable: {found['not_estimable']}."
    arm, against = (arm_name(analysis["plan"]["safety"][side]) for side in ("arm", "reference"))
    verdict = {
        "non-inferior": "By the plan, this is not inferior.",
        "inferior": "By the plan, this is inferior: it misleads more.",
        "not shown": "Non-inferiority was not shown.",
    }[found["decision"]]
    words = f"Where the AI errs, readers left a right diagnosis for a wrong one in {_share(found['rate'])} of answers "
    words += (
        f"with {arm} and {_share(found['rate_reference'])} with {against}: a difference of {_points(found['value'])} "
    )
    words += f"percentage points ({_points(found['low'])} to {_points(found['high'])}) against a margin of "
    return f"{words}{_points(found['margin'])}. {verdict}"


def _tiles(analysis: Result) -> list[Block]:
    flow, found, safe = analysis["flow"], analysis["primary"], analysis["safety"]
    primary, safety = (_DASH, "not estimable"), (_DASH, "not estimable")
    if "value" in found:
        primary = (_value(found, sign=True), f"{_interval(found, sign=True)}, {_p(found['p'])}")
    if "value" in safe:
        safety = (
            f"{_points(safe['value'])} pp",
            f"{_points(safe['low'])} to {_points(safe['high'])}: {safe['decision']}",
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
    flow, enough = analysis["flow"], _share(analysis["plan"]["completion"], 0)
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
        (_ANSWER_NAMES[row["item"]], f"{row['asked']:,}", row["missing"], _percent(row["missing"], row["asked"]))
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
    means = tuple((arm_name(row["arm"]), _value(row), _interval(row)) for row in analysis["trust_by_arm"])
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
    lines = tuple((row["name"], _value(row, sign=True), _interval(row, sign=True), _p_cell(row)) for row in rows)
    return Table(caption, ("", "Difference", _interval_head(analysis), "p"), lines)


def _variances(primary: Result) -> list[Block]:
    if "variances" not in primary:
        return []
    total = sum(primary["variances"].values())
    rows = tuple((n, f"{v:.3f}", f"{v**0.5:.2f}", f"{_share(v / total, 0)}") for n, v in primary["variances"].items())
    head = ("Source", "Variance", "SD, points", "Share")
    return [Table("Where the ratings' variance comes from, by the primary model", head, rows)]


def _wilcoxon(analysis: Result) -> Table:
    rows = tuple(
        (row["label"], row["readers"], _value(row, sign=not row["ratio"]), _p_cell(row), _p_cell(row, "p_holm"))
        for row in analysis["wilcoxon"]
    )
    caption = "A sensitivity analysis by rank: Wilcoxon's signed-rank test of readers' unweighted means, "
    caption += f"{contrast_name(_primary_contrast(analysis))}; median difference (of time, ratio); Holm's p over the "
    caption += "secondary endpoints in this table"
    return Table(caption, ("Endpoint", "Readers", "Median", "p", "p, Holm"), rows)


def _safety(analysis: Result, mark: str) -> tuple[Block, ...]:
    found = analysis["safety"]
    if "not_estimable" in found:
        return (Paragraph(f"Not estimable: {found['not_estimable']}."),)
    percent = {end: 100 * found[end] for end in ("value", "low", "high")}
    row = {"name": contrast_name(found["contrast"]), "strong": True, **percent}
    return (
        Paragraph(_safety_words(analysis)),
        *_picture(
            "safety",
            "Switch to wrong where the AI errs",
            "Non-inferior where the whole interval lies left of the margin.",
            plots.forest([row], "difference, percentage points", mark, margin=100 * found["margin"]),
        ),
    )


def _secondary(analysis: Result, mark: str) -> tuple[Block, ...]:
    rows, head = analysis["secondary"], _interval_head(analysis)
    tested = sum("p_holm" in row for row in rows)
    family = tuple((*_difference_cells(row), row["test"], _p_cell(row), _p_cell(row, "p_holm")) for row in rows)
    apart = (*analysis["described"], analysis["time_without_outliers"])
    shown = [row for row in (*rows, *analysis["described"]) if row.get("standardised")]
    drawn = [
        {"name": row["label"], **row["standardised"]}
        for row in shown
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
    return (row["label"], words), _value(row, sign=sign), _interval(row, sign=sign)


def _reliance(analysis: Result, mark: str) -> tuple[Block, ...]:
    accuracy = tuple(
        (
            arm_name(row["arm"]),
            row["n"],
            *(cell for phase in ("before", "after") for cell in (_value(row[phase], 3), _interval(row[phase], 3))),
            *(_value(row["change"], 3, True), _interval(row["change"], 3, True)),
        )
        for row in analysis["accuracy"]
    )
    head = _interval_head(analysis)
    rates = tuple(
        (
            (arm_name(row["arm"]), row["label"]),
            _share(row["value"]) if "value" in row else _DASH,
            f"{_share(row['low'])} to {_share(row['high'])}" if "value" in row else _DASH,
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
        cells = [_value(by_arm[arm]) if arm in by_arm else _DASH for arm in analysis["arms"]]
        difference = scale["difference"]
        shown = f"{_value(difference, sign=True)} ({_interval(difference, sign=True)})"
        rows.append(
            (
                scale["label"],
                *cells,
                shown if "value" in difference else _DASH,
                _value(scale["cronbach"]),
            )
        )
    header = ("Scale", *(arm_name(arm) for arm in analysis["arms"]), "Difference", "Cronbach α")
    contrast = contrast_name(_primary_contrast(analysis))
    caption = f"Scales asked after each block: means, and {contrast} within readers"
    return (Table(caption, header, tuple(rows)), *_preferences(analysis, mark))


def _preferences(analysis: Result, mark: str) -> list[Block]:
    found = analysis["preferences"]
    if "not_estimable" in found:
        return [Paragraph(f"Preferences are not estimable: {found['not_estimable']}.")]
    drawn = [{"name": arm_name(row["arm"]), **row} for row in found["strengths"]]
    known = [row for row in drawn if row["low"] is not None]
    wins = tuple(
        (
            arm_name(row["arm"]),
            arm_name(row["against"]),
            f"{row['won']} of {row['of']}",
            _percent(row["won"], row["of"]),
        )
        for row in found["wins"]
        if row["of"]
    )
    side = found["side_a"]
    words = f"{found['pairs']} pairs of {found['readers']} readers. Side A was chosen in {side['chosen']} of them."
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
            (_ANSWER_NAMES[row["answer"]], "before any aid" if row["arm"] == "all" else arm_name(row["arm"])),
            row["n"],
            f"{_value(row['alpha'])} ({_interval(row['alpha'])})" if "value" in row["alpha"] else _DASH,
            _value(row["kappa"]),
            *(_value({"value": row["icc"].get(kind)}) for kind in ("single", "average")),
        )
        for row in analysis["agreement"]
    )
    within = tuple(
        (
            _ANSWER_NAMES[row["answer"]],
            row.get("pairs", 0),
            _share(row["equal"], 0) if "equal" in row else _DASH,
            _value(row.get("kappa", {})),
            _value({"value": row.get("within_sd")}),
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
    found = analysis["ood"]
    if not found["cases"]:
        return ()
    names = ("trust", "confidence_before", "confidence_after")
    rows = tuple((arm_name(r["arm"]), r["n"], *(_value({"value": r[n]}) for n in names)) for r in found["by_arm"])
    primary = found["primary"]
    words = f"The primary contrast on these {found['cases']} cases: "
    words += (
        f"not estimable, {primary['not_estimable']}."
        if "not_estimable" in primary
        else f"{_value(primary, sign=True)} ({_interval(primary, sign=True)})."
    )
    header = ("Arm", "Answers", "Trust", "Confidence, unaided", "Confidence, with the aid")
    return (Table("Means on cases out of distribution", header, rows), Paragraph(words))


def _notes(analysis: Result) -> Bullets:
    plan = analysis["plan"]
    low, high = plan["time_limits"]
    return Bullets(
        (
            "The plan was fixed before the first answer. It names the primary and the safety endpoint, and the "
            "secondary ones, a single family under Holm's correction; all else is description, whatever its interval.",
            "Ratings: linear mixed model by restricted maximum likelihood; arm by stratum and block as fixed effects, "
            "reader, case, reader x arm and case x arm as random ones; Satterthwaite's degrees of freedom.",
            "AI errors are enriched in the study. Effects are averaged over strata at their shares in practice; "
            "'unweighted strata' averages them as the study has them.",
            "Safety and yes/no answers: the same model of 0 and 1. Preferences: sign-flip test over readers, exact for "
            "up to 16; intervals by a jackknife over readers, open where all readers lean to one side. Coverage and "
            "false positives of each were measured on made-up readers (eval_study/results/study/COVERAGE.md).",
            f"Rates and balanced accuracy: percentile intervals of {plan['resamples']:,} resamples of readers and "
            f"cases (seed {plan['seed']}). 'Cannot tell' is not right; cases of unknown truth do not count.",
            f"Answers that took less than {low:g} s or more than {high:g} s are left out where a row says so, and only "
            "there.",
            "Items on the explanation are missing by design where there is no explanation; nothing is imputed. Repeats "
            "and cases out of distribution are left out of the main analysis.",
            "'Not estimable' or a dash means that the data cannot answer the question, not that the answer is no.",
        )
    )


def _made(analysis: Result, command: str) -> Table:
    plan = analysis["plan"]
    rows = [
        ("Study", analysis["study"]),
        ("Data", analysis["data_kind"]),
        ("Plan, sha256", analysis["plan_sha256"] or _DASH),
        ("Primary contrast", f"{plan['primary']['arm']} - {plan['primary']['reference']} on {plan['endpoint']}"),
        ("Planned for", f"a difference of {plan['smallest_effect']:g} points, power {plan['power']:g}"),
        (
            "Safety contrast",
            f"{plan['safety']['arm']} - {plan['safety']['reference']}, margin {plan['safety_margin']:g}",
        ),
        ("Alpha, two-sided", f"{plan['alpha']:g}"),
        ("Software", f"SkinCLIP-VL {analysis['version']}"),
        ("Command", command or _DASH),
        ("Files beside this report", "analysis.json, data/ (tables, dictionary, iMRMC), figures/, R/"),
        ("Use", RESEARCH_USE_ONLY),
        *_reasons(analysis),
    ]
    return Table("What made this report", ("", ""), tuple(rows), "made")


def _reasons(analysis: Any, path: str = "") -> list[tuple[str, str]]:
    """Every result that is not estimable, with its reason, once per reason."""
    if isinstance(analysis, Mapping):
        if "not_estimable" in analysis:
            name = analysis.get("label") or analysis.get("analysis") or analysis.get("answer") or path
            return [(f"Not estimable: {_NAMES.get(name, name)}", str(analysis["not_estimable"]))]
        found = [row for key, value in analysis.items() for row in _reasons(value, path or key)]
    elif isinstance(analysis, list | tuple):
        found = [row for value in analysis for row in _reasons(value, path)]
    else:
        return []
    return [row for row in dict.fromkeys(found) if row[1] != "not a scale"]


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


def _number(value: float, digits: int, sign: bool = False) -> str:
    """With a true minus sign, as the figures' axes have."""
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _value(row: Result, digits: int = 2, sign: bool = False) -> str:
    value = row.get("value")
    return _DASH if value is None else _number(value, digits, sign)


def _interval(row: Result, digits: int = 2, sign: bool = False) -> str:
    low, high = row.get("low"), row.get("high")
    if low is None or high is None:  # open where the answers cannot bound it
        one = [f"above {_number(low, digits, sign)}"] if low is not None else []
        one += [f"below {_number(high, digits, sign)}"] if high is not None else []
        return one[0] if one else _DASH
    return f"{_number(row['low'], digits, sign)} to {_number(row['high'], digits, sign)}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _p_cell(row: Result, key: str = "p") -> str:
    p = row.get(key)
    return _DASH if p is None else _p(p).removeprefix("p ").removeprefix("= ")


def _points(share: float) -> str:
    """A difference of shares in percentage points."""
    return _number(100 * share, 1, sign=True)


def _share(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _percent(part: int, whole: int) -> str:
    return _share(part / whole) if whole else _DASH


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
