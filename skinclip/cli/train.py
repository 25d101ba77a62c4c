"""`skinclip train`: trains a model, or the baseline that it is compared with."""

from __future__ import annotations

import argparse

from skinclip.cli.common import LARGEST_SEED, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `train`, which come from the training itself: this imports torch."""
    from skinclip.training import run as training

    training.add_arguments(parser)
    parser.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    from skinclip.core import config
    from skinclip.training import run as training

    if args.preset not in (None, "plain"):  # the baseline, which is no preset of the model
        try:
            config.preset(args.preset)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if args.seed is not None and not 0 <= args.seed <= LARGEST_SEED:
        raise UsageError(f"{args.seed} is not a valid seed; give a whole number from 0 to {LARGEST_SEED}")
    return training.run(args)
