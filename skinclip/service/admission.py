"""Admission to the HTTP API: who calls (a key, or this computer alone), from where, and how often."""

from __future__ import annotations

import math
import time
from pathlib import Path
from urllib.parse import urlsplit

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from skinclip.service.keys import KeyRing
from skinclip.service.metrics import METRICS
from skinclip.service.refusals import Refusal

RATE = "60/minute"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
NO_KEY = "local"  # the name of whoever calls an API without keys


class Admission:
    """Checks each call.

    Args:
        keys: file of keys; None lets everybody in who reaches the address, which is then this computer alone.
        rate: photos that a key may send, as in "60/minute".
        hosts: names that the server answers to; None for all. Guards against names that others point at this computer.

    Raises ValueError for a rate that is none, ApiKeyError for a file of keys that cannot be read.
    """

    def __init__(self, keys: Path | None, rate: str = RATE, hosts: tuple[str, ...] | None = None) -> None:
        self.keys = KeyRing(keys) if keys else None
        self.hosts = LOCAL_HOSTS if hosts is None and keys is None else hosts
        self.rate: RateLimitItem = parse(rate)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, request: Request) -> str:
        """The name of the key. Raises Refusal for a call from elsewhere or without a valid key."""
        self._check_origin(request)
        if self.keys is None:
            return NO_KEY
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        name = self.keys.name_of(key.strip()) if kind.lower() == "bearer" else None
        if name is None:
            METRICS.refused.labels("key").inc()
            detail = "Send a valid key in the header Authorization: Bearer KEY."
            raise Refusal(401, "no_valid_key", detail, {"WWW-Authenticate": "Bearer"})
        return name

    def spend(self, name: str, photos: int) -> None:
        """Counts photos of a key. Raises Refusal above its rate."""
        if self._limiter.hit(self.rate, name, cost=photos):
            return
        METRICS.refused.labels("rate").inc()
        again = max(1, math.ceil(self._limiter.get_window_stats(self.rate, name).reset_time - time.time()))
        detail = f"At most {self.rate.amount} photos per {self.rate.GRANULARITY.name}. Try again in {again} s."
        raise Refusal(429, "rate_exceeded", detail, {"Retry-After": str(again)})

    def _check_origin(self, request: Request) -> None:
        """Refuses names that are not this server's, and every call that a page in a browser makes."""
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if self.hosts is not None and host not in self.hosts:
            raise Refusal(403, "unknown_host", "This server does not answer to that name.")
        if "origin" in request.headers or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refusal(403, "cross_origin", "The API answers programs, not pages in a browser.")
