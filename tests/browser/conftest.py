"""The page that answers at once, for the tests that look at the page and not at the model behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen

import pytest

from eval_study.trust_study.serving import free_port
from tests.helpers.served import ROOT, await_status


@pytest.fixture(scope="module")
def quick_server() -> Iterator[str]:
    """The address of a page as `quick_page` makes it, of this module alone."""
    with quick_page() as url:
        yield url


@contextmanager
def quick_page(*arguments: str) -> Iterator[str]:
    """The address of a page with these arguments of `quick_page` after its port."""
    port = free_port()
    process = Popen([sys.executable, "-m", "tests.browser.quick_page", str(port), *arguments], cwd=ROOT)
    try:
        await_status(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
