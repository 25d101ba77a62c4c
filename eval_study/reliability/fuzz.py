"""Long fuzzing of everything that reads what others wrote: the targets of `tests/fuzz`, counted and timed one by one.

    python -m eval_study.reliability.fuzz --executions 1000000 --minutes 30 --out eval_study/results/reliability

Each target is run in rounds of pytest until it was executed so often or for so long, whichever comes first; a round
that fails, or one execution of more than a minute, is a finding and ends its target. A finding's words, with the
smallest example, lie in `fuzz_findings/`: mend the fault, keep the example as an `@example` of the test, and run again
with `--only`. Rounds are random, so that a second run looks elsewhere. `fuzz.json` has executions, seconds and findings
of each target.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval_study.reliability.machine import machine

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "fuzz"
NAME, FINDINGS = "fuzz.json", "fuzz_findings"
FIRST_ROUND = 200  # examples; it tells how many fit into a round
ROUND_SECONDS = 300.0  # a round is ended after three times as long
HANG_SECONDS = 60.0  # one execution that takes longer is a finding
OVERHEAD = 60.0  # seconds that a round may take to start
FAILED = 1  # pytest's exit status where a test failed
LEAST_EXAMPLES = 61  # fewer are the short run, which is the same each time


@dataclass(frozen=True)
class Target:
    """One fuzz test: its name, and the file and function that pytest runs (all of its parameters)."""

    name: str
    test: str


@dataclass
class FuzzFigures:
    """The work done on one target.

    Attributes:
        seconds: of all rounds, with what each takes to start.
        longest_seconds: of one execution.
        finding: the file with its words.
    """

    executions: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0
    rounds: int = 0
    findings: int = 0
    finding: str = ""


@dataclass(frozen=True)
class Round:
    """One run of pytest: `longest` is of one execution, in s; `status` is pytest's, None where it was ended."""

    executions: int
    longest: float
    status: int | None
    words: str


def targets(folder: Path = TESTS) -> list[Target]:
    """The tests below a folder that are decorated with `fuzzed`, in the order of their files."""
    found = []
    for file in sorted(folder.glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(ast.unparse(d) == "fuzzed" for d in node.decorator_list):
                found.append(Target(node.name.removeprefix("test_"), f"{file}::{node.name}"))
    return found


def fuzz(target: Target, executions: int, seconds: float, findings: Path) -> FuzzFigures:
    """Runs rounds of one target until it was executed so often, for so long, or something was found."""
    figures, examples = FuzzFigures(), FIRST_ROUND
    while figures.executions < executions and figures.seconds < seconds and not figures.findings:
        limit = min(3 * ROUND_SECONDS, seconds - figures.seconds) + OVERHEAD
        start = time.monotonic()
        ended = _round(target, examples, limit)
        taken = time.monotonic() - start
        figures.executions += ended.executions
        figures.seconds = round(figures.seconds + taken, 1)
        figures.rounds += 1
        figures.longest_seconds = round(max(figures.longest_seconds, ended.longest), 3)
        if ended.status == FAILED or ended.longest > HANG_SECONDS:
            figures.findings, figures.finding = 1, f"{FINDINGS}/{target.name}.txt"
            findings.mkdir(parents=True, exist_ok=True)
            (findings / f"{target.name}.txt").write_text(ended.words, encoding="utf-8")
        elif ended.status not in (0, None):
            raise SystemExit(f"{target.test} cannot be run (pytest's status {ended.status}):\n{ended.words[-2000:]}")
        missing = 1 + (executions - figures.executions) * examples // max(1, ended.executions)
        examples = min(missing, _next_round(examples, ended.executions, taken, seconds - figures.seconds))
    return figures


def _next_round(examples: int, executed: int, taken: float, left: float) -> int:
    """Examples of the next round, after one of `examples` that executed its test so often in `taken` seconds."""
    fitting = examples * min(ROUND_SECONDS, max(left, 1.0)) / taken
    return max(1, min(int(fitting), 4 * examples) if executed else examples // 4)


def _round(target: Target, examples: int, limit: float) -> Round:
    """One run of pytest on a target, ended where it takes longer than `limit` seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        counted = Path(scratch) / "figures.json"
        effort = {"SKINCLIP_FUZZ": str(max(examples, LEAST_EXAMPLES)), "SKINCLIP_FUZZ_FIGURES": str(counted)}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", target.test]
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | effort, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            words = process.communicate(timeout=limit)[0]
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            words, status = f"{_ended(process)}\nended after {limit:.0f} s\n", None
        if not counted.exists():  # it had to be killed
            return Round(0, limit if status is None else 0.0, status, words)
        figures = json.loads(counted.read_text())
    return Round(figures["executions"], figures["longest_seconds"], status, words)


def _ended(process: subprocess.Popen[str]) -> str:
    """The words of a round that is asked to end, so that it still counts what it did, and is killed if it does not."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=20)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def report(chosen: Iterable[Target], executions: int, seconds: float, out: Path) -> dict[str, Any]:
    """The figures of all targets; the file is written anew after each, so that a run that is ended keeps them."""
    about, results = machine(), _kept(out)
    out.mkdir(parents=True, exist_ok=True)
    for target in chosen:
        results[target.name] = asdict(fuzz(target, executions, seconds, out / FINDINGS))
        print(f"{target.name}: {json.dumps(results[target.name])}", flush=True)
        whole = {
            "command": f"python -m eval_study.reliability.fuzz {' '.join(sys.argv[1:])}",
            "about": about,
            "executions": sum(one["executions"] for one in results.values()),
            "findings": sum(one["findings"] for one in results.values()),
            "targets": results,
        }
        part = out / f".{NAME}"
        part.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        part.replace(out / NAME)
    return whole if results else {}


def _kept(out: Path) -> dict[str, Mapping[str, Any]]:
    """The figures of earlier runs, of targets that there still are."""
    path, names = out / NAME, {target.name for target in targets()}
    written = json.loads(path.read_text())["targets"] if path.exists() else {}
    return {name: figures for name, figures in written.items() if name in names}


def main() -> int:
    """Fuzzes, prints and writes the figures; status 1 where anything was found."""
    args = _parser().parse_args()
    chosen = [target for target in targets() if not args.only or any(word in target.name for word in args.only)]
    if not chosen:
        raise SystemExit(f"no such target; there are {', '.join(target.name for target in targets())}")
    result = report(chosen, args.executions, args.minutes * 60, args.out)
    return 1 if result["findings"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=1_000_000, help="of each target")
    parser.add_argument("--minutes", type=float, default=30.0, help="for each target, if that comes first")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="targets whose name has one of these words")
    parser.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
