"""Refusals of the HTTP API as problem documents (RFC 9457)."""

from __future__ import annotations

from starlette.responses import JSONResponse

from skinclip.service.api_models import ApiProblem

PROBLEM_JSON = "application/problem+json"


class Refusal(Exception):
    """A request that is not answered; `detail` says what to do and never quotes a photo or a key."""

    def __init__(self, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem = ApiProblem(title=title, status=status, detail=detail)
        self.headers = headers or {}

    def response(self) -> JSONResponse:
        """The refusal as an answer."""
        return JSONResponse(self.problem.model_dump(), self.problem.status, self.headers, media_type=PROBLEM_JSON)
