"""The outermost check of every request: its host, its origin, its account; and headers for every answer.

- A Host header must name this server: else a page elsewhere could make its own name point here (DNS rebinding).
- What another origin's page sends is refused, and nothing is ever offered to other origins.
- Where accounts are asked for, nothing but the sign-in and the health is answered without one.
- An unexpected fault is logged without its message and answered without details.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skinclip.ui.client_address import is_trusted_proxy
from skinclip.ui.guard.access import Access
from skinclip.ui.guard.content_policy import content_policy
from skinclip.ui.guard.quiet_log import describe
from skinclip.ui.guard.sign_in import SignIn

log = logging.getLogger("skinclip.ui")
HEALTH_PATHS = frozenset({"/healthz", "/readyz", "/livez"})
_PREFIX = re.compile(r"(/[A-Za-z0-9_-]+)+")
_PASSED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without any, the browser would call the origin of our own forms unknown
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), payment=(), usb=()",
}


class Perimeter:
    """An ASGI application around another. Answers in plain words what it does not pass on."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access
        self._sign_in = None if access.accounts is None else SignIn(access.accounts, access.roles)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on with headers added to its answer."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no page here opens a web socket: the server closes it
        scope = _as_visited(scope)
        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": self._dress(message["headers"], scope["scheme"])}
            await send(message)

        try:
            answer = self._refusal(scope)
            if answer is None and self._sign_in is not None and scope["path"] not in HEALTH_PATHS:
                answer = await self._sign_in.answer(scope, receive)
            await (answer or self._app)(scope, receive, dressed)
        except Exception as fault:
            log.error("a request failed: %s", describe(fault))
            if not started:
                await PlainTextResponse("The server failed; its log has the details.", 500)(scope, receive, dressed)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return _refused(421, "This server does not answer to this name. Its operator can add it with --name.")
        if self._access.local and any(name in headers for name in _PASSED_ON):
            return _refused(403, "This page is for this computer alone, and a proxy asks. Start it with --name NAME.")
        if _is_foreign(scope, headers, hosts[0], bool(self._access.frames)):
            return _refused(403, "Calls from other sites are refused.")
        return None

    def _is_ours(self, host: str) -> bool:
        """True for this computer, a plain address (which no resolver can redirect) and the names given."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        if any(character in host for character in "/@?#\\ ") or not name:
            return False
        return name.rstrip(".") in {"localhost", *self._access.names} or _is_address(name)

    def _dress(self, raw: list[tuple[bytes, bytes]], scheme: str) -> list[tuple[bytes, bytes]]:
        headers = MutableHeaders(raw=[h for h in raw if not h[0].lower().startswith((b"access-control-", b"server"))])
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("Content-Security-Policy", content_policy(frames=self._access.frames))
        if not self._access.frames:
            headers["X-Frame-Options"] = "DENY"
        if scheme == "https":
            headers["Strict-Transport-Security"] = "max-age=31536000"
        return headers.raw


def _as_visited(scope: Scope) -> Scope:
    """The scope with the scheme and the path before the page's own that a trusted proxy says the visitor used."""
    scope = {**scope}
    if is_trusted_proxy(Request(scope)):
        headers = Headers(scope=scope)
        scheme = headers.get("x-forwarded-proto", "").split(",")[-1].strip()
        prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        if _PREFIX.fullmatch(prefix):
            scope["root_path"] = prefix
    return scope


def _is_foreign(scope: Scope, headers: Mapping[str, str], host: str, framed: bool) -> bool:
    """True for what a page of another origin sends; following a link to the page is none of that."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return True
    if site in ("none", "same-origin"):
        return False
    targets = {"document", "iframe"} if framed else {"document"}
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in targets
    return not (followed and scope["method"] in ("GET", "HEAD"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refused(status: int, words: str) -> Response:
    return PlainTextResponse(words, HTTPStatus(status), {"Cache-Control": "no-store"})
