"""The fields of a study protocol, their types and bounds, and the hash that identifies a plan."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Self

from pydantic.dataclasses import dataclass

from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.study.catalogue.catalogue import ENGLISH, Phrase, error_text, languages
from skinclip.study.errors import AnswerError
from skinclip.study.protocol.arms import ARMS
from skinclip.study.protocol.field_types import Flag, Listed, Number, OneOf, Slug, StudyArm, Text, Whole
from skinclip.study.protocol.question_types import STRICT
from skinclip.study.protocol.questions import Question
from skinclip.study.protocol.translations import Translation

STRATA: tuple[str, ...] = ("right", "wrong", "ood")
BALANCES: tuple[str, ...] = ("diagnosis", "malignant", "skin_tone", "kind")
CANNOT_TELL = "cannot_tell"
FIRST_OFFERED: tuple[str, ...] = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
# Endpoints that are computed from several answers; the others carry the key of an `after` question.
DERIVED_ENDPOINTS: tuple[str, ...] = (
    "accuracy",
    "balanced_accuracy",
    "following",
    "deserved_trust",
    "deserved_following",
    "switch_to_wrong",
    "switch_to_right",
    "seconds",
    "satisfaction",
    "trust_scale",
    "distrust_scale",
    "preference",
)
# Those of them that may be a study's primary endpoint, beside the ratings.
PRIMARY_ENDPOINTS: tuple[str, ...] = ("accuracy", "deserved_trust", "deserved_following")
# Steps of gatekeeping: each is tested where all before it succeeded.
GATES: tuple[str, ...] = ("primary", "safety", "secondary")
# The columns of the export rest on these, whatever else a study asks.
NEEDED: dict[tuple[str, str], str] = {
    (phase, key): kind
    for phase in ("before", "after")
    for key, kind in (("diagnosis", "choice"), ("confidence", "percent"), ("act", "yes_no"))
} | {("after", "trust"): "likert", ("preference", "prefer"): "choice"}
# The tables of the export hold these ratings, on scales of at most so many points.
RATED: dict[str, int] = {"trust": 7, "correct": 5, "grounded": 5, "complete": 5, "harmful": 5}
# Words that would unblind a reader wherever they stand in what he or she reads.
BLINDED_WORDS: tuple[str, ...] = ("grad-cam", "grad cam", "gradcam", "grad_cam", "skinclip")
_PLANNED_ETHICS = ("consent_version", "consent_text")  # the ethics fields that are part of the plan
_PLACEHOLDERS = frozenset({"todo", "tbd", "tba", "xxx", "n/a", "none", "?", "-", "..."})


_Language = Annotated[str, OneOf(languages())]


class _AllArms(Listed):
    """A list of arms of the registry."""

    def __init__(self) -> None:
        super().__init__("arms")

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The arms there are."""
        return f"a list of two or more of {', '.join(ARMS)}"


@dataclass(frozen=True, config=STRICT)
class CasePlan:
    """`n` cases, of which `wrong_share` are real errors of the AI and `ood_share` out of distribution.

    `practice` cases come on top and never count; `repeat_share` of the cases return at the end; `preference_pairs`
    are shown with two aids side by side. Within the AI's right and wrong answers the cases are as even as the photos
    allow in what `balance` names.
    """

    n: Annotated[int, Whole(2, 2000)]
    wrong_share: Annotated[float, Number(0, 1)]
    ood_share: Annotated[float, Number(0, 1)]
    practice: Annotated[int, Whole(0, 50)]
    repeat_share: Annotated[float, Number(0, 0.5)]
    preference_pairs: Annotated[int, Whole(0, 200)]
    balance: Annotated[
        tuple[Annotated[str, OneOf(BALANCES)], ...],
        Listed(f"what cases are to be even in: {', '.join(BALANCES)}", may_be_empty=True),
    ] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Cases in each stratum; they add up to `n`."""
        wrong, ood = round(self.n * self.wrong_share), round(self.n * self.ood_share)
        return {"right": self.n - wrong - ood, "wrong": wrong, "ood": ood}

    @property
    def repeats(self) -> int:
        """Cases shown a second time."""
        return round(self.n * self.repeat_share)


@dataclass(frozen=True, config=STRICT)
class Washout:
    """At least `presentations` other cases between a case and its repeat, and `hours` between two blocks."""

    presentations: Annotated[int, Whole(0, 2000)]
    hours: Annotated[float, Number(0, 24 * 60)] = 0.0


@dataclass(frozen=True, config=STRICT)
class SecondSession:
    """A second session, `days` or more after the end of the first: every case again, in another arm than before."""

    days: Annotated[int, Whole(1, 730)]


@dataclass(frozen=True, config=STRICT)
class Completion:
    """A completer answers `min_cases_share` of the cases; `min_readers` of them let the study close."""

    min_cases_share: Annotated[float, Number(0, 1)]
    min_readers: Annotated[int, Whole(2, 10_000)]


@dataclass(frozen=True, config=STRICT)
class Primary:
    """The primary endpoint, a rating after each case or one of `PRIMARY_ENDPOINTS`: `arm` less `reference`.

    `smallest_effect` is in points of its scale, for accuracy and following a share.
    """

    endpoint: Annotated[str, Text()]
    arm: Annotated[str, StudyArm()]
    reference: Annotated[str, StudyArm()]
    smallest_effect: Annotated[float, Number(0.01, 100)]


@dataclass(frozen=True, config=STRICT)
class Safety:
    """Non-inferiority of `arm` to `reference`: its share of switches to wrong, where the AI errs, is higher by less
    than `margin` (a proportion)."""

    endpoint: Annotated[str, OneOf(("switch_to_wrong",))]
    arm: Annotated[str, StudyArm()]
    reference: Annotated[str, StudyArm()]
    margin: Annotated[float, Number(0.001, 0.5)]


@dataclass(frozen=True, config=STRICT)
class Contrast:
    """A difference between two arms: `arm` less `reference`."""

    arm: Annotated[str, StudyArm()]
    reference: Annotated[str, StudyArm()]

    @property
    def text(self) -> str:
        """`arm - reference`, as results name it."""
        return f"{self.arm} - {self.reference}"


@dataclass(frozen=True, config=STRICT)
class TimeOutliers:
    """Steps shorter or longer than this, in seconds, are left out of one sensitivity analysis and of no other."""

    min_seconds: Annotated[float, Number(0, 60)]
    max_seconds: Annotated[float, Number(60, 86_400)]


@dataclass(frozen=True, config=STRICT)
class Plan:
    """The analysis, fixed in advance.

    `secondary` endpoints, in the contrast of the primary one, and further `contrasts` of the primary endpoint are one
    family, corrected by Holm (1979). What is named in neither is described and not tested. `gatekeeping` is the order
    in which the steps of `GATES` are tested, each only where all before it succeeded; empty where each stands by
    itself.
    """

    primary: Primary
    safety: Safety
    secondary: Annotated[tuple[Annotated[str, Text()], ...], Listed("endpoints")]
    alpha: Annotated[float, Number(0.0001, 0.2)]
    power: Annotated[float, Number(0.5, 0.999)]
    time_outliers: TimeOutliers
    contrasts: Annotated[
        tuple[Contrast, ...], Listed("contrasts, each with an arm and a reference", may_be_empty=True)
    ] = ()
    gatekeeping: Annotated[tuple[Annotated[str, OneOf(GATES)], ...], Listed("steps", may_be_empty=True)] = ()


@dataclass(frozen=True, config=STRICT)
class Ethics:
    """Statements needed before a reader can be enrolled; empty text where one is missing."""

    approval: Annotated[str, Text(optional=True)] = ""
    controller: Annotated[str, Text(optional=True)] = ""
    contact: Annotated[str, Text(optional=True)] = ""
    consent_version: Annotated[str, Text(optional=True)] = ""
    consent_text: Annotated[str, Text(optional=True)] = ""
    photo_licence: Annotated[str, Text(optional=True)] = ""
    retention: Annotated[str, Text(optional=True)] = ""


@dataclass(frozen=True, config=STRICT)
class Texts:
    """`practice_feedback` is the same in all arms and names the diagnosis where it says {truth}."""

    instructions: Annotated[str, Text()]
    practice_feedback: Annotated[str, Text()]
    debrief: Annotated[str, Text()]


@dataclass(frozen=True, config=STRICT)
class ProtocolModel:
    """The fields of a protocol; `Protocol` reads them from a file."""

    key: Annotated[str, Slug()]
    title: Annotated[str, Text(200)]
    version: Annotated[int, Whole(1, 10_000)]
    seed: Annotated[int, Whole(0, 2**53)]
    arms: Annotated[tuple[Annotated[str, StudyArm()], ...], _AllArms()]
    cases: CasePlan
    questions: dict[str, Annotated[tuple[Question, ...], Listed("questions")]]
    texts: Texts
    washout: Washout
    completion: Completion
    plan: Plan
    ethics: Ethics
    rehearsal: Annotated[bool, Flag()] = False  # tried out by the team: pages, data and report say so
    # that a reader can answer with, in this order; a protocol that does not say offers those of the first version
    diagnoses: Annotated[tuple[Annotated[str, OneOf(DIAGNOSIS_CODES)], ...], Listed("diagnoses")] = FIRST_OFFERED
    # of the readers' page, the first one where a reader chooses none; all other fields are English
    languages: Annotated[tuple[_Language, ...], Listed("languages")] = (ENGLISH,)
    translations: dict[str, Translation] = field(default_factory=dict)
    second_session: SecondSession | None = None

    @property
    def sessions(self) -> int:
        """Sessions of a reader, 1 or 2; each has all cases."""
        return 1 if self.second_session is None else 2

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for JSON or YAML; `from_dict` reads them back."""
        values = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "questions"}
        values["questions"] = {phase: [q.to_dict() for q in asked] for phase, asked in self.questions.items()}
        if not self.plan.contrasts:  # plans that were locked before there was this field keep their hash
            del values["plan"]["contrasts"]
        if not self.plan.gatekeeping:  # likewise
            del values["plan"]["gatekeeping"]
        if not self.rehearsal:  # likewise
            del values["rehearsal"]
        if not self.cases.balance:
            del values["cases"]["balance"]
        if self.diagnoses == FIRST_OFFERED:  # likewise
            del values["diagnoses"]
        if self.languages == (ENGLISH,):  # likewise
            del values["languages"]
        if self.second_session is None:
            del values["second_session"]
        del values["translations"]
        if self.translations:
            values["translations"] = {language: words.given() for language, words in self.translations.items()}
        return values

    @property
    def plan_sha256(self) -> str:
        """Identifies what a reader sees and what is analysed, whatever the order and layout of the YAML.

        Of the ethics fields only the consent's text and version are in it: an approval number that arrives late or a
        new contact is no new plan.
        """
        values = self.to_dict()
        values["ethics"] = {name: values["ethics"][name] for name in _PLANNED_ETHICS}
        for words in values.get("translations", {}).values():
            for name in {f.name for f in dataclasses.fields(Ethics)} - set(_PLANNED_ETHICS):
                words.pop(name, None)
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def in_language(self, language: str) -> Self:
        """The protocol with the words that readers of a language see; English ones where there is no translation."""
        if language == ENGLISH:
            return self
        words = self.translations[language].given() if language in self.translations else {}
        of = {part: {f.name for f in dataclasses.fields(part)} for part in (Ethics, Texts)}
        ethics, texts = ({name: words[name] for name in words if name in of[part]} for part in (Ethics, Texts))
        return dataclasses.replace(
            self,
            title=words.get("title", self.title),
            ethics=dataclasses.replace(self.ethics, **ethics),
            texts=dataclasses.replace(self.texts, **texts),
            questions={phase: tuple(q.in_language(language) for q in asked) for phase, asked in self.questions.items()},
        )

    def missing_ethics(self) -> list[str]:
        """The paths of the ethics fields that are still empty; while there is one, nobody can be enrolled."""
        values = dataclasses.asdict(self.ethics)
        return [f"ethics.{k}" for k, v in values.items() if not v.strip() or v.strip().lower() in _PLACEHOLDERS]

    def asked(self, phase: str, arm: str | None = None) -> tuple[Question, ...]:
        """The questions of a phase, in order; with `arm`, those that its readers are asked."""
        return tuple(q for q in self.questions[phase] if arm is None or q.asked_in(arm))

    def check_answers(self, phase: str, answers: Mapping[str, Any], arm: str | None = None) -> dict[str, Any]:
        """The answers to all questions of a step as they are stored, those left out as None.

        Raises AnswerError naming every answer that is missing, out of range or not asked for.
        """
        asked = {q.key: q for q in self.asked(phase, arm)}
        problems = [Phrase.joined(": ", (key, error_text("not_asked"))) for key in answers if key not in asked]
        checked = {}
        for key, question in asked.items():
            try:
                checked[key] = question.check(answers.get(key))
            except AnswerError as error:
                problems.append(error.args[0])
        if problems:
            raise AnswerError(Phrase.joined("; ", problems))
        return checked


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
