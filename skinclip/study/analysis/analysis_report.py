"""The report of a study: a summary in plain words, then tables and figures, as HTML and PDF with all their data.

    write(tables, Path("out"))      # report.html, report.pdf, analysis.json, data/, figures/, R/

Only words and layout are made here; every number comes from `statistics.analyse`.
"""

from __future__ import annotations

import json
from pathlib import Path

from skinclip.reporting.document import Block, Document, Paragraph, Section, Tiles, write_pictures
from skinclip.reporting.html_page import to_html
from skinclip.reporting.pdf_pages import to_pdf
from skinclip.study.analysis import r_scripts
from skinclip.study.analysis import report_further as further
from skinclip.study.analysis import report_sections as sections_of
from skinclip.study.analysis.analysis_plan import DEFAULT_PLAN, AnalysisPlan
from skinclip.study.analysis.plots import arm_name, contrast_name
from skinclip.study.analysis.report_cells import (
    DASH,
    Result,
    count_words,
    interval_cell,
    number,
    p_words,
    points,
    value_cell,
)
from skinclip.study.analysis.report_notes import coverage_table, provenance, reading_notes
from skinclip.study.analysis.report_sections import endpoint_label, level, primary_contrast, safety_words
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
    subtitle += f"{endpoint_label(analysis)}, {contrast_name(primary_contrast(analysis))}."
    sections = [
        Section("Summary", (Paragraph(summary(analysis), lead=True), *_tiles(analysis))),
        Section("Order of tests", further.order_of_tests(analysis)),
        Section("Who took part", sections_of.participants(analysis)),
        Section("Primary endpoint", sections_of.primary_endpoint(analysis, mark)),
        Section("Ratings as ordered categories", further.ordinal_ratings(analysis)),
        Section("Text and pointing", further.text_and_pointing(analysis)),
        Section("Safety endpoint", sections_of.safety_endpoint(analysis, mark)),
        Section("Secondary endpoints", sections_of.secondary_endpoints(analysis, mark)),
        Section("Accuracy and reliance", sections_of.reliance(analysis, mark)),
        Section("Deserved trust", further.deserved_reliance(analysis)),
        Section("AUC, sensitivity and specificity", further.malignancy_reading(analysis)),
        Section("Confidence", sections_of.confidence(analysis, mark)),
        Section("Scales and preferences", sections_of.opinions(analysis, mark)),
        Section("Agreement", sections_of.agreement(analysis)),
        Section("Cases out of distribution", sections_of.out_of_distribution(analysis)),
        Section("Period, carry-over, site and experience", further.context(analysis)),
        Section("Missing answers and quality of the data", further.missing_and_quality(analysis)),
        Section("How to read this", (reading_notes(analysis),)),
        Section("Coverage of the intervals", coverage_table()),
        Section("How this was made", (provenance(analysis, command),)),
    ]
    title = f"Reader study {analysis['study']}"
    return Document(title, subtitle, mark, tuple(section for section in sections if section.blocks))


# --- the summary --------------------------------------------------------------------------------------------------


def summary(analysis: Result) -> str:
    """The study in one paragraph: who and how many, the primary result, the safety result."""
    who = _who(analysis["flow"])
    return f"{MARKED.get(analysis['mark'], '')}{who} {_primary_words(analysis)} {safety_words(analysis)}"


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
    apart, interval = f"{abs(primary['value']):.2f} points", interval_cell(primary, sign=True)
    smallest = f"{analysis['plan']['smallest_effect']:g} points"
    if analysis["primary_endpoint"]["share"]:
        apart = f"{number(100 * abs(primary['value']), 1)} percentage points"
        interval = f"{points(primary['low'])} to {points(primary['high'])}"
        smallest = f"{100 * analysis['plan']['smallest_effect']:g} percentage points"
    words = f"{endpoint_label(analysis)} was {apart} {direction} with {arm} than with {against} "
    words += f"({level(analysis)} interval {interval}, {p_words(primary['p'])})"
    significant = primary["p"] < analysis["plan"]["alpha"]
    words += ": a difference beyond chance. " if significant else ": no difference beyond chance was shown. "
    return f"{words}The plan's smallest difference of interest is {smallest}."


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
                (f"{endpoint_label(analysis)}, difference", *primary),
                ("Switch to wrong, difference", *safety),
            )
        )
    ]
