"""The tab in which a reader takes part in a study.

The handlers below are plain functions from what the browser sent to a reply as a dict; each one proves who is asking by
the session's token. They are called as server functions of one HTML component and not as queued events: a submit then
waits for nobody, its reply (or its failure) reaches the very call that sent it, and `assets/study.js` can send the same
request again until it is acknowledged. Nothing of a later step is ever part of a reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from skinclip.study.conduct import AnswerError, Expired, SignInError, Study, StudyError, TooManyAttempts
from skinclip.study.views import StepView
from skinclip.ui import study_html

AID_DELAY = 2.0  # s between the click that locks and the aid, the same in every arm: longer than its pictures take
WITHDRAW_WORD = "WITHDRAW"  # typed to confirm
MAX_REQUEST_ID = 64  # characters
Reply = dict[str, Any]
Handler = Callable[[Study, dict[str, Any]], Reply]


def build(study: Study) -> gr.HTML:
    """Lays out the tab inside the current Blocks."""
    return gr.HTML(
        study_html.SHELL,
        elem_id="study",
        apply_default_css=False,
        js_on_load="window.skStudy.attach(element, server);",
        server_functions=[_served(study, name, handler) for name, handler in HANDLERS.items()],
    )


def _served(study: Study, name: str, handler: Handler) -> Callable[[Any], Reply]:
    """`handler` as a function that the browser may call with one dict, whatever it sends."""

    def served(request: Any) -> Reply:
        return answered(study, handler, request if isinstance(request, dict) else {})

    served.__name__ = f"study_{name}"
    return served


def answered(study: Study, handler: Handler, request: dict[str, Any]) -> Reply:
    """The handler's reply, or in clear words why there is none. Anything else is a fault, which the browser retries."""
    try:
        return handler(study, request)
    except TooManyAttempts as problem:
        return {"problem": sentence(problem), "seconds": problem.seconds, "signed_out": True}
    except (SignInError, Expired) as problem:
        return {"problem": sentence(problem), "signed_out": True}
    except AnswerError as problem:  # "key: what is wrong": the page puts the words to the question
        return {"problem": str(problem)}
    except StudyError as problem:
        return {"problem": sentence(problem)}


# --- handlers -----------------------------------------------------------------------------------------------------


def on_sign_in(study: Study, request: dict[str, Any]) -> Reply:
    """A personal code -> the session's token and its next step."""
    code = _text(request, "code")
    if not code.strip():
        return {"problem": "Type the code that the study's coordinator gave you.", "signed_out": True}
    token = study.sign_in(code)
    return {"token": token, **drawn(study.view(token))}


def on_resume(study: Study, request: dict[str, Any]) -> Reply:
    """The next unanswered step, after a refresh or a pause."""
    return drawn(study.view(_text(request, "token")))


def on_submit(study: Study, request: dict[str, Any]) -> Reply:
    """Stores the answers of one step and gives the next. The request's id makes sending it again harmless."""
    token, step, request_id = (_text(request, name) for name in ("token", "step", "request_id"))
    answers = request.get("answers")
    if not step or not request_id or len(request_id) > MAX_REQUEST_ID or not isinstance(answers, dict):
        return {"problem": "The page sent an incomplete answer. Reload the page: what was confirmed is kept."}
    try:
        return drawn(study.submit(token, step, answers, request_id, _seconds(request.get("seconds"))))
    except (Expired, AnswerError):
        raise
    except StudyError as problem:  # answered before, too late or not its turn: told, and taken to the step that is due
        return {"notice": sentence(problem), **drawn(study.view(token))}


def on_withdraw(study: Study, request: dict[str, Any]) -> Reply:
    """Ends the session and erases its answers, where the word was typed."""
    if _text(request, "word").strip().upper() != WITHDRAW_WORD:
        return {"problem": f"Type {WITHDRAW_WORD} to confirm, or close this window to go on with the study."}
    return {"withdrawn": True, **drawn(study.withdraw(_text(request, "token")))}


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


def drawn(view: StepView) -> Reply:
    """The reply that puts a step on the page."""
    return {
        "html": study_html.step(view),
        "step": view.step,
        "said": f"{study_html.position(view)}: {view.title}",
        "delay": AID_DELAY if view.kind == "after" else 0.0,
    }


def sentence(problem: Exception) -> str:
    """An error's words as a sentence."""
    words = str(problem)
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    return value if isinstance(value, str) else ""


def _seconds(value: Any) -> float | None:
    """The browser's own count; None where it sent no sensible one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
        return None
    return float(value)
