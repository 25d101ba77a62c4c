"""Counts and logs every request of an application, by the template of its route."""

from __future__ import annotations

import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skinclip.service import logs
from skinclip.service.metrics import METRICS, Metrics


class ObservedApplication:
    """The application with its requests counted and logged; a fault inside it is logged and goes on to the server.

    Args:
        log: also write a line for each request.
    """

    def __init__(self, app: ASGIApp, log: bool = True, metrics: Metrics = METRICS) -> None:
        self.app, self.log, self.metrics = app, log, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the application does, with a header X-Request-ID."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, began, status = secrets.token_hex(8), time.monotonic(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request.encode())]
            await send(message)

        fault: BaseException | None = None
        try:
            await self.app(scope, receive, note_status)
        except Exception as error:
            fault = error
            raise
        finally:
            seconds, method = time.monotonic() - began, logs.known_method(scope["method"])
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.observe_request(route, method, status, seconds)
            if self.log:
                fields = {"request": request, "route": route, "method": method, "status": status}
                logs.log("request", fault, **fields, seconds=round(seconds, 4))
