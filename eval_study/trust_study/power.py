"""Proof and power of the study's primary analysis, on simulated readers with known effects.

    python -m eval_study.trust_study.power                 # everything, resumable: about 40 minutes on one core
    python -m eval_study.trust_study.power --studies 10    # a short form

Three questions: does the 95 % interval cover the true difference in 92-98 % of studies, does a study without an effect
find one in at most 6 %, and how often does a study of a given size find the effect? Readers and cases differ in how an
aid sways them in all of them, which is what a simpler model would take for certainty. Every study's seed is its number,
and finished studies are kept in the result file, so that a run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from skinclip.core.whole_files import replace_text
from skinclip.study.analysis.analysis_plan import AnalysisPlan
from skinclip.study.analysis.statistics import primary_result
from skinclip.study.analysis.tables import SIMULATED, primary_cases
from skinclip.study.errors import NotEstimable
from skinclip.study.simulate import ARMS, Simulation, Spread, simulate, true_contrast

RESULTS = Path(__file__).parents[1] / "results" / "study"
PLAN = AnalysisPlan()
COVERAGE, FALSE_POSITIVE = (0.92, 0.98), 0.06
SMALL, LARGE = 0.2, 0.4  # latent effects of the power table, in points of trust
_SAVE_EVERY = 10


@dataclass(frozen=True)
class Setting:
    """One kind of study, simulated `studies` times; `question` says what it proves: coverage, null or power."""

    question: str
    simulation: Simulation
    studies: int

    @property
    def name(self) -> str:
        """The setting in words."""
        s = self.simulation
        effect = s.arms[PLAN.primary.arm].trust - s.arms[PLAN.primary.reference].trust
        swayed = f"sway {s.spread.reader_arm:g}/{s.spread.case_arm:g}"
        lost = f", {s.dropout:.0%} drop out" if s.dropout else ""
        return f"{self.question}: {s.readers} readers x {s.cases} cases, effect {effect:.1f}, {swayed}{lost}"

    @property
    def truth(self) -> float:
        """True difference between the two arms of the primary analysis."""
        return true_contrast(self.simulation, PLAN.primary.arm, PLAN.primary.reference)


def settings() -> list[Setting]:
    """The settings to run, the quick ones first."""
    base, null = _with_effect(LARGE), _with_effect(0.0)
    strong = Spread(reader_arm=0.5, case_arm=0.4)
    sizes = [(10, 50), (20, 50), (40, 50), (10, 100), (20, 100), (40, 100)]
    return [
        *(Setting("coverage", replace(base, readers=r, cases=50), 500) for r in (10, 20)),
        *(Setting("null", replace(null, readers=r, cases=50), 500) for r in (10, 20)),
        Setting("coverage", replace(base, readers=10, cases=50, spread=strong, dropout=0.2, missing=0.05), 500),
        Setting("null", replace(null, readers=10, cases=50, spread=strong, dropout=0.2, missing=0.05), 500),
        *(
            Setting("power", replace(_with_effect(e), readers=r, cases=c), 200)
            for r, c in sizes
            for e in (SMALL, LARGE)
        ),
    ]


def _with_effect(effect: float) -> Simulation:
    first, second = PLAN.primary.arm, PLAN.primary.reference
    changed = replace(ARMS[first], trust=ARMS[second].trust + effect)
    return Simulation(arms={**ARMS, first: changed}, repeat_share=0.0, pairs=0)


def main() -> None:
    """Simulates the studies of every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, help="studies per setting, instead of 500 (200 for power)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of power.json and POWER.md")
    arguments = parser.parse_args()
    chosen = [replace(s, studies=arguments.studies or s.studies) for s in settings()]
    run(chosen, arguments.out)


def run(chosen: list[Setting], folder: Path) -> dict[str, Any]:
    """Runs what is missing of every setting, keeps `power.json` up to date, and writes the tables at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "power.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    studies: dict[str, list[list[float | None]]] = kept.get("studies", {})
    for setting in chosen:
        if kept.get("settings", {}).get(setting.name, {}).get("simulation") != _plain(setting.simulation):
            studies[setting.name] = []  # none yet, or of other parameters
        done = studies[setting.name]
        for seed in range(len(done), setting.studies):
            done.append(one_study(setting.simulation, seed))
            if len(done) % _SAVE_EVERY == 0:
                _save(path, chosen, studies)
        report = _save(path, chosen, studies)
        print(json.dumps(report["settings"][setting.name]), flush=True)
    (folder / "POWER.md").write_text(markdown(report))
    return report


def one_study(simulation: Simulation, seed: int) -> list[float | None]:
    """[value, low, high, p, wall seconds of the fit] of a study's primary analysis; all None if it has none."""
    cases = primary_cases(simulate(simulation, seed).cases)
    start = time.perf_counter()
    try:
        result = primary_result(cases, PLAN)
    except NotEstimable:
        return [None] * 5
    seconds = time.perf_counter() - start
    return [*(round(result[key], 5) for key in ("value", "low", "high", "p")), round(seconds, 3)]


def _save(path: Path, chosen: list[Setting], studies: Mapping[str, list[list[float | None]]]) -> dict[str, Any]:
    report = {
        "data_kind": SIMULATED,
        "command": "python -m eval_study.trust_study.power",
        "settings": {s.name: summary(s, studies[s.name]) for s in chosen if studies.get(s.name)},
        "studies": studies,
    }
    replace_text(path, json.dumps(report) + "\n", alone=True)
    return report


def summary(setting: Setting, studies: list[list[float | None]]) -> dict[str, Any]:
    """Coverage, share of studies with p below alpha, bias and spread of the estimate, median seconds of a fit."""
    known = np.array([row for row in studies if row[0] is not None], dtype=np.float64).reshape(-1, 5)
    value, low, high, p, seconds = known.T
    truth, n = setting.truth, len(known)
    covered, significant = int(((low <= truth) & (truth <= high)).sum()), int((p < PLAN.alpha).sum())
    return {
        "question": setting.question,
        "simulation": _plain(setting.simulation),
        "readers": setting.simulation.readers,
        "cases": setting.simulation.cases,
        "studies": len(studies),
        "estimable": n,
        "truth": round(truth, 4),
        "mean_estimate": round(float(value.mean()), 4),
        "coverage": _share(covered, n),
        "significant": _share(significant, n),
        "mean_width": round(float((high - low).mean()), 4),
        "median_seconds": round(float(np.median(seconds)), 3),
        "holds": _holds(setting.question, covered / n, significant / n),
    }


def _plain(simulation: Simulation) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(simulation))))


def _share(hits: int, n: int) -> dict[str, float]:
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return {"value": round(hits / n, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


def _holds(question: str, coverage: float, significant: float) -> bool | None:
    if question == "coverage":
        return COVERAGE[0] <= coverage <= COVERAGE[1]
    return significant <= FALSE_POSITIVE if question == "null" else None


def markdown(report: Mapping[str, Any]) -> str:
    """The proof and the power table, to read."""
    lines = [
        "# Proof and power of the reader study's primary analysis",
        "",
        f"**{SIMULATED}**: readers with known effects, no real reader. Research use only - not a medical device.",
        f"Command: `{report['command']}`. Shares with Wilson 95 % intervals.",
        "Sway: how much readers and cases differ by aid (SD, points). To hold: coverage 0.92 to 0.98, and p < 0.05",
        "in at most 0.06 of studies without an effect.",
        "",
        "| setting | studies | true difference | mean estimate | coverage | p < 0.05 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, s in report["settings"].items():
        if s["question"] != "power":
            figures = (s["studies"], s["truth"], s["mean_estimate"], _cell(s["coverage"]), _cell(s["significant"]))
            lines.append(f"| {name} | {' | '.join(map(str, figures))} |")
    lines += ["", "Power, two-sided alpha 0.05, by the true difference in points of the 7-point item:", ""]
    power = [s for s in report["settings"].values() if s["question"] == "power"]
    truths = sorted({s["truth"] for s in power})
    lines.append(f"| readers x cases | {' | '.join(f'difference {t:.2f}' for t in truths)} | coverage |")
    lines.append("| --- |" + " ---: |" * (len(truths) + 1))
    for size in dict.fromkeys((s["readers"], s["cases"]) for s in power):
        here = {s["truth"]: s for s in power if (s["readers"], s["cases"]) == size}
        cells = [_cell(here[t]["significant"]) if t in here else "" for t in truths]
        covered = " / ".join(f"{here[t]['coverage']['value']:.3f}" for t in truths if t in here)
        lines.append(f"| {size[0]} x {size[1]} | {' | '.join(cells)} | {covered} |")
    return "\n".join(lines) + "\n"


def _cell(share: Mapping[str, float]) -> str:
    return f"{share['value']:.3f} ({share['low']:.3f}-{share['high']:.3f})"


if __name__ == "__main__":
    main()
