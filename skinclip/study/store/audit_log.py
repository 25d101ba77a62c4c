"""The audit log of a study, hash-chained: what is sealed, how it is checked, what a receipt says. Pure, no SQL.

Each event carries a digest keyed with the study's key (HMAC-SHA256) over its own fields and the digest of the event
before it, as in the tamper-evident logs of Schneier and Kelsey (1999). The payload enters by a digest under its own
random salt: once payload and salt are erased, nothing can be guessed from what is left and the log still verifies. Who
has no key cannot change, insert, move or remove an event unseen; a cut end shows against receipts given to readers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skinclip.study.errors import LogError, PayloadError, ReceiptError
from skinclip.study.store.codes import base32, grouped, tidy

FORM = "skinclip-study-event-1"  # part of what is sealed: a later form cannot be taken for this one
WITHDRAWN = "withdrawn"  # the kind of event that makes a reader's missing payloads right
_RECEIPT_CHARACTERS = 16  # 80 bits of the digest
_CHECK_CHARACTERS = 4  # tell a mistyped receipt from a broken log
_PLACES_TRIED = 100


@dataclass(frozen=True)
class Head:
    """The end of a log: the last event's sequence and digest."""

    sequence: int = 0
    digest: str = "0" * 64


@dataclass(frozen=True)
class Event:
    """One event as stored.

    Attributes:
        sequence: 1, 2, 3, ... within the study, without gaps.
        reader: reader id, None for events of the study itself.
        kind, step: what happened and at which step of the session.
        request_id: names the submit, so that a repeated one is known.
        at: the server's time, ISO 8601 in UTC with milliseconds.
        payload_sha: digest of payload under salt, hexadecimal.
        previous, digest: seals of the event before and of this one, hexadecimal.
        body: the payload's canonical JSON, None once erased; `salt` likewise.
    """

    study: str
    sequence: int
    reader: str | None
    kind: str
    step: str
    request_id: str
    at: str
    payload_sha: str
    previous: str
    digest: str
    body: str | None = None
    salt: bytes | None = field(default=None, repr=False)

    @property
    def payload(self) -> dict[str, Any] | None:
        """The payload, None once erased. Raises LogError where the stored text is damaged."""
        if self.body is None:
            return None
        try:
            return dict(json.loads(self.body))
        except (ValueError, TypeError) as error:
            raise LogError(f"the payload of {_name(self)} is damaged; run `study verify`") from error

    def to_line(self) -> str:
        """One line of an exported log. A damaged payload is exported as its text, which fits no digest either."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        salt = None if self.salt is None else self.salt.hex()
        payload: object
        try:
            payload = self.payload
        except LogError:
            payload = self.body
        return json.dumps({**fields, "payload": payload, "salt": salt}, sort_keys=True)

    @classmethod
    def from_line(cls, line: str) -> Event:
        """An event from a line of an exported log. Raises LogError."""
        try:
            values = json.loads(line)
            body = None if values["payload"] is None else canonical(values["payload"])
            salt = None if values["salt"] is None else bytes.fromhex(values["salt"])
            return cls(**{name: values[name] for name in _FIELDS}, body=body, salt=salt)
        except (ValueError, KeyError, TypeError) as error:
            raise LogError(f"no event of an exported log: {line[:80]!r}; export the log again") from error


_FIELDS = ("study", "sequence", "reader", "kind", "step", "request_id", "at", "payload_sha", "previous", "digest")


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII, no NaN. Raises PayloadError."""
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))  # keys become texts before they are sorted
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"only texts, finite numbers, yes/no, lists and mappings can be stored: {error}") from error


def payload_digest(salt: bytes, body: str) -> str:
    """HMAC-SHA256 of a payload's canonical JSON under its own salt."""
    return hmac.digest(salt, body.encode(), "sha256").hex()


def seal(event: Event, key: bytes) -> str:
    """The digest that `event` should carry: over its place, its fields, its payload's digest and the one before."""
    fields = [FORM, *(getattr(event, name) for name in _FIELDS if name != "digest")]
    return hmac.digest(key, canonical(fields).encode(), "sha256").hex()


def follow(head: Head, event: Event, key: bytes) -> Event:
    """`event` sealed as the one after `head`; its sequence, payload digest and digests are filled in here."""
    if event.body is None or event.salt is None:
        raise PayloadError("a new event needs a payload and a salt")
    placed = replace(
        event,
        sequence=head.sequence + 1,
        previous=head.digest,
        payload_sha=payload_digest(event.salt, event.body),
    )
    return replace(placed, digest=seal(placed, key))


@dataclass(frozen=True)
class Receipt:
    """A reader's proof that the log of `study` held an event with this digest at this place."""

    study: str
    sequence: int
    digest: str  # 16 characters of base 32

    def __str__(self) -> str:
        check = hashlib.sha256(f"{self.study}:{self.sequence}:{self.digest}".encode()).digest()
        return f"{self.study}:{self.sequence}:{grouped(self.digest + base32(check, _CHECK_CHARACTERS))}"

    @classmethod
    def parse(cls, text: str) -> Receipt:
        """The receipt that was copied. Raises ReceiptError where a character is wrong."""
        study, _, rest = text.strip().partition(":")
        number, _, typed = rest.partition(":")
        receipt = cls(
            study.strip(), int(number) if number.strip().isdecimal() else 0, tidy(typed)[:_RECEIPT_CHARACTERS]
        )
        if tidy(str(receipt)) != tidy(text):
            raise ReceiptError(f"no receipt, or a character of it is wrong: {text.strip()!r}; copy it again")
        return receipt


def receipt_of(event: Event) -> str:
    """The receipt of an event, short enough to be written down: `study:sequence:XXXX-XXXX-XXXX-XXXX-XXXX`."""
    return receipt_at(event.study, event.sequence, event.digest)


def receipt_at(study: str, sequence: int, digest: str) -> str:
    """The receipt of the event at `sequence`, whose digest is `digest`."""
    return str(Receipt(study, sequence, _short(digest)))


@dataclass(frozen=True)
class Problem:
    """Something wrong with a log, in plain words; `sequence` says where, None for the whole log."""

    kind: str
    sequence: int | None
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Audit:
    """Result of a check of a log.

    `erased` counts the payloads that were rightly erased, on withdrawal. `warnings` are no sign of a change: times that
    cannot be right, and what a restored backup did not hold any more.
    """

    study: str
    events: int
    erased: int
    head: Head
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


def audit(
    study: str, events: Sequence[Event], key: bytes, *, head: Head | None = None, receipts: Iterable[str] = ()
) -> Audit:
    """Check the whole log of a study, in stored order, against the key, the recorded head and readers' receipts.

    Raises ReceiptError where a receipt was copied wrongly.
    """
    parsed = [Receipt.parse(text) for text in receipts]
    forged = [event for event in events if event.study != study or not _sealed(event, key)]
    last = Head(events[-1].sequence, events[-1].digest) if events else Head()
    erased, payload_problems = _check_payloads(events)
    if events and len(forged) == len(events):
        text = f"none of the {len(events)} events fits the key: this is another study's key, or every event was changed"
        return Audit(study, len(events), erased, last, (Problem("wrong_key", None, text),))
    problems = [
        *_check_seals(forged, key),
        *_check_order(events, {event.sequence for event in forged}),
        *payload_problems,
        *_check_head(last, head),
        *_check_receipts(study, events, last, parsed),
    ]
    return Audit(study, len(events), erased, last, tuple(problems))


def audit_without_key(study: str, events: Sequence[Event], receipts: Iterable[str] = ()) -> Audit:
    """As `audit`, for who has no key: order, gaps and receipts alone. What an event says is checked by the key only."""
    parsed = [Receipt.parse(text) for text in receipts]
    erased, payload_problems = _check_payloads(events)
    last = Head(events[-1].sequence, events[-1].digest) if events else Head()
    problems = (*_check_order(events, set()), *payload_problems, *_check_receipts(study, events, last, parsed))
    return Audit(study, len(events), erased, last, problems)


def _check_seals(forged: Sequence[Event], key: bytes) -> Iterator[Problem]:
    """Events whose seal does not fit, distinguished by whether it fits at another place."""
    places = [event.sequence for event in forged][:_PLACES_TRIED]
    for event in forged:
        tried = {event.sequence - 1, event.sequence + 1, *places}
        home = next((p for p in sorted(tried) if _sealed(replace(event, sequence=p), key)), None)
        if home is None:
            text = f"{_name(event)} was changed after it was stored, or put in without the key"
            yield Problem("altered", event.sequence, text)
        else:
            yield Problem(
                "moved", event.sequence, f"{_name(event)} was event {home} when it was stored: the order was changed"
            )


def _check_order(events: Sequence[Event], forged: set[int]) -> Iterator[Problem]:
    """Gaps, repeats, and events that do not follow the one before; forged ones are named elsewhere."""
    before = Head()
    for event in events:
        if event.sequence > before.sequence + 1:
            yield Problem(
                "gap", event.sequence, f"{_span(before.sequence + 1, event.sequence - 1)} missing: removed from the log"
            )
        elif event.sequence <= before.sequence:
            yield Problem("order", event.sequence, f"{_name(event)} stands twice or out of order")
        elif event.previous != before.digest and not {before.sequence, event.sequence} & forged:
            text = f"{_name(event)} does not follow the event before it: part of the log was replaced"
            yield Problem("order", event.sequence, text)
        before = Head(event.sequence, event.digest)


def _check_payloads(events: Sequence[Event]) -> tuple[int, list[Problem]]:
    """How many payloads withdrawal erased, and those that were changed or removed."""
    withdrawn = {event.reader: event.sequence for event in events if event.kind == WITHDRAWN}
    erased, problems = 0, []
    for event in events:
        if event.body is None or event.salt is None:
            if event.sequence < withdrawn.get(event.reader, 0):
                erased += 1
            else:
                text = f"the payload of {_name(event)} was removed, and its reader has not withdrawn"
                problems.append(Problem("payload_removed", event.sequence, text))
        elif payload_digest(event.salt, event.body) != event.payload_sha:
            problems.append(
                Problem(
                    "payload_edited", event.sequence, f"the payload of {_name(event)} was changed after it was stored"
                )
            )
    return erased, problems


def _check_head(last: Head, head: Head | None) -> Iterator[Problem]:
    if head is None or head == last:
        return
    if head.sequence > last.sequence:
        text = f"{_span(last.sequence + 1, head.sequence)} missing: the end of the log was cut off"
        yield Problem("cut_tail", last.sequence, text)
    else:
        text = (
            f"the recorded head names event {head.sequence}, the log ends with event {last.sequence}: one was changed"
        )
        yield Problem("head", last.sequence, text)


def _check_receipts(study: str, events: Sequence[Event], last: Head, receipts: Sequence[Receipt]) -> Iterator[Problem]:
    digests = {event.sequence: _short(event.digest) for event in events}
    for receipt in receipts:
        number = receipt.sequence
        if receipt.study != study:
            yield Problem(
                "receipt", None, f"the receipt {receipt} belongs to the study {receipt.study}, not to {study}"
            )
        elif number > last.sequence:
            text = (
                f"a receipt was given for event {number}, the log ends with event {last.sequence}: its end was cut off"
            )
            yield Problem("cut_tail", last.sequence, text)
        elif digests.get(number) != receipt.digest:
            yield Problem(
                "rewritten", number, f"event {number} is not the one that the receipt {receipt} was given for"
            )


def _sealed(event: Event, key: bytes) -> bool:
    return hmac.compare_digest(seal(event, key), event.digest)


def is_genuine(event: Event, key: bytes) -> bool:
    """True where the event and its payload, unless that was erased, are as they were when the key sealed them."""
    if event.body is not None and payload_digest(event.salt or b"", event.body) != event.payload_sha:
        return False
    return _sealed(event, key)


def _short(digest: str) -> str:
    """A digest as receipts give it. A damaged digest gives a text that fits no receipt."""
    try:
        return base32(bytes.fromhex(digest), _RECEIPT_CHARACTERS)
    except (ValueError, IndexError):
        return ""


def _name(event: Event) -> str:
    details = [part for part in (event.reader, event.kind, event.step, event.at) if part]
    return f"event {event.sequence} ({', '.join(details)})"


def _span(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"


def read_log(lines: Iterable[str]) -> list[Event]:
    """The events of an exported log, one JSON object a line. Raises LogError."""
    return [Event.from_line(line) for line in lines if line.strip()]
