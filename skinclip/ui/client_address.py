"""The address that a request comes from, for the limits on wrong codes. It is never written anywhere.

Behind a proxy every request comes from the proxy, which names the visitor in `X-Forwarded-For`. Anybody can send that
header, so it is believed only where the request comes from a proxy that SKINCLIP_TRUSTED_PROXIES names: addresses or
networks, separated by commas, such as `127.0.0.1, 10.0.0.0/8`.
"""

from __future__ import annotations

import ipaddress
import os
from functools import lru_cache

from starlette.requests import Request

TRUSTED_PROXIES = "SKINCLIP_TRUSTED_PROXIES"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def client_address(request: Request) -> str:
    """The visitor's address: the peer's or, from a trusted proxy, the last in its header that is no trusted proxy.

    Empty where the server does not know it.
    """
    peer = request.client.host if request.client else ""
    trusted = trusted_networks(os.environ.get(TRUSTED_PROXIES, ""))
    forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    for address in [peer, *reversed([part.strip() for part in forwarded if part.strip()])]:
        if not _within(address, trusted):
            return address
        peer = address
    return peer


def is_trusted_proxy(request: Request) -> bool:
    """True where the request comes from a proxy whose headers are believed."""
    peer = request.client.host if request.client else ""
    return _within(peer, trusted_networks(os.environ.get(TRUSTED_PROXIES, "")))


def check_trusted_proxies() -> None:
    """Raises ValueError where the setting cannot be read: better before the page opens than at the first sign-in."""
    trusted_networks(os.environ.get(TRUSTED_PROXIES, ""))


@lru_cache(maxsize=8)
def trusted_networks(text: str) -> tuple[_Network, ...]:
    """The networks that the setting names. Raises ValueError for a text that is none."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(ipaddress.ip_network(part, strict=False) for part in parts)
    except ValueError as problem:
        raise ValueError(f"{TRUSTED_PROXIES}: {problem}; write addresses or networks, separated by commas") from problem


def _within(address: str, networks: tuple[_Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
