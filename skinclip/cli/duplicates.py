"""`skinclip duplicates`: lists photos of the same lesion that turn up in several data sets."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip.cli.common import UsageError, make_writable_folder

if TYPE_CHECKING:
    from skinclip.data.cases import Case


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `duplicates`."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="a folder with one subfolder a data set"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the list, CSV; as DIR/near_duplicates.csv it is followed by training, which keeps each pair in one part",
    )
    parser.add_argument(
        "--index",
        action="store_true",
        help="write an index of the photos of the parts train, valid and calib instead, which holds no photo; as "
        "training_photos.npz in a checkpoint's folder it keeps them out of reader studies",
    )
    parser.add_argument(
        "--sets", nargs="+", metavar="NAME", help="compare these data sets only (default: all that are found)"
    )
    parser.set_defaults(run=_duplicates)


def _duplicates(args: argparse.Namespace) -> int:
    from skinclip.data.duplicates import find_duplicates, write_duplicates
    from skinclip.data.readers import discover

    make_writable_folder(args.out.parent)
    tables = discover(args.data)
    missing = [name for name in args.sets or () if name not in tables]
    if missing:
        raise UsageError(f"no data set {missing[0]}; found {', '.join(tables)}")
    chosen = {name: table for name, table in tables.items() if not args.sets or name in args.sets}
    if args.index:
        return _index([case for table in chosen.values() for case in table.cases], args.out)
    if len(chosen) < 2:
        raise UsageError(f"one data set has no near-duplicates in others; found {', '.join(tables)}")
    cases = [case for table in chosen.values() for case in table.cases]
    left_out = [problem for table in chosen.values() for problem in table.problems]
    duplicates = find_duplicates(cases, sys.stderr.isatty(), left_out.append)
    write_duplicates(args.out, duplicates)
    between = Counter((pair.first.source, pair.second.source) for pair in duplicates)
    for (first, second), count in sorted(between.items()):
        print(f"{first} and {second}: {count} pairs")
    apart = sum(pair.first.split != pair.second.split for pair in duplicates)
    print(f"{len(duplicates)} pairs among {len(cases)} photos, {apart} of them in different splits: {args.out}")
    if left_out:
        print(f"skinclip: {len(left_out)} rows or photos left out, the first: {left_out[0]}", file=sys.stderr)
    return 0


def _index(cases: Sequence[Case], out: Path) -> int:
    """Writes the index of the photos that a model learns from or is tuned on."""
    from skinclip.data.photo_index import build_index
    from skinclip.training.photo_sets import with_clinical

    used = with_clinical([case for case in cases if case.split in ("train", "valid", "calib")])
    index = build_index(used)
    index.write(out)
    print(f"{len(index)} of {len(used)} photos in {out}, {out.stat().st_size / 1e6:.1f} MB")
    return 0
