"""`POST /photos` of the set-up page: an archive of photos, written to disk as it arrives and unpacked within bounds.

It is a route of the set-up page alone; the readers' page has no upload. Who may not set up studies is refused before a
byte is read, one archive arrives at a time, and what broke off is deleted.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import IO

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from skinclip.data.cases import DataError
from skinclip.study.errors import StudyError
from skinclip.study.photo_archive import FREE_BYTES, MAX_ARCHIVE_BYTES
from skinclip.study.workspace import StudyDraft
from skinclip.ui.setup_desk import SetupDesk

PATH = "/photos"
STUDY_HEADER, CODE_HEADER = "x-study", "x-setup-code"
RECEIVE_SECONDS = 3600.0
_ARRIVING = ".arriving-"
_MAX_LINES = 200  # of photos that were left out


def photos_route(desk: SetupDesk) -> Route:
    """The route -> {"files": N, "left_out": [...]} or {"problem": WORDS} with its status."""
    turn = asyncio.Lock()

    async def receive(request: Request) -> Response:
        if not desk.access.admits(request.headers.get(CODE_HEADER, "")):
            return _problem("Type the set-up code again.", 403)
        size = request.headers.get("content-length", "")
        if not (size.isascii() and size.isdecimal() and len(size) < 16):
            return _problem("The length of the archive is not given.", 411)
        if int(size) > MAX_ARCHIVE_BYTES:
            return _problem(f"The archive is larger than {MAX_ARCHIVE_BYTES // 10**9} GB.", 413)
        if turn.locked():
            return _problem("Another archive is arriving at this moment. Try again when it is done.", 503)
        async with turn:
            try:
                draft = desk.workspace.draft(request.headers.get(STUDY_HEADER, ""))
                if desk.is_busy(draft.key):
                    return _problem("This study is being built. Wait until that is done, or stop it.", 409)
                return await _taken(request, draft, int(size))
            except (StudyError, DataError) as problem:
                return _problem(str(problem), 400)

    return Route(PATH, receive, methods=["POST"])


async def _taken(request: Request, draft: StudyDraft, size: int) -> Response:
    if shutil.disk_usage(draft.folder).free < size + FREE_BYTES:
        return _problem("The disk has no room for this archive. Free some space.", 507)
    for remains in draft.folder.glob(f"{_ARRIVING}*"):  # of a server that was stopped in the middle
        remains.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile(dir=draft.folder, prefix=_ARRIVING, suffix=".zip") as file:
        if not await _written(request, file, size):
            return _problem("The archive did not arrive whole. Try again.", 400)
        file.flush()
        unpacked = await to_thread.run_sync(draft.take_archive, Path(file.name))
    left_out = list(unpacked.left_out[:_MAX_LINES])
    return JSONResponse({"files": unpacked.files, "left_out": left_out}, headers={"Cache-Control": "no-store"})


async def _written(request: Request, file: IO[bytes], size: int) -> bool:
    """True once the whole body, of exactly that size, is in the file."""
    written = 0
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for part in request.stream():
                written += len(part)
                if written > size:
                    return False
                await to_thread.run_sync(file.write, part)
    except (ClientDisconnect, TimeoutError):
        return False
    return written == size


def _problem(words: str, status: int) -> Response:
    return JSONResponse({"problem": words}, status, {"Cache-Control": "no-store"})
