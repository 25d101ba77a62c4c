"""`python -m eval_study.benchmarks --data ROOT --out DIR`: every table and figure of REPORT.md."""

from __future__ import annotations

import sys

from eval_study.benchmarks import (
    baselines,
    calibration,
    derm7pt,
    diagnosis,
    evidence,
    losses,
    outside,
    scarcity,
    shift,
    skin_tone,
    sources,
    stability,
)
from eval_study.benchmarks.command import Command

COMMAND = Command(
    prog="python -m eval_study.benchmarks",
    title="SkinCLIP-VL mini: the numbers",
    report="REPORT.md",
    # The last ones take hours on two cores; all others together well under one.
    modules=(
        *(diagnosis, calibration, sources, skin_tone, evidence, derm7pt, shift, stability, outside),
        *(baselines, losses, scarcity),
    ),
)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(sys.argv[1:]))
