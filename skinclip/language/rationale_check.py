"""The reader that takes a rationale apart, and the checker that holds it to what its findings support.

The checker has no list of forbidden statements, which would never be long enough: it accepts what `write_rationale`
could have written of the same findings, and nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from skinclip.core.vocabulary import CRITERIA, DIAGNOSES, DIAGNOSIS_BY_CODE, MEASURED_CRITERIA, STATE_BY_KEY, State
from skinclip.language.rationale import OTHER_SENTENCES, clauses_of, reasons_of, roles_of
from skinclip.language.rationale_texts import (
    BARE_OPENINGS,
    BUT,
    CLAUSE_JOINS,
    DOUBT_JOINS,
    IN_FAVOUR,
    LAST_JOINS,
    NOTHING_SEEN,
    PAIR_JOINS,
    SUPPORTED_OPENINGS,
    UNSUPPORTED_OPENINGS,
)

# ---- reading ---------------------------------------------------------------------------------------------------------

_COMMON_WORDS = frozenset({"and", "several"})


def _forbidden_outside() -> frozenset[str]:
    """Criterion names, state phrases and their words, but for words that any text or a diagnosis name may use."""
    phrases = {s.phrase for s in STATE_BY_KEY.values()} | {c.name for c in (*CRITERIA, *MEASURED_CRITERIA)}
    allowed = _COMMON_WORDS | {w for d in DIAGNOSES for w in d.in_text.split()}
    return frozenset(phrases | {w for phrase in phrases for w in phrase.split() if w not in allowed})


# What a text may only say right after a reference. The single words among them are enough for a decoder to bar.
FORBIDDEN_OUTSIDE: frozenset[str] = _forbidden_outside()

_TOKEN = re.compile(r"\[r[0-9]+\]|\w+(?:[-'’]\w+)*|[^\w\s]")
_REFERENCE = re.compile(r"\[(r[0-9]+)\]")
_PHRASES: dict[tuple[str, ...], str] = {tuple(s.phrase.split()): key for key, s in STATE_BY_KEY.items()}
_NAMES: dict[tuple[str, ...], str] = {tuple(d.in_text.split()): d.code for d in DIAGNOSES}
# Plural and singular of a forbidden word are the same assertion.
_FORBIDDEN_WORDS: frozenset[str] = frozenset(
    form for w in FORBIDDEN_OUTSIDE if " " not in w for form in (w, w.removesuffix("s"))
)


@dataclass(frozen=True)
class ReadRationale:
    """A rationale taken apart.

    `diagnoses` are codes in the order of first mention and `leading` is the first of them. `cited` pairs every
    reference with the state whose phrase follows it, None where no known phrase does. `unreferenced` holds what is
    stated about a criterion without a reference: any run of criterion words counts, even an adjective on its own.
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
    """Problems with the references of a text, one line each.

    Finding i of `findings` (state keys) is [r{i+1}]. It holds a text to no more than this: every reference is one of
    the findings, its phrase follows it, and no criterion is named without one. The rest of the text is not checked.
    """
    read = read_rationale(text)
    states = {f"r{i + 1}": key for i, key in enumerate(findings)}
    problems = []
    cited: set[str] = set()
    for ref, key in read.cited:
        if ref not in states:
            problems.append(f"[{ref}] is not one of the {len(states)} findings")
        elif key != states[ref]:
            phrase = STATE_BY_KEY[key].phrase if key else "no known finding"
            problems.append(f"[{ref}] is followed by {phrase}, not by {STATE_BY_KEY[states[ref]].phrase}")
        if ref in cited:
            problems.append(f"[{ref}] is cited twice")
        cited.add(ref)
    return problems + [f'"{phrase}" is asserted without a reference' for phrase in read.unreferenced]


def check_rationale(
    text: str, findings: Sequence[str], diagnoses: Sequence[str] | None = None, runner_up_open: bool = True
) -> list[str]:
    """Claims of a text that its findings do not support, one line each; [] for a sound text.

    A sound text, tidied or not, is one that `write_rationale` could have written of the same findings and of the
    diagnoses it names: it cites every finding once, for what the finding says about these diagnoses, and every other
    word of it belongs to a known sentence.

    Args:
        findings: state keys, one per criterion at most; finding i is [r{i+1}].
        diagnoses: codes of the leading diagnosis and the runner-up, where they are known.
        runner_up_open: the runner-up remains possible; where it does not, the text must not say that it does.
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
    problems += [f"{DIAGNOSIS_BY_CODE[code].in_text} is a third diagnosis" for code in read.diagnoses[2:]]
    if diagnoses is not None and read.diagnoses != tuple(diagnoses):
        problems.append(f"the diagnoses named are {', '.join(read.diagnoses)}, not {', '.join(diagnoses)}")
    return problems or _beyond(" ".join(_tokens(text)), read.diagnoses, tuple(findings), runner_up_open)


def _odd_writing(text: str) -> list[str]:
    """Characters that no rationale has, and references that touch a word."""
    odd = sorted({c for c in text if not (c.isascii() and c.isprintable())})
    problems = [f"U+{ord(c):04X} is no character of a rationale" for c in odd]
    return problems + [f"{m.group()} touches a word" for m in re.finditer(r"\w\[\w+\]|\[\w+\]\w", text)]


def _beyond(text: str, diagnoses: tuple[str, ...], findings: tuple[str, ...], runner_up_open: bool) -> list[str]:
    """The first sentence of a spaced text that the findings do not support, or that it ends before its time."""
    start = 0
    runner_up = diagnoses[1] if len(diagnoses) > 1 else None
    for sentence in _sentences(diagnoses[0], runner_up, findings, runner_up_open):
        match = sentence.match(text, start)
        if match is None:
            return [_unsupported(text[start:]) if text[start:] else "no sentence says what stays uncertain"]
        start = match.end()
    return [_unsupported(text[start:])] if text[start:] else []


def _unsupported(rest: str) -> str:
    return f'the findings do not support "{rest.split(" .")[0]}"'


@lru_cache(maxsize=256)
def _sentences(
    leading: str, runner_up: str | None, findings: tuple[str, ...], runner_up_open: bool
) -> tuple[re.Pattern[str], ...]:
    """Patterns of all that `write_rationale` can write of a case, one after the other."""
    roles, clauses = roles_of(leading, runner_up, findings), clauses_of(runner_up, runner_up_open)
    names = {"lead": DIAGNOSIS_BY_CODE[leading].in_text}
    if runner_up is not None:
        names["runner"] = DIAGNOSIS_BY_CODE[runner_up].in_text
    listings = {role: _any_listing(items) for role, items in roles.items()}
    if roles["for"]:
        favour = _any(IN_FAVOUR[min(len(roles["for"]), 3)])
        patterns = [_any(SUPPORTED_OPENINGS, names | {"found": listings["for"], "all": favour})]
    elif findings:
        patterns = [_any(UNSUPPORTED_OPENINGS, names)]
    else:
        patterns = [_any(BARE_OPENINGS, names) + " " + _any(NOTHING_SEEN)]
    for pair in OTHER_SENTENCES:
        parts = [_any(clauses.cited[role], names | {"found": listings[role]}) for role in pair if roles[role]]
        if parts:
            patterns.append(f"{_any(BUT)}?{_any(CLAUSE_JOINS).join(parts)} \\.")
    doubts = [text for texts in reasons_of(runner_up, roles) for text in texts]
    open_end = _any(clauses.end, names)
    last = _any(doubts, names) + _any(DOUBT_JOINS) + open_end if doubts else open_end
    patterns.append(f"{last}(?:{_any(DOUBT_JOINS)}{_any(clauses.extra)})? \\.")
    return tuple(re.compile(f"{pattern}(?: |$)") for pattern in patterns)


def _any(texts: Sequence[str], places: Mapping[str, str] | None = None) -> str:
    """The pattern of any of `texts`, each {place} in them filled with its own pattern."""
    pattern = "|".join(map(re.escape, texts))
    for place, filling in (places or {}).items():
        pattern = pattern.replace(re.escape("{" + place + "}"), filling)
    return f"(?:{pattern})"


def _any_listing(findings: Sequence[tuple[str, State]]) -> str:
    items = [re.escape(f"[{ref}] {state.phrase}") for ref, state in findings]
    if len(items) < 3:
        return _any(PAIR_JOINS).join(items)
    return " , ".join(items[:-1]) + _any(LAST_JOINS) + items[-1]
