"""Uploads: photos on their way from the browser to the page, in memory and for a minute at most.

`POST /upload` takes the bytes of one file and answers with a random name for them; the page's own events hand that name
over. Only the visitor who sent the bytes can have them, once. They are never written to disk and never served, and all
of them together stay below `MAX_TOTAL`: whoever comes when it is full is asked to try again in a moment.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from skinclip.imaging.photo import MAX_FILE_MB
from skinclip.ui.guard.visitors import visitor_of

KEPT_SECONDS = 60.0
MAX_BYTES = MAX_FILE_MB * 1_000_000
MAX_TOTAL = 12 * MAX_BYTES
MAX_PER_VISITOR = 3  # a fourth takes the place of the first
RECEIVE_SECONDS = 120.0  # for one file to arrive
PATH = "/upload"


@dataclass(frozen=True)
class _Upload:
    visitor: str
    data: bytes
    until: float


class UploadStore:
    """Bytes of uploaded files by their random name, until they are taken or their minute is over."""

    def __init__(self) -> None:
        self._uploads: dict[str, _Upload] = {}
        self._arriving = 0  # bytes promised to requests that are being received
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes in memory or promised."""
        with self._lock:
            return self._held()

    def reserve(self, size: int) -> bool:
        """Sets memory aside for a file that arrives; False where there is none left."""
        with self._lock:
            self._drop_expired()
            if self._held() + size > MAX_TOTAL:
                return False
            self._arriving += size
            return True

    def release(self, size: int) -> None:
        """Gives memory back that `reserve` set aside."""
        with self._lock:
            self._arriving -= size

    def keep(self, visitor: str, data: bytes) -> str:
        """Keeps a file for a visitor; returns the name to take it by."""
        name = secrets.token_urlsafe(32)
        with self._lock:
            self._drop_expired()
            mine = [key for key, upload in self._uploads.items() if upload.visitor == visitor]
            for key in mine[: max(0, len(mine) - MAX_PER_VISITOR + 1)]:
                del self._uploads[key]
            self._uploads[name] = _Upload(visitor, data, time.monotonic() + KEPT_SECONDS)
        return name

    def take(self, visitor: str | None, name: str) -> bytes | None:
        """The file of that name, and forgets it; None where it is not this visitor's or no longer there."""
        with self._lock:
            self._drop_expired()
            upload = self._uploads.get(name)
            if upload is None or visitor is None or not secrets.compare_digest(upload.visitor, visitor):
                return None
            del self._uploads[name]
            return upload.data

    def drop_expired(self) -> None:
        """Forgets what nobody took within its minute."""
        with self._lock:
            self._drop_expired()

    def _held(self) -> int:
        return self._arriving + sum(len(upload.data) for upload in self._uploads.values())

    def _drop_expired(self) -> None:
        now = time.monotonic()
        for name in [key for key, upload in self._uploads.items() if upload.until <= now]:
            del self._uploads[name]


def upload_route(store: UploadStore) -> Route:
    """`POST /upload`: the bytes of one file as the body -> {"upload": NAME}, or {"refused": CODE} with its status."""

    async def receive(request: Request) -> Response:
        visitor = visitor_of(request.scope)
        if visitor is None:
            return _refused("upload", 403)
        size = request.headers.get("content-length", "")
        if not (size.isascii() and size.isdecimal() and len(size) < 16):
            return _refused("upload", 411)
        if int(size) > MAX_BYTES:
            return _refused("size", 413)
        if not store.reserve(int(size)):
            return _refused("busy", 503)
        try:
            data = await _body(request, int(size))
        finally:
            store.release(int(size))
        if data is None:
            return _refused("upload", 400)
        name = store.keep(visitor, data)
        asyncio.get_running_loop().call_later(KEPT_SECONDS + 0.1, store.drop_expired)
        return JSONResponse({"upload": name}, headers={"Cache-Control": "no-store"})

    return Route(PATH, receive, methods=["POST"])


async def _body(request: Request, size: int) -> bytes | None:
    """The body, of exactly that size; None where it broke off or took too long."""
    data = bytearray()
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > size:
                    return None
    except (ClientDisconnect, TimeoutError):
        return None
    return bytes(data) if len(data) == size else None


def _refused(code: str, status: int) -> JSONResponse:
    """The code is one of `photo_field.REFUSALS`, which has the words."""
    return JSONResponse({"refused": code}, status, {"Cache-Control": "no-store"})
