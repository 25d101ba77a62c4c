"""Coverage of the primary interval in studies with a second session, on simulated readers without a difference.

    python -m eval_study.trust_study.second_sessions --studies 200 --out eval_study/results/study

Each case is met in two arms, and a reader's two answers to it have an effect in common (standard deviation 0.6 points
of trust, as much as readers differ by); the second session is 0.3 points higher. Beside the planned analysis stand the
one that knows nothing of the common effect, and the first session alone. The default protocol's cases: 54, 20 of them
errors of the AI.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from skinclip.study.analysis.analysis_plan import AnalysisPlan
from skinclip.study.analysis.mixed import attempt
from skinclip.study.analysis.statistics import primary_result
from skinclip.study.analysis.tables import SESSION, SIMULATED, first_session, primary_cases
from skinclip.study.simulate import Simulation, Spread, simulate

READERS = (8, 20)
PLAN = AnalysisPlan(secondary=(), secondary_contrasts=())
ANALYSES: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "planned": lambda cases: cases,
    "without the common effect": lambda cases: cases.drop(columns=SESSION),
    "first session alone": first_session,
}


def setting(readers: int) -> Simulation:
    """The simulated study with so many readers and no difference between the two arms."""
    return Simulation(
        readers=readers,
        cases=54,
        wrong_share=20 / 54,
        repeat_share=0.0,
        sessions=2,
        session_shift=0.3,
        spread=Spread(reader_case=0.6, residual=0.8),
    ).without_effect("regions", "grad_cam")


def run(readers: int, studies: int) -> list[dict[str, Any]]:
    """Coverage, rejections and mean width of each analysis."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ANALYSES}
    for seed in range(studies):
        cases = primary_cases(simulate(setting(readers), 1000 * readers + seed).cases)
        for name, of in ANALYSES.items():
            result = attempt(primary_result, of(cases), PLAN)
            if "value" in result:
                found[name].append((result["low"], result["high"], result["p"]))
    return [{"readers": readers, "analysis": name, **_summary(np.array(ends))} for name, ends in found.items()]


def _summary(ends: np.ndarray) -> dict[str, Any]:
    holds = (ends[:, 0] <= 0) & (ends[:, 1] >= 0)
    interval = binomtest(int(holds.sum()), len(holds)).proportion_ci(method="wilson")
    return {
        "studies": len(ends),
        "coverage": float(holds.mean()),
        "coverage_interval": [float(interval.low), float(interval.high)],
        "rejected": float((ends[:, 2] < PLAN.alpha).mean()),
        "width": float((ends[:, 1] - ends[:, 0]).mean()),
    }


def table(rows: list[dict[str, Any]], command: str) -> str:
    """The result as Markdown."""
    lines = [
        "# Second sessions: coverage of the primary interval",
        "",
        f"{SIMULATED}. Made by `{command}`; study i of n readers has the seed 1000 n + i.",
        "",
        "| readers | analysis | studies | 95 % interval holds the truth | p < 0.05 | mean width |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["coverage_interval"]
        held = f"{row['coverage']:.3f} ({low:.3f}-{high:.3f})"
        lines.append(
            f"| {row['readers']} | {row['analysis']} | {row['studies']} | {held} | {row['rejected']:.3f} "
            f"| {row['width']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs all settings and writes `second_sessions.json` and `SECOND_SESSIONS.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [row for readers in READERS for row in run(readers, args.studies)]
    args.out.mkdir(parents=True, exist_ok=True)
    command = f"python -m eval_study.trust_study.second_sessions --studies {args.studies} --out {args.out}"
    (args.out / "second_sessions.json").write_text(json.dumps({"command": command, "rows": rows}, indent=2) + "\n")
    (args.out / "SECOND_SESSIONS.md").write_text(table(rows, command))


if __name__ == "__main__":
    main()
