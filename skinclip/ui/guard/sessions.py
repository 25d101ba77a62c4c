"""Visitors' sessions in Gradio's memory, bounded by time and by size.

Gradio keeps a copy of everything that a page shows, for links that are not offered here, and drops whichever session
was used longest ago when others come. Here it keeps the values of the page's `gr.State` alone, for half an hour after
their last use. A full memory turns new visitors away; it never takes a photo from one who is there.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterable
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from gradio.components import State
from gradio.state_holder import SessionState, StateHolder

if TYPE_CHECKING:
    from gradio.blocks import Blocks

KEPT_SECONDS = 1800.0  # how long a visitor's photo stays in memory after its last use
KEPT_AFTER_CLOSE = 300.0  # once the browser's connection has ended: time to come back after a lost network
MAX_BYTES = 600_000_000  # of photos and answers of all visitors together


class VisitorState(SessionState):
    """A session without Gradio's second copy of every value that the page shows."""

    def __init__(self, blocks: Blocks) -> None:
        # not Gradio's own, which copies the configuration of the whole page for each visitor
        self.blocks_config = copy(blocks.default_config)
        self.config_values = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False

    def __setitem__(self, key: int, value: Any) -> None:
        block = self.blocks_config.blocks.get(key)
        if isinstance(block, State):
            self.state_data[key] = value
        else:
            self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        """Keeps nothing."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Keeps nothing."""

    @property
    def size(self) -> int:
        """Bytes of the photos and pictures kept."""
        return sum(size_of(value) for value in list(self.state_data.values()))

    @property
    def is_empty(self) -> bool:
        """True where nothing of the visitor is kept: every value is none, or what a new visitor begins with."""
        return all(value is None or self._is_initial(key, value) for key, value in list(self.state_data.items()))

    def _is_initial(self, key: int, value: Any) -> bool:
        initial = getattr(self.blocks_config.blocks.get(key), "value", None)
        return type(value) is type(initial) and bool(value == initial)


class VisitorSessions(StateHolder):
    """The sessions of all visitors.

    Args:
        capacity: sessions at most.
        most_bytes: of photos and pictures at most.
    """

    def __init__(self, capacity: int, most_bytes: int = MAX_BYTES) -> None:
        super().__init__()
        self.limit, self.most_bytes = capacity, most_bytes
        self._used: dict[str, float] = {}
        self._changes = threading.RLock()

    def set_blocks(self, blocks: Blocks) -> None:
        """Serves the sessions of this page."""
        super().set_blocks(blocks)
        self.capacity = self.limit

    def __getitem__(self, session_id: str) -> SessionState:
        with self._changes:
            if session_id not in self.session_data:
                self.session_data[session_id] = VisitorState(self.blocks)
            self._used[session_id] = time.monotonic()
            self.session_data.move_to_end(session_id)
            self.session_data[session_id].is_closed = False
            return self.session_data[session_id]

    def update(self, session_id: str) -> None:
        """Evicts nobody: `admit` has made room."""

    def admit(self, session_id: str) -> bool:
        """True where this session may begin or go on; makes room by dropping sessions in which nothing is kept."""
        with self._changes:
            state = self.session_data.get(session_id)
            if isinstance(state, VisitorState) and not state.is_empty:
                return True
            self._drop(self._expired())
            if self.size >= self.most_bytes:
                return False
            if session_id in self.session_data:
                return True
            if len(self.session_data) >= self.limit:
                self._drop(self._idle()[: len(self.session_data) - self.limit + 1])
            return len(self.session_data) < self.limit

    @property
    def size(self) -> int:
        """Bytes of photos and pictures of all visitors."""
        return sum(state.size for state in self.session_data.values() if isinstance(state, VisitorState))

    def delete_all_expired_state(self) -> None:
        """Drops every session whose time is over, and what waits to be fetched by it; Gradio calls it each second."""
        with self._changes:
            self._drop(self._expired())
            waiting = self.blocks._queue.pending_messages_per_session
            for session_id in [key for key in list(waiting.keys()) if key not in self.session_data]:
                if self._used.setdefault(session_id, time.monotonic()) + KEPT_AFTER_CLOSE < time.monotonic():
                    waiting.pop(session_id, None)
                    self._used.pop(session_id, None)

    def _expired(self) -> list[str]:
        now = time.monotonic()
        life = {True: KEPT_AFTER_CLOSE, False: KEPT_SECONDS}
        sessions = self.session_data.items()
        return [key for key, state in sessions if now - self._used.get(key, now) > life[state.is_closed]]

    def _idle(self) -> list[str]:
        """Sessions in which nothing is kept, those first that were used longest ago."""
        return [key for key, state in self.session_data.items() if isinstance(state, VisitorState) and state.is_empty]

    def _drop(self, session_ids: Iterable[str]) -> None:
        queue = getattr(self.blocks, "_queue", None)
        for session_id in list(session_ids):
            self.session_data.pop(session_id, None)
            self._used.pop(session_id, None)
            if queue is not None:
                queue.pending_messages_per_session.pop(session_id, None)


def size_of(value: Any) -> int:
    """Bytes of the files and arrays in a value; those of small objects do not count."""
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(size_of(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    return 0
