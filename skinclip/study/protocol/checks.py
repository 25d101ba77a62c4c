"""Checks across the fields of a protocol: parts that are right by themselves and do not go together."""

from __future__ import annotations

import dataclasses

from skinclip.core.vocabulary import DIAGNOSIS_CODES, ISIC2018_COLUMNS
from skinclip.study.catalogue.catalogue import ENGLISH
from skinclip.study.protocol.arms import explaining
from skinclip.study.protocol.defaults import own_texts
from skinclip.study.protocol.field_types import quoted
from skinclip.study.protocol.model import (
    BLINDED_WORDS,
    CANNOT_TELL,
    DERIVED_ENDPOINTS,
    FIRST_OFFERED,
    GATES,
    NEEDED,
    PRIMARY_ENDPOINTS,
    RATED,
    Plan,
    ProtocolModel,
)
from skinclip.study.protocol.questions import Question
from skinclip.study.protocol.translations import QuestionWords, Translation

# The diagnoses of HAM10000: studies of before there were more offer these alone, and keep their plan.
_ALWAYS_OFFERED = (*(code for code in DIAGNOSIS_CODES if code in ISIC2018_COLUMNS.values()), CANNOT_TELL)


def contradictions(protocol: ProtocolModel) -> list[str]:
    """Problems that no field has by itself, each beginning with the path of the field to change."""
    return [
        *_case_problems(protocol),
        *_question_problems(protocol),
        *_plan_problems(protocol),
        *_language_problems(protocol),
        *_blinding_problems(protocol),
    ]


# What a question may not be called: the export has columns of these names.
RESERVED = {
    "background": ("reader", "completed", "withdrawn"),
    "before": ("seconds", "server_seconds"),
}


def _case_problems(protocol: ProtocolModel) -> list[str]:
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
    if cases.preference_pairs and len(explaining(protocol.arms)) < 2:
        problems.append("cases.preference_pairs: must be 0, since fewer than two arms show an explanation")
    return problems


def _offers_diagnoses(codes: set[str]) -> bool:
    """True where a question offers the diagnoses that every study has, and none that nobody knows."""
    return set(_ALWAYS_OFFERED) <= codes <= {*DIAGNOSIS_CODES, CANNOT_TELL}


def _question_problems(protocol: ProtocolModel) -> list[str]:
    problems = []
    for (phase, key), kind in NEEDED.items():
        question = {q.key: q for q in protocol.questions[phase]}.get(key)
        path = f"questions.{phase}"
        if question is None:
            problems.append(f"{path}: the question {key} is missing; the analysis needs it (scale: {kind})")
        elif question.scale.kind != kind:
            problems.append(f"{path}: {key} must have a scale of kind {kind}, not {question.scale.kind}")
        elif question.arms is not None or not question.required:
            problems.append(f"{path}: {key} must be required in all arms; leave out its arms and required")
        elif key == "diagnosis" and not _offers_diagnoses({o.value for o in question.scale.options}):
            further = ", ".join(code for code in DIAGNOSIS_CODES if code not in _ALWAYS_OFFERED)
            problems.append(
                f"{path}: diagnosis must offer {', '.join(_ALWAYS_OFFERED)}; it may offer {further} as well"
            )
        elif key == "diagnosis" and not _offers_what_is_named(protocol, {o.value for o in question.scale.options}):
            problems.append(f"{path}: diagnosis must offer what `diagnoses` names; leave one of the two out")
        elif key == "prefer" and [o.value for o in question.scale.options] != ["a", "b"]:
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


def _offers_what_is_named(protocol: ProtocolModel, codes: set[str]) -> bool:
    """True where the options of a question are those of `diagnoses`, or that names none beyond the first version's."""
    return protocol.diagnoses == FIRST_OFFERED or codes == {*protocol.diagnoses, CANNOT_TELL}


def _rating_problems(protocol: ProtocolModel) -> list[str]:
    """Ratings that the tables could not hold: found out when all is answered, that would be too late."""
    silent = set(protocol.arms) - set(explaining(protocol.arms))
    problems = []
    for q in protocol.questions["after"]:
        most = RATED.get(q.key)
        if most and (q.scale.points > most or (q.scale.kind != "likert" and ("after", q.key) not in NEEDED)):
            problems.append(f"questions.after: {q.key} must be a likert scale of at most {most} points")
        elif most and ("after", q.key) not in NEEDED and any(q.asked_in(arm) for arm in silent):
            problems.append(f"questions.after: {q.key} is about the explanation; give it `arms: aid`")
    return problems


def _plan_problems(protocol: ProtocolModel) -> list[str]:
    plan, after = protocol.plan, {q.key: q for q in protocol.questions["after"]}
    problems = []
    for name, part in (("primary", plan.primary), ("safety", plan.safety)):
        if part.arm == part.reference:
            problems.append(f"plan.{name}.reference: must be another arm than plan.{name}.arm ({part.arm})")
    endpoint, contrast = after.get(plan.primary.endpoint), (plan.primary.arm, plan.primary.reference)
    if plan.primary.endpoint in PRIMARY_ENDPOINTS:
        endpoint = after.get("trust")  # asked in all arms, as the diagnosis is
    elif endpoint is None or endpoint.scale.type.analysed != "rating":
        ratings = [q.key for q in after.values() if q.scale.type.analysed == "rating"]
        problems.append(
            f"plan.primary.endpoint: must be a rating asked after each case ({', '.join(ratings)}), "
            f"or one of {', '.join(PRIMARY_ENDPOINTS)}"
        )
    elif not all(endpoint.asked_in(arm) for arm in contrast):
        problems.append(f"plan.primary.endpoint: {endpoint.key} is not asked in both {contrast[0]} and {contrast[1]}")
    tested = [q.key for q in after.values() if q.scale.type.analysed]
    allowed = [
        k
        for k in dict.fromkeys((*tested, *DERIVED_ENDPOINTS))
        if k not in (plan.primary.endpoint, plan.safety.endpoint)
    ]
    for i, name in enumerate(plan.secondary):
        if name not in allowed:
            problems.append(f"plan.secondary[{i}]: must be one of {', '.join(allowed)}, not {quoted(name)}")
    if len(set(plan.secondary)) < len(plan.secondary):
        problems.append("plan.secondary: names an endpoint twice; Holm would count it twice")
    if plan.gatekeeping and plan.gatekeeping != tuple(gate for gate in GATES if gate in plan.gatekeeping):
        problems.append(f"plan.gatekeeping: must name each step once, in the order {', '.join(GATES)}")
    elif plan.gatekeeping and plan.gatekeeping[0] != "primary":
        problems.append("plan.gatekeeping: must begin with primary")
    return problems + (_contrast_problems(plan, endpoint) if endpoint and not problems else [])


def _contrast_problems(plan: Plan, endpoint: Question) -> list[str]:
    """Only checked where the primary endpoint is in order, since they are contrasts in it."""
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


def _language_problems(protocol: ProtocolModel) -> list[str]:
    """Words that readers would see in another language than theirs, or that nobody would see."""
    offered = [language for language in protocol.languages if language != ENGLISH]
    problems = []
    if len(set(protocol.languages)) < len(protocol.languages):
        problems.append("languages: names a language twice")
    translated = {"translations": protocol.translations} | {
        f"questions.{phase}[{i}].translations": question.translations
        for phase, asked in protocol.questions.items()
        for i, question in enumerate(asked)
    }
    for path, by_language in translated.items():
        for language in by_language:
            if language == ENGLISH:
                problems.append(f"{path}.{language}: the fields themselves are English; change those")
            elif language not in offered:
                problems.append(
                    f"{path}.{language}: is none of the study's `languages`; add it there or leave this out"
                )
    problems += [problem for language in offered for problem in _untranslated(protocol, language)]
    columns = {f"questions.{phase}": phase for phase in ("background", "after", "preference")}
    problems += [
        f"{path}: {q.key} is the name of a column of its own in a study with `languages`; choose another key"
        for path, phase in columns.items()
        for q in protocol.questions[phase]
        if protocol.languages != (ENGLISH,) and q.key == "language"
    ]
    return problems


def _untranslated(protocol: ProtocolModel, language: str) -> list[str]:
    """Words of the protocol's own that have no translation into a language that it offers."""
    words = protocol.translations.get(language, Translation()).given()
    needed = {"title": protocol.title} | {
        name: text for name in ("consent_text", "retention") if (text := getattr(protocol.ethics, name).strip())
    }
    needed |= own_texts(protocol)
    problems = [
        f"translations.{language}.{name}: is missing; readers in {language} would see the English text"
        for name in needed
        if name not in words
    ]
    feedback = words.get("practice_feedback", "{truth}")
    if feedback.count("{truth}") != 1 or feedback.count("{") != 1:
        problems.append(
            f"translations.{language}.practice_feedback: must say {{truth}} once, where the diagnosis is to stand"
        )
    for phase, asked in protocol.questions.items():
        for i, question in enumerate(asked):
            given = question.translations.get(language, QuestionWords())
            problems += [
                f"questions.{phase}[{i}].translations.{language}: {problem} ({question.key})"
                for problem in given.lacks(question.scale)
            ]
    return problems


def _blinding_problems(protocol: ProtocolModel) -> list[str]:
    ethics = dataclasses.asdict(protocol.ethics)
    texts = {"title": protocol.title} | {f"ethics.{k}": v for k, v in ethics.items() if k != "photo_licence"}
    texts |= {f"texts.{name}": text for name, text in dataclasses.asdict(protocol.texts).items()}
    for phase, questions in protocol.questions.items():
        for i, q in enumerate(questions):
            words = (q.text, *q.scale.anchors, *(o.label for o in q.scale.options))
            texts[f"questions.{phase}[{i}]"] = " ".join(words)
            for language, other in q.translations.items():
                words = (other.text, *other.anchors, *other.options.values())
                texts[f"questions.{phase}[{i}].translations.{language}"] = " ".join(words)
    for language, translation in protocol.translations.items():
        texts |= {f"translations.{language}.{name}": text for name, text in translation.given().items()}
    return [
        f"{path}: says {word!r}, which would unblind readers; call it the aid or the explanation"
        for path, text in texts.items()
        for word in BLINDED_WORDS
        if word in text.lower()
    ]
