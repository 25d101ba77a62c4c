"""Keys of the HTTP API: a text file with a line a key, its name, its hash and the day it ends. No key itself is kept.

A key has 256 random bits, so a plain SHA-256 hides it: there is nothing to guess. The file is read again when it
changes: a key that is revoked stops working without a restart.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from skinclip.core.whole_files import replace_text

PREFIX = "skinclip_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ApiKeyError(ValueError):
    """A file of keys that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class ApiKey:
    """A key by its hash; valid up to and including the day `ends`."""

    name: str
    sha256: str
    ends: datetime.date


def digest(key: str) -> str:
    """The hash that stands for a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> list[ApiKey]:
    """The keys of a file. Raises ApiKeyError where it is missing or a line is not one of a key."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ApiKeyError(f"{path} cannot be read as a file of keys ({error}); make one with `api-key add`") from error
    return [_key(path, number, line) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]


def add_key(path: Path, name: str, days: int) -> str:
    """Makes a key, adds it to the file (readable by its owner alone) and returns it: it cannot be had again."""
    if not NAME.fullmatch(name):
        raise ApiKeyError(f"{name!r} is no name for a key; use up to 64 letters, digits, dots, hyphens")
    keys = read_keys(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise ApiKeyError(f"{path} has a key of the name {name}; revoke it first, or choose another name")
    key = PREFIX + secrets.token_urlsafe(32)
    ends = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=days)
    _write(path, [*keys, ApiKey(name, digest(key), ends)])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Removes a key. Raises ApiKeyError where there is none of that name."""
    keys = read_keys(path)
    kept = [key for key in keys if key.name != name]
    if len(kept) == len(keys):
        raise ApiKeyError(f"{path} has no key of the name {name}")
    _write(path, kept)


class KeyRing:
    """The keys of a file as they are now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys = {key.sha256: key for key in read_keys(path)}
        self._read = self._state()

    def name_of(self, key: str) -> str | None:
        """The name of a valid key, else None. With an unreadable file no key is valid."""
        if self._state() != self._read:
            self._read = self._state()
            try:
                self._keys = {key.sha256: key for key in read_keys(self.path)}
            except ApiKeyError:
                self._keys = {}
        found = self._keys.get(digest(key))
        today = datetime.datetime.now(datetime.UTC).date()
        return found.name if found is not None and today <= found.ends else None

    def _state(self) -> tuple[int, int, int]:
        try:
            at = self.path.stat()
        except OSError:
            return 0, 0, 0
        return at.st_mtime_ns, at.st_size, at.st_ino


def _key(path: Path, number: int, line: str) -> ApiKey:
    name, sha256, ends = (*line.split(), "", "", "")[:3]
    try:
        if not NAME.fullmatch(name) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(line)
        return ApiKey(name, sha256, datetime.date.fromisoformat(ends))
    except ValueError:
        raise ApiKeyError(f"{path} line {number} is no key; a line is NAME SHA256 YYYY-MM-DD") from None


def _write(path: Path, keys: list[ApiKey]) -> None:
    lines = ["# keys of the HTTP API: name, SHA-256, last day", *(f"{k.name} {k.sha256} {k.ends}" for k in keys)]
    replace_text(path, "\n".join(lines) + "\n", private=True)
