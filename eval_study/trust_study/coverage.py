"""Coverage and rejection rates of every endpoint of the study, on simulated readers with known effects.

    python -m eval_study.trust_study.coverage --out eval_study/results/study

For 5, 10, 20 and 40 readers, studies without a difference between the two arms are simulated, in which readers differ
in how far they follow the AI, by themselves and by aid, and cases in how convincing the AI's error is: how often the
95 % interval holds 0, how wide it is, and how often p < 0.05. The default protocol's own size comes last: the power of
its safety endpoint. Every study's seed is its number and finished studies are kept, so that a run goes on where it was
cut off; `--minutes` ends one early. The report's table (`skinclip/study/analysis/coverage.yaml`) is written with it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.stats import binomtest

from skinclip.core.whole_files import replace_text
from skinclip.study.analysis import mrmc, ordinal, reliance, report_notes, secondary, statistics
from skinclip.study.analysis.analysis_plan import DERIVED, AnalysisPlan
from skinclip.study.analysis.mixed import attempt
from skinclip.study.analysis.tables import SIMULATED, primary_cases
from skinclip.study.simulate import Simulation, simulate

READERS = (5, 10, 20, 40)
DEFAULT_READERS = 60
STUDIES, MAIN_STUDIES = 100, 500  # of each setting; of the endpoints in `MAIN`
PLAN = AnalysisPlan(secondary=(), secondary_contrasts=())
# The default protocol: 54 cases in distribution, 20 of them errors of the AI.
NULL = Simulation(
    cases=54, wrong_share=20 / 54, following=0.8, following_arm=0.3, convincing=0.5, repeat_share=0.0
).without_effect("regions", "grad_cam")
MAIN: tuple[str, ...] = ("primary", "safety")
RATED: tuple[str, ...] = (
    "deserved_trust",
    "accuracy",
    "balanced_accuracy",
    "switch_to_right",
    "following",
    "deserved_following",
)
RATED += ("correct", "grounded", "complete", "harmful", "confidence", "act", "seconds")
COVERAGE_YAML = Path(report_notes.__file__).with_name("coverage.yaml")
HELD = (0.92, 0.98)
_SAVE_EVERY = 10


@dataclass(frozen=True)
class CoveredEndpoint:
    """An endpoint: its words, and the value that its interval should hold."""

    label: str
    truth: float = 0.0

    def row(self, result: Mapping[str, Any]) -> list[float | None]:
        """[low, high, p, 1 where non-inferior]; empty where not estimable."""
        if "value" not in result:
            return []
        decided = float(result["decision"] == "non-inferior") if "decision" in result else None
        return [_short(result["low"]), _short(result["high"]), _short(result.get("p")), decided]


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 5)


QUESTIONS: dict[str, CoveredEndpoint] = {
    "primary": CoveredEndpoint("Primary: trust"),
    "safety": CoveredEndpoint("Safety: switch to wrong"),
    **{key: CoveredEndpoint(PLAN.rated[key].label, 1.0 if PLAN.rated[key].log else 0.0) for key in RATED},
    **{key: CoveredEndpoint(DERIVED[key][0]) for key in DERIVED},
    **{key: CoveredEndpoint(f"{label}, Obuchowski-Rockette") for key, label in mrmc.FIGURES.items()},
    "ordinal": CoveredEndpoint("Trust, cumulative logits", 1.0),
}


def results_of(readers: int, seed: int, keys: Sequence[str]) -> dict[str, list[float | None]]:
    """The intervals of the endpoints `keys` in one simulated study without a difference."""
    tables = simulate(replace(NULL, readers=readers), seed)
    cases = primary_cases(tables.cases)
    answers = secondary.Answers(cases, tables.blocks, tables.preferences)
    special: dict[str, Callable[[], dict[str, Any]]] = {
        "primary": lambda: statistics.primary_result(cases, PLAN),
        "safety": lambda: reliance.safety(cases, PLAN.safety, PLAN.safety_margin, PLAN.alpha),
        "ordinal": lambda: ordinal.odds_ratio(cases, PLAN.primary_endpoint, PLAN.primary, PLAN.alpha),
        **{key: partial(mrmc.difference, cases, key, PLAN) for key in mrmc.FIGURES},
    }
    found = {}
    for key in keys:
        result = attempt(special[key]) if key in special else secondary.endpoint_row(answers, key, PLAN)
        found[key] = QUESTIONS[key].row(result)
    return found


def run(path: Path, readers: Sequence[int], studies: tuple[int, int], minutes: float) -> dict[str, Any]:
    """Runs what is missing for `minutes` at most and keeps `path` up to date; returns all that was found.

    `studies` are the numbers of each setting, of all endpoints and of the main ones.
    """
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, dict[str, dict[str, list[float | None]]]] = kept.get("studies", {})
    end = time.monotonic() + 60 * minutes
    for place, (i, n, keys) in enumerate(_work(readers, studies)):
        done = found.setdefault(str(n), {}).setdefault(str(i), {})
        if set(keys) <= done.keys():
            continue
        if time.monotonic() > end:
            break
        done.update(results_of(n, 10_000 * n + i, keys))
        if place % _SAVE_EVERY == 0:
            _save(path, found)
    return _save(path, found)


def _work(readers: Sequence[int], studies: tuple[int, int]) -> list[tuple[int, int, tuple[str, ...]]]:
    """(study, readers, endpoints) in the order in which they are run, the main endpoints first."""
    others = tuple(key for key in QUESTIONS if key not in MAIN)
    work = [(i, n, MAIN) for i in range(studies[1]) for n in readers]
    return work + [(i, n, others) for i in range(studies[0]) for n in readers if n != DEFAULT_READERS]


def _save(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    report = {
        "data_kind": SIMULATED,
        "command": "python -m eval_study.trust_study.coverage",
        "rows": rows_of(found),
        "studies": found,
    }
    replace_text(path, json.dumps(report) + "\n", alone=True)
    return report


def rows_of(found: Mapping[str, Mapping[str, Mapping[str, list[float | None]]]]) -> list[dict[str, Any]]:
    """One row per endpoint and number of readers: studies estimated, coverage, half-width, share of p < 0.05, of
    non-inferior."""
    rows = []
    for key, question in QUESTIONS.items():
        for readers, studies in found.items():
            asked = [one[key] for one in studies.values() if key in one]
            if asked:
                rows.append({"endpoint": key, "readers": int(readers), **_summary(asked, question.truth)})
    return rows


def _summary(asked: Sequence[Sequence[float | None]], truth: float) -> dict[str, Any]:
    rows = [row for row in asked if row]
    held, widths = [_holds(row, truth) for row in rows], [w for row in rows if (w := _half_width(row)) is not None]
    return {
        "studies": len(asked),
        "estimated": len(rows),
        "coverage": _share(held),
        "half_width": round(float(np.median(widths)), 4) if widths else None,
        "false_positives": _share([row[2] < PLAN.alpha for row in rows if row[2] is not None]),
        "non_inferior": _share([row[3] for row in rows if row[3] is not None]),
    }


def _holds(row: Sequence[float | None], truth: float) -> bool:
    """True where the interval, open on the side of a missing end, holds the truth."""
    low, high = row[:2]
    return (low is None or low <= truth) and (high is None or high >= truth)


def _half_width(row: Sequence[float | None]) -> float | None:
    low, high = row[:2]
    return None if low is None or high is None else (high - low) / 2


def _share(hits: Sequence[float | bool]) -> dict[str, float] | None:
    if not hits:
        return None
    interval = binomtest(int(sum(hits)), len(hits)).proportion_ci(method="wilson")
    return {"value": round(float(np.mean(hits)), 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


def page(report: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        f"# Coverage of the endpoints, {SIMULATED.lower()}",
        "",
        "Studies without a difference between the arms, 54 cases, 20 of them errors of the AI; readers differ in how "
        "far they follow the AI (SD 0.8 in log-odds, 0.3 by aid within a reader), cases in how convincing its error is "
        "(0.5). Coverage: 95 % intervals that hold no difference. Rejected: p < 0.05, a false positive. Non-inferior: "
        f"at a margin of {PLAN.safety_margin:g}, the power of the safety endpoint. Shares with Wilson 95 % intervals; "
        "half-widths are medians.",
        "",
        f"Made by `{report['command']}`.",
        "",
        "| endpoint | readers | studies | estimated | coverage | half-width | rejected | non-inferior |",
        "|---|---:|---:|---:|---|---:|---|---|",
    ]
    for row in report["rows"]:
        shares = [_cell(row[name]) for name in ("coverage", "false_positives", "non_inferior")]
        width = "–" if row["half_width"] is None else row["half_width"]
        cells = (QUESTIONS[row["endpoint"]].label, row["readers"], row["studies"], row["estimated"])
        lines.append(f"| {' | '.join(map(str, cells))} | {shares[0]} | {width} | {shares[1]} | {shares[2]} |")
    return "\n".join(lines) + "\n"


def _cell(share: Mapping[str, float] | None) -> str:
    return "–" if share is None else f"{share['value']:.3f} ({share['low']:.3f}-{share['high']:.3f})"


def report_table(report: Mapping[str, Any]) -> str:
    """The table of the reports' methods, as YAML: endpoint -> readers -> [coverage, studies]."""
    endpoints: dict[str, dict[int, list[float | int]]] = {}
    for row in report["rows"]:
        if row["readers"] in READERS and row["coverage"]:
            label = QUESTIONS[row["endpoint"]].label
            endpoints.setdefault(label, {})[row["readers"]] = [row["coverage"]["value"], row["estimated"]]
    words = (
        "Measured on made-up readers without a difference between the arms, 54 cases, 20 of them errors of the AI, who "
        "differ in how far they follow it. A 95 % interval should hold the truth in 0.95 of studies; with 500 studies, "
        "chance alone moves the share by 0.02, with 200 by 0.03. More is cautious, less is too sure. "
        "eval_study/results/study/COVERAGE.md has widths and false positives."
    )
    values = {"words": words, "readers": list(READERS), "endpoints": endpoints}
    head = "# Made by `python -m eval_study.trust_study.coverage`; do not edit.\n"
    return head + yaml.safe_dump(values, sort_keys=False, width=100, default_flow_style=None, allow_unicode=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Simulates, and writes coverage.json and COVERAGE.md into `--out`, and the reports' table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--studies", type=int, default=STUDIES, help=f"of each setting (default: {STUDIES})")
    parser.add_argument("--main-studies", type=int, default=MAIN_STUDIES, help="likewise of the main endpoints")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after so long; run again to go on")
    parser.add_argument("--table", type=Path, default=COVERAGE_YAML, help="the reports' table")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    sizes = (*READERS, DEFAULT_READERS)
    report = run(args.out / "coverage.json", sizes, (args.studies, args.main_studies), args.minutes)
    (args.out / "COVERAGE.md").write_text(page(report))
    args.table.write_text(report_table(report), encoding="utf-8")


if __name__ == "__main__":
    main()
