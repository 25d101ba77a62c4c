"""The command line: `python -m skinclip assess | evaluate | train | plot-training | fetch | adapter | study`.

Exit status 0, or 2 for bad input with one line on stderr that says what to do. Heavy imports happen inside the
commands, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from skinclip import RESEARCH_USE_ONLY
from skinclip.cli import adapter
from skinclip.cli import study as study_commands
from skinclip.core.vocabulary import SEXES, SITES, STATE_BY_KEY, canonical_site
from skinclip.reporting import phrasing

if TYPE_CHECKING:
    import numpy as np

    from skinclip.core.assessment import Assessment, Context
    from skinclip.data.cases import Case, CaseTable
    from skinclip.evaluation.prediction_file import PredictionFile
    from skinclip.evaluation.scores import Row
    from skinclip.imaging.photo import LesionImage
    from skinclip.pipeline.assessor import Assessor

LAYOUT_NAMES = ("isic2018", "ham10000", "derm7pt", "manifest")  # keys of data.readers.LAYOUTS
BAD_INPUT = 2
MODEL = "model"  # as --against: the model of --preset and --weights


class UsageError(ValueError):
    """Input that cannot be worked with; the message says what to do."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage text before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command given by `argv` (by default the process's own arguments) and returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    # It warns at import that an optional kernel for decoding in NF4 is missing; here NF4 is dequantized at load.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        args = _parser(words).parse_args(words)
        return int(args.run(args) or 0)
    except SystemExit as stop:  # argparse, after --help or an error it has already told
        return stop.code if isinstance(stop.code, int) else BAD_INPUT
    except OSError as error:
        return _fail(_os_problem(error))
    except ValueError as error:
        if not isinstance(error, _bad_input()):
            raise
        return _fail(str(error))
    except RuntimeError as error:
        from skinclip.hub import MissingWeights
        from skinclip.model.memory import TooLittleMemory
        from skinclip.model.skinclip_vl import CheckpointError

        if not isinstance(error, (MissingWeights, TooLittleMemory, CheckpointError)):
            raise
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)


def _bad_input() -> tuple[type[ValueError], ...]:
    from skinclip.data.cases import DataError
    from skinclip.imaging.photo import PhotoError

    return (UsageError, DataError, PhotoError)


def _fail(message: str, status: int = BAD_INPUT) -> int:
    print(f"skinclip: {' '.join(message.split())}", file=sys.stderr)
    return status


def _os_problem(error: OSError) -> str:
    if error.filename is None:
        return str(error)
    return f"cannot use {error.filename}: {error.strerror}; check the path and its permissions"


# --- arguments --------------------------------------------------------------------------------------------------


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m skinclip", description=f"SkinCLIP-VL. {RESEARCH_USE_ONLY}.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _assess_arguments(commands.add_parser("assess", help="assess one photo"))
    _evaluate_arguments(commands.add_parser("evaluate", help="measure a model on labelled photos"), words)
    _fetch_arguments(commands.add_parser("fetch", help="get the published weights that a big preset is built on"))
    adapter.add_arguments(commands.add_parser("adapter", help="look at, merge or hand on what was trained"))
    study_commands.add_arguments(commands.add_parser("study", help="conduct a reader study"))
    train = commands.add_parser("train", help="train a model")
    if words and words[0] == "train":  # its options come from a module that imports torch
        from skinclip.training import run as training

        training.add_arguments(train)
        train.set_defaults(run=_train)
    plot = commands.add_parser("plot-training", help="draw how a training goes, or went")
    plot.add_argument("folder", type=Path, help="what the training was given as --work, such as runs/mini")
    plot.set_defaults(run=_plot_training)
    return parser


def _assess_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", type=Path, help="JPEG, PNG, WebP, BMP, TIFF or HEIC file")
    _model_arguments(parser)
    parser.add_argument("--age", type=_age, help="years, 0 to 120")
    parser.add_argument("--sex", type=_sex, help=" or ".join(SEXES))
    parser.add_argument("--site", type=_site, help=f"body site: {', '.join(SITES)}")
    parser.add_argument("--json", action="store_true", help="print the Assessment as one JSON object and nothing else")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write assessment.json, regions.png and gradcam.png there"
    )
    parser.add_argument("--pdf", type=Path, metavar="FILE", help="write the Assessment as a page to print or file")
    parser.add_argument(
        "--second-opinion",
        action="store_true",
        help="ask Qwen2.5-VL itself where each finding is; for presets with its vision tower",
    )
    parser.set_defaults(run=_assess)


def _evaluate_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set's folder")
    parser.add_argument("--layout", choices=LAYOUT_NAMES, help="its layout (default: recognised)")
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
        "--rationales", type=_rationales, default=200, help="photos to read rationales of: a number, or all"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row or photo")
    parser.add_argument("--batch-size", type=_at_least_one, help="photos at a time (default: 32, or 1 of a big preset)")
    parser.add_argument("--seed", type=int, default=0, help="of the rationale sample and the bootstrap")
    parser.add_argument("--bootstrap", type=_at_least_one, default=1000, help="resamples behind each interval")
    parser.add_argument("--ledger", type=Path, help="where runs on test photos are noted")
    parser.add_argument("--reason", default="", help="why test photos are used, for the ledger")
    _model_arguments(parser)
    _other_system_arguments(parser.add_argument_group("another system's probabilities"))
    parser.set_defaults(run=_evaluate, words=list(words))


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
        "--allow-missing", action="store_true", help="measure a file that lacks photos on those it has, and count them"
    )


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", required=True, help="the preset, such as qwen-3b")
    parser.add_argument(
        "--from",
        type=Path,
        dest="source",
        metavar="DIR",
        help="take the language model from this copy of its folder",
    )
    parser.add_argument("--clip", type=Path, metavar="FILE", help="take CLIP's weights from this file")
    parser.add_argument("--link", action="store_true", help="hard-link the copies instead of copying them")
    parser.add_argument("--yes", action="store_true", help="download without asking; the licences are agreed to")
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help="keep the weights here (default: $SKINCLIP_HOME, or the user's cache)"
    )
    parser.set_defaults(run=_fetch)


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="mini", help="the model preset (default: mini)")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="a checkpoint folder (default: the embedded one)")


def _age(text: str) -> float | None:
    if _not_given(text):
        return None
    try:
        age = float(text)
    except ValueError:
        age = -1.0
    if not 0 <= age <= 120:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age; give years from 0 to 120")
    return age


def _sex(text: str) -> str | None:
    if _not_given(text):
        return None
    if text.lower() not in SEXES:
        raise argparse.ArgumentTypeError(f"{text!r} is not known; give {' or '.join(SEXES)}, or leave it out")
    return text.lower()


def _site(text: str) -> str | None:
    if _not_given(text):
        return None
    site = canonical_site(text)
    if site is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a known body site; give one of {', '.join(SITES)}")
    return site


def _not_given(text: str) -> bool:
    return text.strip().lower() in ("", "unknown")


def _rationales(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of photos nor 'all'")
    return int(text)


def _prior(text: str) -> np.ndarray:
    from skinclip.evaluation.prediction_file import parse_prior

    try:
        return parse_prior(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


# --- assess -----------------------------------------------------------------------------------------------------


def _assess(args: argparse.Namespace) -> int:
    with _stdout_kept_clean():
        from skinclip.core.assessment import Context
        from skinclip.imaging.photo import load_photo

        image = load_photo(args.photo)  # before the model: a bad photo answers at once
        for folder in (args.out, args.pdf and args.pdf.parent):
            if folder:
                _writable_folder(folder)
        assessor = _load_assessor(args)
        context = Context(age=args.age, sex=args.sex, site=args.site)
        assessment = assessor.assess(image, context)
        notices = _notices(assessment)
        if args.out:
            notices += _write_assessment(args.out, assessor, image, context, assessment)
        if args.pdf:
            from skinclip.reporting.assessment_pdf import assessment_pdf

            args.pdf.write_bytes(assessment_pdf(assessment, image.pixels))
        opinions = _second_opinion(args, assessor, image, assessment) if args.second_opinion else []
    if args.json:
        print(assessment.to_json())
        for notice in [*opinions, *notices]:
            print(f"skinclip: {notice}", file=sys.stderr)
    else:
        print("\n".join([_readable(assessment, notices), *opinions]))
    return 0


def _second_opinion(
    args: argparse.Namespace, assessor: Assessor, image: LesionImage, assessment: Assessment
) -> list[str]:
    """A line for each finding that was asked about; boxes and all in second_opinion.json with --out."""
    from skinclip.explain.grounding import second_opinions

    try:
        found = second_opinions(assessor, image, assessment)
    except NotImplementedError as error:
        raise UsageError(f"{error}; leave out --second-opinion, or choose another --preset") from error
    if args.out:
        text = json.dumps([dataclasses.asdict(opinion) for opinion in found], indent=2)
        (args.out / "second_opinion.json").write_text(text + "\n", encoding="utf-8")
    return [f"Qwen2.5-VL on [{o.reference}]: {phrasing.second_opinion(o)}" for o in found]


@contextlib.contextmanager
def _stdout_kept_clean() -> Iterator[None]:
    """Whatever libraries print while they load and work goes to stderr: stdout carries the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _load_assessor(args: argparse.Namespace) -> Assessor:
    from safetensors import SafetensorError

    from skinclip.model.skinclip_vl import CheckpointError
    from skinclip.pipeline.assessor import Assessor

    try:
        return Assessor.load(args.preset, args.weights)
    except (ValueError, CheckpointError, SafetensorError) as error:  # no such preset, or no checkpoint of it
        raise UsageError(str(error)) from error


def _writable_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to {folder}; choose another folder or change its permissions")


def _write_assessment(
    folder: Path, assessor: Assessor, image: LesionImage, context: Context, assessment: Assessment
) -> list[str]:
    """Writes the three files and returns what could not be drawn."""
    from skinclip.explain.methods import heat_on_photo
    from skinclip.imaging.overlay import heatmap_overlay, region_overlay
    from skinclip.imaging.photo import encode_png

    (folder / "assessment.json").write_text(assessment.to_json() + "\n", encoding="utf-8")
    (folder / "regions.png").write_bytes(encode_png(region_overlay(image.pixels, assessment)))
    try:
        heat = heat_on_photo(assessor, image, context, assessment.diagnosis[0].code)
    except NotImplementedError as error:
        return [f"gradcam.png was not written: {error}"]
    (folder / "gradcam.png").write_bytes(encode_png(heatmap_overlay(image.pixels, heat)))
    return []


def _notices(assessment: Assessment) -> list[str]:
    """Quality and domain warnings in plain words."""
    notices = [issue.message for issue in assessment.photo.quality.issues]
    if not assessment.shift.in_domain:
        notices.append("this photo does not look like those the model was trained on; do not rely on the result")
    if assessment.abstained:
        notices.append("the model abstains: it gives no rationale for this photo")
    return notices


def _readable(assessment: Assessment, notices: Sequence[str]) -> str:
    lines = [RESEARCH_USE_ONLY, ""]
    for item in assessment.diagnosis:
        lines.append(f"{item.name:<22}{item.probability:>7.1%}  {'#' * round(30 * item.probability)}")
    names = {item.code: item.name for item in assessment.diagnosis}
    kept = ", ".join(names[code] for code in assessment.prediction_set.codes)
    m = assessment.malignancy
    decision = "Refer" if m.refer else "Do not refer"
    lines += [
        "",
        f"Not ruled out at {assessment.prediction_set.coverage:.0%} coverage: {kept}",
        f"{decision}: P(malignant) is {m.probability:.1%}, referral from {m.threshold:.1%}",
    ]
    if assessment.rationale:
        lines += ["", assessment.rationale, *([depends] if (depends := phrasing.depends(assessment)) else [])]
    for finding in assessment.findings:
        state = STATE_BY_KEY.get(f"{finding.criterion}:{finding.state}")
        phrase = state.phrase if state else f"{finding.criterion} {finding.state}"
        box = ", ".join(f"{v:.0f}" for v in finding.region.box)
        lines.append(f"  [{finding.ref}] {phrase} (score {finding.score:.2f}, pixels {box})")
    lines += [f"Warning: {notice}" for notice in notices]
    return "\n".join(lines)


# --- evaluate, fetch, train --------------------------------------------------------------------------------------


def _evaluate(args: argparse.Namespace) -> int:
    from skinclip.data.readers import detect_layout, read_cases
    from skinclip.evaluation import run as evaluation

    _check_systems(args)
    layout = args.layout or detect_layout(args.data)
    table = read_cases(args.data, layout, strict=args.strict)
    cases = evaluation.select(table, args.split)
    _check_outputs(args)
    system, against = _systems(args, table, cases)
    # Noted before the run: a run that is killed half way has seen test photos as well.
    touched = [case for case in cases if case.split == "test"]
    ledger = args.ledger or evaluation.default_ledger()
    if touched and ledger:
        for one in (system, against):
            if one is not None:
                data, sha256 = args.data.resolve().name, evaluation.identity(one)
                evaluation.log_test_use(ledger, sha256, data, args.split, len(touched), args.reason)
    report, rows = evaluation.evaluate(
        system,
        table,
        against=against,
        split=args.split,
        rationales=args.rationales,
        batch_size=args.batch_size,
        seed=args.seed,
        n_boot=args.bootstrap,
        progress=sys.stderr.isatty(),
        strict=args.strict,
        command=evaluation.command_line(args.words),
        layout=layout,
    )
    written = _write_report(args, report, rows)
    print(_summary(report, written))
    return 0


def _check_systems(args: argparse.Namespace) -> None:
    if args.name and not args.predictions:
        raise UsageError("--name is what to call the system of --predictions; give that file, or leave --name out")
    if args.prior is not None and not args.predictions:
        raise UsageError("--prior is for --predictions; our model's own prior is part of its checkpoint")
    if args.against == MODEL and not args.predictions:
        raise UsageError("--against model compares a file with the model: give the file as --predictions")
    if args.against in (None, MODEL) and (args.against_name or args.against_prior is not None):
        raise UsageError("--against-name and --against-prior are for a file given as --against")


def _check_outputs(args: argparse.Namespace) -> None:
    """Says now, and not after the run, that the report cannot be written, or would write over a file it reads."""
    _writable_folder(args.out.parent)
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
        return _load_assessor(args), against
    system = read(args.predictions, args.name, args.prior)
    return system, _load_assessor(args) if args.against == MODEL else against


def _write_report(args: argparse.Namespace, report: dict[str, Any], rows: Sequence[Row]) -> list[Path]:
    """Writes the report, its page and, of a model, its two tables; returns their paths."""
    from skinclip.evaluation import run as evaluation
    from skinclip.evaluation.report import page

    written = _outputs(args)
    args.out.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    written[1].write_text(page(report), encoding="utf-8")
    for path, table in zip(written[2:], (evaluation.submission, evaluation.probabilities), strict=False):
        table(rows).to_csv(path, index=False)
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


def _fetch(args: argparse.Namespace) -> int:
    from skinclip.core import config

    try:
        config.preset(args.preset)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if args.link and not (args.source or args.clip):
        raise UsageError("--link links copies: give them with --from and --clip, or leave it out")
    from skinclip.hub.fetch import fetch

    fetch(
        args.preset, args.source, clip=args.clip, link=args.link, home=args.store, agree=lambda: args.yes or _agreed()
    )
    if args.store:
        print(f"set SKINCLIP_HOME={args.store.absolute()} for the commands that are to find them there")
    return 0


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nothing was downloaded: add --yes to agree to the licences above")
    return input("Agree and download? [y/N] ").strip().lower() in ("y", "yes")


def _train(args: argparse.Namespace) -> int:
    from skinclip.core import config
    from skinclip.training import run as training

    if args.preset != "plain":  # the baseline, which is no preset of the model
        try:
            config.preset(args.preset)
        except ValueError as error:
            raise UsageError(str(error)) from error
    return training.run(args)


def _plot_training(args: argparse.Namespace) -> int:
    from skinclip.training.plotting import plot_training

    print(plot_training(args.folder))
    return 0
