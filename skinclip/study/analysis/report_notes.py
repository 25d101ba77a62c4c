"""The last sections of a study's report: how to read it, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from skinclip import RESEARCH_USE_ONLY
from skinclip.reporting.document import Block, Bullets, Paragraph, Table
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
    crossover = (
        f"Two sessions, {plan['washout_days']} days or more apart by the server's clock: each case is met in two arms. "
        "The second session is a fixed effect, and a reader's two answers to a case share a random one. 'First session "
        "alone' is the comparison without the second.",
    )
    return Bullets(
        (
            *(crossover if plan["washout_days"] else ()),
            "The plan was fixed before the first answer. It names the primary and the safety endpoint, and the "
            "secondary ones, a single family under Holm's correction; all else is description, whatever its interval.",
            "Answers case by case: linear mixed model by restricted maximum likelihood; arm by stratum and block as "
            "fixed effects, reader, case, reader x arm and case x arm as random ones, and patients with several cases; "
            "Satterthwaite's degrees of freedom. Yes/no answers, rates and accuracy are 0 and 1; balanced accuracy "
            "weighs each answer by its diagnosis.",
            "AI errors are enriched in the study. Effects are averaged over strata at their shares in practice; "
            "'unweighted strata' averages them as the study has them.",
            "Preferences: sign-flip test over readers, exact for up to 16; strengths by Bradley-Terry with a side "
            "effect and Firth's penalty; errors are the larger of the model's and a jackknife's over readers, "
            "intervals open where all readers lean to one side.",
            "'Cannot tell' is not right; cases of unknown truth do not count.",
            f"Answers that took less than {low:g} s or more than {high:g} s are left out where a row says so, and only "
            "there.",
            "Items on the explanation are missing by design where there is no explanation; nothing is imputed. Repeats "
            "and cases out of distribution are left out of the main analysis.",
            "'Not estimable' or a dash means that the data cannot answer the question, not that the answer is no.",
        )
    )


@cache
def coverage() -> dict[str, Any]:
    """Coverage of every endpoint's interval on made-up readers, as `eval_study.trust_study.coverage` measured it."""
    values: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("coverage.yaml").read_text(encoding="utf-8"))
    return values


def coverage_table() -> tuple[Block, ...]:
    """Coverage on made-up readers of each endpoint's interval by the number of readers."""
    found = coverage()
    readers = tuple(found["readers"])
    rows = tuple(
        (label, *(DASH if row.get(n) is None else f"{row[n][0]:.3f} ({row[n][1]})" for n in readers))
        for label, row in found["endpoints"].items()
    )
    return (
        Paragraph(found["words"]),
        Table(
            "Share of made-up studies whose 95 % interval holds the true difference (studies)",
            ("Endpoint", *(f"{n} readers" for n in readers)),
            rows,
        ),
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
