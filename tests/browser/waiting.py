"""Waiting for the page from outside: its content policy forbids the script that Playwright would poll with."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Page


def until(page: Page, expression: str, arg: Any = None, timeout: float = 30_000) -> None:
    """Waits until a JavaScript expression or function is true. Raises AssertionError after `timeout` milliseconds."""
    end = time.monotonic() + timeout / 1000
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, f"still not true after {timeout / 1000:.0f} s: {expression}"
        page.wait_for_timeout(50)
