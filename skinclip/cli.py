"""The command line: `python -m skinclip assess | evaluate | train`.

Exit status 0, or 2 for bad input with one line on stderr that says what to do. Heavy imports happen inside the
commands, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from skinclip import RESEARCH_USE_ONLY
from skinclip.clinical import SEXES, SITES, STATE_BY_KEY, canonical_site

if TYPE_CHECKING:
    from skinclip.assess import Assessor
    from skinclip.assessment import Assessment, Context
    from skinclip.images import LesionImage

LAYOUT_NAMES = ("isic2018", "ham10000", "derm7pt", "manifest")  # keys of data.readers.LAYOUTS
BAD_INPUT = 2


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
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)


def _bad_input() -> tuple[type[ValueError], ...]:
    from skinclip.data.cases import DataError
    from skinclip.images import PhotoError

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
    train = commands.add_parser("train", help="train a model")
    if words and words[0] == "train":  # its options come from a module that imports torch
        from skinclip import train as training

        training.add_arguments(train)
        train.set_defaults(run=_train)
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
    parser.set_defaults(run=_assess)


def _evaluate_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set's folder")
    parser.add_argument("--layout", choices=LAYOUT_NAMES, help="its layout (default: recognised)")
    parser.add_argument("--split", help="measure the cases of this split only")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the report; predictions.csv goes beside it"
    )
    parser.add_argument(
        "--rationales", type=_rationales, default=200, help="photos to read rationales of: a number, or all"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row or photo")
    parser.add_argument("--batch-size", type=_at_least_one, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the rationale sample and the bootstrap")
    parser.add_argument("--bootstrap", type=_at_least_one, default=1000, help="resamples behind each interval")
    parser.add_argument("--ledger", type=Path, help="where runs on test photos are noted")
    parser.add_argument("--reason", default="", help="why test photos are used, for the ledger")
    _model_arguments(parser)
    parser.set_defaults(run=_evaluate, words=list(words))


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


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


# --- assess -----------------------------------------------------------------------------------------------------


def _assess(args: argparse.Namespace) -> int:
    with _stdout_kept_clean():
        from skinclip import images
        from skinclip.assessment import Context

        image = images.load(args.photo)  # before the model: a bad photo answers at once
        if args.out:
            _writable_folder(args.out)
        assessor = _load_assessor(args)
        context = Context(age=args.age, sex=args.sex, site=args.site)
        assessment = assessor.assess(image, context)
        notices = _notices(assessment)
        if args.out:
            notices += _write_assessment(args.out, assessor, image, context, assessment)
    if args.json:
        print(assessment.to_json())
        for notice in notices:
            print(f"skinclip: {notice}", file=sys.stderr)
    else:
        print(_readable(assessment, notices))
    return 0


@contextlib.contextmanager
def _stdout_kept_clean() -> Iterator[None]:
    """Whatever libraries print while they load and work goes to stderr: stdout carries the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _load_assessor(args: argparse.Namespace) -> Assessor:
    from safetensors import SafetensorError

    from skinclip.assess import Assessor
    from skinclip.model.skinclip_vl import CheckpointError

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
    from skinclip import images
    from skinclip.explain.gradcam import grad_cam
    from skinclip.explain.render import heatmap_overlay, region_overlay

    (folder / "assessment.json").write_text(assessment.to_json() + "\n", encoding="utf-8")
    (folder / "regions.png").write_bytes(images.encode_png(region_overlay(image.pixels, assessment)))
    try:
        heat = grad_cam(assessor, image, context)
    except NotImplementedError as error:
        return [f"gradcam.png was not written: {error}"]
    (folder / "gradcam.png").write_bytes(images.encode_png(heatmap_overlay(image.pixels, heat)))
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
        lines += ["", assessment.rationale]
    for finding in assessment.findings:
        state = STATE_BY_KEY.get(f"{finding.criterion}:{finding.state}")
        phrase = state.phrase if state else f"{finding.criterion} {finding.state}"
        box = ", ".join(f"{v:.0f}" for v in finding.region.box)
        lines.append(f"  [{finding.ref}] {phrase} (score {finding.score:.2f}, pixels {box})")
    lines += [f"Warning: {notice}" for notice in notices]
    return "\n".join(lines)


# --- evaluate and train -----------------------------------------------------------------------------------------


def _evaluate(args: argparse.Namespace) -> int:
    from skinclip import evaluate as evaluation
    from skinclip.data.readers import detect_layout, read_cases

    layout = args.layout or detect_layout(args.data)
    table = read_cases(args.data, layout, strict=args.strict)
    cases = evaluation.select(table, args.split)
    _writable_folder(args.out.parent)
    if args.out.is_dir():
        raise UsageError(f"{args.out} is a folder; give the report a file name, such as {args.out / 'report.json'}")
    assessor = _load_assessor(args)
    # Noted before the run: a run that is killed half way has seen test photos as well.
    touched = [case for case in cases if case.split == "test"]
    ledger = args.ledger or evaluation.default_ledger()
    if touched and ledger:
        data, weights = args.data.resolve().name, assessor.model_info.weights_sha256
        evaluation.log_test_use(ledger, weights, data, args.split, len(touched), args.reason)
    report, predictions = evaluation.evaluate(
        assessor,
        table,
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
    args.out.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    predictions.to_csv(args.out.parent / "predictions.csv", index=False)
    print(_summary(report, args.out))
    return 0


def _summary(report: dict[str, Any], path: Path) -> str:
    """The report's own figures as a table, with the decision rule where there is one."""
    meta = report["meta"]
    lines = [f"{report['n']} photos of {', '.join(meta['data'])}, split {meta['split'] or 'all'}, 95 % intervals"]
    for name, figure in report.items():
        if isinstance(figure, dict) and set(figure) == {"value", "low", "high"}:
            rule = f"  ({meta['rules'][name]})" if name in meta["rules"] else ""
            interval = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
            lines.append(f"{name:<26}{figure['value']:.3f}{interval}{rule}")
    if meta["problems"]:
        lines.append(f"{meta['problems']} rows or photos left out, the first: {meta['problem_lines'][0]}")
    return "\n".join([*lines, f"written to {path} and {path.parent / 'predictions.csv'}"])


def _train(args: argparse.Namespace) -> int:
    import yaml

    from skinclip import config
    from skinclip import train as training

    try:  # here and not around the run: what fails in the middle of training is a fault whose traceback helps
        if args.preset != "plain":  # the baseline, which is no preset of the model
            config.preset(args.preset)
        if args.recipe:
            config.load_yaml(config.TrainConfig, args.recipe)
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(str(error)) from error
    return training.run(args)
