"""Silence for libraries that report their own progress: the program says itself what it is doing."""

from __future__ import annotations

from transformers.utils import logging


def silence_transformers() -> None:
    """Turns off transformers' progress bars and everything below an error."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
