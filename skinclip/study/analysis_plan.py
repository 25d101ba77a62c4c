"""From a protocol's plan to what the statistics are told: the same decisions under the names of `statistics`."""

from __future__ import annotations

from skinclip.study.protocol import Protocol
from skinclip.study.statistics import ENDPOINTS, AnalysisPlan, Contrast

_MODELLED = {"confidence": "confidence_change", "seconds": "time"}  # endpoints of a plan as the statistics name them


def of(protocol: Protocol) -> AnalysisPlan:
    """The protocol's plan as the statistics take it; endpoints that no mixed model fits are computed in any case."""
    plan = protocol.plan
    modelled = [_MODELLED.get(key, key) for key in plan.secondary]
    primary = Contrast(plan.primary.arm, plan.primary.reference)
    others = [c for c in AnalysisPlan.secondary_contrasts if {c.arm, c.against} <= set(protocol.arms)]
    return AnalysisPlan(
        primary=primary,
        endpoint=_MODELLED.get(plan.primary.endpoint, plan.primary.endpoint),
        safety_margin=plan.safety.margin,
        alpha=plan.alpha,
        secondary=tuple(key for key in modelled if key in ENDPOINTS),
        secondary_contrasts=tuple(c for c in others if c != primary),
        completion=protocol.completion.min_cases_share,
        time_limits=(plan.time_outliers.min_seconds, plan.time_outliers.max_seconds),
        seed=protocol.seed % 2**32,
    )
