"""A study is one YAML file: who is shown what, what is asked, and how it will be analysed, fixed in advance.

`Protocol.read` checks the file and says everything that is wrong with it at once. `plan_sha256` identifies what a
reader sees and what is analysed: it is locked before the first reader is enrolled, and a changed plan is a new version.
Ethics fields may stay empty while a study is prepared; `missing_ethics` names those without which nobody is enrolled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.study.errors import AnswerError, ProtocolError
from skinclip.study.protocol.questions import PHASES, Option, Question, Scale, read_questions
from skinclip.study.protocol.yaml_schema import Fields, read_yaml, shown

__all__ = [
    "ARMS",
    "PHASES",
    "STRATA",
    "AnswerError",
    "CasePlan",
    "Completion",
    "Contrast",
    "Ethics",
    "Option",
    "Plan",
    "Primary",
    "Protocol",
    "ProtocolError",
    "Question",
    "Safety",
    "Scale",
    "Texts",
    "TimeOutliers",
    "Washout",
]

# What the reader sees in each arm beside the photo and the differential, which are the same in all.
ARMS: dict[str, str] = {
    "none": "no explanation",
    "grad_cam": "Grad-CAM map",
    "grad_cam_text": "Grad-CAM map and the rationale's text",
    "regions": "rationale whose findings are outlined in the photo",
}
STRATA: tuple[str, ...] = ("right", "wrong", "ood")
CANNOT_TELL = "cannot_tell"
# Endpoints that are computed from several answers; the others carry the key of an `after` question.
DERIVED_ENDPOINTS: tuple[str, ...] = (
    "balanced_accuracy",
    "switch_to_wrong",
    "switch_to_right",
    "seconds",
    "satisfaction",
    "trust_scale",
    "distrust_scale",
    "preference",
)
TESTED_KINDS: tuple[str, ...] = ("likert", "percent", "yes_no")  # scales whose answers arms can be compared in
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
_PLACEHOLDERS = frozenset({"todo", "tbd", "tba", "xxx", "n/a", "none", "?", "-", "..."})


@dataclass(frozen=True)
class CasePlan:
    """`n` cases, of which `wrong_share` are real errors of the AI and `ood_share` out of distribution.

    `practice` cases come on top and never count; `repeat_share` of the cases return at the end; `preference_pairs`
    are shown with two aids side by side.
    """

    n: int
    wrong_share: float
    ood_share: float
    practice: int
    repeat_share: float
    preference_pairs: int

    @property
    def counts(self) -> dict[str, int]:
        """Cases in each stratum; they add up to `n`."""
        wrong, ood = round(self.n * self.wrong_share), round(self.n * self.ood_share)
        return {"right": self.n - wrong - ood, "wrong": wrong, "ood": ood}

    @property
    def repeats(self) -> int:
        return round(self.n * self.repeat_share)


@dataclass(frozen=True)
class Washout:
    """At least `presentations` other cases between a case and its repeat, and `hours` between two blocks."""

    presentations: int
    hours: float


@dataclass(frozen=True)
class Completion:
    """Who answers `min_cases_share` of the cases is a completer; with `min_readers` of them the study may close."""

    min_cases_share: float
    min_readers: int


@dataclass(frozen=True)
class Primary:
    """The primary endpoint, a rating after each case: `arm` less `reference`, in points of its scale."""

    endpoint: str
    arm: str
    reference: str
    smallest_effect: float


@dataclass(frozen=True)
class Safety:
    """Non-inferiority of `arm` to `reference`: its share of switches to wrong, where the AI errs, is higher by less
    than `margin` (a proportion)."""

    endpoint: str
    arm: str
    reference: str
    margin: float


@dataclass(frozen=True)
class Contrast:
    """A further contrast of the primary endpoint: `arm` less `reference`."""

    arm: str
    reference: str


@dataclass(frozen=True)
class TimeOutliers:
    """Steps shorter or longer than this, in seconds, are left out of one sensitivity analysis and of no other."""

    min_seconds: float
    max_seconds: float


@dataclass(frozen=True)
class Plan:
    """The analysis, fixed in advance.

    `secondary` endpoints, in the contrast of the primary one, and further `contrasts` of the primary endpoint are one
    family, corrected by Holm (1979). What is named in neither is described and not tested.
    """

    primary: Primary
    safety: Safety
    secondary: tuple[str, ...]
    alpha: float
    power: float
    time_outliers: TimeOutliers
    contrasts: tuple[Contrast, ...] = ()


@dataclass(frozen=True)
class Ethics:
    """What must stand before a reader can be enrolled; empty text where it does not yet."""

    approval: str = ""
    controller: str = ""
    contact: str = ""
    consent_version: str = ""
    consent_text: str = ""
    photo_licence: str = ""
    retention: str = ""


@dataclass(frozen=True)
class Texts:
    """`practice_feedback` is the same in all arms and names the diagnosis where it says {truth}."""

    instructions: str
    practice_feedback: str
    debrief: str


@dataclass(frozen=True)
class Protocol:
    key: str
    title: str
    version: int
    seed: int
    arms: tuple[str, ...]
    cases: CasePlan
    questions: dict[str, tuple[Question, ...]]
    texts: Texts
    washout: Washout
    completion: Completion
    plan: Plan
    ethics: Ethics
    rehearsal: bool = False  # tried out by the team: pages, data and report say so

    @classmethod
    def read(cls, path: str | Path) -> Protocol:
        """The protocol in a YAML file. Raises ProtocolError naming everything that is wrong with it."""
        return cls.from_dict(read_yaml(Path(path)), source=str(path))

    @classmethod
    def from_dict(cls, values: Any, source: str = "the protocol") -> Protocol:
        """The protocol again from `to_dict`, or from the same structure with questions and texts left out.

        Raises ProtocolError (a ValueError), whose `problems` begin with the path of the field each.
        """
        problems: list[str] = []
        protocol = _read(Fields(values, "", problems, _names(cls)))
        # Contradictions are looked for among fields that could be read: stand-ins would only make up more of them.
        problems = problems or _contradictions(protocol)
        if problems:
            raise ProtocolError(problems, source)
        return protocol

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for JSON or YAML; `from_dict` reads them back."""
        values = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "questions"}
        values["questions"] = {phase: [q.to_dict() for q in asked] for phase, asked in self.questions.items()}
        if not self.plan.contrasts:  # plans that were locked before there was this field keep their hash
            del values["plan"]["contrasts"]
        if not self.rehearsal:  # likewise
            del values["rehearsal"]
        return values

    @property
    def plan_sha256(self) -> str:
        """Identifies what a reader sees and what is analysed, whatever the order and layout of the YAML.

        Of the ethics fields only the consent's text and version are in it: an approval number that arrives late or a
        new contact is no new plan.
        """
        values = self.to_dict()
        values["ethics"] = {name: values["ethics"][name] for name in ("consent_version", "consent_text")}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

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
        problems = [f"{key}: this is not asked here" for key in answers if key not in asked]
        checked = {}
        for key, question in asked.items():
            try:
                checked[key] = question.check(answers.get(key))
            except AnswerError as error:
                problems.append(str(error))
        if problems:
            raise AnswerError("; ".join(problems))
        return checked


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


@cache
def _defaults() -> dict[str, Any]:
    """The questions and texts of a study that has none of its own."""
    values: dict[str, Any] = read_yaml(Path(__file__).with_name("questions.yaml"))
    return values


def _names(cls: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]


def _read(fields: Fields) -> Protocol:
    arms = _read_arms(fields)
    return Protocol(
        key=fields.slug("key"),
        title=fields.text("title", max_length=200),
        version=fields.integer("version", 1, 10_000),
        seed=fields.integer("seed", 0, 2**53),
        arms=arms,
        cases=_read_cases(fields.nested("cases", _names(CasePlan))),
        questions=_read_phases(fields, arms),
        texts=_read_texts(fields.nested("texts", _names(Texts))),
        washout=_read_washout(fields.nested("washout", _names(Washout))),
        completion=_read_completion(fields.nested("completion", _names(Completion))),
        plan=_read_plan(fields.nested("plan", _names(Plan)), arms),
        ethics=_read_ethics(fields.nested("ethics", _names(Ethics))),
        rehearsal=fields.boolean("rehearsal", default=False),
    )


def _read_arms(fields: Fields) -> tuple[str, ...]:
    """The arms; all there are where the list is faulty, so that no later field is blamed for it."""
    known, arms = ", ".join(ARMS), []
    before = len(fields.problems)
    for path, arm in fields.each("arms", f"two or more of {known}"):
        if arm not in tuple(ARMS):
            fields.problems.append(f"{path}: must be one of {known}, not {shown(arm)}")
        elif arm in arms:
            fields.problems.append(f"{path}: {arm} is already an arm")
        arms.append(arm)
    if len(arms) == 1:
        fields.note("arms", f"must be at least two of {known}: there is nothing to compare otherwise")
    return tuple(arms) if len(fields.problems) == before else tuple(ARMS)


def _read_cases(fields: Fields) -> CasePlan:
    return CasePlan(
        n=fields.integer("n", 2, 2000),
        wrong_share=fields.number("wrong_share", 0, 1),
        ood_share=fields.number("ood_share", 0, 1),
        practice=fields.integer("practice", 0, 50),
        repeat_share=fields.number("repeat_share", 0, 0.5),
        preference_pairs=fields.integer("preference_pairs", 0, 200),
    )


def _read_phases(fields: Fields, arms: Sequence[str]) -> dict[str, tuple[Question, ...]]:
    """A phase that the study leaves out is asked as in `questions.yaml`."""
    own = fields.nested("questions", PHASES)
    default = Fields(_defaults()["questions"], "questions", fields.problems, PHASES)
    return {phase: read_questions(own if phase in own.values else default, phase, arms) for phase in PHASES}


def _read_texts(fields: Fields) -> Texts:
    default = _defaults()["texts"]
    texts = Texts(**{name: fields.text(name, default[name].strip()) for name in _names(Texts)})
    if texts.practice_feedback.count("{truth}") != 1 or texts.practice_feedback.count("{") != 1:
        fields.note("practice_feedback", "must say {truth} once, where the confirmed diagnosis is to stand")
    return texts


def _read_washout(fields: Fields) -> Washout:
    return Washout(fields.integer("presentations", 0, 2000), fields.number("hours", 0, 24 * 60, default=0))


def _read_completion(fields: Fields) -> Completion:
    return Completion(fields.number("min_cases_share", 0, 1), fields.integer("min_readers", 2, 10_000))


def _read_plan(fields: Fields, arms: tuple[str, ...]) -> Plan:
    primary = fields.nested("primary", _names(Primary))
    safety = fields.nested("safety", _names(Safety))
    outliers = fields.nested("time_outliers", _names(TimeOutliers))
    return Plan(
        primary=Primary(
            primary.text("endpoint", "trust"),
            primary.one_of("arm", arms),
            primary.one_of("reference", arms),
            primary.number("smallest_effect", 0.01, 100),
        ),
        safety=Safety(
            safety.one_of("endpoint", ("switch_to_wrong",), "switch_to_wrong"),
            safety.one_of("arm", arms),
            safety.one_of("reference", arms),
            safety.number("margin", 0.001, 0.5),
        ),
        secondary=tuple(str(value) for _, value in fields.each("secondary", "endpoints")),
        alpha=fields.number("alpha", 0.0001, 0.2),
        power=fields.number("power", 0.5, 0.999),
        time_outliers=TimeOutliers(outliers.number("min_seconds", 0, 60), outliers.number("max_seconds", 60, 86_400)),
        contrasts=_read_contrasts(fields, arms),
    )


def _read_contrasts(fields: Fields, arms: tuple[str, ...]) -> tuple[Contrast, ...]:
    if fields.values.get("contrasts") in (None, []):
        return ()
    entries = fields.each("contrasts", "contrasts, each with an arm and a reference")
    read = [Fields(value, path, fields.problems, _names(Contrast)) for path, value in entries]
    return tuple(Contrast(one.one_of("arm", arms), one.one_of("reference", arms)) for one in read)


def _read_ethics(fields: Fields) -> Ethics:
    return Ethics(**{name: fields.text(name, "") for name in _names(Ethics)})


def _contradictions(protocol: Protocol) -> list[str]:
    """What no field says by itself: parts of the protocol that do not go together."""
    return [
        *_case_problems(protocol),
        *_question_problems(protocol),
        *_plan_problems(protocol),
        *_blinding_problems(protocol),
    ]


# What a question may not be called: the export has columns of these names.
RESERVED = {
    "background": ("reader", "completed", "withdrawn"),
    "before": ("seconds", "server_seconds"),
}


def _case_problems(protocol: Protocol) -> list[str]:
    cases, counts, washout = protocol.cases, protocol.cases.counts, protocol.washout.presentations
    problems = []
    if cases.n < len(protocol.arms):
        problems.append(f"cases.n: {cases.n} cases cannot be split over {len(protocol.arms)} arms; use more cases")
    if counts["right"] < 0:
        problems.append("cases.wrong_share: together with ood_share it is more than 1; lower one of them")
    if counts["wrong"] < len(protocol.arms):
        problems.append(
            f"cases.wrong_share: gives {counts['wrong']} cases on which the AI errs; the safety endpoint needs "
            f"one an arm at least ({len(protocol.arms)})"
        )
    # Out-of-distribution cases are never repeated, and in the worst draw they all lie outside the washout.
    if cases.repeats and cases.n - counts["ood"] - washout < cases.repeats:
        problems.append(
            f"washout.presentations: {washout} leaves fewer than {cases.repeats} cases early enough to be repeated; "
            f"at most {max(0, cases.n - counts['ood'] - cases.repeats)} fits"
        )
    usable = cases.n - counts["ood"] - cases.repeats
    if cases.preference_pairs > usable:
        problems.append(f"cases.preference_pairs: at most {usable}: each takes a case of its own that is not repeated")
    if cases.preference_pairs and sum(arm != "none" for arm in protocol.arms) < 2:
        problems.append("cases.preference_pairs: must be 0, since fewer than two arms show an explanation")
    return problems


def _question_problems(protocol: Protocol) -> list[str]:
    problems = []
    for (phase, key), kind in NEEDED.items():
        found = {q.key: q for q in protocol.questions[phase]}.get(key)
        path = f"questions.{phase}"
        if found is None:
            problems.append(f"{path}: the question {key} is missing; the analysis needs it (scale: {kind})")
        elif found.scale.kind != kind:
            problems.append(f"{path}: {key} must have a scale of kind {kind}, not {found.scale.kind}")
        elif found.arms is not None or not found.required:
            problems.append(f"{path}: {key} must be required in all arms; leave out its arms and required")
        elif key == "diagnosis" and {o.value for o in found.scale.options} != {*DIAGNOSIS_CODES, CANNOT_TELL}:
            problems.append(f"{path}: diagnosis must offer {', '.join((*DIAGNOSIS_CODES, CANNOT_TELL))}")
        elif key == "prefer" and [o.value for o in found.scale.options] != ["a", "b"]:
            problems.append(f"{path}: prefer must offer a (left) and b (right), in this order")
    problems += _rating_problems(protocol)
    problems += [
        f"questions.{phase}: {q.key} is the name of a column of its own; choose another key"
        for phase, reserved in RESERVED.items()
        for q in protocol.questions[phase]
        if q.key in reserved
    ]
    for phase in ("background", "before", "preference"):
        problems += [
            f"questions.{phase}: {q.key} cannot be for some arms only: no arm is known yet when it is asked"
            for q in protocol.questions[phase]
            if q.arms is not None
        ]
    return problems


def _rating_problems(protocol: Protocol) -> list[str]:
    """Ratings that the tables could not hold: found out when all is answered, that would be too late."""
    problems = []
    for q in protocol.questions["after"]:
        most = RATED.get(q.key)
        if most and (q.scale.points > most or (q.scale.kind != "likert" and ("after", q.key) not in NEEDED)):
            problems.append(f"questions.after: {q.key} must be a likert scale of at most {most} points")
        elif most and ("after", q.key) not in NEEDED and "none" in protocol.arms and q.asked_in("none"):
            problems.append(f"questions.after: {q.key} is about the explanation; give it `arms: aid`")
    return problems


def _plan_problems(protocol: Protocol) -> list[str]:
    plan, after = protocol.plan, {q.key: q for q in protocol.questions["after"]}
    problems = []
    for name, part in (("primary", plan.primary), ("safety", plan.safety)):
        if part.arm == part.reference:
            problems.append(f"plan.{name}.reference: must be another arm than plan.{name}.arm ({part.arm})")
    endpoint, contrast = after.get(plan.primary.endpoint), (plan.primary.arm, plan.primary.reference)
    if endpoint is None or endpoint.scale.kind not in ("likert", "percent"):
        ratings = [q.key for q in after.values() if q.scale.kind in ("likert", "percent")]
        problems.append(f"plan.primary.endpoint: must be a rating asked after each case: {', '.join(ratings)}")
    elif not all(endpoint.asked_in(arm) for arm in contrast):
        problems.append(f"plan.primary.endpoint: {endpoint.key} is not asked in both {contrast[0]} and {contrast[1]}")
    tested = [q.key for q in after.values() if q.scale.kind in TESTED_KINDS]
    allowed = [
        k
        for k in dict.fromkeys((*tested, *DERIVED_ENDPOINTS))
        if k not in (plan.primary.endpoint, plan.safety.endpoint)
    ]
    for i, name in enumerate(plan.secondary):
        if name not in allowed:
            problems.append(f"plan.secondary[{i}]: must be one of {', '.join(allowed)}, not {shown(name)}")
    if len(set(plan.secondary)) < len(plan.secondary):
        problems.append("plan.secondary: names an endpoint twice; Holm would count it twice")
    return problems + (_contrast_problems(plan, endpoint) if endpoint and not problems else [])


def _contrast_problems(plan: Plan, endpoint: Question) -> list[str]:
    """Only looked for where the primary endpoint is in order, since they are contrasts in it."""
    taken, problems = [{plan.primary.arm, plan.primary.reference}], []
    for i, contrast in enumerate(plan.contrasts):
        path, pair = f"plan.contrasts[{i}]", {contrast.arm, contrast.reference}
        if len(pair) == 1:
            problems.append(f"{path}.reference: must be another arm than its arm ({contrast.arm})")
        elif pair in taken:
            problems.append(f"{path}: is the primary contrast, or listed above; Holm would count it twice")
        elif not all(endpoint.asked_in(arm) for arm in pair):
            problems.append(f"{path}: {endpoint.key} is not asked in both {contrast.arm} and {contrast.reference}")
        taken.append(pair)
    return problems


def _blinding_problems(protocol: Protocol) -> list[str]:
    ethics = dataclasses.asdict(protocol.ethics)
    texts = {"title": protocol.title} | {f"ethics.{k}": v for k, v in ethics.items() if k != "photo_licence"}
    texts |= {f"texts.{name}": text for name, text in dataclasses.asdict(protocol.texts).items()}
    for phase, questions in protocol.questions.items():
        for i, q in enumerate(questions):
            words = (q.text, *q.scale.anchors, *(o.label for o in q.scale.options))
            texts[f"questions.{phase}[{i}]"] = " ".join(words)
    return [
        f"{path}: says {word!r}, which would unblind readers; call it the aid or the explanation"
        for path, text in texts.items()
        for word in BLINDED_WORDS
        if word in text.lower()
    ]
