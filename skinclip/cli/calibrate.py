"""`skinclip calibrate`: fits the calibration of a trained checkpoint anew."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skinclip.cli.common import UsageError, add_model_arguments, load_assessor, make_writable_folder

if TYPE_CHECKING:
    from skinclip.calibration.calibrator import Calibrator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `calibrate`."""
    add_model_arguments(parser)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with one subfolder a data set (default: $SKINCLIP_DATA)"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row of a label file")
    parser.set_defaults(run=_calibrate)


def _calibrate(args: argparse.Namespace) -> int:
    from skinclip.hub import checkpoint_folder
    from skinclip.training.recalibrate import recalibrate

    root = args.data or (Path(os.environ["SKINCLIP_DATA"]) if os.environ.get("SKINCLIP_DATA") else None)
    if root is None:
        raise UsageError("no data: give --data DIR or set $SKINCLIP_DATA to a folder with one subfolder a data set")
    assessor = load_assessor(args)
    folder = args.weights or checkpoint_folder(args.preset)
    make_writable_folder(folder)
    fitted = recalibrate(folder, assessor, root, args.strict)
    print("\n".join([*summary(fitted.calibrator), f"written to {folder}"]))
    return 0


def summary(calibrator: Calibrator) -> list[str]:
    """A line for each kind of photo, and one for each source with what is promised of the referral there."""
    lines = [f"probabilities at the prevalence {calibrator.prevalence}"]
    for kind, part in calibrator.by_kind.items():
        lines.append(
            f"{kind}: temperature {part.calibration.temperature:.2f}, referral from {part.referral.threshold:.3f}, "
            f"answered from a confidence of {part.min_confidence:.2f}"
        )
        for group in part.referral.by_group:
            if np.isfinite(group.sensitivity):
                lines.append(
                    f"  {group.group}: {group.sensitivity:.3f} of {group.n} malignant lesions referred (at least "
                    f"{group.bound:.3f} at 90 % confidence), specificity {group.specificity:.3f}"
                )
    return lines
