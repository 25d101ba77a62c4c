"""Changes to what is whole: of the bytes of a file, and of the values within a tree of JSON or YAML."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from tests.hostile_texts import TEXTS

Edit = tuple[float, str, bytes]  # place as a share of the length, kind, bytes
Change = tuple[int, str, Any]  # number of the place, kind, value

edits = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from(["flip", "cut", "insert", "zero", "repeat", "large"]), st.binary(max_size=8)
    ),
    min_size=1,
    max_size=6,
)


def mutated(data: bytes, changes: list[Edit]) -> bytes:
    for place, kind, extra in changes:
        at = int(place * len(data))
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (extra[0] if extra else 255)]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + len(extra) * 40 :]
        elif kind == "insert":
            data = data[:at] + extra + data[at:]
        elif kind == "zero":
            data = data[:at] + bytes(len(extra)) + data[at + len(extra) :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + 60] * 3 + data[at:]
        else:
            data = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
    return data


values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(TEXTS)
    | st.lists(st.integers() | st.text(max_size=5), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.integers() | st.none(), max_size=2)
)
changes = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "set", "remove", "rename", "repeat"]), values),
    min_size=1,
    max_size=4,
)


def changed(tree: Any, made: list[Change]) -> Any:
    """A copy of the tree in which values are replaced, removed, renamed or repeated."""
    tree = copy.deepcopy(tree)
    for number, kind, value in made:
        places = _places(tree)
        if not places:
            return value
        owner, key = places[number % len(places)]
        if kind == "remove":
            del owner[key]
        elif kind == "rename" and isinstance(owner, dict):
            owner[value if isinstance(value, str) else str(value)] = owner.pop(key)
        elif kind == "repeat" and isinstance(owner, list):
            owner.insert(key, copy.deepcopy(owner[key]))
        else:
            owner[key] = value
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Each value of a tree by what holds it and its key or index."""
    found: list[tuple[Any, Any]] = []
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            found.append((tree, key))
            found += _places(tree[key])
    return found
