"""Limits on wrong codes, by address and by code. In memory: nothing about a network is ever written.

They hold back who guesses, never who has a right code: a code's secret part has 60 random bits, so that at a thousand
guesses a second it takes ten years to be right with a probability of one in four million. A right code is therefore
always taken, whatever was typed before it and from where, and nobody can lock a reader out by typing junk.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from math import ceil

from skinclip.study.errors import SignInError, TooManyAttempts, WrongCodeError

WINDOW = timedelta(minutes=5)
PER_ADDRESS = 20  # wrong codes within WINDOW: a hospital's readers may share one address
PER_CODE = 5  # wrong secrets for one handle within WINDOW
_KEPT = 10_000  # addresses and handles counted at a time; the longest quiet go first


class AttemptLimits:
    """Counts of wrong codes. Safe for threads."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: OrderedDict[tuple[str, str], deque[datetime]] = OrderedDict()

    def failed(self, address: str, handle: str) -> SignInError:
        """Counts a wrong code; returns what to tell: that it is wrong or, past a limit, how long to wait.

        Past a limit it is the same whether the handle exists, and nothing was looked up to say so.
        """
        with self._lock:
            waits = [
                self._count(("address", network(address)), PER_ADDRESS),
                self._count(("code", handle), PER_CODE) if handle else 0,
            ]
        return TooManyAttempts(max(waits)) if max(waits) else WrongCodeError()

    def exceeded(self, address: str) -> bool:
        """True where no more wrong codes are taken from the address for now."""
        with self._lock:
            return self._wait(("address", network(address)), PER_ADDRESS) > 0

    def _count(self, what: tuple[str, str], allowed: int) -> int:
        """Seconds to wait; 0 where this one was still allowed. What is refused does not count again."""
        if wait := self._wait(what, allowed):
            return wait
        self._failed.setdefault(what, deque()).append(self._clock())
        self._failed.move_to_end(what)
        while len(self._failed) > _KEPT:
            self._failed.popitem(last=False)
        return 0

    def _wait(self, what: tuple[str, str], allowed: int) -> int:
        times, now = self._failed.get(what, deque()), self._clock()
        while times and not now - WINDOW < times[0] <= now + WINDOW:  # over, or of a clock that was ahead
            times.popleft()
        if len(times) < allowed:
            return 0
        waits = ceil((times[-allowed] + WINDOW - now).total_seconds())
        return min(max(1, waits), int(WINDOW.total_seconds()))


def network(address: str) -> str:
    """The address that is counted: of IPv6 its /64, which one connection has to itself; any other text as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
