"""The study's key at work: marks that nobody without it can make, and payloads that nobody without it can read.

Each purpose has a key of its own, derived by HMAC-SHA256, so that a mark made for one can never pass for another.
Payloads are sealed with AES-256-GCM (NIST SP 800-38D): whoever opens the database's file reads neither an answer nor
the salt that a guess at one could be checked with.
"""

from __future__ import annotations

import base64
import hmac
import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEALED = "aesgcm1:"  # in front of what is sealed; texts of earlier versions lie open and have none
_NONCE = 12  # bytes


class StudyKey:
    """The key of a study's database, 32 bytes kept in a file outside it.

    Attributes:
        raw: The bytes themselves, which seal events and hash codes.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._marks = hmac.digest(raw, b"skinclip study marks 1", "sha256")
        self._aead = AESGCM(hmac.digest(raw, b"skinclip study payloads 1", "sha256"))

    @property
    def identity(self) -> str:
        """A name of the key, 16 hexadecimal digits, from which nothing of it can be learned."""
        return hmac.digest(self.raw, b"skinclip study key name 1", "sha256").hex()[:16]

    def mark(self, purpose: str, *fields: str | int | None) -> str:
        """HMAC-SHA256 over the fields, hexadecimal; fields of one purpose never pass for those of another."""
        text = json.dumps([purpose, *fields], separators=(",", ":"))
        return hmac.digest(self._marks, text.encode(), "sha256").hex()

    def fits(self, mark: str | None, purpose: str, *fields: str | int | None) -> bool:
        """True where `mark` is that of the fields."""
        return mark is not None and hmac.compare_digest(mark.encode(), self.mark(purpose, *fields).encode())

    def seal(self, data: bytes, place: str) -> str:
        """`data` as text that only the key opens, and only for the same `place`."""
        nonce = os.urandom(_NONCE)
        return SEALED + base64.b64encode(nonce + self._aead.encrypt(nonce, data, place.encode())).decode()

    def unseal(self, text: str, place: str) -> bytes | None:
        """The data again; None where the text was changed, or was sealed for another place or with another key."""
        try:
            data = base64.b64decode(text.removeprefix(SEALED), validate=True)
            return self._aead.decrypt(data[:_NONCE], data[_NONCE:], place.encode())
        except (ValueError, InvalidTag):
            return None
