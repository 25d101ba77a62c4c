"""Access to the server at all: decided before it listens, from its address, its names and its accounts.

On 127.0.0.1 the page is open to whoever sits at this computer. Any other address, and a proxy's public name, wants
accounts or the explicit word that everybody may come.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from skinclip.ui.guard.accounts import Accounts

MEANING_OF_OPEN = (
    "OPEN: everybody who can reach this address can use the page without an account, as often as they like. What they "
    "assess is not stored and not shown to others, but nobody is kept out and nothing is encrypted on the way."
)


@dataclass(frozen=True)
class Access:
    """Rules for every request.

    Attributes:
        names: the host names that the server answers to, besides this computer's own and plain addresses.
        accounts: whose accounts open the page; None where no account is asked for.
        roles: the roles that the page is for.
        local: only this computer is meant, so that a request passed on by a proxy is refused.
        frames: the origins that may show the page in a frame.
    """

    names: frozenset[str] = frozenset()
    accounts: Accounts | None = None
    roles: frozenset[str] = frozenset({"clinician", "coordinator"})
    local: bool = True
    frames: tuple[str, ...] = ()


def is_loopback(host: str) -> bool:
    """True for an address that only this computer reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def decide(host: str, names: Sequence[str], accounts: Accounts, opened: bool, own_sign_in: bool = False) -> Access:
    """The rules for a server that listens on `host`. Raises ValueError saying what is missing.

    Args:
        names: the public names by which a proxy or a resolver leads here.
        accounts: the accounts there are.
        opened: the operator said that everybody may come.
        own_sign_in: the server is a study's or the API's, whose callers have codes or keys of their own.
    """
    known = frozenset(name.strip().lower().rstrip(".") for name in names if name.strip())
    if is_loopback(host) and not known:
        return Access()
    if own_sign_in or opened:
        return Access(known, local=False)
    if not accounts.names():
        raise ValueError(
            f"{', '.join(sorted(known)) or host} can be reached from other computers, and there is no account yet. "
            "Make one with `skinclip accounts add NAME`, stay on this computer with --host 127.0.0.1, or say --open: "
            "then everybody who reaches it can use the page"
        )
    return Access(known, accounts, local=False)
