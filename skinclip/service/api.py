"""The HTTP API: the same Assessment as page and command line, for programs. Research use only.

    POST /v1/assess         a photo, or two of one lesion, as multipart/form-data or JSON with base64 -> its Assessment
    POST /v1/assess/batch   up to 16 of these as JSON -> an Assessment or a problem each
    GET  /v1/model          the model that answers
    GET  /openapi.json      this description for programs

Photos are read in memory and never kept. What cannot be answered is a problem document (RFC 9457).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from skinclip import RESEARCH_USE_ONLY, __version__
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.imaging.photo import PhotoError
from skinclip.service.admission import Admission
from skinclip.service.api_models import (
    MULTIPART,
    ApiProblem,
    Assessment,
    BatchAnswer,
    BatchItem,
    BatchRequest,
    ModelAnswer,
    PhotoRequest,
)
from skinclip.service.assessments import Answered, AssessmentQueue, LesionFiles, QueueFull, Stopping
from skinclip.service.bodies import lesion_of, read_batch, read_lesion
from skinclip.service.metrics import METRICS
from skinclip.service.refusals import PROBLEM_JSON, Refusal

REPLAYED = "Idempotent-Replayed"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
RETRY_SECONDS = "5"
WORDS = {
    400: "The body cannot be read",
    401: "No valid key",
    403: "A call from elsewhere",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "Neither multipart/form-data nor JSON",
    422: "The photo or an entry cannot be used",
    429: "Above the rate of the key",
    503: "The queue is full, or the server is stopping",
}


def create_api(queue: AssessmentQueue, admission: Admission) -> FastAPI:
    """The API around a queue of assessments."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await queue.close()

    app = FastAPI(
        title="SkinCLIP-VL",
        version=__version__,
        description=f"{RESEARCH_USE_ONLY}.",
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
    )
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _refused_by_framework)
    _add_routes(app, queue, admission)
    return app


def _add_routes(app: FastAPI, queue: AssessmentQueue, admission: Admission) -> None:
    bearer = HTTPBearer(auto_error=False)  # in the description alone; `admission` does the checking
    secured: dict[str, Any] = {"security": [{bearer.scheme_name: []}]} if admission.keys else {}

    @app.post("/v1/assess", response_model=Assessment, responses=_problems(), openapi_extra=secured | _photo_body())
    async def assess(request: Request) -> Response:
        """Assesses a photo, or two of one lesion. The same with the same entries is answered again without another
        assessment.
        """
        name = admission.check(request)
        lesion = await read_lesion(request)
        admission.spend(name, len(lesion.photos))
        answered = await _answer(queue, lesion)
        headers = HEADERS | {REPLAYED: str(answered.replayed).lower()}
        return Response(answered.assessment.to_json(indent=None), 200, headers, "application/json")

    batch_body = _json_body(BatchRequest)

    @app.post("/v1/assess/batch", response_model=BatchAnswer, responses=_problems(), openapi_extra=secured | batch_body)
    async def assess_batch(request: Request) -> Response:
        """Assesses several lesions; a photo that cannot be read is a problem in its place and stops no other."""
        name = admission.check(request)
        batch = await read_batch(request)
        admission.spend(name, sum(body.n_photos for body in batch.photos))
        if queue.waiting + len(batch.photos) > queue.most:
            raise _full()
        items = await asyncio.gather(*(_item(queue, body) for body in batch.photos))
        answer = BatchAnswer(results=list(items))
        return Response(answer.model_dump_json(exclude_none=False), 200, HEADERS, "application/json")

    @app.get("/v1/model", response_model=ModelAnswer, responses=_problems(401, 403), openapi_extra=secured)
    async def model(request: Request) -> Response:
        """Names the model that answers, by the hash of its weights."""
        admission.check(request)
        names = {d.code: d.name for d in DIAGNOSES}
        answer = ModelAnswer(model=queue.assessor.model_info, diagnoses=names, research_use_only=RESEARCH_USE_ONLY)
        return Response(answer.model_dump_json(), 200, HEADERS, "application/json")

    if admission.keys:
        _describe_keys(app, bearer)


async def _answer(queue: AssessmentQueue, lesion: LesionFiles) -> Answered:
    """The Assessment. Raises Refusal."""
    try:
        return await queue.assess(lesion)
    except PhotoError as error:
        METRICS.refused.labels("photo").inc()
        raise Refusal(422, "unreadable_photo", str(error)) from error
    except QueueFull as error:
        raise _full() from error
    except Stopping as error:
        detail = "The server is stopping. Try again when it has started anew."
        raise Refusal(503, "stopping", detail, {"Retry-After": RETRY_SECONDS}) from error


async def _item(queue: AssessmentQueue, body: PhotoRequest) -> BatchItem:
    try:
        return BatchItem(assessment=(await _answer(queue, lesion_of(body))).assessment)
    except Refusal as refusal:
        return BatchItem(problem=refusal.problem)


def _full() -> Refusal:
    METRICS.refused.labels("queue").inc()
    detail = f"The queue is full. Try again in {RETRY_SECONDS} s."
    return Refusal(503, "queue_full", detail, {"Retry-After": RETRY_SECONDS})


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    response = refusal.response()
    response.headers.update(HEADERS)
    return response


async def _refused_by_framework(request: Request, error: Exception) -> Response:
    """A path or a method that there is not, in the form of all refusals."""
    assert isinstance(error, HTTPException)
    title = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    return await _refused(request, Refusal(error.status_code, title, error.detail, dict(error.headers or {})))


# --- description ------------------------------------------------------------------------------------------------


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {PROBLEM_JSON: {"schema": ApiProblem.model_json_schema()}}
    return {status: {"description": WORDS[status], "content": schema} for status in statuses or WORDS}


def _json_body(model: type[BatchRequest] | type[PhotoRequest]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _photo_body() -> dict[str, Any]:
    body = _json_body(PhotoRequest)
    body["requestBody"]["content"]["multipart/form-data"] = {"schema": MULTIPART}
    return body


def _describe_keys(app: FastAPI, bearer: HTTPBearer) -> None:
    made = app.openapi

    def openapi() -> dict[str, Any]:
        description = made()
        schemes = description.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes[bearer.scheme_name] = {"type": "http", "scheme": "bearer"}
        return description

    app.openapi = openapi  # type: ignore[method-assign]
