"""The Content-Security-Policy of a page: its own scripts run, nothing else does, nothing is asked elsewhere.

The scripts that stand in the page are named by their hashes. They are taken from the page as the server is about to
send it, which holds no visitor's words: its query is dropped before and its host was checked.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

import orjson
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

_INLINE = re.compile(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)


def content_policy(scripts: Iterable[str] = (), frames: Iterable[str] = ()) -> str:
    """The policy's text.

    Args:
        scripts: the text of each script that stands in the page.
        frames: the origins that may show the page in a frame; none by default.
    """
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    parts = {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *dict.fromkeys(hashes)]),
        "style-src": "'self' 'unsafe-inline'",  # Gradio and our bars set styles on elements
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": "'self'",
        "frame-src": "'none'",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": " ".join(frames) or "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


def inline_scripts(page: str) -> list[str]:
    """The text of each script of a page, those included that Gradio puts into its head later."""
    scripts = _INLINE.findall(page)
    for head in _heads(page):
        scripts += _INLINE.findall(head)
    return scripts


def _heads(page: str) -> list[str]:
    """The `head` of the configuration that stands in the page as JSON."""
    match = re.search(r"window\.gradio_config = (\{.*?\});</script>", page, re.DOTALL)
    if match is None:
        return []
    return [str(orjson.loads(match[1]).get("head") or "")]


def with_policy(send: Send, script: str, frames: Iterable[str], cookie: bytes | None) -> Send:
    """A `send` that waits for the whole page, then sends it with its policy and, for a new visitor, the cookie.

    Args:
        script: stands first in the page, before any of its own.
    """
    start: Message = {}
    body = bytearray()

    async def sent(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        if message["type"] != "http.response.body":
            await send(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        page = body.decode("utf-8", "replace").replace("<head>", f"<head><script>{script}</script>", 1)
        headers = MutableHeaders(raw=[*start["headers"]])
        headers["Content-Security-Policy"] = content_policy(inline_scripts(page), frames)
        headers["Content-Length"] = str(len(page.encode()))
        headers["Cache-Control"] = "no-store"
        if cookie is not None:
            headers.append("Set-Cookie", cookie.decode())
        await send({**start, "headers": headers.raw})
        await send({"type": "http.response.body", "body": page.encode()})

    return sent
