"""The power of a protocol is that of its own size, plan and gates."""

from __future__ import annotations

from typing import Any

import pytest

from skinclip.study import power
from skinclip.study.protocol.protocol import Protocol
from tests.study import tiny


def small(**plan: Any) -> Protocol:
    """A small protocol with an effect that is hard to miss."""
    values = tiny.protocol()
    cases = {**values["cases"], "n": 40, "wrong_share": 0.3, "ood_share": 0.1}
    primary = {**values["plan"]["primary"], "smallest_effect": 2.0}
    gates = ["primary", "safety", "secondary"]
    changed = {**values["plan"], "primary": primary, "secondary": ["act"], "gatekeeping": gates, **plan}
    completion = {"min_cases_share": 0.9, "min_readers": 8}
    return Protocol.from_dict({**values, "cases": cases, "plan": changed, "completion": completion})


def test_the_simulated_study_has_the_protocols_size_and_effect(trust_study: Protocol) -> None:
    made = power.simulation_of(trust_study)
    assert (made.readers, made.cases, round(made.cases * made.wrong_share)) == (60, 54, 20)
    effect = made.arms["regions"].trust - made.arms["grad_cam"].trust
    assert effect == pytest.approx(trust_study.plan.primary.smallest_effect)
    assert made.arms["regions"].follow_wrong == made.arms["grad_cam"].follow_wrong
    assert made.following > 0


def test_a_large_effect_is_found_and_gates_hold_back_the_rest() -> None:
    told = []
    rows = power.power(small(), 4, on_study=lambda done, of: told.append((done, of)))
    found = {row.label: row for row in rows}
    assert told == [(i + 1, 4) for i in range(4)]
    assert found["primary: Trust in this answer"].alone[0] == 1.0
    safety, act = found["safety: non-inferior"], found["Would biopsy or refer, with the aid"]
    assert safety.confirmed[0] == safety.alone[0] and act.confirmed[0] <= min(act.alone[0], safety.alone[0])
    assert all(row.alone[1] <= row.alone[0] <= row.alone[2] for row in rows)


def test_the_table_says_what_was_assumed_and_what_is_too_few() -> None:
    rows = [power.EndpointPower("primary", (0.5, 0.3, 0.7), (0.5, 0.3, 0.7))]
    text = power.power_table(small(), rows, 20)
    assert "SIMULATED" in text.upper() and "2 on trust" in text
    assert "TOO FEW: primary has less power than the plan's 0.8" in text
    rows = [power.EndpointPower("primary", (0.85, 0.7, 0.9), (0.85, 0.7, 0.9))]
    assert "cannot tell" in power.power_table(small(), rows, 20)
    assert "not simulated" in power.power_table(small(), [], 0)
