"""`skinclip plot-training FOLDER`: plots the progress of a training."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of `plot-training`."""
    parser.add_argument("folder", type=Path, help="the folder that a training was given as --work, such as runs/mini")
    parser.set_defaults(run=_plot_training)


def _plot_training(args: argparse.Namespace) -> int:
    from skinclip.training.plotting import plot_training

    print(plot_training(args.folder))
    return 0
