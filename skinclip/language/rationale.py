"""Rationale texts: the project's own generator, and the reader that takes such a text apart again.

The generator writes what the language model learns to write: lower-case running text that names the leading diagnosis
first, then cites every finding once as `[rK] phrase`, and last says what stays uncertain. It states nothing beyond the
findings it is given. The reader and the checker hold generated text to the same rules.

Sentences fit findings of either number ("[r1] irregular streaks", "[r1] blue-whitish veil") and need no article before
a reference, so that a decoder can force the phrase that belongs to a reference right after it.

The checker knows no list of what must not be said, which would never be long enough: it accepts what the generator
could have written of the same findings, and nothing else.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from skinclip.core.assessment import Context
from skinclip.core.vocabulary import (
    CRITERIA,
    DIAGNOSES,
    DIAGNOSIS_BY_CODE,
    DIAGNOSIS_CODES,
    MAX_FINDINGS,
    MEASURED_CRITERIA,
    SEXES,
    SITES,
    STATE_BY_KEY,
    State,
    criterion_of,
)

# What a text may say. {lead} and {runner} are diagnosis names, {found} is a list of cited findings and {all} says in
# their number that they count for the leading diagnosis. An opening names no diagnosis before {lead}.
SUPPORTED_OPENINGS = (
    "{lead} is the leading diagnosis , supported by {found} .",
    "the photo shows {found} , a picture that fits {lead} best .",
    "most likely this is {lead} , given {found} .",
    "{found} would speak for {lead} , the leading diagnosis here .",
    "the leading diagnosis is {lead} . the photo shows {found} , {all} .",
    "this looks most like {lead} , mainly because of {found} .",
    "on account of {found} , {lead} comes first .",
    "{lead} ranks first . this rests on {found} , {all} .",
    "the findings point to {lead} , with {found} in the photo .",
    "first in the differential is {lead} , backed by {found} .",
    "with {found} , the lesion is best explained as {lead} .",
    "{lead} is favoured . one can see {found} , {all} .",
    "the photo is most in keeping with {lead} . there one finds {found} , {all} .",
    "{lead} is considered first , in view of {found} .",
)
IN_FAVOUR = {
    1: (
        "a finding in its favour",
        "one sign that favours it",
        "a sign that counts for it",
        "a point that supports it",
        "as one would expect",
    ),
    2: (
        "both in its favour",
        "both of which speak for it",
        "two signs that favour it",
        "two points that support it",
        "as one would expect",
    ),
    3: (
        "all in its favour",
        "all of which speak for it",
        "all signs that favour it",
        "all points that support it",
        "as one would expect",
    ),
}
UNSUPPORTED_OPENINGS = (
    "{lead} is the leading diagnosis , yet no finding in the list supports it .",
    "most likely this is {lead} , judged by the overall appearance rather than by a single finding .",
    "this looks most like {lead} , although none of the cited findings speaks for it .",
    "{lead} comes first on the whole picture , without a finding that supports it .",
    "first in the differential is {lead} ; none of the findings below is in its favour .",
    "the model puts {lead} first , but the findings it can point at do not support this .",
    "{lead} is favoured by the general look of the lesion , not by the findings listed here .",
    "the leading diagnosis is {lead} ; it rests on the overall appearance alone .",
    "{lead} ranks first , even though no cited finding counts for it .",
    "the photo as a whole is most in keeping with {lead} , the single findings are not .",
    "{lead} is considered first , with no finding to back it .",
)
BARE_OPENINGS = (
    "{lead} is the leading diagnosis , judged by the overall appearance alone .",
    "most likely this is {lead} .",
    "this looks most like {lead} on the whole .",
    "{lead} comes first on the whole picture .",
    "first in the differential is {lead} .",
    "the model puts {lead} first .",
    "{lead} is favoured by the general look of the lesion .",
    "the leading diagnosis is {lead} .",
    "{lead} ranks first .",
    "the photo as a whole is most in keeping with {lead} .",
    "{lead} is considered first .",
)
NOTHING_SEEN = (
    "none of the criteria was clearly seen , so there is no finding to point at .",
    "no criterion of the checklist could be seen clearly in this photo .",
    "the photo shows none of the criteria with enough certainty to cite it .",
    "not one of the criteria stands out clearly , and none is cited .",
    "there is no criterion that can be pointed at with confidence .",
    "the checklist stays empty : no criterion was seen clearly .",
    "none of the findings that the model looks for was seen with confidence .",
    "no finding is cited , because no criterion was clearly seen .",
    "a clear criterion could not be found in the photo .",
    "the model looked for every criterion and found none clearly .",
    "as no criterion was clearly seen , nothing can be cited here .",
)
AGAINST = (
    "{found} would argue against {lead}",
    "against {lead} one has to weigh {found}",
    "{found} would be unusual for {lead}",
    "{found} should lower the confidence in {lead}",
    "the presence of {found} makes {lead} less likely",
    "{found} can hardly be explained by {lead}",
    "one would not expect {found} in {lead}",
    "{lead} does not account well for {found}",
    "the photo also shows {found} , at odds with {lead}",
    "a point against {lead} is made by {found}",
    "{found} must be held against {lead}",
)
FOR_RUNNER_UP = (
    "{found} would rather speak for {runner}",
    "for {runner} one could cite {found}",
    "{found} may point to {runner} instead",
    "{found} would fit {runner} better",
    "{runner} could be suggested by {found}",
    "{found} should keep {runner} in mind",
    "the presence of {found} leans towards {runner}",
    "{runner} would explain {found} better",
    "in favour of {runner} there is the finding of {found}",
    "the photo also shows {found} , rather in line with {runner}",
    "{found} might be read as a sign of {runner}",
)
AGAINST_RUNNER_UP = (
    "{found} would make {runner} less likely",
    "{found} would argue against {runner}",
    "one would not expect {found} in {runner}",
    "{runner} does not account well for {found}",
    "{found} must be held against {runner}",
    "the presence of {found} makes {runner} less likely",
    "against {runner} one could cite {found}",
    "{found} can hardly be explained by {runner}",
    "the photo also shows {found} , at odds with {runner}",
    "{found} would be unusual for {runner}",
)
NEUTRAL = (
    "the photo also shows {found} , without deciding between the two",
    "{found} would fit neither better than the other",
    "{found} cannot decide between {lead} and {runner}",
    "one can also see {found} , without weight for either of the two",
    "the presence of {found} leaves open which of the two it is",
    "{found} can do little to tell them apart",
    "one may add {found} , of no help in the choice",
    "{found} may be noted , without bearing on the choice",
    "also in view , with no bearing on the choice , is the finding of {found}",
    "the finding of {found} is neutral here",
    "{found} should not sway the choice between {lead} and {runner}",
)
NEUTRAL_ALONE = (
    "the photo also shows {found} , counting neither for nor against {lead}",
    "{found} would be of no weight here",
    "{found} cannot settle the question",
    "one can also see {found} , without weight for the diagnosis",
    "the presence of {found} neither supports nor opposes {lead}",
    "{found} may be noted , without bearing on the diagnosis",
    "one may add {found} , of no help in the choice",
    "also in view , with no bearing on the diagnosis , is the finding of {found}",
    "the finding of {found} is neutral here",
    "{found} should not sway the diagnosis",
)
# Why the answer is uncertain, where the findings themselves say so ...
ONE_FINDING = (
    "only one finding is cited",
    "this rests on a single finding",
    "a single finding is little to go by",
    "there is just one finding to rely on",
    "one finding alone is weak support",
    "with only one finding the basis is narrow",
    "no second finding confirms this",
    "the support is thin , as it is a single sign",
    "one sign by itself proves little",
    "there is little else to point at",
)
MIXED = (
    "the findings do not all point the same way",
    "the signs disagree",
    "the findings are mixed",
    "there are signs on both sides",
    "the picture is not clear-cut",
    "the evidence is divided",
    "the findings leave room for doubt",
    "not every finding agrees",
    "the findings pull in different directions",
    "the case is not free of contradiction",
)
SHARED = (
    "what speaks for it would also fit {runner}",
    "the supporting findings are shared by {runner}",
    "the same signs can be found in {runner}",
    "nothing cited in its favour sets it apart from {runner}",
    "{runner} may look just the same in these points",
    "the cited support is common to {runner} as well",
    "these signs are also known from {runner}",
    "{runner} has the same points in its favour",
    "in these points {runner} looks alike",
    "the support does not separate it from {runner}",
)
# ... and what stays open in any case.
RUNNER_UP_OPEN = (
    "{runner} is not excluded",
    "{runner} remains possible",
    "{runner} cannot be ruled out",
    "the main alternative is {runner}",
    "{runner} is the next to consider",
    "second in the differential is {runner}",
    "{runner} stays in the differential",
    "it is uncertain whether this could be {runner}",
    "there is still room for {runner}",
    "{runner} should be kept in mind",
    "what is seen here does not exclude {runner}",
)
OPEN = (
    "the photo alone is no proof",
    "some doubt remains",
    "other diagnoses are not excluded",
    "the answer remains uncertain",
    "this cannot be settled by a photo alone",
    "an examination of the patient has to confirm this",
    "the diagnosis is not certain",
    "a photo cannot give certainty",
    "other causes remain possible",
    "it needs to be confirmed by a clinician",
)
EXTRA = (
    "this should be confirmed by a clinician",
    "certainty needs histology",
    "how certain this is must be judged by a clinician",
    "the photo alone is no proof",
    "an examination of the patient has to settle this",
    "the answer remains uncertain",
    "a photo cannot give certainty",
    "so the answer should be read with caution",
    "some doubt remains",
    "only histology could decide",
)
CLAUSE_JOINS = (" ; ", " , and ", " , while ", " , whereas ")
DOUBT_JOINS = (" , and ", " ; ")
BUT = ("however , ", "on the other hand , ", "in contrast , ", "yet ", "but ", "at the same time , ")
PAIR_JOINS = (" and ", " as well as ", " together with ", " plus ", " along with ")
LAST_JOINS = (" and ", " and also ", " as well as ", " , and ", " plus ")

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
_LONG_LIST = 5  # from here on a text is long enough without an extra closing clause

Roles = dict[str, list[tuple[str, State]]]  # what findings say of the two diagnoses -> (reference, state)
# The second and the third sentence, by the roles of the findings they cite.
_OTHER_SENTENCES = (("against", "for_runner"), ("against_runner", "neutral"))


def write_rationale(leading: str, runner_up: str | None, findings: Sequence[str], rng: random.Random) -> str:
    """A rationale for `leading`, in the spaced lower-case form that a word tokenizer takes.

    Args:
        leading, runner_up: diagnosis codes; `runner_up` may be missing and must differ from `leading`.
        findings: state keys ("streaks:irregular"), one a criterion at most; finding i is cited as [r{i+1}].
        rng: decides the wording and nothing else.

    Raises:
        ValueError: an unknown code or key, or two findings of one criterion.
    """
    roles = _roles(leading, runner_up, findings)
    names = {"lead": DIAGNOSIS_BY_CODE[leading].name}
    if runner_up is not None:
        names["runner"] = DIAGNOSIS_BY_CODE[runner_up].name
    others = _other_findings(roles, names, rng)
    parts = [_opening(roles, names, rng, short=len(others) > 1), *others]
    parts.append(_doubt(runner_up, roles, names, rng, say_more=len(findings) < _LONG_LIST))
    return " ".join(" ".join(parts).split())


def _roles(leading: str, runner_up: str | None, findings: Sequence[str]) -> Roles:
    """The findings with their references, sorted by what they say about the two diagnoses."""
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
    if leading in state.supports:
        return "for"
    if runner_up in state.supports:
        return "for_runner"
    if leading in state.against:
        return "against"
    return "against_runner" if runner_up in state.against else "neutral"


def _opening(roles: Roles, names: dict[str, str], rng: random.Random, short: bool) -> str:
    """The leading diagnosis with what supports it; `short` keeps it to one sentence."""
    support = roles["for"]
    if support:
        favour = rng.choice(IN_FAVOUR[min(len(support), 3)])
        opening = rng.choice([text for text in SUPPORTED_OPENINGS if not short or text.count(" .") == 1])
        return opening.format(found=_listing(support, rng), all=favour, **names)
    if any(roles.values()):
        return rng.choice(UNSUPPORTED_OPENINGS).format(**names)
    return rng.choice(BARE_OPENINGS).format(**names) + " " + rng.choice(NOTHING_SEEN)


def _other_findings(roles: Roles, names: dict[str, str], rng: random.Random) -> list[str]:
    """At most two sentences: what speaks against the leading diagnosis, then what does not."""
    slots = _clauses_of("runner" in names)
    sentences = []
    for pair in _OTHER_SENTENCES:
        clauses = [
            rng.choice(slots[role]).format(found=_listing(roles[role], rng), **names) for role in pair if roles[role]
        ]
        if clauses:
            contrast = pair[0] == "against" and roles["for"] and rng.random() < 0.5
            sentences.append((rng.choice(BUT) if contrast else "") + rng.choice(CLAUSE_JOINS).join(clauses) + " .")
    return sentences


def _clauses_of(has_runner_up: bool) -> dict[str, Sequence[str]]:
    """Role -> how findings of that role are cited after the first sentence."""
    return {
        "against": AGAINST,
        "for_runner": FOR_RUNNER_UP,
        "against_runner": AGAINST_RUNNER_UP,
        "neutral": NEUTRAL if has_runner_up else NEUTRAL_ALONE,
    }


def _reasons(runner_up: str | None, roles: Roles) -> list[Sequence[str]]:
    """Why the answer is uncertain, as far as the findings say so."""
    support = [state for _, state in roles["for"]]
    reasons: list[Sequence[str]] = []
    if support and (roles["against"] or roles["for_runner"]):
        reasons.append(MIXED)
    elif sum(map(len, roles.values())) == len(support) == 1:
        reasons.append(ONE_FINDING)
    if support and all(runner_up in state.supports for state in support):
        reasons.append(SHARED)
    return reasons


def _doubt(runner_up: str | None, roles: Roles, names: dict[str, str], rng: random.Random, say_more: bool) -> str:
    """The last sentence: why and in favour of what the answer is uncertain."""
    reasons = _reasons(runner_up, roles)
    clauses = [rng.choice(rng.choice(reasons))] if reasons else []
    clauses.append(rng.choice(RUNNER_UP_OPEN if "runner" in names else OPEN))
    sentence = rng.choice(DOUBT_JOINS).join(clauses).format(**names)
    if say_more and len(clauses) == 1:
        said = {word for word in clauses[0].split() if len(word) > 4}
        more = rng.choice([text for text in EXTRA if not said & set(text.split())])
        sentence += rng.choice((" ; ", " , and ")) + more
    return sentence + " ."


def _listing(found: Sequence[tuple[str, State]], rng: random.Random) -> str:
    items = [f"[{ref}] {state.phrase}" for ref, state in found]
    if len(items) < 3:
        return rng.choice(PAIR_JOINS).join(items)
    return " , ".join(items[:-1]) + rng.choice(LAST_JOINS) + items[-1]


def vocabulary() -> tuple[str, ...]:
    """Every word and mark that `write_rationale` can use, sorted: what a word tokenizer has to know."""
    texts = [text for slot in _SLOTS for text in slot]
    words = {w for text in texts for w in text.split() if not w.startswith("{")}
    words |= {w for d in DIAGNOSES for w in d.name.split()}
    words |= {w for s in STATE_BY_KEY.values() for w in s.phrase.split()}
    words |= {f"[r{i + 1}]" for i in range(MAX_FINDINGS)}
    return tuple(sorted(words))


# ---- reading ---------------------------------------------------------------------------------------------------------

_COMMON_WORDS = frozenset({"and", "several"})


def _forbidden_outside() -> frozenset[str]:
    """Criterion names, state phrases and their words, but for words that any text or a diagnosis name may use."""
    phrases = {s.phrase for s in STATE_BY_KEY.values()} | {c.name for c in (*CRITERIA, *MEASURED_CRITERIA)}
    allowed = _COMMON_WORDS | {w for d in DIAGNOSES for w in d.name.split()}
    return frozenset(phrases | {w for phrase in phrases for w in phrase.split() if w not in allowed})


# What a text may only say right after a reference. The single words among them are enough for a decoder to bar.
FORBIDDEN_OUTSIDE: frozenset[str] = _forbidden_outside()

_TOKEN = re.compile(r"\[r[0-9]+\]|\w+(?:[-'’]\w+)*|[^\w\s]")
_REFERENCE = re.compile(r"\[(r[0-9]+)\]")
_PHRASES: dict[tuple[str, ...], str] = {tuple(s.phrase.split()): key for key, s in STATE_BY_KEY.items()}
_NAMES: dict[tuple[str, ...], str] = {tuple(d.name.split()): d.code for d in DIAGNOSES}
# Plural and singular of a forbidden word are the same assertion.
_FORBIDDEN_WORDS: frozenset[str] = frozenset(
    form for w in FORBIDDEN_OUTSIDE if " " not in w for form in (w, w.removesuffix("s"))
)


@dataclass(frozen=True)
class ReadRationale:
    """A rationale taken apart.

    `diagnoses` are codes in the order of first mention and `leading` is the first of them. `cited` pairs every
    reference with the state whose phrase follows it, None where no known phrase does. `unreferenced` holds what is
    said about a criterion without a reference: any run of criterion words counts, even an adjective on its own.
    """

    leading: str | None
    diagnoses: tuple[str, ...]
    cited: tuple[tuple[str, str | None], ...]
    unreferenced: tuple[str, ...]


def read_rationale(text: str) -> ReadRationale:
    """Takes a generated or a tidied text apart; never fails, whatever the text.

    Characters that look like others, or like nothing, hide no word from it.
    """
    tokens = _tokens(text)
    diagnoses: list[str] = []
    cited: list[tuple[str, str | None]] = []
    rest: list[str] = []  # what is left when names and cited phrases are taken out, each leaving a gap
    i = 0
    while i < len(tokens):
        reference = _REFERENCE.fullmatch(tokens[i])
        table = _PHRASES if reference else _NAMES
        start = i + 1 if reference else i
        length, value = _match(tokens, start, table)
        if reference:
            cited.append((reference.group(1), value))
        elif value is not None and value not in diagnoses:
            diagnoses.append(value)
        rest.append("." if reference or length else tokens[i])
        i = start + length if reference or length else i + 1
    return ReadRationale(diagnoses[0] if diagnoses else None, tuple(diagnoses), tuple(cited), _runs(rest))


def _tokens(text: str) -> list[str]:
    """Lower-case words, marks and references; look-alikes become what they look like, invisible characters nothing."""
    plain = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return _TOKEN.findall("".join("-" if c == "−" or unicodedata.category(c) == "Pd" else c for c in plain).lower())


def _match(tokens: Sequence[str], start: int, table: dict[tuple[str, ...], str]) -> tuple[int, str | None]:
    """The longest phrase of `table` that begins at `start`: its number of words and its value."""
    hits = [(len(words), value) for words, value in table.items() if tuple(tokens[start : start + len(words)]) == words]
    return max(hits, default=(0, None), key=lambda hit: hit[0])


def _runs(tokens: Sequence[str]) -> tuple[str, ...]:
    """Runs of criterion words, "dots and globules" being one run."""
    runs = []
    for criterion_words, run in groupby(tokens, key=lambda t: t in _FORBIDDEN_WORDS or t in _COMMON_WORDS):
        words = list(run)
        while words and words[-1] in _COMMON_WORDS:
            words.pop()
        while words and words[0] == "and":
            words.pop(0)
        if criterion_words and any(w in _FORBIDDEN_WORDS for w in words):
            runs.append(" ".join(words))
    return tuple(runs)


# ---- checking --------------------------------------------------------------------------------------------------------

_MOST_CHARACTERS = 2000  # more than twice the longest text of the generator


def check_citations(text: str, findings: Sequence[str]) -> list[str]:
    """What is wrong with the references of a text, one line a problem.

    Finding i of `findings` (state keys) is [r{i+1}]. It holds a text to no more than this: every reference is one of
    the findings, its phrase follows it, and no criterion is named without one. What else it says is not looked at.
    """
    read = read_rationale(text)
    states = {f"r{i + 1}": key for i, key in enumerate(findings)}
    problems = []
    seen: set[str] = set()
    for ref, key in read.cited:
        if ref not in states:
            problems.append(f"[{ref}] is not one of the {len(states)} findings")
        elif key != states[ref]:
            said = STATE_BY_KEY[key].phrase if key else "no known finding"
            problems.append(f"[{ref}] is followed by {said}, not by {STATE_BY_KEY[states[ref]].phrase}")
        if ref in seen:
            problems.append(f"[{ref}] is cited twice")
        seen.add(ref)
    return problems + [f'"{said}" is asserted without a reference' for said in read.unreferenced]


def check_rationale(text: str, findings: Sequence[str], diagnoses: Sequence[str] | None = None) -> list[str]:
    """What a text says that its findings do not support, one line a problem; [] for a sound text.

    A sound text, tidied or not, is one that `write_rationale` could have written of the same findings and of the
    diagnoses it names: it cites every finding once, for what the finding says about these diagnoses, and every other
    word of it belongs to a known sentence.

    Args:
        findings: state keys, one a criterion at most; finding i is [r{i+1}].
        diagnoses: codes of the leading diagnosis and the runner-up, where they are known.
    """
    text = text.strip()
    if len(text) > _MOST_CHARACTERS:
        return [f"the text is longer than {_MOST_CHARACTERS} characters"]
    read = read_rationale(text)
    cited = {ref for ref, _ in read.cited}
    problems = check_citations(text, findings) + _odd_writing(text)
    problems += [f"[r{i + 1}] is left out" for i in range(len(findings)) if f"r{i + 1}" not in cited]
    if not read.diagnoses:
        problems.append("no diagnosis is named")
    problems += [f"{DIAGNOSIS_BY_CODE[code].name} is a third diagnosis" for code in read.diagnoses[2:]]
    if diagnoses is not None and read.diagnoses != tuple(diagnoses):
        problems.append(f"the diagnoses named are {', '.join(read.diagnoses)}, not {', '.join(diagnoses)}")
    return problems or _beyond(" ".join(_tokens(text)), read.diagnoses, tuple(findings))


def _odd_writing(text: str) -> list[str]:
    """Characters that no rationale has, and references that touch a word."""
    odd = sorted({c for c in text if not (c.isascii() and c.isprintable())})
    problems = [f"U+{ord(c):04X} is no character of a rationale" for c in odd]
    return problems + [f"{m.group()} touches a word" for m in re.finditer(r"\w\[\w+\]|\[\w+\]\w", text)]


def _beyond(text: str, diagnoses: tuple[str, ...], findings: tuple[str, ...]) -> list[str]:
    """The first sentence of a spaced text that the findings do not support, or that it ends before its time."""
    start = 0
    for sentence in _sentences(diagnoses[0], diagnoses[1] if len(diagnoses) > 1 else None, findings):
        match = sentence.match(text, start)
        if match is None:
            return [_unsupported(text[start:]) if text[start:] else "no sentence says what stays uncertain"]
        start = match.end()
    return [_unsupported(text[start:])] if text[start:] else []


def _unsupported(rest: str) -> str:
    return f'the findings do not support "{rest.split(" .")[0]}"'


@lru_cache(maxsize=256)
def _sentences(leading: str, runner_up: str | None, findings: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Patterns of all that `write_rationale` can write of a case, one after the other."""
    roles = _roles(leading, runner_up, findings)
    names = {"lead": DIAGNOSIS_BY_CODE[leading].name}
    if runner_up is not None:
        names["runner"] = DIAGNOSIS_BY_CODE[runner_up].name
    found = {role: _any_listing(items) for role, items in roles.items()}
    if roles["for"]:
        favour = _any(IN_FAVOUR[min(len(roles["for"]), 3)])
        patterns = [_any(SUPPORTED_OPENINGS, names | {"found": found["for"], "all": favour})]
    elif findings:
        patterns = [_any(UNSUPPORTED_OPENINGS, names)]
    else:
        patterns = [_any(BARE_OPENINGS, names) + " " + _any(NOTHING_SEEN)]
    slots = _clauses_of(runner_up is not None)
    for pair in _OTHER_SENTENCES:
        clauses = [_any(slots[role], names | {"found": found[role]}) for role in pair if roles[role]]
        if clauses:
            patterns.append(f"{_any(BUT)}?{_any(CLAUSE_JOINS).join(clauses)} \\.")
    doubts = [text for texts in _reasons(runner_up, roles) for text in texts]
    open_end = _any(RUNNER_UP_OPEN if runner_up else OPEN, names)
    last = _any(doubts, names) + _any(DOUBT_JOINS) + open_end if doubts else open_end
    patterns.append(f"{last}(?:{_any(DOUBT_JOINS)}{_any(EXTRA)})? \\.")
    return tuple(re.compile(f"{pattern}(?: |$)") for pattern in patterns)


def _any(texts: Sequence[str], places: Mapping[str, str] | None = None) -> str:
    """The pattern of any of `texts`, each {place} in them filled with its own pattern."""
    pattern = "|".join(map(re.escape, texts))
    for place, filling in (places or {}).items():
        pattern = pattern.replace(re.escape("{" + place + "}"), filling)
    return f"(?:{pattern})"


def _any_listing(found: Sequence[tuple[str, State]]) -> str:
    items = [re.escape(f"[{ref}] {state.phrase}") for ref, state in found]
    if len(items) < 3:
        return _any(PAIR_JOINS).join(items)
    return " , ".join(items[:-1]) + _any(LAST_JOINS) + items[-1]


def tidy(text: str) -> str:
    """Display text from the spaced lower-case form: marks joined, sentences capitalised, [r1] kept as it is.

    >>> tidy("this is melanoma , given [r1] irregular streaks . [r2] uniform colour would argue against it .")
    'This is melanoma, given [r1] irregular streaks. [r2] Uniform colour would argue against it.'
    """
    text = re.sub(r"\s+([,.;:!?)])", r"\1", " ".join(text.split()))
    text = re.sub(r"\(\s+", "(", text)
    return re.sub(r"(?:^|(?<=[.!?]\s))(?:\[r\d+\]\s+)?\w", lambda m: m.group()[:-1] + m.group()[-1].upper(), text)


# ---- made-up cases for learning the language -------------------------------------------------------------------------


def random_example(rng: random.Random) -> tuple[Context, str, str | None, tuple[str, ...]]:
    """A made-up case: context (values may be missing), leading diagnosis, runner-up and up to six findings.

    Findings support the leading diagnosis in about 70 % of draws and are drawn freely otherwise, so that texts learn
    contradiction as well. There is at most one state a criterion.
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
