from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json

import pytest

from skinclip.study.errors import LogError, PayloadError, ReceiptError
from skinclip.study.store.audit_log import (
    FORM,
    Event,
    Head,
    Receipt,
    audit,
    canonical,
    follow,
    payload_digest,
    read_log,
    receipt_of,
)

KEY = b"k" * 32


def log(n: int = 6) -> list[Event]:
    """n sealed events, readers R001 and R002 in turn."""
    head, events = Head(), []
    for number in range(1, n + 1):
        body, salt = canonical({"answers": number}), bytes([number]) * 16
        at = f"2026-11-24T09:30:0{number % 10}.000Z"
        draft = Event(
            "trust", 0, f"R00{number % 2 + 1}", "before", f"s{number}", f"q{number}", at, "", "", "", body, salt
        )
        events.append(follow(head, draft, KEY))
        head = Head(events[-1].sequence, events[-1].digest)
    return events


def kinds(events: list[Event], **other: object) -> list[tuple[str, int | None]]:
    return [(p.kind, p.sequence) for p in audit("trust", events, KEY, **other).problems]  # type: ignore[arg-type]


def test_canonical_text_is_one_and_survives_a_round_trip() -> None:
    text = canonical({"b": 1.0, "a": [True, None, "é\u0000"], 10: "x", 9: "y"})
    assert text == r'{"10":"x","9":"y","a":[true,null,"\u00e9\u0000"],"b":1.0}'
    assert canonical(json.loads(text)) == text


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": {1, 2}}, {"a": b"x"}, {"a": float("inf")}])
def test_only_plain_json_is_taken(value: object) -> None:
    with pytest.raises(PayloadError, match="can be stored"):
        canonical(value)


def test_seal_is_the_hmac_written_down() -> None:
    event = log(1)[0]
    sha = hmac.new(b"\x01" * 16, b'{"answers":1}', hashlib.sha256).hexdigest()
    fields = [FORM, "trust", 1, "R002", "before", "s1", "q1", "2026-11-24T09:30:01.000Z", sha, "0" * 64]
    sealed = json.dumps(fields, separators=(",", ":")).encode()
    assert event.payload_sha == sha == payload_digest(b"\x01" * 16, '{"answers":1}')
    assert event.digest == hmac.new(KEY, sealed, hashlib.sha256).hexdigest()


def test_whole_log_has_no_problem() -> None:
    events = log()
    found = audit("trust", events, KEY, head=Head(6, events[-1].digest), receipts=[receipt_of(e) for e in events])
    assert (found.problems, found.events, found.erased, found.head.sequence) == ((), 6, 0, 6)
    assert audit("trust", [], KEY, head=Head()).problems == ()


def test_each_change_is_named() -> None:
    e = log()
    swap = [e[0], dataclasses.replace(e[2], sequence=2), dataclasses.replace(e[1], sequence=3), *e[3:]]
    assert kinds(swap)[:2] == [("moved", 2), ("moved", 3)]
    assert kinds([e[0], e[2], e[1], *e[3:]]) == [("gap", 3), ("order", 2), ("gap", 4)]
    assert kinds([*e[:2], *e[3:]]) == [("gap", 4)]
    assert kinds(e[1:]) == [("gap", 2)]
    assert kinds([*e[:2], dataclasses.replace(e[2], reader="R009"), *e[3:]]) == [("altered", 3)]
    assert kinds([*e[:2], dataclasses.replace(e[2], body='{"answers":9}'), *e[3:]]) == [("payload_edited", 3)]
    assert kinds([*e[:2], dataclasses.replace(e[2], body=None, salt=None), *e[3:]]) == [("payload_removed", 3)]
    assert kinds(e[:4], head=Head(6, e[5].digest)) == [("cut_tail", 4)]
    assert kinds(e[:4], head=Head(4, e[3].digest), receipts=[receipt_of(e[5])]) == [("cut_tail", 4)]
    assert kinds([*e, *e[5:]]) == [("order", 6)]
    assert [p.kind for p in audit("trust", e, b"x" * 32).problems] == ["wrong_key"]
    assert kinds([], head=Head(2, e[1].digest)) == [("cut_tail", 0)]


def test_log_that_was_cut_and_written_on_shows_by_a_receipt() -> None:
    e = log()
    draft = dataclasses.replace(e[4], body=canonical({"answers": 99}))
    other = follow(Head(4, e[3].digest), draft, KEY)
    assert kinds([*e[:4], other]) == []
    assert kinds([*e[:4], other], receipts=[receipt_of(e[4])]) == [("rewritten", 5)]


def test_event_of_another_study_does_not_pass() -> None:
    e = log()
    assert audit("other", e, KEY).problems[0].kind == "wrong_key"
    assert kinds(e, receipts=[receipt_of(dataclasses.replace(e[0], study="other"))]) == [("receipt", None)]


def test_withdrawn_readers_payloads_count_as_erased() -> None:
    e = log()
    body, salt = canonical({}), b"s" * 16
    end = follow(Head(6, e[5].digest), dataclasses.replace(e[0], kind="withdrawn", step="w", body=body, salt=salt), KEY)
    gone = [dataclasses.replace(x, body=None, salt=None) if x.reader == "R002" else x for x in [*e]]
    found = audit("trust", [*gone, end], KEY)
    assert (found.problems, found.erased) == ((), 3)
    assert gone[0].payload is None


def test_receipt_is_read_back_however_it_is_typed() -> None:
    event = log()[2]
    text = receipt_of(event)
    assert text.startswith("trust:3:") and len(text) < 40
    assert str(Receipt.parse(text)) == text
    assert Receipt.parse(f" {text.lower().replace('-', ' ').replace('0', 'o').replace('1', 'l')} ") == Receipt.parse(
        text
    )


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t.replace(":3:", ":4:"), lambda t: "", lambda t: "a:b:c"]
)
def test_receipt_copied_wrongly_is_not_taken_for_a_broken_log(change) -> None:
    with pytest.raises(ReceiptError, match="copy it again"):
        Receipt.parse(change(receipt_of(log()[2])))


def test_exported_lines_read_back_and_verify() -> None:
    events = log()
    lines = [event.to_line() for event in events]
    assert read_log([*lines, ""]) == events
    with pytest.raises(LogError, match="export the log again"):
        read_log(["{}"])
    damaged = dataclasses.replace(events[2], body="{")
    with pytest.raises(LogError, match="damaged"):
        _ = damaged.payload
    assert kinds(read_log([*lines[:2], damaged.to_line(), *lines[3:]])) == [("payload_edited", 3)]
