"""A browser, and the page that answers at once, for tests that look at the page and not at the model behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser

from eval_study.trust_study.serving import free_port
from tests.browser.visits import chromium
from tests.helpers.served import await_status, running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, of this module alone."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def quick_server() -> Iterator[str]:
    """The address of a page as `quick_page` makes it, of this module alone."""
    with quick_page() as url:
        yield url


@contextmanager
def quick_page(*arguments: str) -> Iterator[str]:
    """The address of a page with these arguments of `quick_page` after its port."""
    port = free_port()
    with running(["-m", "tests.browser.quick_page", str(port), *arguments], port) as served:
        await_status(served.url, served.process)
        yield served.url
