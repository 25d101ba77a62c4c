"""Groups of photos that figures are given for apart, as `evaluate --by` names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from skinclip.evaluation.scores import Row

MIN_GROUP = 20  # photos from which a group has figures; of fewer only their number is given
# ITA classes of Chardon et al. 1991 and Del Bino et al. 2006: lowest angle in degrees, name.
ITA_CLASSES = ((55, "very light"), (41, "light"), (28, "intermediate"), (10, "tan"), (-30, "brown"), (-90, "dark"))
_FITZPATRICK = ("I", "II", "III", "IV", "V", "VI")
_TONES = ("very dark", "dark", "medium dark", "medium", "light", "very light")  # of MILK10k's classes 0 to 5
_AGES = ((0, "under 30"), (30, "30 to 44"), (45, "45 to 59"), (60, "60 to 74"), (75, "75 and over"))


def ita_class(angle: float) -> str | None:
    """The class of an individual typology angle, None where it is not known."""
    return next((name for least, name in ITA_CLASSES if angle >= least), None) if np.isfinite(angle) else None


def _skin_tone(row: Row) -> str | None:
    tone = row.case.skin_tone
    return None if tone is None else f"{tone} ({_TONES[tone]})"


def _fitzpatrick(row: Row) -> str | None:
    skin_type = row.case.fitzpatrick
    return None if skin_type is None else f"type {_FITZPATRICK[skin_type - 1]}"


def _age(row: Row) -> str | None:
    age = row.case.context.age
    return None if age is None else [name for least, name in _AGES if age >= least][-1]


GROUPINGS: dict[str, Callable[[Row], str | None]] = {
    "group": lambda row: row.case.group,
    "skin_tone": _skin_tone,
    "fitzpatrick": _fitzpatrick,
    "ita": lambda row: ita_class(row.ita),
    "kind": lambda row: row.kind or row.case.kind,
    "sex": lambda row: row.case.context.sex,
    "age": _age,
    "site": lambda row: row.case.context.site,
}


def grouped(rows: Sequence[Row], by: str) -> dict[str, list[Row]]:
    """Name of each group -> its rows; rows of which the group is not known are left out."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = GROUPINGS[by](row)
        if name:
            groups.setdefault(name, []).append(row)
    order = [name for _, name in (*reversed(ITA_CLASSES), *_AGES)]
    return {name: groups[name] for name in sorted(groups, key=lambda n: (order.index(n) if n in order else -1, n))}
