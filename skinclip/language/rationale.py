"""Writes rationales from templates: the texts that the language model is trained on.

A rationale is lower-case running text that names the leading diagnosis, cites every finding once as `[rK] phrase`, and
ends with what remains uncertain. It states nothing beyond the given findings, and calls the runner-up possible only
where it is. `language.rationale_check` checks generated text against the same rules.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from skinclip.core.assessment import Context
from skinclip.core.vocabulary import (
    DIAGNOSES,
    DIAGNOSIS_BY_CODE,
    DIAGNOSIS_CODES,
    MAX_FINDINGS,
    SEXES,
    SITES,
    STATE_BY_KEY,
    State,
    criterion_of,
)
from skinclip.language.rationale_texts import (
    AGAINST,
    AGAINST_RUNNER_UP,
    BARE_OPENINGS,
    BUT,
    CLAUSE_JOINS,
    DOUBT_JOINS,
    EXTRA,
    EXTRA_RANKED,
    FOR_RUNNER_UP,
    FOR_RUNNER_UP_RANKED,
    IN_FAVOUR,
    LAST_JOINS,
    MIXED,
    NEUTRAL,
    NEUTRAL_ALONE,
    NOTHING_SEEN,
    ONE_FINDING,
    OPEN,
    PAIR_JOINS,
    RUNNER_UP_OPEN,
    RUNNER_UP_RANKED,
    SHARED,
    SUPPORTED_OPENINGS,
    UNSUPPORTED_OPENINGS,
)

# All templates, for `vocabulary`; those named RANKED use no further words.
_SLOTS: tuple[Sequence[str], ...] = (
    SUPPORTED_OPENINGS,
    UNSUPPORTED_OPENINGS,
    BARE_OPENINGS,
    NOTHING_SEEN,
    AGAINST,
    FOR_RUNNER_UP,
    AGAINST_RUNNER_UP,
    NEUTRAL,
    NEUTRAL_ALONE,
    ONE_FINDING,
    MIXED,
    SHARED,
    RUNNER_UP_OPEN,
    OPEN,
    EXTRA,
    *IN_FAVOUR.values(),
    CLAUSE_JOINS,
    DOUBT_JOINS,
    BUT,
    PAIR_JOINS,
    LAST_JOINS,
)
_LONG_LIST = 5  # findings from which on a text is long enough without an extra closing clause

Roles = dict[str, list[tuple[str, State]]]  # role towards the two diagnoses -> (reference, state) of its findings
# Roles of the findings cited in the second sentence, and in the third.
OTHER_SENTENCES = (("against", "for_runner"), ("against_runner", "neutral"))


@dataclass(frozen=True)
class Clauses:
    """The clauses that fit a differential.

    Attributes:
        cited: role of a finding -> clauses that cite findings of that role after the first sentence.
        end: clauses on what remains open, for the last sentence.
        extra: clauses that lengthen a short last sentence.
    """

    cited: dict[str, Sequence[str]]
    end: Sequence[str]
    extra: Sequence[str]


def clauses_of(runner_up: str | None, runner_up_open: bool) -> Clauses:
    """The clauses for a runner-up that remains possible, for one that is only ranked second, or for none."""
    if runner_up is None:
        return Clauses({"against": AGAINST, "neutral": NEUTRAL_ALONE}, OPEN, EXTRA)
    cited: dict[str, Sequence[str]] = {"against": AGAINST, "against_runner": AGAINST_RUNNER_UP, "neutral": NEUTRAL}
    if runner_up_open:
        return Clauses(cited | {"for_runner": FOR_RUNNER_UP}, RUNNER_UP_OPEN, EXTRA)
    return Clauses(cited | {"for_runner": FOR_RUNNER_UP_RANKED}, RUNNER_UP_RANKED, EXTRA_RANKED)


def write_rationale(
    leading: str, runner_up: str | None, findings: Sequence[str], rng: random.Random, runner_up_open: bool = True
) -> str:
    """A rationale for `leading`, in lower case with spaces around punctuation, as a word-level tokenizer needs it.

    Args:
        leading, runner_up: diagnosis codes; `runner_up` may be None and must differ from `leading`.
        findings: state keys ("streaks:irregular"), at most one per criterion; finding i is cited as [r{i+1}].
        rng: chooses among templates, and affects nothing else.
        runner_up_open: True where the runner-up remains possible; otherwise the text only ranks it second.

    Raises:
        ValueError: an unknown code or key, or two findings of one criterion.
    """
    roles, clauses = roles_of(leading, runner_up, findings), clauses_of(runner_up, runner_up_open)
    names = {"lead": DIAGNOSIS_BY_CODE[leading].in_text}
    if runner_up is not None:
        names["runner"] = DIAGNOSIS_BY_CODE[runner_up].in_text
    others = _other_findings(roles, clauses, names, rng)
    parts = [_opening(roles, names, rng, short=len(others) > 1), *others]
    last = _doubt(reasons_of(runner_up, roles), clauses, rng, say_more=len(findings) < _LONG_LIST)
    parts.append(last.format(**names))
    return " ".join(" ".join(parts).split())


def roles_of(leading: str, runner_up: str | None, findings: Sequence[str]) -> Roles:
    """The findings with their references, grouped by whether they support or contradict either diagnosis.

    Raises ValueError for an unknown code or key, equal diagnoses, or two findings of one criterion.
    """
    unknown = [c for c in (leading, runner_up) if c is not None and c not in DIAGNOSIS_BY_CODE]
    unknown += [key for key in findings if key not in STATE_BY_KEY]
    if unknown:
        raise ValueError(f"not in the clinical vocabulary: {', '.join(unknown)}")
    if leading == runner_up:
        raise ValueError(f"the runner-up is the leading diagnosis, {leading}")
    if len({criterion_of(key) for key in findings}) < len(findings):
        raise ValueError(f"two findings of one criterion: {', '.join(findings)}")
    roles: Roles = {r: [] for r in ("for", "against", "for_runner", "against_runner", "neutral")}
    for i, key in enumerate(findings):
        state = STATE_BY_KEY[key]
        roles[_role(state, leading, runner_up)].append((f"r{i + 1}", state))
    return roles


def _role(state: State, leading: str, runner_up: str | None) -> str:
    """The first role that fits: support of either diagnosis comes before contradiction."""
    if leading in state.supports:
        return "for"
    if runner_up in state.supports:
        return "for_runner"
    if leading in state.against:
        return "against"
    return "against_runner" if runner_up in state.against else "neutral"


def _opening(roles: Roles, names: dict[str, str], rng: random.Random, short: bool) -> str:
    """The leading diagnosis with the findings that support it; in a single sentence where `short`."""
    support = roles["for"]
    if support:
        favour = rng.choice(IN_FAVOUR[min(len(support), 3)])
        opening = rng.choice([text for text in SUPPORTED_OPENINGS if not short or text.count(" .") == 1])
        return opening.format(found=_listing(support, rng), all=favour, **names)
    if any(roles.values()):
        return rng.choice(UNSUPPORTED_OPENINGS).format(**names)
    return rng.choice(BARE_OPENINGS).format(**names) + " " + rng.choice(NOTHING_SEEN)


def _other_findings(roles: Roles, clauses: Clauses, names: dict[str, str], rng: random.Random) -> list[str]:
    """At most two sentences on the findings that do not support the leading diagnosis; see OTHER_SENTENCES."""
    sentences = []
    for pair in OTHER_SENTENCES:
        parts = [
            rng.choice(clauses.cited[role]).format(found=_listing(roles[role], rng), **names)
            for role in pair
            if roles[role]
        ]
        if parts:
            contrast = pair[0] == "against" and roles["for"] and rng.random() < 0.5
            sentences.append((rng.choice(BUT) if contrast else "") + rng.choice(CLAUSE_JOINS).join(parts) + " .")
    return sentences


def reasons_of(runner_up: str | None, roles: Roles) -> list[Sequence[str]]:
    """The reasons for uncertainty that lie in the findings, each as a sequence of alternative clauses."""
    support = [state for _, state in roles["for"]]
    reasons: list[Sequence[str]] = []
    if support and (roles["against"] or roles["for_runner"]):
        reasons.append(MIXED)
    elif sum(map(len, roles.values())) == len(support) == 1:
        reasons.append(ONE_FINDING)
    if support and all(runner_up in state.supports for state in support):
        reasons.append(SHARED)
    return reasons


def _doubt(reasons: list[Sequence[str]], clauses: Clauses, rng: random.Random, say_more: bool) -> str:
    """The last sentence, its diagnosis names unfilled: a reason for uncertainty, if any, and what remains open."""
    parts = [rng.choice(rng.choice(reasons))] if reasons else []
    parts.append(rng.choice(clauses.end))
    sentence = rng.choice(DOUBT_JOINS).join(parts)
    if say_more and len(parts) == 1:
        used = {word for word in parts[0].split() if len(word) > 4}  # not to be repeated in one sentence
        more = rng.choice([text for text in clauses.extra if not used & set(text.split())])
        sentence += rng.choice((" ; ", " , and ")) + more
    return sentence + " ."


def _listing(findings: Sequence[tuple[str, State]], rng: random.Random) -> str:
    """The findings as an enumeration: "[r1] streaks , [r2] veil and [r4] network"."""
    items = [f"[{ref}] {state.phrase}" for ref, state in findings]
    if len(items) < 3:
        return rng.choice(PAIR_JOINS).join(items)
    return " , ".join(items[:-1]) + rng.choice(LAST_JOINS) + items[-1]


def vocabulary() -> tuple[str, ...]:
    """Every word and punctuation mark that `write_rationale` can use, sorted: a word-level tokenizer's vocabulary."""
    texts = [text for slot in _SLOTS for text in slot]
    words = {w for text in texts for w in text.split() if not w.startswith("{")}
    words |= {w for d in DIAGNOSES for w in d.in_text.split()}
    words |= {w for s in STATE_BY_KEY.values() for w in s.phrase.split()}
    words |= {f"[r{i + 1}]" for i in range(MAX_FINDINGS)}
    return tuple(sorted(words))


def tidy(text: str) -> str:
    """Display text: no space before punctuation, sentences capitalised, references such as [r1] unchanged.

    >>> tidy("this is melanoma , given [r1] irregular streaks . [r2] uniform colour would argue against it .")
    'This is melanoma, given [r1] irregular streaks. [r2] Uniform colour would argue against it.'
    """
    text = re.sub(r"\s+([,.;:!?)])", r"\1", " ".join(text.split()))
    text = re.sub(r"\(\s+", "(", text)
    return re.sub(r"(?:^|(?<=[.!?]\s))(?:\[r\d+\]\s+)?\w", lambda m: m.group()[:-1] + m.group()[-1].upper(), text)


def random_example(rng: random.Random) -> tuple[Context, str, str | None, tuple[str, ...]]:
    """A random case: context (values may be missing), leading diagnosis, runner-up and up to six findings.

    A finding is drawn from those that support the leading diagnosis with probability 0.7, otherwise from all, so that
    the cases include contradicting findings. There is at most one finding per criterion.
    """
    leading = rng.choice(DIAGNOSIS_CODES)
    runner_up = rng.choice([c for c in DIAGNOSIS_CODES if c != leading]) if rng.random() < 0.93 else None
    findings: list[str] = []
    for _ in range(rng.randint(0, 6)):
        used = {criterion_of(key) for key in findings}
        free = [key for key, state in STATE_BY_KEY.items() if state.criterion not in used]
        supporting = [key for key in free if leading in STATE_BY_KEY[key].supports]
        findings.append(rng.choice(supporting if supporting and rng.random() < 0.7 else free))
    return _random_context(rng), leading, runner_up, tuple(findings)


def _random_context(rng: random.Random) -> Context:
    return Context(
        age=float(rng.randint(1, 95)) if rng.random() < 0.8 else None,
        sex=rng.choice(SEXES) if rng.random() < 0.8 else None,
        site=rng.choice(tuple(SITES)) if rng.random() < 0.8 else None,
    )
