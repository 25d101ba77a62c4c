"""`skinclip api-key`: keys of the HTTP API, kept as hashes in a text file."""

from __future__ import annotations

import argparse
from pathlib import Path

from skinclip.cli.common import UsageError, whole_number
from skinclip.service import keys

LONGEST = 3650  # days


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what can be done with keys."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, words in {"add": "make a key", "list": "list the keys", "revoke": "end a key at once"}.items():
        one = actions.add_parser(action, help=words)
        if action != "list":
            one.add_argument("name", help="whom the key is for, such as clinic-a; it stands in the logs")
        one.add_argument("--keys", type=Path, required=True, metavar="FILE", help="the file of keys")
        if action == "add":
            one.add_argument("--days", type=_days, default=365, help="how long it is valid (default: 365)")
    parser.set_defaults(run=_api_key)


def _days(text: str) -> int:
    return whole_number(text, 1, LONGEST, "number of days")


def _api_key(args: argparse.Namespace) -> int:
    try:
        if args.action == "add":
            print(keys.add_key(args.keys, args.name, args.days))
        elif args.action == "revoke":
            keys.revoke_key(args.keys, args.name)
        else:
            for key in keys.read_keys(args.keys):
                print(f"{key.name}  valid until {key.ends}")
    except keys.ApiKeyError as error:
        raise UsageError(str(error)) from error
    return 0
