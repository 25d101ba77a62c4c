"""Accounts of the page: names, roles and argon2 hashes of passwords in one file, and the sign-ins that they open.

The file is `accounts.json` below `SKINCLIP_HOME`, readable by its owner alone. Sign-ins are kept in memory, as hashes
of their tokens: they end after twelve hours, after an hour without use, with the account and with the server.

A wrong password counts for its name and address together, so that nobody is locked out by guesses made elsewhere; a
browser that has signed in before is counted by itself, so that not even a neighbour behind the same address locks it
out.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from pydantic import BaseModel, ConfigDict, ValidationError

from skinclip.core.whole_files import replace_text

Role = Literal["clinician", "coordinator", "reader"]
ROLES: tuple[Role, ...] = get_args(Role)
MIN_PASSWORD, MAX_PASSWORD = 12, 256  # characters
LIFE_SECONDS, IDLE_SECONDS = 12 * 3600.0, 3600.0
ATTEMPTS, WINDOW_SECONDS = 5, 300.0  # wrong passwords for a name from an address
MAX_COUNTED = 20_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASHER = PasswordHasher()  # argon2id with the library's current defaults
_UNKNOWN = _HASHER.hash(secrets.token_urlsafe(16))  # an unknown name costs the same time as a wrong password


class AccountError(ValueError):
    """The accounts cannot be used or changed as asked; the message says what to do."""


class SignInRefused(Exception):
    """The sign-in is refused; the message is for the visitor. `seconds` to wait, 0 where trying again is no use."""

    def __init__(self, words: str, seconds: int = 0) -> None:
        super().__init__(words)
        self.seconds = seconds


class _Account(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Role
    password: str  # argon2id


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    accounts: dict[str, _Account]


@dataclass(frozen=True)
class SignedIn:
    """A visitor with an account."""

    name: str
    role: Role


@dataclass
class _Session:
    account: SignedIn
    password: str  # its hash when the session began: another one ends it
    begun: float
    used: float


class Accounts:
    """The accounts in a file, read again when it changes, and the sign-ins of this process."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.RLock()
        self._read_at: tuple[int, int] | None = None
        self._accounts: dict[str, _Account] = {}
        self._sessions: dict[str, _Session] = {}
        self._wrong: dict[tuple[str, str], list[float]] = {}
        self._devices: dict[str, str] = {}

    # --- the file -----------------------------------------------------------------------------------------------

    def names(self) -> Mapping[str, Role]:
        """The name and role of each account. Raises AccountError where the file cannot be read."""
        with self._lock:
            return {name: account.role for name, account in self._loaded().items()}

    def add(self, name: str, role: str, password: str) -> None:
        """Adds an account, or gives it another password and role. Raises AccountError."""
        if not _NAME.fullmatch(name):
            raise AccountError(
                "a name has letters, digits and . _ @ -, at most 64 of them, and begins with a letter or digit"
            )
        if role not in ROLES:
            raise AccountError(f"there is no role {role!r}; choose from {', '.join(ROLES)}")
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise AccountError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
        with self._lock:
            self._store({**self._loaded(), name: _Account(role=role, password=_HASHER.hash(password))})

    def remove(self, name: str) -> None:
        """Removes an account; its sign-ins end at once. Raises AccountError where there is none of that name."""
        with self._lock:
            left = dict(self._loaded())
            if left.pop(name, None) is None:
                raise AccountError(f"there is no account {name!r}; `skinclip accounts list` names them")
            self._store(left)

    def _loaded(self) -> dict[str, _Account]:
        try:
            state = self.file.stat()
        except FileNotFoundError:
            self._read_at, self._accounts = None, {}
            return {}
        if self._read_at != (state.st_mtime_ns, state.st_ino):
            try:
                self._accounts = _File.model_validate_json(self.file.read_bytes()).accounts
            except (ValidationError, OSError) as problem:
                raise AccountError(
                    f"{self.file} cannot be read as accounts; restore it, or remove it and add them anew"
                ) from problem
            self._read_at = (state.st_mtime_ns, state.st_ino)
        return self._accounts

    def _store(self, accounts: dict[str, _Account]) -> None:
        text = json.dumps(_File(accounts=accounts).model_dump(), indent=2)
        try:
            replace_text(self.file, text, private=True)
        except OSError as problem:
            raise AccountError(f"{self.file} cannot be written ({problem.strerror}); nothing was changed") from problem

    # --- sign-ins -----------------------------------------------------------------------------------------------

    def sign_in(self, name: str, password: str, address: str, device: str | None = None) -> tuple[str, str]:
        """A token for the session, and one by which this browser is known later. Raises SignInRefused.

        Args:
            address: where the request comes from.
            device: the browser's token of an earlier sign-in.
        """
        with self._lock:
            known = device is not None and self._devices.get(_digest(device)) == name
            counted = (name, f"device {_digest(device or '')}" if known else f"address {address}")
            self._check_wait(counted)
            self._count(counted)  # before the password is compared, so that parallel guesses are limited too
            account = self._loaded().get(name)
        if not _matches(account.password if account else _UNKNOWN, password[: MAX_PASSWORD + 1]) or account is None:
            raise SignInRefused("The name or the password is wrong.")
        return self._begin(name, account, counted)

    def _begin(self, name: str, account: _Account, counted: tuple[str, str]) -> tuple[str, str]:
        token, device = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            self._wrong.pop(counted, None)
            self._sessions[_digest(token)] = _Session(SignedIn(name, account.role), account.password, now, now)
            self._devices[_digest(device)] = name
            while len(self._devices) > MAX_COUNTED:
                del self._devices[next(iter(self._devices))]
            for key in [k for k, s in self._sessions.items() if _is_over(s, now)]:
                del self._sessions[key]
        return token, device

    def signed_in(self, token: str | None) -> SignedIn | None:
        """Whose session this is; None where it has ended or never was."""
        if not token:
            return None
        now = time.monotonic()
        with self._lock:
            session = self._sessions.get(_digest(token))
            if session is None:
                return None
            account = self._loaded().get(session.account.name)
            if _is_over(session, now) or account is None or account.password != session.password:
                del self._sessions[_digest(token)]
                return None
            session.used = now
            return SignedIn(session.account.name, account.role)

    def sign_out(self, token: str | None) -> None:
        """Ends a session."""
        with self._lock:
            self._sessions.pop(_digest(token or ""), None)

    def _check_wait(self, counted: tuple[str, str]) -> None:
        now = time.monotonic()
        recent = [at for at in self._wrong.get(counted, []) if now - at < WINDOW_SECONDS]
        if len(recent) >= ATTEMPTS:
            seconds = int(recent[-ATTEMPTS] + WINDOW_SECONDS - now) + 1
            raise SignInRefused(f"Too many wrong passwords from here. Try again in {seconds} seconds.", seconds)

    def _count(self, counted: tuple[str, str]) -> None:
        now = time.monotonic()
        recent = [at for at in self._wrong.pop(counted, []) if now - at < WINDOW_SECONDS]
        self._wrong[counted] = [*recent, now]
        while len(self._wrong) > MAX_COUNTED:
            del self._wrong[next(iter(self._wrong))]


def _matches(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


def _is_over(session: _Session, now: float) -> bool:
    return now - session.begun > LIFE_SECONDS or now - session.used > IDLE_SECONDS


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
