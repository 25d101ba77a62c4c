"""`skinclip accounts`: who may use the page where it can be reached from other computers.

Accounts lie in `accounts.json` below SKINCLIP_HOME, with argon2 hashes of their passwords. A running page follows every
change at once. Readers of a study need no account: their codes come from `skinclip study`.
"""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
from collections.abc import Callable
from typing import TypeVar

from skinclip.cli.common import UsageError
from skinclip.core import paths
from skinclip.ui.guard.accounts import ROLES, AccountError, Accounts

FILE = "accounts.json"
Result = TypeVar("Result")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands of `accounts`."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = commands.add_parser("add", help="add an account, or give it another password or role")
    add.add_argument("name", help="the name to sign in with")
    add.add_argument("--role", default="clinician", choices=ROLES, help="(default: clinician)")
    add.add_argument("--generate", action="store_true", help="make up a password and print it, once")
    add.set_defaults(run=_add)
    show = commands.add_parser("list", help="list names and roles")
    show.set_defaults(run=_list)
    remove = commands.add_parser("remove", help="remove an account and end its sign-ins")
    remove.add_argument("name")
    remove.set_defaults(run=_remove)


def accounts() -> Accounts:
    """The accounts of this installation."""
    return Accounts(paths.data_directory().kept / FILE)


def _add(args: argparse.Namespace) -> int:
    password = secrets.token_urlsafe(15) if args.generate else _asked()
    _done(lambda: accounts().add(args.name, args.role, password))
    print(f"{args.name} can sign in as {args.role}" + (f" with the password {password}" if args.generate else ""))
    return 0


def _list(_: argparse.Namespace) -> int:
    for name, role in _done(lambda: sorted(accounts().names().items())):
        print(f"{name}\t{role}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    _done(lambda: accounts().remove(args.name))
    print(f"{args.name} is removed")
    return 0


def _asked() -> str:
    """The password, typed twice at a terminal or once as a line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        raise UsageError("the two passwords differ; nothing was changed")
    return first


def _done(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except AccountError as problem:
        raise UsageError(str(problem)) from problem
