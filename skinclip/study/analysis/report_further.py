"""Sections of a study's report beside the plan's endpoints: order of tests, deserved trust, text and pointing, AUC,
context, missing answers and data quality. All of it describes; nothing here is a test of the plan.
"""

from __future__ import annotations

from skinclip.reporting.document import Block, Bullets, Paragraph, Table
from skinclip.study.analysis.data_quality import FLAGS
from skinclip.study.analysis.plots import arm_name, contrast_name
from skinclip.study.analysis.report_cells import (
    DASH,
    Result,
    count_words,
    interval_cell,
    number,
    p_cell,
    points,
    share_words,
    value_cell,
)
from skinclip.study.analysis.report_sections import endpoint_label, interval_head, primary_contrast

_STEPS = {"primary": "Primary endpoint", "safety": "Safety: non-inferior", "secondary": "Secondary family, Holm"}


def order_of_tests(analysis: Result) -> tuple[Block, ...]:
    """The plan's gates and how far they opened; nothing where the plan has none."""
    rows = tuple((_STEPS[row["step"]], _gate_words(row)) for row in analysis["gatekeeping"])
    if not rows:
        return ()
    caption = (
        "Tested in the order of the plan, each only where all before it succeeded; what lies behind a closed gate is "
    )
    return (Table(f"{caption}described and confirms nothing", ("Step", "Result"), rows, "made"),)


def _gate_words(row: Result) -> str:
    if not row["reached"]:
        return "not reached"
    if not row["passed"]:
        return "did not succeed"
    confirmed = "; ".join(row.get("confirmed", []))
    return f"succeeded: {confirmed}" if confirmed else "succeeded"


def deserved_reliance(analysis: Result) -> tuple[Block, ...]:
    """Trust, following and accuracy by arm where the AI is right and where it errs."""
    rows: list[tuple[object, ...]] = []
    for outcome in analysis["by_correctness"]:
        rows += [
            (
                (arm_name(row["arm"]), outcome["label"]),
                *(cell for part in ("right", "wrong") for cell in (value_cell(row[part]), interval_cell(row[part]))),
                *(value_cell(row["difference"], sign=True), interval_cell(row["difference"], sign=True)),
            )
            for row in outcome["by_arm"]
        ]
    interactions = tuple(
        (
            (outcome["label"], contrast_name(outcome["interaction"]["contrast"])),
            value_cell(outcome["interaction"], sign=True),
            interval_cell(outcome["interaction"], sign=True),
        )
        for outcome in analysis["by_correctness"]
    )
    head = interval_head(analysis)
    return (
        Paragraph(
            "Reliance is deserved where it follows the AI's right answers and leaves its wrong ones. Differences are "
            "the mean where the AI is right less the mean where it errs; the last table compares them between the arms."
        ),
        Table(
            "Means by the mixed model where the AI is right and where it errs",
            ("Arm", "AI right", head, "AI errs", head, "Difference", head),
            tuple(rows),
        ),
        Table(
            "How much more the difference is in the arm named first",
            ("Outcome", "Difference of differences", head),
            interactions,
        ),
    )


def text_and_pointing(analysis: Result) -> tuple[Block, ...]:
    """The arms read as two by two; nothing where the study has not all four."""
    rows = tuple((r["label"], value_cell(r, sign=True), interval_cell(r, sign=True)) for r in analysis["two_by_two"])
    if not rows:
        return ()
    words = f"{contrast_name(primary_contrast(analysis))} changes text and pointing at once. Read as two by two (no "
    words += (
        "explanation: neither; Grad-CAM: a map, which only points; Grad-CAM + text: a text that refers to no place; "
    )
    words += "rationale with regions: both), the arms tell them apart. The two steps add up to the primary contrast."
    return (
        Paragraph(words),
        Table(f"Effects on {endpoint_label(analysis).lower()}", ("", "Difference", interval_head(analysis)), rows),
    )


def malignancy_reading(analysis: Result) -> tuple[Block, ...]:
    """AUC, sensitivity and specificity by arm, Obuchowski and Rockette's model."""
    head, rows, differences = interval_head(analysis), [], []
    for figure in analysis["mrmc"]:
        for row in (*figure["by_arm"], {"arm": "unaided", **figure["unaided"]}):
            name = "Unaided, all arms" if row["arm"] == "unaided" else arm_name(row["arm"])
            rows.append(((name, figure["label"]), row.get("readers", DASH), value_cell(row, 3), interval_cell(row, 3)))
        found = figure["difference"]
        degrees = number(found["degrees"], 1) if "degrees" in found else DASH
        differences.append(
            (figure["label"], value_cell(found, 3, True), interval_cell(found, 3, True), degrees, p_cell(found))
        )
    return (
        Paragraph(
            "Readers and cases are random (Obuchowski and Rockette 1995; degrees of freedom by Hillis 2007; unbiased "
            "covariances, for readers who see other cases in each arm). The score is 50 + confidence / 2 for a "
            "malignant diagnosis and 50 - confidence / 2 for a benign one. Cases count alike, AI errors as the "
            "study has them."
        ),
        Table("Malignant against benign, by arm with the aid", ("Arm", "Readers", "Mean", head), tuple(rows)),
        Table(
            f"{contrast_name(primary_contrast(analysis))}",
            ("Figure", "Difference", head, "df", "p, not in the family"),
            tuple(differences),
        ),
    )


def ordinal_ratings(analysis: Result) -> tuple[Block, ...]:
    """Ratings as ordered categories, beside the mixed model's."""
    rows = tuple(
        ((row["label"], row.get("not_estimable", "")), value_cell(row), interval_cell(row), p_cell(row))
        for row in analysis["ordinal"]
    )
    caption = (
        f"Ratings as ordered categories, {contrast_name(primary_contrast(analysis))}: odds ratio of a higher rating "
    )
    caption += "(cumulative logits by estimating equations over readers; errors of Mancl and DeRouen)"
    return (Table(caption, ("Rating", "Odds ratio", interval_head(analysis), "p"), rows),)


def context(analysis: Result) -> tuple[Block, ...]:
    """Period, carry-over, site and experience."""
    found, head = analysis["context"], interval_head(analysis)
    effects = [(f"Part {row['block']} of the session, less part 1", row) for row in found["period"]]
    effects += [("Second session, less the first", row) for row in found.get("session", [])]
    effects += [
        (f"After a part with {arm_name(row['after'])}, less after {arm_name(row['less'])}", row)
        for row in found["carry_over"]
    ]
    contrast = contrast_name(primary_contrast(analysis))
    effects.append((f"{contrast}, with carry-over in the model", found["adjusted"]))
    groups = [
        (f"{contrast}: {name} {row['group']} ({count_words(row['readers'], 'reader')})", row)
        for name, part in (("site", "site"), ("experience", "experience"))
        for row in found[part]
    ]
    return tuple(
        Table(
            caption,
            ("", "Difference", head),
            tuple(
                ((name, row.get("not_estimable", "")), value_cell(row, sign=True), interval_cell(row, sign=True))
                for name, row in rows
            ),
        )
        for caption, rows in (
            (f"Period and carry-over, {endpoint_label(analysis).lower()}; described, not tested", effects),
            ("The primary contrast by site and by experience; described, not tested", groups),
        )
        if rows
    )


def missing_and_quality(analysis: Result) -> tuple[Block, ...]:
    """Tipping point of the primary result, safety at its worst, and readers flagged blind."""
    found = analysis["tipping_point"]
    shares = tuple((arm_name(row["arm"]), share_words(row["share"])) for row in found["missing"])
    return (
        Table("Missing of the primary endpoint, of all that readers were to answer", ("Arm", "Missing"), shares),
        Paragraph(_tipping_words(found["primary"], analysis)),
        Paragraph(_worst_words(found["safety"])),
        *_flagged(analysis),
    )


def _tipping_words(found: Result, analysis: Result) -> str:
    if "not_estimable" in found:
        return f"Tipping point of the primary result: not estimable, {found['not_estimable']}."
    arm, against = (arm_name(analysis["plan"]["primary"][side]) for side in ("arm", "reference"))
    held = "be no longer beyond chance" if found["significant"] else "be beyond chance"
    if found["both"] is None:
        return "Nothing is missing in the two arms of the primary contrast: no tipping point."
    words = f"Tipping point: the primary result would {held} if missing answers were {number(found['both'], 2, True)} "
    words += f"apart from the answers given with {arm}, and as far the other way with {against}"
    if found["arm_alone"] is not None:
        words += f"; {number(found['arm_alone'], 2, True)} if those with {arm} alone differed"
    if found["limit"] is not None and abs(found["both"]) > found["limit"]:
        words += f". The answers given span {found['limit']:.1f}, so that this cannot happen"
    return f"{words}."


def _worst_words(found: Result) -> str:
    if "not_estimable" in found:
        return f"Safety with missing answers at their worst: not estimable, {found['not_estimable']}."
    words = "Safety if every missing answer had been a switch to wrong in the arm and none in the reference: "
    words += f"{points(found['value'])} percentage points ({points(found['low'])} to {points(found['high'])}), "
    return f"{words}{found['decision']} at the margin of {points(found['margin'])}."


def _flagged(analysis: Result) -> list[Block]:
    rules = Bullets(tuple(f"{FLAGS[key][0].upper()}{FLAGS[key][1:]}." for key in FLAGS))
    flagged = analysis["data_quality"]
    if not flagged:
        return [Paragraph("No reader was flagged, by these rules, which see neither arm nor truth:"), rules]
    rows = tuple((row["reader"], f"{FLAGS[key]}: {words}") for row in flagged for key, words in row["flags"].items())
    caption = (
        "Readers flagged blind, without arm or truth. All stay in the planned analysis; the primary section has the "
    )
    return [Table(f"{caption}contrast without them", ("Reader", "Flag"), rows, "made"), rules]
