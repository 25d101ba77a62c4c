"""Secrets of a study: the key file that seals its log, and the codes that people type. No SQL.

Codes and receipts are written in Crockford's base 32 (no I, L, O or U), so that they survive being read out or copied
by hand. A personal code is `HHHH-SSSS-SSSS-SSSS`: the first group is a public handle by which the store finds one row,
the others (60 bits) are secret; codes of earlier versions have one group less and still open their study. Only a slow,
salted and keyed hash of a code is kept; who reads the database without the key file can neither guess codes nor write
hashes that let anyone in.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from skinclip.study.errors import CodeError, KeyFileError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUP = 4  # characters between two hyphens
CODE_GROUPS = 4
_EARLIER_GROUPS = 3
KEY_BYTES = 32
SALT_BYTES = 16
_READ_AS = str.maketrans("OIL", "011")  # what a person may type for 0 and 1


@dataclass(frozen=True)
class Code:
    """A personal code; `str(code)` is what its owner types."""

    handle: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return grouped(self.handle + self.secret)


def new_code() -> Code:
    """A code from the system's random source."""
    drawn = "".join(secrets.choice(ALPHABET) for _ in range(CODE_GROUPS * GROUP))
    return Code(drawn[:GROUP], drawn[GROUP:])


def parse_code(text: str) -> Code:
    """The code that was typed, whatever its case, spaces and hyphens. Raises CodeError."""
    typed = tidy(text)
    if len(typed) not in (CODE_GROUPS * GROUP, _EARLIER_GROUPS * GROUP) or not set(typed) <= set(ALPHABET):
        raise CodeError(
            f"a code has {CODE_GROUPS} groups of {GROUP} letters and digits, like {Code('7K3M', '9QXT2B4HW6DZ')}"
        )
    return Code(typed[:GROUP], typed[GROUP:])


def is_short(code: Code) -> bool:
    """True for a code of an earlier version, with 40 secret bits."""
    return len(str(code).replace("-", "")) < CODE_GROUPS * GROUP


def tag_of(key: bytes, code: Code) -> bytes:
    """Two keyed bytes of a code: a wrong one is refused by them 65,535 times in 65,536, without the slow hash."""
    return hmac.digest(key, b"tag:" + str(code).encode(), "sha256")[:2]


def hash_code(key: bytes, code: Code, salt: bytes) -> bytes:
    """Keyed scrypt hash (RFC 7914, 16 MiB) of a code, so that the database alone proves nothing."""
    slow = hashlib.scrypt(str(code).encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
    return hmac.digest(key, b"code:" + slow, "sha256")


def tidy(text: str) -> str:
    """Typed text as base 32: upper case, no spaces or hyphens, O read as 0, I and L as 1."""
    return "".join(text.split()).replace("-", "").upper().translate(_READ_AS)


def grouped(text: str) -> str:
    """`ABCDEFGH` as `ABCD-EFGH`."""
    return "-".join(text[i : i + GROUP] for i in range(0, len(text), GROUP))


def base32(data: bytes, characters: int) -> str:
    """The first `characters` of `data` in base 32, five bits each."""
    bits = int.from_bytes(data, "big")
    width = len(data) * 8
    return "".join(ALPHABET[bits >> (width - 5 * (i + 1)) & 31] for i in range(characters))


def read_key(path: Path, *, create: bool = False) -> bytes:
    """The study's key, 32 bytes kept as hexadecimal in a file outside the database that its owner alone may read.

    With `create`, a missing file is made, whole or not at all, with mode 0600; one that is there is never written over.

    Raises KeyFileError where the file is missing, holds no key, or may be read by others.
    """
    if create and not path.exists():
        _create_key(path)
    try:
        mode, text = path.stat().st_mode, path.read_text()
    except OSError as error:
        raise KeyFileError(
            f"{path}: the study's key cannot be read ({error.strerror}); restore it from its backup"
        ) from error
    if mode & 0o077:
        raise KeyFileError(f"{path}: others can read the study's key; run `chmod 600 {path}`")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyFileError(f"{path}: no key of {2 * KEY_BYTES} hexadecimal digits; restore it from its backup")
    return key


def _create_key(path: Path) -> None:
    """Write a fresh key beside `path`, then link it there, so that no other process ever sees half a key."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process made it first: its key stands
            os.link(draft, path)
    except OSError as error:
        raise KeyFileError(
            f"{path}: the study's key cannot be written ({error.strerror}); choose another folder"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
