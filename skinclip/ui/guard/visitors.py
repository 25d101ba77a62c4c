"""Visitors: a browser is known by a random cookie, and what it put on the server is handed to that browser alone.

Gradio names a visitor by a session hash that stands in addresses, and so in the logs of proxies. A hash alone opens
nothing here: the first browser that uses it owns it, and every other is told that there is no such session.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from http.cookies import CookieError, SimpleCookie

from starlette.types import Scope

COOKIE = "visitor"
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits
SESSION_HASH = re.compile(r"[A-Za-z0-9]{6,64}")
OWNED_SECONDS = 3600  # that an unused session hash stays with its owner: longer than anything is kept of a session
MAX_OWNED = 100_000


def cookie_of(scope: Scope, name: str) -> str | None:
    """The value of a cookie of the request, None without it."""
    for key, value in scope["headers"]:
        if key == b"cookie":
            try:
                cookies = SimpleCookie(value.decode("latin-1"))
            except CookieError:
                continue
            if name in cookies:
                return cookies[name].value
    return None


def visitor_of(scope: Scope) -> str | None:
    """The visitor's random name from the cookie; None where there is none, or none that this server gave."""
    value = cookie_of(scope, COOKIE)
    return value if value and _VALUE.fullmatch(value) else None


def new_visitor() -> str:
    """A name that nobody can guess."""
    return secrets.token_urlsafe(32)


def set_cookie(name: str, value: str, secure: bool, embedded: bool = False, seconds: int | None = None) -> bytes:
    """A `Set-Cookie` header that no script reads and that no other site's page sends.

    Args:
        secure: the page is served over https.
        embedded: the page lies in a frame of another site, as on a Hugging Face Space; needs https.
        seconds: how long the browser keeps it; without, until it is closed.
    """
    parts = [f"{name}={value}", "Path=/", "HttpOnly"]
    parts += ["SameSite=None", "Secure", "Partitioned"] if embedded else ["SameSite=Strict"]
    parts += ["Secure"] if secure and not embedded else []
    parts += [] if seconds is None else [f"Max-Age={seconds}"]
    return "; ".join(parts).encode()


class SessionOwners:
    """The visitor whom each session hash belongs to."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def owns(self, visitor: str, session: str) -> bool:
        """True where the session is the visitor's; a session that is nobody's becomes theirs."""
        now = time.monotonic()
        with self._lock:
            owner, since = self._owners.get(session, (visitor, now))
            if owner != visitor and now - since < OWNED_SECONDS:
                return False
            self._owners.pop(session, None)
            self._owners[session] = (visitor, now)  # at the end: the first is the one longest unused
            self._forget(now)
            return True

    def _forget(self, now: float) -> None:
        while self._owners:
            session, (_, since) = next(iter(self._owners.items()))
            if now - since < OWNED_SECONDS and len(self._owners) <= MAX_OWNED:
                return
            del self._owners[session]
