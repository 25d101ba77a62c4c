"""A study with the real one's methods and no disk: three cases, kept in memory, for the page's own tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from skinclip.study.errors import (
    AlreadyAnsweredError,
    AnswerError,
    SessionExpiredError,
    SignInError,
    StudyRequestError,
    TooManyAttempts,
)
from skinclip.study.session.session_service import EnrolledReader
from skinclip.study.session.view_models import AidView, Fragment, QuestionView, StepView

CODE = "7K3M-9QXT-2B4H"
DIAGNOSES = (
    ("mel", "Melanoma"),
    ("nv", "Melanocytic nevus"),
    ("bcc", "Basal cell carcinoma"),
    ("akiec", "Actinic keratosis, also intraepithelial carcinoma"),
    ("bkl", "Benign keratosis"),
    ("df", "Dermatofibroma"),
    ("vasc", "Vascular lesion"),
)
DIFFERENTIAL = tuple(
    (name, p) for (_, name), p in zip(DIAGNOSES, (0.61, 0.2, 0.1, 0.05, 0.03, 0.008, 0.002), strict=True)
)
AGREE = ("I disagree strongly", "I disagree somewhat", "I'm neutral about it", "I agree somewhat", "I agree strongly")


def photo(shade: int = 120) -> bytes:
    """A JPEG of 320 x 240 pixels with a dark spot."""
    pixels = np.full((240, 320, 3), (150, 175, 215), np.uint8)
    cv2.ellipse(pixels, (160, 120), (80, 60), 20, 0, 360, (shade // 2, shade // 2, shade), -1)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def likert(key: str, text: str, points: int, *anchors: str) -> QuestionView:
    return QuestionView(key, text, "likert", True, points=points, anchors=anchors)


def choice(key: str, text: str, *options: tuple[str, str]) -> QuestionView:
    return QuestionView(key, text, "choice", True, options)


def unaided() -> tuple[QuestionView, ...]:
    return (
        choice("diagnosis", "What is your diagnosis?", *DIAGNOSES, ("cannot_tell", "Cannot tell")),
        QuestionView("confidence", "How confident are you?", "percent", True, anchors=("Not at all", "Completely")),
        QuestionView("act", "Would you biopsy, excise or refer this lesion?", "yes_no", True),
    )


def aided() -> tuple[QuestionView, ...]:
    return (
        *unaided(),
        likert("trust", "How much do you trust this answer of the aid?", 7, "Not at all", "Completely"),
        likert("correct", "What it says is correct.", 5, "Disagree strongly", "Agree strongly"),
        QuestionView("remark", "A remark", "text", False, max_length=200),
    )


def aids() -> tuple[AidView, ...]:
    text = (
        Fragment("Melanoma is the leading diagnosis, supported by "),
        Fragment(" irregular streaks", 1, "#56b4e9"),
        Fragment(" and "),
        Fragment(" irregular border", 2, "#f0e442"),
        Fragment("."),
    )
    heat = photo(250)
    return (AidView(DIFFERENTIAL), AidView(DIFFERENTIAL, heat), AidView(DIFFERENTIAL, heat, text))


def steps() -> list[StepView]:
    consent = QuestionView("consent", "Do you agree to take part?", "yes_no", True)
    role = choice("role", "Your role", ("derm", "Dermatologist"), ("gp", "General practitioner"))
    block = tuple(likert(f"ess_{i}", f"The explanation is satisfying ({i}).", 5, *AGREE) for i in range(3))
    prefer = choice("prefer", "Which would you rather have?", ("a", "Left (A)"), ("b", "Right (B)"))
    found = [
        StepView(
            "",
            "consent",
            "Consent",
            "You may **withdraw** at any time.\n\nThe aid may err.",
            0,
            0,
            questions=(consent,),
        ),
        StepView("", "instructions", "Instructions", "- First your own answer\n- Then the aid", 0, 0),
        StepView("", "background", "About you", "", 0, 0, questions=(role,)),
    ]
    for i, aid in enumerate(aids()):
        own = (("Diagnosis", "Melanoma"), ("Confidence", "60%"), ("Biopsy or refer", "Yes"))
        found.append(StepView("", "before", "Your own diagnosis", "", 0, 0, photo(100 + 20 * i), unaided()))
        found.append(StepView("", "after", "With the aid", "", 0, 0, photo(100 + 20 * i), aided(), aid, own=own))
        found.append(StepView("", "block", "About the aid", "Think of the last cases.", 0, 0, questions=block))
    pair = aids()[1:]
    found.append(StepView("", "preference", "Two aids", "", 0, 0, photo(), (prefer,), aids=(pair[0], pair[1])))
    found.append(StepView("", "debrief", "Thank you", "Some answers of the aid were wrong.", 0, 0))
    found.append(StepView("", "done", "All done", "Thank you for taking part.", 0, 0))
    total = len(found) - 1
    return [replace(view, step=f"s{i:03}", done=i, total=total) for i, view in enumerate(found)]


_PROTOCOL = SimpleNamespace(
    title="A made-up study", rehearsal=False, completion=SimpleNamespace(min_readers=20), languages=("en",)
)


@dataclass
class FakeStudy:
    """Answers the page as `session_service.Study` does; `stored` is what was acknowledged, in order."""

    views: list[StepView] = field(default_factory=steps)
    stored: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    failed: int = 0
    expired: bool = False
    withdrawn: bool = False
    address: str = ""
    name: str = "fake-v1"
    protocol: Any = field(default_factory=lambda: _PROTOCOL)

    def enrol(self, readers: int, site: str) -> list[EnrolledReader]:
        return [EnrolledReader(f"R{i:03}", CODE) for i in range(1, readers + 1)]

    def renew_code(self, reader: str) -> EnrolledReader:
        if reader != "R001":
            raise StudyRequestError(f"the study has no reader {reader}")
        return EnrolledReader(reader, "0000-1111-2222")

    def offered(self, language: str) -> str:
        return language if language in self.protocol.languages else self.protocol.languages[0]

    def sign_in(self, code: str, *, coordinator: bool = False, address: str = "", language: str = "") -> str:
        self.address = address
        if self.failed >= 3:
            raise TooManyAttempts(30)
        if code.upper() != CODE or self.withdrawn:
            self.failed += 1
            raise SignInError("this code is not known; check it and type it again")
        self.expired = False
        return "token"

    def view(self, token: str) -> StepView:
        if token != "token" or self.expired or self.withdrawn:
            raise SessionExpiredError
        return self.views[len(self.stored)]

    def submit(
        self, token: str, step: str, answers: dict[str, Any], request_id: str, seconds: float | None = None
    ) -> StepView:
        now = self.view(token)
        if any(request_id == known for _, _, known in self.stored):
            return now
        if step != now.step:
            raise AlreadyAnsweredError(1)
        for asked in now.questions:
            if asked.required and answers.get(asked.key) is None:
                raise AnswerError(f"{asked.key}: an answer is needed")
        self.stored.append((step, answers, request_id))
        return self.view(token)

    def sign_out(self, token: str) -> None:
        self.expired = True

    def withdraw(self, token: str) -> StepView:
        self.view(token)
        self.withdrawn = True
        return StepView("end", "withdrawn", "You have withdrawn", "Your answers are erased.", 0, len(self.views))

    def receipt(self, token: str) -> str:
        self.view(token)
        return "ABCD-EFGH"
