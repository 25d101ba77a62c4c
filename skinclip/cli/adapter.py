"""`skinclip adapter list | info | card | merge | push | pull`: manages adapters trained on a published base.

Heavy imports happen inside the commands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from skinclip.model.adapters.files import AdapterInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands of `adapter`."""
    commands = parser.add_subparsers(dest="adapter_command", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="list the adapters in a folder")
    listing.add_argument("folder", type=Path, help="a folder with one subfolder an adapter")
    listing.set_defaults(run=_list)

    about = _command(commands.add_parser("info", help="show an adapter's preset, weights and base"), _info)
    about.add_argument("--card", action="store_true", help="print its model card")

    card = _command(commands.add_parser("card", help="rewrite the model card"), _card)
    card.add_argument(
        "--results", type=Path, nargs="+", default=[], metavar="FILE", help="reports of `evaluate` of these weights"
    )

    merge = _command(commands.add_parser("merge", help="write a 16-bit base with the adapter merged into it"), _merge)
    merge.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the merged model")
    merge.add_argument("--dtype", choices=("bf16", "fp16"), default="bf16", help="(default: bf16, as the base is)")

    push = _command(commands.add_parser("push", help="copy an adapter to a folder or to the hub"), _push)
    push.add_argument("target", help="a new folder, or OWNER/NAME on the Hugging Face hub")
    push.add_argument("--yes", action="store_true", help="upload without asking")
    push.add_argument("--public", action="store_true", help="make a new repository visible to everyone")

    pull = commands.add_parser("pull", help="copy an adapter from a folder or from the hub")
    pull.add_argument("source", help="a folder, or OWNER/NAME on the Hugging Face hub")
    pull.add_argument("out", type=Path, help="a new folder")
    pull.add_argument("--revision", metavar="COMMIT", help="the repository's full commit hash (default: the newest)")
    pull.set_defaults(run=_pull)


def _command(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser.add_argument("adapter", type=Path, help="the adapter's folder")
    parser.set_defaults(run=run)
    return parser


def _list(args: argparse.Namespace) -> int:
    from skinclip.model.adapters.files import list_adapters

    infos = list_adapters(args.folder)
    print("\n".join(map(_line, infos)) or f"there is no adapter in {args.folder}")
    return 0


def _line(adapter: AdapterInfo) -> str:
    state = f"cannot be used: {adapter.problem}" if adapter.problem else f"for {_base(adapter)}"
    return f"{adapter.folder.name}: {adapter.name}, weights {adapter.weights_sha256[:12] or '-'}, {state}"


def _base(adapter: AdapterInfo) -> str:
    return (
        "a base of its own" if adapter.made_for is None else f"{adapter.made_for.base} beside {adapter.made_for.clip}"
    )


def _info(args: argparse.Namespace) -> int:
    from skinclip.model.adapters import files as adapters
    from skinclip.model.adapters.card import model_card

    adapter = adapters.info(args.adapter)
    if args.card:
        print(model_card(args.adapter))
        return 0
    print(f"{RESEARCH_USE_ONLY}\n{adapter.name}\npreset    {adapter.preset}\nweights   {adapter.weights_sha256}")
    print(f"made for  {_base(adapter)}")
    if adapter.problem:
        print(f"problem   {adapter.problem}")
    return 0


def _card(args: argparse.Namespace) -> int:
    from skinclip.model.adapters.card import FILE, write_card

    write_card(args.adapter, args.results)
    print(f"written: {args.adapter / FILE}")
    return 0


def _merge(args: argparse.Namespace) -> int:
    import torch

    from skinclip.model.adapters.files import merge

    merge(args.adapter, args.out, {"bf16": torch.bfloat16, "fp16": torch.float16}[args.dtype])
    return 0


def _push(args: argparse.Namespace) -> int:
    from skinclip.model.adapters.files import push

    push(args.adapter, args.target, lambda: args.yes or _agreed(), private=not args.public)
    return 0


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("add --yes to upload them", file=sys.stderr)
        return False
    return input("Upload them? [y/N] ").strip().lower() in ("y", "yes")


def _pull(args: argparse.Namespace) -> int:
    from skinclip.model.adapters.files import pull

    pull(args.source, args.out, args.revision)
    return 0
