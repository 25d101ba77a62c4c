"""`skinclip evaluate`: measures a model, or another system's probabilities, on labelled photos."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinclip.cli.common import (
    UsageError,
    add_model_arguments,
    add_prevalence_argument,
    at_least_one,
    at_prevalence,
    load_assessor,
    make_writable_folder,
    prevalence,
    seed,
)
from skinclip.core.safe_text import safe_name
from skinclip.data.cases import PHOTOS
from skinclip.data.layouts.registry import LAYOUTS

if TYPE_CHECKING:
    import numpy as np

    from skinclip.data.cases import Case, CaseTable
    from skinclip.evaluation.prediction_file import PredictionFile
    from skinclip.evaluation.scores import Row
    from skinclip.pipeline.assessor import Assessor

UNENCODABLE = "backslashreplace"
MODEL = "model"  # as --against: the model of --preset and --weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `evaluate`."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set's folder")
    parser.add_argument("--layout", choices=tuple(LAYOUTS), help="its layout (default: recognised)")
    parser.add_argument("--split", help="measure the cases of this split only")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the report, such as report.json; beside it go its page for reading (report.html) and, of a model, "
        "predictions.csv (ISIC's submission, p / prior) and probabilities.csv (p at natural prevalence)",
    )
    parser.add_argument(
        "--rationales",
        type=_rationales,
        default=200,
        help="number of photos whose rationales are read, or all",
    )
    parser.add_argument(
        "--photos",
        choices=PHOTOS,
        default="dermoscopy",
        help="of lesions with two photos: the first, the clinical close-up, or both together (default: dermoscopy)",
    )
    parser.add_argument(
        "--unshared",
        action="store_true",
        help="leave out lesions that another set holds too (those known of published sets, and near_duplicates.csv "
        "beside the data set's folder): a model that learnt from the other set may have met them there",
    )
    parser.add_argument(
        "--by",
        type=_grouping,
        action="append",
        default=[],
        metavar="WHAT",
        help="give all figures again for each group, with intervals: skin_tone, fitzpatrick, ita (measured on the "
        "photo), kind, sex, age, site or group; may be given several times",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row or photo")
    parser.add_argument("--batch-size", type=at_least_one, help="photos at a time (default: 32, or 1 of a big preset)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the rationale sample and of the bootstrap")
    parser.add_argument("--bootstrap", type=at_least_one, default=1000, help="bootstrap resamples for each interval")
    parser.add_argument(
        "--ledger",
        type=Path,
        help="CSV file that runs on test photos are noted in (default: test_ledger.csv beside --out)",
    )
    parser.add_argument("--reason", default="", help="why test photos are used, for the ledger")
    add_model_arguments(parser)
    add_prevalence_argument(parser)
    _other_system_arguments(parser.add_argument_group("another system's probabilities"))
    parser.set_defaults(run=_evaluate)


def _other_system_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="measure this file instead of a model: CSV with the columns image, MEL, NV, BCC, AKIEC, BKL, DF, VASC, "
        "taken as probabilities at natural prevalence",
    )
    group.add_argument("--name", help="what the report calls the system of --predictions (default: the file's name)")
    group.add_argument(
        "--against",
        metavar="FILE",
        help="compare with this file, pair by pair; the word model stands for the model of --preset and --weights",
    )
    group.add_argument("--against-name", metavar="NAME", help="what the report calls the system of --against")
    shares = "class shares that the file's probabilities hold at, mel=0.11,nv=0.67,...: balanced accuracy then decides "
    shares += "by argmax p / prior (default: not known, argmax p)"
    group.add_argument("--prior", type=_prior, metavar="SHARES", help=f"of --predictions: {shares}")
    group.add_argument("--against-prior", type=_prior, metavar="SHARES", help="the same of --against")
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="measure an incomplete file on the photos it has",
    )


def _rationales(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of photos nor 'all'")
    return int(text)


def _grouping(text: str) -> str:
    from skinclip.evaluation.grouping import GROUPINGS

    if text not in GROUPINGS:
        raise argparse.ArgumentTypeError(f"{text!r} is no grouping; give one of {', '.join(GROUPINGS)}")
    return text


def _prior(text: str) -> np.ndarray:
    from skinclip.evaluation.prediction_file import parse_prior

    try:
        return parse_prior(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _evaluate(args: argparse.Namespace) -> int:
    from skinclip.data.readers import detect_layout, read_cases
    from skinclip.data.splits import known_duplicates
    from skinclip.evaluation import run as evaluation
    from skinclip.evaluation.prediction_file import PredictionFile

    _check_systems(args)
    chosen = prevalence(args)
    layout = args.layout or detect_layout(args.data)
    table = read_cases(args.data, layout, strict=args.strict)
    cases = evaluation.select(table, args.split)
    _check_outputs(args)
    system, against = _systems(args, table, cases)
    # Noted before the run: a run that is killed half way has seen test photos as well.
    touched = [case for case in cases if case.split == "test"]
    ledger = args.ledger or evaluation.ledger_beside(args.out)
    if touched:
        for one in (system, against):
            if one is not None:
                data, sha256 = args.data.resolve().name, evaluation.identity(one)
                evaluation.log_test_use(ledger, sha256, data, args.split, len(touched), args.reason)
    options = evaluation.Options(
        split=args.split,
        rationales=args.rationales,
        batch_size=args.batch_size,
        seed=args.seed,
        n_boot=args.bootstrap,
        progress=sys.stderr.isatty(),
        strict=args.strict,
        by=tuple(args.by),
        command=evaluation.command_line(args.words),
        layout=layout,
        photos=args.photos,
        shared=tuple(known_duplicates(args.data.resolve().parent)) if args.unshared else (),
    )
    with contextlib.ExitStack() as stack:
        for one in (system, against):
            if one is not None and not isinstance(one, PredictionFile):
                stack.enter_context(at_prevalence(one, chosen))
        report, rows = evaluation.evaluate(system, table, options, against)
    written = _write_report(args, report, rows)
    print(_summary(report, written))
    return 0


def _check_systems(args: argparse.Namespace) -> None:
    if args.name and not args.predictions:
        raise UsageError("--name is what to call the system of --predictions; give that file, or leave --name out")
    if args.prior is not None and not args.predictions:
        raise UsageError("--prior is for --predictions; our model's own prior is part of its checkpoint")
    if args.prevalence and args.predictions and args.against != MODEL:
        raise UsageError("--prevalence is for a model; a file of predictions keeps its own: leave --prevalence out")
    if args.against == MODEL and not args.predictions:
        raise UsageError("--against model compares a file with the model: give the file as --predictions")
    if args.against in (None, MODEL) and (args.against_name or args.against_prior is not None):
        raise UsageError("--against-name and --against-prior are for a file given as --against")


def _check_outputs(args: argparse.Namespace) -> None:
    """Says now, and not after the run, that the report cannot be written, or would write over a file it reads."""
    make_writable_folder(args.out.parent)
    if args.out.is_dir():
        raise UsageError(f"{args.out} is a folder; give the report a file name, such as {args.out / 'report.json'}")
    if args.out.suffix.lower() in (".html", ".csv"):
        raise UsageError(f"{args.out} is to hold JSON: name it {args.out.with_suffix('.json').name}")
    read = [Path(f).resolve() for f in (args.predictions, args.against) if f not in (None, MODEL)]
    clash = [path for path in _outputs(args) if path.resolve() in read]
    if clash:
        raise UsageError(f"{clash[0]} would be written over; give --out another folder")


def _outputs(args: argparse.Namespace) -> list[Path]:
    """The report, its page and, of a model, its two tables."""
    tables = [] if args.predictions else [args.out.parent / "predictions.csv", args.out.parent / "probabilities.csv"]
    return [args.out, args.out.with_suffix(".html"), *tables]


def _systems(
    args: argparse.Namespace, table: CaseTable, cases: Sequence[Case]
) -> tuple[Assessor | PredictionFile, Assessor | PredictionFile | None]:
    """What to measure, and what to compare it with. Files are read first: a bad one answers at once."""
    from skinclip.evaluation.prediction_file import read_predictions

    def read(path: str | Path, name: str | None, prior: np.ndarray | None) -> PredictionFile:
        return read_predictions(Path(path), table, cases, name=name, prior=prior, allow_missing=args.allow_missing)

    against: Assessor | PredictionFile | None = None
    if args.against not in (None, MODEL):
        against = read(args.against, args.against_name, args.against_prior)
    if not args.predictions:
        return load_assessor(args), against
    system = read(args.predictions, args.name, args.prior)
    return system, load_assessor(args) if args.against == MODEL else against


def _write_report(args: argparse.Namespace, report: dict[str, Any], rows: Sequence[Row]) -> list[Path]:
    """Writes the report, its page and, of a model, its two tables; returns their paths."""
    from skinclip.evaluation import run as evaluation
    from skinclip.evaluation.report import page

    written = _outputs(args)
    args.out.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    # A name of a folder or photo need not be UTF-8: its other bytes are written as escapes.
    written[1].write_text(page(report), encoding="utf-8", errors=UNENCODABLE)
    for path, table in zip(written[2:], (evaluation.submission, evaluation.probabilities), strict=False):
        table(rows).map(safe_name).to_csv(path, index=False)
    return written


def _summary(report: dict[str, Any], written: Sequence[Path]) -> str:
    """The report's own figures as a table, with the decision rule where there is one."""
    meta = report["meta"]
    where = f"{report['n']} photos of {', '.join(meta['data'])}, split {meta['split'] or 'all'}"
    lines = [f"{meta['system']['name']} on {where}, 95 % intervals"]
    for name, figure in report.items():
        if isinstance(figure, dict) and set(figure) == {"value", "low", "high"}:
            rule = f"  ({meta['rules'][name]})" if name in meta["rules"] else ""
            interval = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
            lines.append(f"{name:<40}{figure['value']:.3f}{interval}{rule}")
    if report.get("comparison"):
        lines += _compared(report["comparison"], meta["system"]["name"])
    for system in (meta["system"], *([report["comparison"]["against"]] if report.get("comparison") else [])):
        if system.get("missing"):
            lines.append(f"photos without a prediction of {system['name']}, left out: {system['missing']}")
    if meta["problems"]:
        lines.append(f"rows or photos left out: {meta['problems']}, the first: {meta['problem_lines'][0]}")
    return "\n".join([*lines, f"written to {', '.join(str(path) for path in written)}"])


def _compared(comparison: dict[str, Any], name: str) -> list[str]:
    lines = ["", f"{name} less {comparison['against']['name']}, paired, on {comparison['n']} photos"]
    for metric, figure in comparison["differences"].items():
        if figure is not None:
            interval = "" if figure["low"] is None else f" [{figure['low']:+.3f}, {figure['high']:+.3f}]"
            lines.append(f"{metric:<40}{figure['value']:+.3f}{interval}")
    test = comparison["mcnemar_accuracy"]
    if test:
        only = f"right only here {test['only_a_right']}, only there {test['only_b_right']}"
        lines.append(f"McNemar's exact test of accuracy: p = {test['p_value']:.3g} ({only})")
    return lines
