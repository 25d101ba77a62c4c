"""Sections of a study's report on what the plan asked, from the results of `statistics.analyse`.

Only words and layout are made here. What describes beside the plan is `report_further`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from skinclip.reporting.document import Block, Paragraph, Picture, Table
from skinclip.reporting.style import Plot
from skinclip.study.analysis import plots
from skinclip.study.analysis.plots import arm_name, contrast_name
from skinclip.study.analysis.report_cells import (
    DASH,
    Result,
    interval_cell,
    p_cell,
    percent_words,
    points,
    share_words,
    value_cell,
)
from skinclip.study.analysis.report_notes import ANSWER_NAMES


def participants(analysis: Result) -> tuple[Block, ...]:
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


def primary_endpoint(analysis: Result, mark: str) -> tuple[Block, ...]:
    rows = [{"name": "Primary: " + contrast_name(primary_contrast(analysis)), "strong": True, **analysis["primary"]}]
    rows += [{"name": row["analysis"], **row} for row in analysis["sensitivity"]]
    rows += [
        {"name": contrast_name(row["contrast"]), **row}
        for row in (*analysis["secondary"], *analysis["described"])
        if row["endpoint"] == analysis["plan"]["endpoint"]
    ]
    kept = ("name", "strong", "value", "low", "high", "p", "not_estimable")
    rows = [{key: row[key] for key in kept if key in row} for row in rows]
    unit = "share" if analysis["primary_endpoint"]["share"] else "points"
    label = f"difference in {endpoint_label(analysis).lower()}, {unit}"
    means = tuple((arm_name(row["arm"]), value_cell(row), interval_cell(row)) for row in analysis["trust_by_arm"])
    blocks = [
        Table(f"Mean {endpoint_label(analysis).lower()} by the model", ("Arm", "Mean", interval_head(analysis)), means),
        *picture(
            "forest_primary",
            "Primary contrast, sensitivity analyses and further contrasts",
            "Differences in points: right of 0 the arm named first has more. The square is the planned analysis.",
            plots.forest(rows, label, mark),
        ),
        _difference_table("The same figures", rows, analysis),
        *picture(
            "raincloud",
            f"Readers' mean {endpoint_label(analysis).lower()} by arm",
            "Each dot is a reader, cases unweighted; above it the density, the bar spans the quartiles.",
            plots.raincloud(analysis["reader_means"], analysis["arms"], endpoint_label(analysis).lower(), mark),
        ),
        *_variances(analysis["primary"]),
        _wilcoxon(analysis),
    ]
    return tuple(blocks)


def _difference_table(caption: str, rows: Sequence[Result], analysis: Result) -> Table:
    lines = tuple((row["name"], value_cell(row, sign=True), interval_cell(row, sign=True), p_cell(row)) for row in rows)
    return Table(caption, ("", "Difference", interval_head(analysis), "p"), lines)


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
    caption += f"{contrast_name(primary_contrast(analysis))}; median difference (of time, ratio); Holm's p over the "
    caption += "secondary endpoints in this table"
    return Table(caption, ("Endpoint", "Readers", "Median", "p", "p, Holm"), rows)


def safety_words(analysis: Result) -> str:
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


def safety_endpoint(analysis: Result, mark: str) -> tuple[Block, ...]:
    safety = analysis["safety"]
    if "not_estimable" in safety:
        return (Paragraph(f"Not estimable: {safety['not_estimable']}."),)
    percent = {end: 100 * safety[end] for end in ("value", "low", "high")}
    row = {"name": contrast_name(safety["contrast"]), "strong": True, **percent}
    return (
        Paragraph(safety_words(analysis)),
        Paragraph(_of_right_words(safety["of_right"])),
        *picture(
            "safety",
            "Switch to wrong where the AI errs",
            "Non-inferior where the whole interval lies left of the margin.",
            plots.forest([row], "difference, percentage points", mark, margin=100 * safety["margin"]),
        ),
    )


def _of_right_words(found: Result) -> str:
    """The difference among answers that were right before the aid."""
    head = "Beside it, among answers that were right before the aid and could be led astray"
    if "not_estimable" in found:
        return f"{head}: not estimable, {found['not_estimable']}."
    rates = f"{share_words(found['rate'])} against {share_words(found['rate_reference'])}"
    ends = f"{points(found['low'])} to {points(found['high'])}"
    return f"{head}: {rates}, a difference of {points(found['value'])} percentage points ({ends}). Not tested."


def secondary_endpoints(analysis: Result, mark: str) -> tuple[Block, ...]:
    rows, head = analysis["secondary"], interval_head(analysis)
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
        *picture(
            "forest_secondary",
            f"Ratings and time, {contrast_name(primary_contrast(analysis))}",
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


def reliance(analysis: Result, mark: str) -> tuple[Block, ...]:
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
    head = interval_head(analysis)
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
        *picture(
            "accuracy",
            "Balanced accuracy, unaided (hollow) and with the aid",
            "Lines are the mixed model's intervals.",
            plots.dumbbells(analysis["accuracy"], "balanced accuracy", mark),
        ),
        Table(
            "Balanced accuracy of the readers",
            ("Arm", "Answers", "Unaided", head, "With the aid", head, "Change", head),
            accuracy,
        ),
        *picture(
            "switches",
            "Where answers went: unaided (left) to aided (right)",
            "Blue stayed right, green became right, orange became wrong, grey stayed wrong.",
            plots.switches(analysis["switches"], analysis["arms"], mark),
        ),
        Table("How readers took the AI's answer", ("Arm", "Rate", head, "Answers"), rates),
    )


def confidence(analysis: Result, mark: str) -> tuple[Block, ...]:
    words = "On the diagonal, readers are right as often as they say. Bins of 20 points; size is the number of answers."
    drawn = plots.calibration(analysis["calibration"], analysis["arms"], mark)
    return tuple(picture("calibration", "Calibration of readers' confidence", words, drawn))


def opinions(analysis: Result, mark: str) -> tuple[Block, ...]:
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
    contrast = contrast_name(primary_contrast(analysis))
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
    words += f"Side A was chosen in {side['chosen']} of them: a side effect of {value_cell(side, sign=True)} log-odds "
    words += f"({interval_cell(side, sign=True)}), which the strengths are free of."
    return [
        *picture(
            "preferences",
            "Side by side: strength of preference",
            "Bradley-Terry log-odds with Firth's penalty, 0 is the mean aid; intervals over readers.",
            plots.forest(known, "log-odds of being preferred", mark),
        ),
        Table("Pairs won", ("Aid", "Against", "Won", "Share"), wins),
        Paragraph(words),
    ]


def agreement(analysis: Result) -> tuple[Block, ...]:
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
            ("Answer", "Answers", f"α ({interval_head(analysis)})", "κ", "ICC, one reader", "ICC, mean"),
            between,
        ),
        Table(
            "Within readers, first answer against the repeat",
            ("Answer", "Pairs", "Equal", "κ", "Within-reader SD"),
            within,
        ),
    )


def out_of_distribution(analysis: Result) -> tuple[Block, ...]:
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


def picture(name: str, title: str, words: str, plot: Plot | None) -> list[Block]:
    return [Picture(name, title, words, plot)] if plot else []


def primary_contrast(analysis: Result) -> str:
    return f"{analysis['plan']['primary']['arm']} - {analysis['plan']['primary']['reference']}"


def endpoint_label(analysis: Result) -> str:
    return str(analysis["primary_endpoint"]["label"])


def level(analysis: Result) -> str:
    return f"{100 * (1 - analysis['plan']['alpha']):g} %"


def interval_head(analysis: Result) -> str:
    return f"{level(analysis)} interval"
