"""The last sections of a study's report: how to read it, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinclip import RESEARCH_USE_ONLY
from skinclip.reporting.document import Bullets, Table
from skinclip.study.analysis.report_cells import DASH, Result

ANSWER_NAMES = {
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
RESULT_NAMES = {
    **ANSWER_NAMES,
    "primary": "the primary endpoint",
    "safety": "the safety endpoint",
    "agreement": "agreement between readers",
    "retest": "agreement with oneself",
    "ood": "cases out of distribution",
}


def reading_notes(analysis: Result) -> Bullets:
    """Rules by which to read the figures of the report."""
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


def provenance(analysis: Result, command: str) -> Table:
    """Study, plan, command and version behind a report, and what could not be estimated."""
    plan = analysis["plan"]
    rows = [
        ("Study", analysis["study"]),
        ("Data", analysis["data_kind"]),
        ("Plan, sha256", analysis["plan_sha256"] or DASH),
        ("Primary contrast", f"{plan['primary']['arm']} - {plan['primary']['reference']} on {plan['endpoint']}"),
        ("Planned for", f"a difference of {plan['smallest_effect']:g} points, power {plan['power']:g}"),
        (
            "Safety contrast",
            f"{plan['safety']['arm']} - {plan['safety']['reference']}, margin {plan['safety_margin']:g}",
        ),
        ("Alpha, two-sided", f"{plan['alpha']:g}"),
        ("Software", f"SkinCLIP-VL {analysis['version']}"),
        ("Command", command or DASH),
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
            return [(f"Not estimable: {RESULT_NAMES.get(name, name)}", str(analysis["not_estimable"]))]
        reasons = [row for key, value in analysis.items() for row in _reasons(value, path or key)]
    elif isinstance(analysis, list | tuple):
        reasons = [row for value in analysis for row in _reasons(value, path)]
    else:
        return []
    return [row for row in dict.fromkeys(reasons) if row[1] != "not a scale"]
