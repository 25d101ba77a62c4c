"""The gate of a Gradio page: the few routes that the page uses, in the form in which it uses them.

Gradio opens some sixty routes, among them an upload that takes files from anyone, files and proxied addresses by path,
and links to the state of other visitors. `PageGate` passes on those of `ROUTES` alone and answers 404 to all others. A
call is taken where it comes from the visitor who owns its session, is small, fits its function and names no file.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skinclip.ui.guard.content_policy import with_policy
from skinclip.ui.guard.visitors import COOKIE, SESSION_HASH, SessionOwners, new_visitor, set_cookie, visitor_of

MAX_CALL_BYTES = 256_000  # of a call's JSON: the entries of a form; photos have a route of their own
API = "/gradio_api"
_READ = frozenset({"GET", "HEAD"})
_FILE_KEYS = frozenset({"path", "url", "orig_name", "is_stream"})
_Body = Callable[[bytes], bytes]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class AllowedRoute:
    """A route that is passed on.

    Attributes:
        pattern: of the whole path.
        query: the parameters that are passed on; all others are dropped.
    """

    methods: frozenset[str]
    pattern: re.Pattern[str]
    query: frozenset[str] = frozenset()


def _route(methods: frozenset[str], pattern: str, *query: str) -> AllowedRoute:
    return AllowedRoute(methods, re.compile(pattern), frozenset(query))


PAGE = _route(_READ, "/")
JOIN = _route(frozenset({"POST"}), f"{API}/queue/join")
RUN = _route(frozenset({"POST"}), f"{API}/run/predict")
CANCEL = _route(frozenset({"POST"}), f"{API}/cancel")
DATA = _route(frozenset({"GET"}), f"{API}/queue/data", "session_hash")
HEARTBEAT = _route(frozenset({"GET"}), f"{API}/heartbeat/(?P<session>[A-Za-z0-9]{{6,64}})")
ROUTES = (
    PAGE,
    JOIN,
    RUN,
    CANCEL,
    DATA,
    HEARTBEAT,
    # the page's own code and fonts: names without "..", "%" or ":"
    _route(_READ, r"/(assets|static)/[A-Za-z0-9_-][A-Za-z0-9_./-]*"),
    _route(_READ, "/theme.css", "v"),
    _route(_READ, "/favicon.ico"),
)


class _Call(BaseModel):
    """A call as the page's own script sends it. What else a request holds is dropped."""

    model_config = ConfigDict(extra="ignore")

    session_hash: str = Field(pattern=f"^{SESSION_HASH.pattern}$")
    fn_index: int
    trigger_id: int | None = None
    data: list[Any]
    event_data: Any | None = None


class _Cancel(BaseModel):
    model_config = ConfigDict(extra="ignore")

    session_hash: str = Field(pattern=f"^{SESSION_HASH.pattern}$")
    fn_index: int
    event_id: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")


class _Refusal(Exception):
    """A request that is not passed on; the words say why, and repeat nothing of it."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


class PageGate:
    """An ASGI application around a Gradio page.

    Args:
        app: the page.
        inputs: how many values each function takes, by its index.
        admit: whether a session may begin or go on.
        script: stands first in the page; see `known_code`.
        extra: paths beside the page's own that are passed on as they are, such as the upload.
        frames: the origins that may show the page in a frame.
    """

    def __init__(
        self,
        app: ASGIApp,
        inputs: Mapping[int, int],
        admit: Callable[[str], bool],
        script: str = "",
        extra: re.Pattern[str] | None = None,
        frames: tuple[str, ...] = (),
    ) -> None:
        self._app, self._inputs, self._admit, self._script = app, dict(inputs), admit, script
        self._extra, self._frames = extra, frames
        self._owners = SessionOwners()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with the reason why not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            await self._pass_on(scope, receive, send)
        except _Refusal as refusal:
            words = dict.fromkeys(("detail", "error"), str(refusal))  # the page reads one or the other, by the route
            body = JSONResponse(words, refusal.status, {"Cache-Control": "no-store"})
            await body(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise _Refusal("There is no such page.", 404)
        path = _path_of(scope)
        if self._extra is not None and self._extra.fullmatch(path):
            await self._app(scope, receive, send)
            return
        route, match = _allowed(scope["method"], path)
        scope = {**scope, "query_string": _kept_query(scope["query_string"], route.query)}
        if route is PAGE:
            await self._page(scope, receive, send)
        elif route in (JOIN, RUN, CANCEL):
            check = self._checked_cancel if route is CANCEL else self._checked_call
            await self._app(*await _with_body(scope, receive, lambda body: check(scope, body)), send)
        else:
            if route in (DATA, HEARTBEAT):
                self._check_owner(scope, match.groupdict().get("session") or _session_of(scope))
            await self._app(scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page itself, with a cookie for a new visitor and the policy that fits its scripts."""
        cookie = None
        if visitor_of(scope) is None:
            embedded = bool(self._frames)
            cookie = set_cookie(COOKIE, new_visitor(), scope.get("scheme") == "https", embedded)
        headers = [
            (name, value) for name, value in scope["headers"] if name != b"accept-encoding"
        ]  # to read its scripts
        await self._app({**scope, "headers": headers}, receive, with_policy(send, self._script, self._frames, cookie))

    def _checked_call(self, scope: Scope, body: bytes) -> bytes:
        call = _parsed(_Call, body)
        self._check_owner(scope, call.session_hash)
        if self._inputs.get(call.fn_index) != len(call.data):
            raise _Refusal("The page has changed since it was loaded. Reload it.", 400)
        if _names_file(call.data) or _names_file(call.event_data):
            raise _Refusal("A call names no files.", 400)
        if not self._admit(call.session_hash):
            raise _Refusal("The server is full. Try again in some minutes.", 503)
        return orjson.dumps(call.model_dump())

    def _checked_cancel(self, scope: Scope, body: bytes) -> bytes:
        cancel = _parsed(_Cancel, body)
        self._check_owner(scope, cancel.session_hash)
        return orjson.dumps(cancel.model_dump())

    def _check_owner(self, scope: Scope, session: str) -> None:
        visitor = visitor_of(scope)
        if visitor is None or not self._owners.owns(visitor, session):
            raise _Refusal("There is no such session. Reload the page.", 403)


def _path_of(scope: Scope) -> str:
    """The path below the application's root."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _allowed(method: str, path: str) -> tuple[AllowedRoute, re.Match[str]]:
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match and method in route.methods and ".." not in path:
            return route, match
    raise _Refusal("There is no such page.", 404)


def _kept_query(query: bytes, names: frozenset[str]) -> bytes:
    kept = {k: v[0] for k, v in parse_qs(query.decode("latin-1")).items() if k in names}
    return urlencode(kept).encode()


def _session_of(scope: Scope) -> str:
    session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
    if not SESSION_HASH.fullmatch(session):
        raise _Refusal("There is no such session. Reload the page.", 403)
    return session


def _parsed(model: type[Model], body: bytes) -> Model:
    try:
        return model.model_validate(orjson.loads(body))
    except (ValueError, ValidationError, RecursionError):
        raise _Refusal("This is no call of the page.", 400) from None


def _names_file(value: Any) -> bool:
    """True where a value holds what Gradio would take for a file: it would look for it, or fetch it."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if _FILE_KEYS & part.keys() or (isinstance(part.get("meta"), dict) and "_type" in part["meta"]):
                return True
            pending += part.values()
        elif isinstance(part, list):
            pending += part
    return False


async def _with_body(scope: Scope, receive: Receive, check: _Body) -> tuple[Scope, Receive]:
    """The request with its body read, checked and replaced by what the check returns."""
    if not dict(scope["headers"]).get(b"content-type", b"").startswith(b"application/json"):
        raise _Refusal("A call is JSON.", 415)
    body = check(await _body_of(receive))
    headers = MutableHeaders(raw=[*scope["headers"]])
    headers["content-length"] = str(len(body))
    if "transfer-encoding" in headers:
        del headers["transfer-encoding"]
    return {**scope, "headers": headers.raw}, _replayed(body, receive)


async def _body_of(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refusal("The request broke off.", 400)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_CALL_BYTES:
            raise _Refusal("The call is too long.", 413)
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
