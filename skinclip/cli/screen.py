"""`skinclip screen --manifest photos.csv --out DIR`: many photos to Parquet, on one machine or a Ray cluster.

Started again with the same words it goes on where it stopped, however it was stopped.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip.cli.common import UsageError, add_model_arguments, at_least_one, make_writable_folder, stdout_to_stderr

if TYPE_CHECKING:
    from skinclip.screening.run import ScreeningOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `screen`."""
    parser.add_argument(
        "--manifest",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV or Parquet: image, and age, sex, site",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    add_model_arguments(parser)
    parser.add_argument("--workers", type=at_least_one, help="processes, each with a model (default: this one alone)")
    parser.add_argument("--address", metavar="RAY", help='a Ray cluster to work on; "auto" finds that of this machine')
    parser.add_argument("--threads", type=at_least_one, default=1, help="CPUs of each worker (default: 1)")
    parser.add_argument("--gpus", type=_share, default=0.0, help="GPUs of each worker; 0.5 lets two share one")
    parser.add_argument("--part", type=at_least_one, default=250, help="rows of the manifest in a file (default: 250)")
    parser.add_argument("--quick", action="store_true", help="leave out rationales and measured effects")
    parser.add_argument("--retry", action="store_true", help="assess again what could not be read or assessed before")
    parser.set_defaults(run=_screen)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs; give a number from 0 to 16, such as 0.5")
    return share


def _screen(args: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    make_writable_folder(args.out)
    with stdout_to_stderr():
        from tqdm import tqdm

        from skinclip.screening.errors import ScreeningError
        from skinclip.screening.run import screen

        with tqdm(desc="photos", unit="photo", file=sys.stderr, mininterval=1) as bar:

            def start(rows: int) -> None:
                bar.total = rows
                bar.refresh()

            def step(rows: int) -> None:
                bar.update(rows)

            try:
                summary = screen(_options(args), start, step)
            except ScreeningError as error:
                raise UsageError(str(error)) from error
            except KeyboardInterrupt:
                raise UsageError("stopped; the same command goes on where it stopped") from None
    statuses = summary["statuses"]
    assert isinstance(statuses, dict)
    print(f"{summary['rows']} rows: {', '.join(f'{count} {status}' for status, count in statuses.items())}")
    print(f"referred: {summary['refer']}; results: {args.out / 'results'}")
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _options(args: argparse.Namespace) -> ScreeningOptions:
    from skinclip.screening.plan import FULL, QUICK
    from skinclip.screening.run import ScreeningOptions

    workers = None
    if args.workers or args.address:
        from skinclip.screening.cluster import Workers

        workers = Workers(args.workers or 1, args.threads, args.gpus, args.address)
    return ScreeningOptions(
        manifest=args.manifest,
        out=args.out,
        preset=args.preset,
        weights=args.weights,
        part_rows=args.part,
        detail=QUICK if args.quick else FULL,
        threads=args.threads,
        retry=args.retry,
        workers=workers,
    )
