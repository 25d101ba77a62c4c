"""The tab in which a reader takes part in a study.

The handlers below are plain functions from what the browser sent to a reply as a dict; each one proves who is asking by
the session's token. They are called by a route of their own (`session_route`) and not as Gradio's events: a submit
then waits for nobody, its reply (or its failure) reaches the very call that sent it, `assets/study.js` can send the
same request again until it is acknowledged, and Gradio's part of a submit's time, about half, is saved. Nothing of a
later step is ever part of a reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import gradio as gr
import orjson
from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from skinclip.study.catalogue.catalogue import ENGLISH, Words, problem_in
from skinclip.study.errors import (
    AnswerError,
    SessionExpiredError,
    SignInError,
    StoreError,
    StudyRequestError,
    TooManyAttempts,
)
from skinclip.study.session.session_service import Study
from skinclip.study.session.view_models import StepView
from skinclip.ui import study_html
from skinclip.ui.client_address import client_address

AID_DELAY = 2.0  # s between the click that locks and the aid, the same in every arm: longer than its pictures take
ADDRESS = "address"  # entry of a request that the server sets
MAX_REQUEST_ID = 64  # characters
AT_ONCE = 8  # calls that are worked on; the others wait in their order, so that none waits much longer than another
MAX_REQUEST = 1 << 20  # bytes: many times what the longest answers take
REQUEST_SECONDS = 60.0  # for a request to arrive
Reply = dict[str, Any]
Handler = Callable[[Study, dict[str, Any]], Reply]


def build(study: Study) -> gr.HTML:
    """Lays out the tab inside the current Blocks."""
    return gr.HTML(
        study_html.shell(study.protocol.languages),
        elem_id="study",
        apply_default_css=False,
        js_on_load="window.skStudy.attach(element);",
    )


def session_route(study: Study) -> Route:
    """Route `POST /session/NAME`: takes a JSON object and replies with that of the handler of this name.

    Only JSON is taken, which a page of another origin cannot send without asking first.
    """

    turns = CapacityLimiter(AT_ONCE)

    async def call(request: Request) -> Response:
        handler = HANDLERS.get(request.path_params["name"])
        if handler is None:
            return PlainTextResponse("There is no such call.", 404)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return PlainTextResponse("Send JSON.", 415)
        body = bytearray()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > MAX_REQUEST:
                        return PlainTextResponse(f"More than {MAX_REQUEST >> 20} MB.", 413)
        except (ClientDisconnect, TimeoutError):  # nothing is stored of it: the page sends it again
            return PlainTextResponse("The request broke off.", 400)
        try:
            sent = orjson.loads(body)
        except ValueError:  # wrong JSON, or no text at all
            return PlainTextResponse("This is no JSON.", 400)
        asked = sent if isinstance(sent, dict) else {}
        asked[ADDRESS] = client_address(request)  # whatever the browser sent under this name
        status, data = await to_thread.run_sync(_as_json, study, handler, asked, limiter=turns)
        return Response(data, status, media_type="application/json", headers={"Cache-Control": "no-store"})

    return Route("/session/{name}", call, methods=["POST"])


def _as_json(study: Study, handler: Handler, request: dict[str, Any]) -> tuple[int, bytes]:
    """Status and body of the reply; 503 where the database failed: the browser tells why and sends again."""
    try:
        return 200, orjson.dumps(reply_to(study, handler, request))
    except StoreError as problem:
        language = _language(study, request)
        words = str(problem) if language == ENGLISH else Words(language, "errors")("database")
        return 503, orjson.dumps({"problem": sentence(words)})


def reply_to(study: Study, handler: Handler, request: dict[str, Any]) -> Reply:
    """Reply of the handler, or the reason in words why there is none.

    Anything else that it raises is a fault, which the browser retries.
    """
    language = _language(study, request)
    try:
        return handler(study, request)
    except TooManyAttempts as problem:
        return {"problem": sentence(problem_in(problem, language)), "seconds": problem.seconds, "signed_out": True}
    except (SignInError, SessionExpiredError) as problem:
        return {"problem": sentence(problem_in(problem, language)), "signed_out": True}
    except AnswerError as problem:  # "key: what is wrong": the page puts the words to the question
        return {"problem": problem_in(problem, language)}
    except StudyRequestError as problem:
        return {"problem": sentence(problem_in(problem, language))}


# --- handlers -----------------------------------------------------------------------------------------------------


def on_sign_in(study: Study, request: dict[str, Any]) -> Reply:
    """A personal code -> the session's token and its next step."""
    code = _text(request, "code")
    if not code.strip():
        return {"problem": _error(study, request, "no_code"), "signed_out": True}
    token = study.sign_in(code, address=_text(request, ADDRESS), language=_language(study, request))
    return {"token": token, **step_reply(study.view(token))}


def on_resume(study: Study, request: dict[str, Any]) -> Reply:
    """The next unanswered step, after a refresh or a pause."""
    return step_reply(study.view(_text(request, "token")))


def on_submit(study: Study, request: dict[str, Any]) -> Reply:
    """Stores the answers of one step and gives the next. The request's id makes sending it again harmless."""
    token, step, request_id = (_text(request, name) for name in ("token", "step", "request_id"))
    answers = request.get("answers")
    named = 0 < len(request_id) <= MAX_REQUEST_ID and request_id.isprintable() and step.isprintable()
    if not step or not named or not isinstance(answers, dict):
        return {"problem": _error(study, request, "incomplete")}
    try:
        return step_reply(study.submit(token, step, answers, request_id, _seconds(request.get("seconds"))))
    except (SessionExpiredError, AnswerError):
        raise
    except StudyRequestError as problem:  # answered before, too late or not its turn: on to the step that is due
        view = study.view(token)
        return {"notice": sentence(problem_in(problem, view.language)), **step_reply(view)}


def on_withdraw(study: Study, request: dict[str, Any]) -> Reply:
    """Ends the session and erases its answers, where the word was typed."""
    if _text(request, "word").strip().upper() != study_html.page_words(_language(study, request))("withdraw_typed"):
        return {"problem": _error(study, request, "withdraw_word")}
    return {"withdrawn": True, **step_reply(study.withdraw(_text(request, "token")))}


def on_sign_out(study: Study, request: dict[str, Any]) -> Reply:
    """Ends the session at this computer; the code opens it again."""
    study.sign_out(_text(request, "token"))
    return {}


def on_receipt(study: Study, request: dict[str, Any]) -> Reply:
    """The code by which a reader can later prove that no answer was lost or changed."""
    return {"receipt": study.receipt(_text(request, "token"))}


HANDLERS: dict[str, Handler] = {
    "sign_in": on_sign_in,
    "resume": on_resume,
    "submit": on_submit,
    "withdraw": on_withdraw,
    "receipt": on_receipt,
    "sign_out": on_sign_out,
}


def step_reply(view: StepView) -> Reply:
    """The reply that puts a step on the page."""
    return {
        "html": study_html.step(view),
        "step": view.step,
        "said": study_html.announced(view),
        "language": view.language,
        "delay": AID_DELAY if view.kind == "after" else 0.0,
    }


def _language(study: Study, request: dict[str, Any]) -> str:
    """The language of the page that sent the request."""
    return study.offered(_text(request, "language"))


def _error(study: Study, request: dict[str, Any], key: str) -> str:
    return Words(_language(study, request), "errors")(key)


def sentence(words: str) -> str:
    """An error's words as a sentence."""
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    return value if isinstance(value, str) else ""


def _seconds(value: Any) -> float | None:
    """The browser's own count; None where it sent no sensible one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
        return None
    return float(value)
