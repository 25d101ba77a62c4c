"""Power of a protocol's endpoints by simulation, before there is a photo or a reader.

Studies of the protocol's own size are drawn from `simulate` and analysed by its own plan. Assumed are the plan's
smallest effect on trust, the simulator's effects of each aid on everything else, no difference in safety, and readers
who differ in how far they follow the AI, by themselves and by aid, and cases in how convincing its error is.
Assumptions are no findings: a pilot's figures are better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.stats import binomtest

from skinclip.study.analysis import analysis_plan, gatekeeping, reliance, secondary, statistics
from skinclip.study.analysis.analysis_plan import AnalysisPlan
from skinclip.study.analysis.mixed import attempt
from skinclip.study.analysis.tables import SIMULATED, primary_cases
from skinclip.study.protocol.arms import explaining
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.simulate import ARMS, ArmEffect, Simulation, simulate

FOLLOWING, FOLLOWING_ARM, CONVINCING = 0.8, 0.3, 0.5  # standard deviations in log-odds, as `Simulation` names them
_LEFT_OUT = 0.01  # share of ratings


@dataclass(frozen=True)
class EndpointPower:
    """Shares of studies in which an endpoint succeeds: `alone` by its own p, `confirmed` behind gates and after Holm.

    Each is (share, low, high) with a Wilson 95 % interval.
    """

    label: str
    alone: tuple[float, float, float]
    confirmed: tuple[float, float, float]


def simulation_of(protocol: Protocol) -> Simulation:
    """The simulated study of a protocol: its arms, cases and least number of completers."""
    counts, primary = protocol.cases.counts, protocol.plan.primary
    cases = counts["right"] + counts["wrong"]
    arms = {arm: ARMS.get(arm, ArmEffect()) for arm in protocol.arms}
    if primary.endpoint == "trust":
        arms[primary.arm] = replace(arms[primary.arm], trust=arms[primary.reference].trust + primary.smallest_effect)
    safety = protocol.plan.safety
    arms[safety.arm] = replace(arms[safety.arm], follow_wrong=arms[safety.reference].follow_wrong)
    return Simulation(
        readers=protocol.completion.min_readers,
        cases=cases,
        arms=arms,
        wrong_share=counts["wrong"] / cases,
        missing=_LEFT_OUT,
        following=FOLLOWING,
        following_arm=FOLLOWING_ARM,
        convincing=CONVINCING,
        repeat_share=0.0,
        sessions=protocol.sessions,
        pairs=protocol.cases.preference_pairs if len(explaining(protocol.arms)) > 1 else 0,
    )


def power(
    protocol: Protocol, studies: int, seed: int = 0, on_study: Callable[[int, int], None] | None = None
) -> list[EndpointPower]:
    """Power of the primary, the safety and each secondary endpoint and contrast, from so many simulated studies.

    Questions of the study's own are not simulated and have none. `on_study` is told how many are done, and of how many.
    """
    plan, simulation = analysis_plan.from_protocol(protocol), simulation_of(protocol)
    rows: dict[str, list[tuple[bool, bool]]] = {}
    for i in range(studies):
        for label, hit in _one_study(simulation, plan, seed + i):
            rows.setdefault(label, []).append(hit)
        if on_study:
            on_study(i + 1, studies)
    return [
        EndpointPower(label, _share([alone for alone, _ in hits]), _share([both for _, both in hits]))
        for label, hits in rows.items()
    ]


def _one_study(simulation: Simulation, plan: AnalysisPlan, seed: int) -> list[tuple[str, tuple[bool, bool]]]:
    """(label, (alone, confirmed)) of each endpoint in one study."""
    tables = simulate(simulation, seed)
    cases = primary_cases(tables.cases)
    primary = attempt(statistics.primary_result, cases, plan)
    safety = attempt(reliance.safety, cases, plan.safety, plan.safety_margin, plan.alpha)
    family = secondary.family(secondary.Answers(cases, tables.blocks, tables.preferences), plan)
    gates = {row["step"]: row for row in gatekeeping.steps(primary, safety, family, plan)}

    def reached(step: str) -> bool:
        return bool(gates[step]["reached"]) if step in gates else True

    found: list[tuple[str, bool, bool]] = [
        (f"primary: {plan.primary_endpoint.label}", _below(primary, "p", plan), _below(primary, "p", plan)),
        ("safety: non-inferior", (safe := safety.get("decision") == "non-inferior"), safe and reached("safety")),
    ]
    for row in family:
        name = row["label"] if row["endpoint"] != plan.endpoint else f"{row['label']}, {row['contrast']}"
        found.append((name, _below(row, "p", plan), _below(row, "p_holm", plan) and reached("secondary")))
    return [(label, (alone, confirmed)) for label, alone, confirmed in found]


def _below(row: dict[str, Any], name: str, plan: AnalysisPlan) -> bool:
    return float(row.get(name, 1.0)) < plan.alpha


def _share(hits: Sequence[bool]) -> tuple[float, float, float]:
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return sum(hits) / len(hits), float(interval.low), float(interval.high)


def power_table(protocol: Protocol, rows: Sequence[EndpointPower], studies: int) -> str:
    """The power as lines for a coordinator."""
    if not rows:
        return "Power: not simulated (--studies 0)."
    aim = protocol.plan.power
    readers, effect = protocol.completion.min_readers, protocol.plan.primary.smallest_effect
    assumed = f"{effect:g} on trust" if protocol.plan.primary.endpoint == "trust" else "the simulator's primary effect"
    lines = [
        f"Power with {readers} readers, {SIMULATED.lower()}: {studies} studies of this protocol. Assumed: {assumed}, "
        "the simulator's effects elsewhere, no difference in safety.",
        "",
        f"{'alone':>18}  {'confirmed':>18}  endpoint (confirmed: behind the gates and after Holm)",
    ]
    lines += [f"{_cell(row.alone):>18}  {_cell(row.confirmed):>18}  {row.label}" for row in rows]
    for row in rows[:2]:
        if row.alone[2] < aim:
            lines.append(f"TOO FEW: {row.label} has less power than the plan's {aim:g}; more readers, or more cases")
        elif row.alone[1] < aim:
            lines.append(
                f"{row.label}: {studies} studies cannot tell whether the plan's {aim:g} is reached; more: --studies"
            )
    return "\n".join(lines)


def _cell(share: tuple[float, float, float]) -> str:
    return f"{share[0]:.2f} ({share[1]:.2f}-{share[2]:.2f})"
