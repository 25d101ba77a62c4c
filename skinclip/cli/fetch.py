"""`skinclip fetch`: gets the published weights that a big preset is built on."""

from __future__ import annotations

import argparse
from pathlib import Path

from skinclip.cli.common import UsageError, agreed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `fetch`."""
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
    return agreed("Agree and download?", "nothing was downloaded: add --yes to agree to the licences above")
