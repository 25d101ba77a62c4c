"""`python -m eval_study.explanations --data ROOT --out DIR`: measures what is not measured yet, then reports.

As `eval_study.benchmarks`, whose options it shares: a part is kept by the hash of the weights, photos are resumed.
"""

from __future__ import annotations

import sys

from eval_study.benchmarks.command import Command
from eval_study.explanations import changes, criteria, maps, rationales, regions, sanity, truth, tuning

COMMAND = Command(
    prog="python -m eval_study.explanations",
    title="SkinCLIP-VL mini: explanations",
    report="EXPLANATIONS.md",
    modules=(maps, regions, truth, tuning, sanity, criteria, rationales, changes),
)

if __name__ == "__main__":
    raise SystemExit(COMMAND.main(sys.argv[1:]))
