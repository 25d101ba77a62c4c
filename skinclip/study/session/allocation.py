"""Allocation of cases to arms and order for each reader: pure, seeded, and balanced over readers by construction.

Cases are split into as many lists as there are arms. Over k readers in a row (k arms) a Latin square brings every list,
and so every case, once into every arm; the rows of a balanced square (Williams 1949) put every arm once at every block
position, and every arm once (k even; over 2k readers twice, k odd) right after every other. Which row a reader gets is
drawn within each group of k, so that the order of enrolment does not reveal it.

The square goes round within each site, so that every k readers of a site are balanced however sites take turns; sites
are shifted against each other, so that k sites with a reader each are balanced too.

All drawing is sorting by a digest of seed, purpose and item: the same on every machine, without a generator's state.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

from skinclip.study.errors import AllocationError
from skinclip.study.protocol.arms import explaining
from skinclip.study.protocol.protocol import STRATA, Protocol

T = TypeVar("T")


@dataclass(frozen=True)
class Seat:
    """A reader's place in the square of a site: `site` counts sites from 0 as they join, `place` its readers from 1."""

    site: int
    place: int


@dataclass(frozen=True)
class Presentation:
    """One case shown in one arm.

    `block` counts from 1 in each session; 0 is practice, one more than there are arms are the repeats. `position`
    counts from 1 what the reader has been shown: through all blocks and the repeats of both sessions, and apart from
    that through practice.
    """

    case: str
    arm: str
    block: int
    position: int
    repeat: bool = False
    practice: bool = False
    session: int = 1


@dataclass(frozen=True)
class Pair:
    """One case with the aids of two arms side by side: `side_a` on the left, `side_b` on the right."""

    case: str
    side_a: str
    side_b: str


@dataclass(frozen=True)
class Allocation:
    """All that one reader will be shown, in order: practice, blocks, repeats, blocks of a second session; then pairs.

    `seat` is that of the first site and the reader's number in allocations of before seats were stored.
    """

    reader_number: int
    presentations: tuple[Presentation, ...]
    pairs: tuple[Pair, ...]
    seat: Seat

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the session of a study that has one alone is left out, as before there were two."""
        values = dataclasses.asdict(self)
        if all(p.session == 1 for p in self.presentations):
            for presentation in values["presentations"]:
                del presentation["session"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Allocation:
        """The allocation again. Raises AllocationError for a mapping that `to_dict` cannot have made."""
        try:
            return cls(
                int(values["reader_number"]),
                tuple(Presentation(**p) for p in values["presentations"]),
                tuple(Pair(**p) for p in values["pairs"]),
                _seat(values),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise AllocationError(f"not a stored allocation: {error}") from error


def next_seat(site: str, enrolled: Iterable[tuple[str, Mapping[str, Any]]]) -> Seat:
    """The seat of the next reader of `site`: the first that is free there, so that who withdrew is replaced.

    `enrolled` gives site and stored allocation of everyone who has not withdrawn.
    """
    seats: dict[str, list[Seat]] = {}
    for name, allocation in enrolled:
        seats.setdefault(_plain(name), []).append(_seat(allocation))
    here = seats.get(_plain(site), [])
    taken = {seat.place for seat in here}
    place = next(place for place in range(1, len(taken) + 2) if place not in taken)
    known = {seat.site for others in seats.values() for seat in others}
    return Seat(here[0].site if here else max(known, default=-1) + 1, place)


def same_site(one: str, other: str) -> bool:
    """True where two names are of one site, whatever their capitals and spaces."""
    return _plain(one) == _plain(other)


def _plain(site: str) -> str:
    return " ".join(site.split()).casefold()


def _seat(allocation: Mapping[str, Any]) -> Seat:
    stored = allocation.get("seat")
    return Seat(**stored) if stored else Seat(0, int(allocation["reader_number"]))


def allocate(
    protocol: Protocol,
    case_strata: Mapping[str, str],
    practice: Sequence[str],
    reader_number: int,
    seat: Seat | None = None,
) -> Allocation:
    """The session of reader `reader_number` (1 for the first enrolled, without gaps) on `seat`, of one site by default.

    `case_strata` gives the stratum of each case, in any order; `practice` lists the practice cases. Raises
    AllocationError where they do not fit the protocol.
    """
    _check(protocol, case_strata, practice, reader_number)
    lists, seat = split_cases(protocol, case_strata), seat or Seat(0, reader_number)
    order, rotation = reader_square(protocol, seat)
    draw = _Draw(protocol.seed, reader_number)
    arms = protocol.arms
    main: list[Presentation] = []
    for block, arm in enumerate(order, start=1):
        cases = draw.shuffled(lists[(arms.index(arm) + rotation) % len(arms)], "order", arm)
        main += [Presentation(case, arm, block, len(main) + i) for i, case in enumerate(cases, start=1)]
    repeats = _repeats(protocol, case_strata, main, draw)
    second = _second_session(protocol, lists, seat, draw, len(main) + len(repeats))
    presentations = (*_practice(protocol, practice, rotation, draw), *main, *repeats, *second)
    pairs = _pairs(protocol, case_strata, (*main, *second), repeats, draw)
    return Allocation(reader_number, presentations, pairs, seat)


def _second_session(
    protocol: Protocol, lists: Sequence[Sequence[str]], seat: Seat, draw: _Draw, shown: int
) -> list[Presentation]:
    """Every case again, in another arm than before; nothing without a second session. `shown`: presentations so far.

    Lists move on over the arms by as many places as the group of k readers says. Over k - 1 groups of a site every
    case meets every ordered pair of arms equally often, and within each group every case every arm, as in the first
    session; the blocks come in another row of the square.
    """
    if protocol.second_session is None:
        return []
    arms, k = protocol.arms, len(protocol.arms)
    group = (seat.place - 1) // k
    shift = _Draw(protocol.seed, 0).shuffled(range(1, k), "second session")[(group + seat.site) % (k - 1)]
    order, rotation = reader_square(protocol, seat, later=max(1, k // 2))
    again: list[Presentation] = []
    for block, arm in enumerate(order, start=1):
        cases = draw.shuffled(lists[(arms.index(arm) + rotation + shift) % k], "second order", arm)
        again += [Presentation(case, arm, block, shown + len(again) + i, session=2) for i, case in enumerate(cases, 1)]
    return again


def split_cases(protocol: Protocol, case_strata: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """As many lists of cases as arms, the same for all readers; each stratum differs by at most one between lists."""
    draw = _Draw(protocol.seed, 0)
    lists: list[list[str]] = [[] for _ in protocol.arms]
    dealt = 0  # dealing goes on where the last stratum stopped, so that the lists too differ by at most one
    for stratum in STRATA:
        for case in draw.shuffled((c for c, s in case_strata.items() if s == stratum), "list"):
            lists[dealt % len(lists)].append(case)
            dealt += 1
    return tuple(map(tuple, lists))


def reader_square(protocol: Protocol, seat: Seat, later: int = 0) -> tuple[tuple[str, ...], int]:
    """(order of the arms by block, rotation of case lists over arms) for one reader.

    k readers of a site in a row have the k rotations and k rows of one square; over the groups that follow, every row
    meets every rotation, so that a case list is not tied to a block position either. `later`: so many rows on.
    """
    k, squares = len(protocol.arms), williams(len(protocol.arms))
    group, place = divmod(seat.place - 1, k)
    rotation = _Draw(protocol.seed, 0).shuffled(range(k), "group", str(group))[(place + seat.site) % k]
    row = squares[group % len(squares)][(rotation + group // len(squares) + later) % k]
    arms = _Draw(protocol.seed, 0).shuffled(protocol.arms, "square")
    return tuple(arms[i] for i in row), rotation


def williams(k: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Balanced squares for k treatments: one for even k, a mirrored pair for odd k; rows are orders of 0..k-1.

    Within them every treatment comes right after every other equally often, and once at each place of each square.
    Source: Williams, Aust J Sci Res A 2:149-168 (1949).

    >>> williams(4)[0]
    ((0, 1, 3, 2), (1, 2, 0, 3), (2, 3, 1, 0), (3, 0, 2, 1))
    """
    first = [(i + 1) // 2 if i % 2 else (k - i // 2) % k for i in range(k)]  # 0, 1, k-1, 2, k-2, ...
    square = tuple(tuple((start + row) % k for start in first) for row in range(k))
    return (square,) if k % 2 == 0 else (square, tuple(row[::-1] for row in square))


def _practice(protocol: Protocol, practice: Sequence[str], rotation: int, draw: _Draw) -> tuple[Presentation, ...]:
    """Practice cases under arms that rotate: over k readers of a site each gets its feedback once in every arm."""
    arms = protocol.arms
    arm = {case: arms[(i + rotation) % len(arms)] for i, case in enumerate(practice)}
    cases = draw.shuffled(practice, "practice")
    return tuple(Presentation(case, arm[case], 0, i, practice=True) for i, case in enumerate(cases, start=1))


def _repeats(
    protocol: Protocol, case_strata: Mapping[str, str], main: Sequence[Presentation], draw: _Draw
) -> tuple[Presentation, ...]:
    """Cases shown once more in the arm of the first time, evenly from the blocks that lie before the washout."""
    early = [
        p for p in main if p.position <= len(main) - protocol.washout.presentations and case_strata[p.case] != "ood"
    ]
    by_block: dict[int, list[Presentation]] = {}
    for p in draw.shuffled(early, "repeats"):
        by_block.setdefault(p.block, []).append(p)
    ranked = [(turn, p) for block in by_block.values() for turn, p in enumerate(block)]
    chosen = [p for _, p in sorted(ranked, key=lambda ranked_p: ranked_p[0])[: protocol.cases.repeats]]
    block = len(protocol.arms) + 1
    return tuple(
        dataclasses.replace(p, block=block, position=len(main) + i, repeat=True)
        for i, p in enumerate(draw.shuffled(chosen, "repeat order"), start=1)
    )


def _pairs(
    protocol: Protocol,
    case_strata: Mapping[str, str],
    main: Sequence[Presentation],
    repeats: Sequence[Presentation],
    draw: _Draw,
) -> tuple[Pair, ...]:
    """Pairs on cases of their own, in-distribution and not repeated, on random sides.

    A case is preferred whose aid the reader has seen in neither of the two arms, so that familiarity does not choose.
    """
    repeated, seen = {p.case for p in repeats}, dict[str, set[str]]()
    for p in main:
        seen.setdefault(p.case, set()).add(p.arm)
    free = draw.shuffled((case for case in seen if case_strata[case] != "ood" and case not in repeated), "pairs")
    pairs = []
    for i, arms in enumerate(_contrasts(protocol, draw.reader)):
        chosen = min(free, key=lambda case: len(seen[case].intersection(arms)))
        free.remove(chosen)
        first, second = arms
        # Sides alternate within a reader from a drawn start: near half and half for each, and over all readers.
        if (i + draw.coin("side", *sorted(arms))) % 2:
            first, second = second, first
        pairs.append(Pair(chosen, first, second))
    return tuple(draw.shuffled(pairs, "pair order"))


def _contrasts(protocol: Protocol, reader: int) -> list[tuple[str, str]]:
    """The arms of each pair: at least half compare the arms of the primary contrast, the others rotate over readers.

    The question of the study gets the most answers; the other pairs connect all aids, without which Bradley-Terry
    strengths could not be estimated. The arm `none` has nothing to be shown side by side.
    """
    aids = explaining(protocol.arms)
    primary = {protocol.plan.primary.arm, protocol.plan.primary.reference}
    every = list(combinations(aids, 2))
    main = [pair for pair in every if set(pair) == primary]
    others = [pair for pair in every if set(pair) != primary]
    n = protocol.cases.preference_pairs
    n_main = n if not others else 0 if not main else (n + 1) // 2
    first = (reader - 1) * (n - n_main)
    return main * n_main + [others[(first + i) % len(others)] for i in range(n - n_main)]


class _Draw:
    """Random choices of one reader (0: those shared by all), each a function of its purpose alone."""

    def __init__(self, seed: int, reader: int) -> None:
        self.seed, self.reader = seed, reader

    def shuffled(self, items: Iterable[T], *purpose: str) -> list[T]:
        """The items in random order, whatever the order in which they come."""
        return sorted(items, key=lambda item: self._digest(*purpose, str(getattr(item, "case", item))))

    def coin(self, *purpose: str) -> int:
        return self._digest(*purpose)[0] % 2

    def _digest(self, *words: str) -> bytes:
        return hashlib.sha256("\n".join((str(self.seed), str(self.reader), *words)).encode()).digest()


def _check(protocol: Protocol, case_strata: Mapping[str, str], practice: Sequence[str], reader_number: int) -> None:
    cases = protocol.cases
    if reader_number < 1:
        raise AllocationError(f"reader numbers begin at 1, not {reader_number}")
    unknown = sorted(set(case_strata.values()) - set(STRATA))
    if unknown:
        raise AllocationError(f"unknown strata {', '.join(unknown)}; a case is {', '.join(STRATA)}")
    # The plan's weights, repeats and pairs all rest on these counts.
    for stratum, planned in cases.counts.items():
        built = sum(s == stratum for s in case_strata.values())
        if built != planned:
            raise AllocationError(f"the bundle has {built} cases of stratum {stratum!r}, the protocol says {planned}")
    if len(set(practice)) != cases.practice or len(practice) != cases.practice:
        raise AllocationError(f"the bundle has {len(set(practice))} practice cases, the protocol says {cases.practice}")
    both = sorted(set(practice) & set(case_strata))
    if both:
        raise AllocationError(f"{', '.join(both)}: a practice case must not be among the cases")
