"""View models: all that reaches the browser of a study's session.

A reader's page is drawn from one StepView at a time. The classes have no field for a case, an arm, a stratum, a truth
or a model: what has no field cannot leak. An aid is present only in views that come after the unaided answer is locked.
"""

from dataclasses import dataclass
from typing import Literal

StepKind = Literal[
    "consent",
    "instructions",
    "background",
    "before",
    "after",
    "feedback",
    "block",
    "pause",
    "preference",
    "debrief",
    "done",
    "withdrawn",
]


@dataclass(frozen=True)
class QuestionView:
    """One question as it is asked.

    Attributes:
        key: The name under which the answer is submitted.
        text: The question in words.
        kind: The question's type, a key of the registry `question_types`.
        required: Whether the step can be submitted without an answer.
        options: (value, label) pairs of a `choice`, in the order to show; empty otherwise.
        points: How many points a `likert` scale has (answers are 1 to this number); None otherwise.
        anchors: Words for the scale: its two ends, or one for every point.
        max_length: The longest `text` answer, in characters; None otherwise.
        widget: The form field that the page draws: choice, likert, percent, yes_no or text; the kind where empty.
    """

    key: str
    text: str
    kind: str
    required: bool
    options: tuple[tuple[str, str], ...] = ()
    points: int | None = None
    anchors: tuple[str, ...] = ()
    max_length: int | None = None
    widget: str = ""

    @property
    def field(self) -> str:
        """The form field to draw."""
        return self.widget or self.kind


@dataclass(frozen=True)
class Fragment:
    """A piece of the aid's text, in reading order: words, or a reference to a region of the picture.

    A reference has no words of its own: `text` is empty, `ref` is the region's number as drawn and `colour` its colour
    ("#56b4e9"). Words have neither.
    """

    text: str
    ref: int | None = None
    colour: str | None = None


@dataclass(frozen=True)
class AidView:
    """The aid as it is shown: the same frame in every arm, whose content alone differs.

    Attributes:
        differential: (diagnosis, probability in 0-1) pairs, most probable first.
        picture: A JPEG of the photo's size, or None where the arm has none.
        text: The pieces of the rationale in order; empty where there is none.
        written_in: The language of `text`.
    """

    differential: tuple[tuple[str, float], ...]
    picture: bytes | None = None
    text: tuple[Fragment, ...] = ()
    written_in: str = "en"

    @property
    def explains(self) -> bool:
        """True where there is more than the differential; without it the photo stands alone, shown once."""
        return self.picture is not None or bool(self.text)


@dataclass(frozen=True)
class StepView:
    """One step of a session. A `pause` waits for the time it tells and takes no answers.

    Attributes:
        step: An opaque name ("s017") that tells the position alone.
        kind: What sort of step this is, and so how the page lays it out.
        title: The step's heading.
        text: Words above the questions, in Markdown.
        done: Steps answered so far.
        total: Steps in the whole session.
        photo: The case's photo as a JPEG; None where the step has none.
        questions: The questions to answer, in order.
        aid: The aid; only after the unaided answer is locked.
        aids: Two aids to prefer between, A then B.
        own: The reader's locked unaided answer as (question, answer) in words.
        wait: Seconds until a `pause` ends, by the server's clock; 0 of any other step.
        rehearsal: Whether the study is only tried out, which every step says.
        language: The language of all its words, but for the aid's own text.
    """

    step: str
    kind: StepKind
    title: str
    text: str
    done: int
    total: int
    photo: bytes | None = None
    questions: tuple[QuestionView, ...] = ()
    aid: AidView | None = None
    aids: tuple[AidView, AidView] | None = None
    own: tuple[tuple[str, str], ...] = ()
    wait: float = 0.0
    rehearsal: bool = False
    language: str = "en"
