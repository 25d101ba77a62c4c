"""The sign-in in front of a page with accounts: a form, a cookie that no script reads, and the role of who asks."""

from __future__ import annotations

from urllib.parse import parse_qs

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope

from skinclip import RESEARCH_USE_ONLY
from skinclip.ui.client_address import client_address
from skinclip.ui.guard.accounts import LIFE_SECONDS, Accounts, SignedIn, SignInRefused
from skinclip.ui.guard.content_policy import content_policy, inline_scripts
from skinclip.ui.guard.visitors import cookie_of, set_cookie
from skinclip.ui.templating import render

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
SESSION_COOKIE, DEVICE_COOKIE = "skinclip-session", "skinclip-device"
DEVICE_SECONDS = 180 * 24 * 3600
MAX_FORM = 4096  # bytes
MAX_WAITING = 32  # sign-ins whose password is being checked or waits for it
ACCOUNT = "skinclip.account"  # key of the scope under which the page finds who asks


class SignIn:
    """Answers the sign-in's own routes and everything that comes without a session.

    Args:
        roles: the roles that may use the page.
    """

    def __init__(self, accounts: Accounts, roles: frozenset[str]) -> None:
        self._accounts, self._roles = accounts, roles
        self._turns = CapacityLimiter(2)  # argon2 takes memory and time on purpose
        self._waiting = 0

    async def answer(self, scope: Scope, receive: Receive) -> Response | None:
        """The answer to a request; None where its visitor may go on to the page."""
        path, method = scope["path"], scope["method"]
        if path == SIGN_IN and method == "POST":
            return await self._enter(Request(scope, receive))
        account = self._accounts.signed_in(cookie_of(scope, SESSION_COOKIE))
        if path == SIGN_OUT and method == "POST":
            self._accounts.sign_out(cookie_of(scope, SESSION_COOKIE))
            return _with_cookies(RedirectResponse("./", 303), scope, {SESSION_COOKIE: ("", 0)})
        if account is None:
            return self._unknown(scope)
        if account.role not in self._roles:
            return self._wrong_role(scope, account)
        scope[ACCOUNT] = account
        return RedirectResponse("./", 303) if path == SIGN_IN else None

    async def _enter(self, request: Request) -> Response:
        form = await _form(request)
        if form is None:
            return _page("The form was not sent as it should be. Load the page anew.", 400)
        if self._waiting >= MAX_WAITING:
            return _page("Many people are signing in at this moment. Try again in a few seconds.", 503)
        self._waiting += 1
        device = cookie_of(request.scope, DEVICE_COOKIE)
        values = form.get("name", [""])[0].strip(), form.get("password", [""])[0], client_address(request), device
        try:
            tokens = await to_thread.run_sync(self._accounts.sign_in, *values, limiter=self._turns)
        except SignInRefused as problem:
            return _page(str(problem), 429 if problem.seconds else 403, values[0])
        finally:
            self._waiting -= 1
        cookies = {SESSION_COOKIE: (tokens[0], int(LIFE_SECONDS)), DEVICE_COOKIE: (tokens[1], DEVICE_SECONDS)}
        return _with_cookies(RedirectResponse("./", 303), request.scope, cookies)

    def _unknown(self, scope: Scope) -> Response:
        if scope["path"] in ("/", SIGN_IN) and scope["method"] in ("GET", "HEAD"):
            return _page("", 200 if scope["path"] == SIGN_IN else 401)
        return JSONResponse({"detail": "Sign in first."}, 401, {"Cache-Control": "no-store"})

    def _wrong_role(self, scope: Scope, account: SignedIn) -> Response:
        words = f"An account of the role {account.role} cannot use this page: readers of a study must not see it."
        if scope["path"] in ("/", SIGN_IN):
            return _page(words, 403)
        return JSONResponse({"detail": words}, 403, {"Cache-Control": "no-store"})


async def _form(request: Request) -> dict[str, list[str]] | None:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return None
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MAX_FORM:
                return None
        return parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=8)
    except (ClientDisconnect, ValueError):
        return None


def _page(words: str, status: int, name: str = "") -> Response:
    html = render("sign_in.html", words=words, banner=RESEARCH_USE_ONLY, action=SIGN_IN[1:], name=name)
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": content_policy(inline_scripts(html))}
    return HTMLResponse(html, status, headers)


def _with_cookies(response: Response, scope: Scope, cookies: dict[str, tuple[str, int]]) -> Response:
    for name, (value, seconds) in cookies.items():
        cookie = set_cookie(name, value, scope.get("scheme") == "https", seconds=seconds)
        response.headers.append("Set-Cookie", cookie.decode())
    response.headers["Cache-Control"] = "no-store"
    return response
