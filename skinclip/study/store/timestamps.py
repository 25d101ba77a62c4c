"""Time stamps by an authority (RFC 3161) over the end of a log: somebody else's word that it was so by then.

What is stamped is the SHA-256 of the last event's digest, which tells nothing of what is in the log. Here it is checked
that a stamp is of this log; whether the authority's signature is good `openssl ts -verify` tells, which needs its
certificate: `openssl ts -verify -digest SHA256 -in FILE.tsr -CAfile AUTHORITY.pem`.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterable
from urllib.parse import urlsplit

from rfc3161_client import HashAlgorithm, TimestampRequestBuilder, decode_timestamp_response

from skinclip.study.errors import StudyRequestError
from skinclip.study.store.audit_log import Event, Head

SECONDS = 20.0  # that an authority has to answer
_MOST = 1 << 20  # bytes of an answer


def stamped_text(digest: str) -> bytes:
    """The bytes over which a stamp is asked: an event's digest as it stands in the log."""
    return digest.encode("ascii")


def request_stamp(url: str, head: Head) -> bytes:
    """The authority's answer for the head of a log, to be kept as a file. Raises StudyRequestError."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise StudyRequestError(f"{url} is no address of a time-stamp authority; it begins with https:// or http://")
    asked = (
        TimestampRequestBuilder().data(stamped_text(head.digest)).hash_algorithm(HashAlgorithm.SHA256).nonce().build()
    )
    request = urllib.request.Request(url, asked.as_bytes(), {"Content-Type": "application/timestamp-query"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            data = bytes(answer.read(_MOST))
        decode_timestamp_response(data)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise StudyRequestError(f"{url} gave no time stamp ({error}); try again, or another authority") from error
    return data


def check_stamp(name: str, data: bytes, events: Iterable[Event]) -> str:
    """The fault of a stamp as one of this log, in words; empty where it is one."""
    try:
        imprint = bytes(decode_timestamp_response(data).tst_info.message_imprint.message)
    except ValueError as error:
        return f"{name} is no time stamp ({error})"
    if any(hashlib.sha256(stamped_text(event.digest)).digest() == imprint for event in events):
        return ""
    return f"the time stamp {name} is of another log: an event that was stamped is missing or was changed"
