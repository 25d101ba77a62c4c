"""Bodies of requests, read in memory and within limits: nothing that is sent is written to the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from skinclip.imaging.photo import MAX_FILE_MB
from skinclip.service.api_models import ApiBody, BatchRequest, PhotoRequest, given_context, given_lesion
from skinclip.service.assessments import LesionFiles
from skinclip.service.refusals import Refusal

MAX_BODY = (2 * MAX_FILE_MB * 4 // 3 + 2) * 1_000_000  # two photos in base64, and their fields
MAX_BATCH_BODY = 64_000_000
BODY_SECONDS = 60  # a client has for sending a body
FILES = ("photo", "clinical")
FIELDS = ("age", "sex", "site")
Body = TypeVar("Body", bound=ApiBody)


async def read_lesion(request: Request) -> LesionFiles:
    """The photos and the entries of a request, JSON or multipart. Raises Refusal."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = _parsed(PhotoRequest, await _read(request, MAX_BODY))
        return lesion_of(body)
    if kind == "multipart/form-data":
        return await _from_form(request, await _read(request, MAX_BODY))
    raise Refusal(415, "unsupported_media_type", "Send multipart/form-data or application/json.")


async def read_batch(request: Request) -> BatchRequest:
    """The lesions of a batch. Raises Refusal."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "unsupported_media_type", "Send application/json.")
    return _parsed(BatchRequest, await _read(request, MAX_BATCH_BODY))


def lesion_of(body: PhotoRequest) -> LesionFiles:
    """The photos and the entries of a body. Raises Refusal for what cannot be used."""
    try:
        return body.lesion
    except ValueError as error:
        raise Refusal(422, "invalid_request", f"{error}.") from error


async def _read(request: Request, most: int) -> bytes:
    """The body, of which never more than `most` bytes are taken."""
    too_large = Refusal(413, "too_large", f"The request is larger than {most // 1_000_000} MB. Send a smaller photo.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, "too_slow", f"The request did not arrive in {BODY_SECONDS} seconds.") from None
    except ClientDisconnect:
        raise Refusal(400, "incomplete", "The request ended too early.") from None
    return bytes(body)


def _parsed(model: type[Body], body: bytes) -> Body:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise Refusal(400, "invalid_json", "The body is not JSON.") from None
        where = ".".join(str(part)[:40] for part in first["loc"]) or "body"
        raise Refusal(422, "invalid_request", f"{where}: {first['msg']}.") from None


async def _from_form(request: Request, body: bytes) -> LesionFiles:
    form = await _form(request, body)
    try:
        files = {name: file for name in FILES if isinstance(file := form.get(name), UploadFile)}
        entries = {name: value for name in FIELDS if isinstance(value := form.get(name), str)}
        if "photo" not in files or {*files, *entries} != set(form) or len(form.multi_items()) != len(form):
            fields = ", ".join(FIELDS)
            words = (
                f"Send a file in the field photo, where there is one another in clinical, and {fields} once at most."
            )
            raise Refusal(422, "invalid_request", words)
        photo, clinical = await files["photo"].read(), await files["clinical"].read() if "clinical" in files else None
        return given_lesion(photo, clinical, given_context(**entries))
    except ValueError as error:
        raise Refusal(422, "invalid_request", f"{error}.") from error
    finally:
        await form.close()


async def _form(request: Request, body: bytes) -> FormData:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(
            request.headers, stream(), max_files=len(FILES), max_fields=len(FIELDS), max_part_size=1000
        )
        parser.spool_max_size = len(body) + 1  # never on the disk
        return await parser.parse()
    except (MultiPartException, KeyError, ValueError, LookupError) as error:
        raise Refusal(400, "invalid_form", "The body is not multipart/form-data of photos and entries.") from error
