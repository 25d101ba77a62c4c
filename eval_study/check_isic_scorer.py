"""Holds a report's balanced accuracy against the one that ISIC's own challenge scorer gives for predictions.csv.

    python -m venv /tmp/scorer && /tmp/scorer/bin/pip install isic-challenge-scoring "pandas<2.2"
    python -m skinclip evaluate --data DIR --layout isic2018 --split test --out report.json
    python eval_study/check_isic_scorer.py --scorer /tmp/scorer/bin/python --data DIR --report report.json

The scorer needs pandas below 2.2, hence its own environment. It gives test photo ISIC_0035068 weight 0, leaves a class
that the truth lacks out of the mean, and wants every class present for its other figures, so DIR must hold all seven.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from skinclip.core.vocabulary import ISIC2018_COLUMNS
from skinclip.data.cases import Case
from skinclip.data.readers import read_cases


def write_truth(cases: list[Case], path: Path) -> None:
    """ISIC 2018 Task 3's ground-truth file: one-hot, one row per photo."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *ISIC2018_COLUMNS])
        for case in cases:
            writer.writerow([case.image_id, *[float(code == case.diagnosis) for code in ISIC2018_COLUMNS.values()]])


def official_balanced_accuracy(scorer: Path, cases: list[Case], predictions: Path) -> float:
    """The scorer's balanced accuracy of those rows of `predictions` that have a diagnosis in `cases`.

    A photo that has no prediction is an error of the scorer, on purpose: the submission would be refused.
    """
    labelled = {case.image_id for case in cases}
    header, *rows = predictions.read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if row.split(",")[0] in labelled]
    with tempfile.TemporaryDirectory() as folder:
        truth, submission = Path(folder) / "truth.csv", Path(folder) / "predictions.csv"
        write_truth(cases, truth)
        submission.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
        command = [
            str(scorer),
            "-m",
            "isic_challenge_scoring",
            "-o",
            "json",
            "classification",
            str(truth),
            str(submission),
        ]
        scored = subprocess.run(command, capture_output=True, text=True)
    if scored.returncode:
        raise SystemExit(f"the scorer failed: {scored.stderr.strip()}")
    return float(json.loads(scored.stdout)["aggregate"]["balanced_accuracy"])


def main() -> int:
    """Compares the report's figures with those of the official scorer; 1 where any differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scorer", type=Path, required=True, help="python of the scorer's environment")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True, help="report.json with predictions.csv beside it")
    args = parser.parse_args()
    report = json.loads(args.report.read_text(encoding="utf-8"))
    table = read_cases(args.data, report["meta"]["layout"])
    chosen = table.split(report["meta"]["split"]) if report["meta"]["split"] else table.cases
    labelled = [case for case in chosen if case.diagnosis]
    official = official_balanced_accuracy(args.scorer, labelled, args.report.parent / "predictions.csv")
    ours = report["balanced_accuracy"]["value"]
    print(f"balanced accuracy: report {ours:.6f}, ISIC's scorer {official:.6f}")
    return 0 if abs(ours - official) < 1e-9 else 1


if __name__ == "__main__":
    sys.exit(main())
