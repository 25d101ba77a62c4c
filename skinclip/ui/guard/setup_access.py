"""Access to the page on which studies are set up: the code that its start printed, or a coordinator's account.

Who sits at the computer that the server runs on has the code, and may name folders of that computer. Who signs in from
elsewhere with an account has none, and uploads photos.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SetupAccess:
    """The rule; `code` is empty where accounts guard the page before any request reaches it."""

    code: str = field(repr=False)

    @classmethod
    def local(cls) -> SetupAccess:
        """Access by a new code, for this computer alone."""
        return cls(secrets.token_urlsafe(18))

    @classmethod
    def by_account(cls) -> SetupAccess:
        """Access for whoever the perimeter lets in: accounts of coordinators."""
        return cls("")

    @property
    def is_local(self) -> bool:
        """True where whoever is admitted started the server, and may name its folders."""
        return bool(self.code)

    def admits(self, code: str | None) -> bool:
        """True for the code, or for anybody where none is asked for."""
        return not self.code or hmac.compare_digest((code or "").strip().encode(), self.code.encode())
