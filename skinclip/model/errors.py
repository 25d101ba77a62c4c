"""Errors of the model that a user can do something about."""

from __future__ import annotations


class CheckpointError(RuntimeError):
    """A checkpoint that is incomplete or made for another model; the message says which part."""
