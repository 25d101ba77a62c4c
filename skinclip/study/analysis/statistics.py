"""The analysis of a reader study, as its plan fixed it in advance: tables in, one dictionary of results out.

`analyse` is the whole story in order: who took part, the primary endpoint, the safety endpoint, the secondary ones
under Holm's correction, sensitivity analyses, then what describes. Each result is either a figure with its interval or
`{"not_estimable": reason}`: small or odd data end in words, never in an exception.

The primary model is linear and mixed (`arm_model`); secondary endpoints and their family are `secondary`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

from skinclip import RESEARCH_USE_ONLY, __version__
from skinclip.study.analysis import (
    agreement,
    context_effects,
    data_quality,
    deserved,
    factorial,
    gatekeeping,
    missing_answers,
    mrmc,
    ordinal,
    preferences,
    reliance,
    secondary,
    subjective_outcomes,
)
from skinclip.study.analysis.analysis_plan import DEFAULT_PLAN, AnalysisPlan, Endpoint
from skinclip.study.analysis.arm_model import arm_model
from skinclip.study.analysis.mixed import attempt
from skinclip.study.analysis.tables import (
    AID_ITEMS,
    SESSION,
    WASHOUT_DAYS,
    StudyTables,
    first_session,
    numbers,
    primary_cases,
)
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.arms import explaining, in_registry_order

Result = dict[str, Any]


@threadpool_limits.wrap(limits=1, user_api="blas")
def analyse(tables: StudyTables, plan: AnalysisPlan = DEFAULT_PLAN) -> Result:
    """Every analysis of the plan; the result is plain data that `json` can write."""
    cases = primary_cases(tables.cases)
    arms = in_registry_order(tables.cases["arm"])
    answers = secondary.Answers(cases, tables.blocks, tables.preferences)
    primary = attempt(primary_result, cases, plan)
    safety = attempt(reliance.safety, cases, plan.safety, plan.safety_margin, plan.alpha)
    family = secondary.family(answers, plan)
    return {
        **_about(tables, plan),
        "arms": arms,
        "primary_endpoint": asdict(plan.primary_endpoint),
        "flow": flow(tables, plan),
        "missing": missing(cases),
        "data_quality": data_quality.flags(tables, plan),
        "primary": primary,
        "safety": safety,
        "secondary": family,
        "gatekeeping": gatekeeping.steps(primary, safety, family, plan),
        "described": secondary.described(answers, plan),
        "sensitivity": sensitivity(tables, plan),
        "tipping_point": missing_answers.tipping_point(cases, primary, safety, plan),
        "two_by_two": factorial.two_by_two(cases, arms, plan),
        "context": context_effects.context_effects(tables, plan),
        "ordinal": ordinal.odds_of_higher(cases, plan),
        "time_without_outliers": time_without_outliers(answers, plan),
        "trust_by_arm": trust_by_arm(cases, arms, plan),
        "wilcoxon": wilcoxon(cases, plan),
        "accuracy": reliance.accuracy(cases, arms, plan.alpha),
        "mrmc": mrmc.analyse_mrmc(cases, arms, plan),
        "switching": reliance.switching(cases, arms, plan.alpha),
        "by_correctness": deserved.by_correctness(cases, arms, plan),
        **_opinions_and_agreement(tables, cases, arms, plan),
        "ood": out_of_distribution(tables.cases, arms, plan),
        "calibration": reliance.calibration(cases, arms),
        "switches": reliance.switches(cases, arms),
        "reader_means": reader_means(cases, plan.primary_endpoint),
    }


def _opinions_and_agreement(
    tables: StudyTables, cases: pd.DataFrame, arms: Sequence[str], plan: AnalysisPlan
) -> Result:
    """Scales, preferences, and agreement between readers and within them."""
    pair = (plan.primary.arm, plan.primary.reference)
    return {
        "agreement": agreement.between_readers(cases, arms, plan.resamples, plan.seed, plan.alpha),
        "retest": agreement.within_readers(tables.cases),
        "scales": subjective_outcomes.scales(tables.blocks, arms, *pair, plan.alpha),
        "preferences": attempt(preferences.preferences, tables.preferences, plan.alpha),
    }


# --- the plan's questions -----------------------------------------------------------------------------------------


def primary_result(cases: pd.DataFrame, plan: AnalysisPlan, weighted: bool = True) -> Result:
    """The primary contrast with the model's variance components.

    Raises:
        NotEstimable: See `arm_model`.
    """
    endpoint = plan.primary_endpoint
    model = arm_model(cases, endpoint.of(cases), weighted, endpoint.deserved)
    return {
        "contrast": plan.primary.text,
        "endpoint": plan.endpoint,
        **model.difference(plan.primary, plan.alpha),
        "variances": model.fit.variances,
        "readers": int(cases["reader"].nunique()),
        "cases": int(cases["case"].nunique()),
    }


def sensitivity(tables: StudyTables, plan: AnalysisPlan) -> list[Result]:
    """The primary contrast under other choices of rows and weights."""
    cases = primary_cases(tables.cases)
    done = cases[cases["reader"].isin(completers(tables, plan))]
    timed = cases[_on_task(cases, plan)]
    flagged = {row["reader"] for row in data_quality.flags(tables, plan)}
    rows = [
        {"analysis": "Completers only", **attempt(primary_result, done, plan)},
        {"analysis": "Without outlier times", **attempt(primary_result, timed, plan)},
    ]
    if not plan.primary_endpoint.deserved:  # which takes both strata apart, whatever their weights
        rows.append({"analysis": "Unweighted strata", **attempt(primary_result, cases, plan, False)})
    if SESSION in cases:
        rows.append({"analysis": "First session alone", **attempt(primary_result, first_session(cases), plan)})
        rows += _long_enough_apart(tables, cases, plan)
    if flagged:
        unflagged = cases[~cases["reader"].isin(flagged)]
        label = f"Without {len(flagged)} flagged reader{'s' if len(flagged) > 1 else ''}"
        rows.append({"analysis": label, **attempt(primary_result, unflagged, plan)})
    return rows


def _long_enough_apart(tables: StudyTables, cases: pd.DataFrame, plan: AnalysisPlan) -> list[Result]:
    """The primary contrast without second sessions that began too early, where there is one: a clock was wrong."""
    if WASHOUT_DAYS not in tables.readers or not plan.washout_days:
        return []
    early = set(tables.readers.loc[numbers(tables.readers, WASHOUT_DAYS) < plan.washout_days - 0.01, "reader"])
    if not early:
        return []
    kept = cases[~(cases["reader"].isin(early) & (cases[SESSION] == 2))]
    label = f"Without {len(early)} second session{'s' if len(early) > 1 else ''} that began before the washout was over"
    return [{"analysis": label, **attempt(primary_result, kept, plan)}]


def time_without_outliers(answers: secondary.Answers, plan: AnalysisPlan) -> Result:
    """The primary contrast in time with the aid, answers outside the plan's limits left out, and how many they are."""
    cases = answers.cases
    timed, known = _on_task(cases, plan), np.isfinite(numbers(cases, "seconds_after"))
    row = secondary.endpoint_row(replace(answers, cases=cases[timed]), "seconds", plan)
    left_out = int((known & ~timed).sum())
    return {**row, "label": "Time with the aid, without outliers", "left_out": left_out}


def completers(tables: StudyTables, plan: AnalysisPlan) -> set[str]:
    """Readers who did not withdraw and rated at least the plan's share of all cases, as for closing the study.

    Cases out of distribution count, repeats do not. Who stopped after that, before the last scales, is one.
    """
    cases = tables.cases[~tables.cases["repeat"]]
    rated = plan.primary_endpoint.was_answered(cases).groupby(cases["reader"])
    planned = plan.cases or rated.size().max()
    rated_cases = rated.sum()
    enough = set(rated_cases[rated_cases >= plan.completion * planned].index)
    readers = tables.readers
    return enough & set(readers.loc[~readers["withdrawn"], "reader"])


def _on_task(cases: pd.DataFrame, plan: AnalysisPlan) -> np.ndarray:
    """[n] whether the time with the aid is known and within the plan's limits."""
    seconds = numbers(cases, "seconds_after")
    low, high = plan.time_limits
    return (seconds >= low) & (seconds <= high)


def trust_by_arm(cases: pd.DataFrame, arms: Sequence[str], plan: AnalysisPlan) -> list[Result]:
    """The model's mean of the primary endpoint in each arm, at the strata's shares in practice."""
    outcome = plan.primary_endpoint.of(cases)
    try:
        model = arm_model(cases, outcome, deserved=plan.primary_endpoint.deserved)
    except NotEstimable as reason:
        return [{"arm": arm, "not_estimable": str(reason)} for arm in arms]
    return [{"arm": arm, **attempt(model.mean, arm, plan.alpha)} for arm in arms]


def reader_means(cases: pd.DataFrame, endpoint: Endpoint) -> list[Result]:
    """Mean of the endpoint for each reader in each arm."""
    means = endpoint.by_reader(cases).stack().dropna()
    return [{"reader": reader, "arm": arm, "mean": float(mean)} for (reader, arm), mean in means.items()]


def wilcoxon(cases: pd.DataFrame, plan: AnalysisPlan) -> list[Result]:
    """Wilcoxon's signed-rank test of readers' means in the two arms: the primary endpoint, then the secondary ones of
    the plan that are answered case by case, with Holm's p over these.

    It takes ratings by rank and readers as the only source of chance: the check on treating 7 points as a length.
    `value` is the Hodges-Lehmann median of the differences, of log-seconds as a ratio.
    """
    others = [plan.rated[key] for key in plan.secondary if key in plan.rated]
    rows = secondary.with_holm([_wilcoxon_row(cases, endpoint, plan) for endpoint in others])
    return [_wilcoxon_row(cases, plan.primary_endpoint, plan), *rows]


def _wilcoxon_row(cases: pd.DataFrame, endpoint: Endpoint, plan: AnalysisPlan) -> Result:
    means = endpoint.by_reader(cases)
    pair = [arm for arm in (plan.primary.arm, plan.primary.reference) if arm in means]
    both = means[pair].dropna() if len(pair) == 2 else means.iloc[:0]
    head: Result = {"endpoint": endpoint.key, "label": endpoint.label, "contrast": plan.primary.text}
    head |= {"readers": len(both), "ratio": endpoint.log}
    if len(both) < 2:
        return {**head, "not_estimable": "fewer than two readers with answers in both arms"}
    differences = both.iloc[:, 0].to_numpy() - both.iloc[:, 1].to_numpy()
    if not np.any(differences):
        return {**head, "not_estimable": "no reader differs between the arms"}
    walsh = (differences[:, None] + differences[None, :])[np.triu_indices(len(differences))] / 2
    value = float(np.exp(np.median(walsh)) if endpoint.log else np.median(walsh))
    return {**head, "value": value, "p": float(stats.wilcoxon(differences).pvalue)}


def out_of_distribution(cases: pd.DataFrame, arms: Sequence[str], plan: AnalysisPlan) -> Result:
    """The cases out of distribution on their own: how many, mean trust and confidence by arm, the primary contrast."""
    ood = cases[~cases["repeat"] & (cases["stratum"] == "ood")]
    rows = []
    for arm in arms:
        of_arm = ood[ood["arm"] == arm]
        means = {name: numbers(of_arm, name) for name in ("trust", "confidence_before", "confidence_after")}
        known = {n: float(np.nanmean(v)) if np.isfinite(v).any() else None for n, v in means.items()}
        rows.append({"arm": arm, "n": len(of_arm), **known})
    contrast = attempt(primary_result, ood, plan)
    return {"cases": int(ood["case"].nunique()), "by_arm": rows, "primary": contrast}


# --- who took part ------------------------------------------------------------------------------------------------


def flow(tables: StudyTables, plan: AnalysisPlan) -> Result:
    """Readers enrolled, withdrawn, finished, analysed and complete; cases and answers."""
    cases, readers = primary_cases(tables.cases), tables.readers
    return {
        "enrolled": len(readers),
        "withdrawn": int(readers["withdrawn"].sum()),
        "finished": int((readers["completed"] & ~readers["withdrawn"]).sum()),
        "analysed": int(cases["reader"].nunique()),
        "completers": len(completers(tables, plan)),
        "sites": int(readers["site"].nunique()),
        "cases": int(cases["case"].nunique()),
        "cases_ai_wrong": int(cases.loc[cases["stratum"] == "wrong", "case"].nunique()),
        "cases_ood": int(tables.cases.loc[tables.cases["stratum"] == "ood", "case"].nunique()),
        "answers": len(cases),
        "repeats": int(tables.cases["repeat"].sum()),
    }


def missing(cases: pd.DataFrame) -> list[Result]:
    """Answers missing of each item, among the rows where it was asked: an aid's items are not asked without one."""
    rows, aided = [], explaining(cases["arm"].unique())
    for column in ("diagnosis_before", "diagnosis_after", "confidence_after", "trust", *AID_ITEMS, "seconds_after"):
        asked = cases[cases["arm"].isin(aided)] if column in AID_ITEMS else cases
        rows.append({"item": column, "asked": len(asked), "missing": int(asked[column].isna().sum())})
    return rows


def _about(tables: StudyTables, plan: AnalysisPlan) -> Result:
    return {
        "study": tables.study,
        "mark": tables.mark,
        "data_kind": tables.mark or "answers of readers",
        "use": RESEARCH_USE_ONLY,
        "version": __version__,
        "plan_sha256": tables.plan_sha256,
        "plan": asdict(plan),
    }
