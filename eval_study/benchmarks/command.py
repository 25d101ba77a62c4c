"""One command for a set of measured parts: it measures what is not measured yet, then writes the report.

A result made with the same weights is kept unless `--again` asks for it; `--report` measures nothing. Predictions,
features and trainings go to `--work` and are resumed from there.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from eval_study.benchmarks.common import Bench
from skinclip.data.cases import DataError
from skinclip.reporting.document import Document, Paragraph, Section, write_pictures
from skinclip.reporting.html_page import to_html
from skinclip.reporting.markdown import to_markdown

log = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Command:
    """`modules` have NAME, run(bench) and section(result), in the order of the file named `report`.

    Where a module has headline(result), a sentence on what speaks against what is reported, the report begins with it.
    """

    prog: str
    title: str
    report: str
    modules: tuple[ModuleType, ...]

    def main(self, words: Sequence[str]) -> int:
        """Runs the command `words` and returns its exit status."""
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        args = self.parse(words)
        root = args.data or (Path(os.environ["SKINCLIP_DATA"]) if os.environ.get("SKINCLIP_DATA") else None)
        if root is None and not args.report:
            print(
                "no data: give --data ROOT or set $SKINCLIP_DATA to a folder with one subfolder per data set",
                file=sys.stderr,
            )
            return 2
        arguments = [("$SKINCLIP_DATA" if root and Path(w) == root else shlex.quote(w)) for w in words]
        bench = Bench(
            data=root or Path(),
            out=args.out,
            work=args.work,
            weights=args.weights,
            reason=args.reason,
            command=" ".join([self.prog, *arguments]),
            n_boot=args.bootstrap,
        )
        if not args.report:
            chosen = [m for m in self.modules if not args.only or m.NAME in args.only]
            measure(bench, chosen, args.again)
        print(f"report written to {self.write(bench)}")
        return 0

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The options of the command."""
        names = [module.NAME for module in self.modules]
        parser = argparse.ArgumentParser(prog=self.prog, description=__doc__)
        parser.add_argument(
            "--data", type=Path, help="folder with one subfolder per data set (default: $SKINCLIP_DATA)"
        )
        parser.add_argument("--out", type=Path, default=Path("eval_study/results"), help="results, report and figures")
        parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="what can be made again")
        parser.add_argument("--weights", type=Path, help="a checkpoint directory (default: the embedded one)")
        parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
        parser.add_argument("--again", action="store_true", help="measure again what was measured with these weights")
        parser.add_argument("--report", action="store_true", help="make the report from the results there are")
        parser.add_argument("--reason", default="benchmarks", help="why test photos are used, for the ledger")
        parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of lesions or patients")
        return parser.parse_args(words)

    def write(self, bench: Bench) -> Path:
        """Writes the report of all results made with the present weights as Markdown and HTML; returns the former."""
        report = self.document(bench)
        bench.out.mkdir(parents=True, exist_ok=True)
        path = bench.out / self.report
        write_pictures(report, bench.out / "figures")
        path.write_text(to_markdown(report), encoding="utf-8", errors="backslashreplace")
        path.with_suffix(".html").write_text(to_html(report), encoding="utf-8", errors="backslashreplace")
        return path

    def document(self, bench: Bench) -> Document:
        """The sections of all modules that have a result, after what speaks against what is reported."""
        sections, against, missing = [], [], []
        for module in self.modules:
            result = bench.kept(module.NAME)
            if result is None:
                missing.append(module.NAME)
                continue
            section = module.section(result)
            made = Paragraph(made_by(result["meta"]), small=True, marked_up=True)
            sections.append(Section(section.title, (*section.blocks, made)))
            if hasattr(module, "headline") and (sentence := module.headline(result)):
                against.append(sentence)
        first = [Paragraph(" ".join(against), lead=True)] if against else []
        last = [f"Not measured with these weights: {', '.join(missing)}."] if missing else []
        return Document(self.title, about(bench), "", (Section.of("", first), *sections, Section.of("", last)))


def about(bench: Bench) -> str:
    """A paragraph that holds for every figure of a report."""
    return (
        f"Weights {bench.sha[:12]}. Every interval is 95 %, by bootstrap of lesions (patients, where known). "
        "Choices were made on train, calib and valid; each use of test photos is in test_ledger.csv. Probabilities "
        "are at natural prevalence; balanced accuracy decides by argmax p / prior unless argmax p is said."
    )


def measure(bench: Bench, modules: Sequence[ModuleType], again: bool) -> None:
    """Runs every module whose result is not there; one that fails for want of data is reported and skipped."""
    for module in modules:
        kept = bench.kept(module.NAME)
        if not again and kept and not kept["meta"].get("unfinished"):
            log.info("%s: kept", module.NAME)
            continue
        if again:  # a benchmark that is saved as it goes on would go on from there
            bench.forget(module.NAME)
        start = time.perf_counter()
        try:
            result = module.run(bench)
        except DataError as error:
            log.warning("%s: left out: %s", module.NAME, error)
            continue
        result["meta"]["seconds"] = round(time.perf_counter() - start, 1)
        bench.save(module.NAME, result)
        log.info("%s: %.0f s", module.NAME, time.perf_counter() - start)


def made_by(meta: dict[str, Any]) -> str:
    """Sentence with the command, date, seed and weights that a result was made with."""
    return (
        f"Made by `{meta['command']}` on {meta['date']}, seed {meta['seed']}, {meta['resamples']} resamples, weights "
        f"`{meta['weights_sha256'][:12]}`, {meta.get('seconds', 0):.0f} s on {meta['threads']} threads."
    )
