"""Balance over readers, proven by counting: 1,000 readers of the default study, whole squares of 2 to 6 arms."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from itertools import combinations, pairwise

import pytest

from skinclip.study.errors import AllocationError
from skinclip.study.protocol.protocol import Primary, Protocol
from skinclip.study.session.allocation import Allocation, Seat, allocate, next_seat, split_cases, williams

READERS = 1000
PRACTICE = ("P01", "P02", "P03", "P04")


def strata(protocol: Protocol) -> dict[str, str]:
    names = [stratum for stratum, count in protocol.cases.counts.items() for _ in range(count)]
    return {f"C{i:03d}": stratum for i, stratum in enumerate(names, start=1)}


def order_of_arms(allocation: Allocation, k: int) -> list[str]:
    return [next(p.arm for p in allocation.presentations if p.block == block) for block in range(1, k + 1)]


def with_arms(protocol: Protocol, k: int) -> Protocol:
    """The default study with k arms, as the design would have to serve them, though no such arm can be shown yet."""
    arms = (*protocol.arms, "fifth", "sixth")[-k:] if k > 4 else protocol.arms[4 - k :]
    primary = dataclasses.replace(protocol.plan.primary, arm=arms[-1], reference=arms[-2])
    return dataclasses.replace(protocol, arms=arms, plan=dataclasses.replace(protocol.plan, primary=primary))


@pytest.fixture(scope="module")
def sessions(trust_study: Protocol) -> list[Allocation]:
    return [allocate(trust_study, strata(trust_study), PRACTICE, r) for r in range(1, READERS + 1)]


def test_each_reader_sees_each_case_once_in_one_block_an_arm(trust_study: Protocol, sessions: list[Allocation]) -> None:
    for session in sessions:
        main = [p for p in session.presentations if not p.practice and not p.repeat]
        assert sorted(p.case for p in main) == sorted(strata(trust_study))
        assert [p.block for p in main] == sorted(p.block for p in main)
        assert len({(p.block, p.arm) for p in main}) == 4 == len({p.arm for p in main})
        assert set(Counter(p.arm for p in main).values()) == {15}
        assert [p.position for p in session.presentations if not p.practice] == list(range(1, 67))


def test_each_case_is_met_equally_often_in_each_arm(trust_study: Protocol, sessions: list[Allocation]) -> None:
    met = Counter((p.case, p.arm) for s in sessions for p in s.presentations if not p.practice and not p.repeat)
    assert len(met) == 60 * 4 and set(met.values()) == {READERS // 4}


def test_any_four_readers_in_a_row_are_balanced_already(sessions: list[Allocation]) -> None:
    for start in range(0, READERS, 4):
        group = sessions[start : start + 4]
        met = Counter((p.case, p.arm) for s in group for p in s.presentations if not p.practice and not p.repeat)
        assert set(met.values()) == {1} and len(met) == 240
        blocks = Counter((i, arm) for s in group for i, arm in enumerate(order_of_arms(s, 4)))
        assert set(blocks.values()) == {1} and len(blocks) == 16


def test_arms_are_equally_often_at_each_block_position_and_after_each_other(sessions: list[Allocation]) -> None:
    orders = [order_of_arms(s, 4) for s in sessions]
    positions = Counter((i, arm) for order in orders for i, arm in enumerate(order))
    successors = Counter(pair for order in orders for pair in pairwise(order))
    assert len(positions) == 16 and set(positions.values()) == {READERS // 4}
    assert len(successors) == 12 and set(successors.values()) == {READERS * 3 // 12}


def test_no_case_list_is_tied_to_a_block_position(trust_study: Protocol, sessions: list[Allocation]) -> None:
    place = Counter(
        (p.case, p.block) for s in sessions[:992] for p in s.presentations if not p.practice and not p.repeat
    )
    assert set(place.values()) == {992 // 4}  # 62 whole rounds of 16 readers


# --- several sites ---

SITES = ("Graz", "Wien", "Linz", "Bern", "Ulm")


@pytest.fixture(scope="module")
def at_sites(trust_study: Protocol) -> list[tuple[str, Allocation]]:
    """1,000 readers of five sites of unequal size, enrolled in any order."""
    rng, cases = random.Random(5), strata(trust_study)
    enrolled: list[tuple[str, Allocation]] = []
    seats: list[tuple[str, dict]] = []
    for number in range(1, READERS + 1):
        (site,) = rng.choices(SITES, weights=(8, 4, 2, 2, 1))
        seat = next_seat(site, seats)
        enrolled.append((site, allocate(trust_study, cases, PRACTICE, number, seat)))
        seats.append((site, {"seat": dataclasses.asdict(seat)}))
    return enrolled


def test_any_four_readers_of_a_site_in_a_row_are_balanced(at_sites: list[tuple[str, Allocation]]) -> None:
    for site in SITES:
        here = [session for name, session in at_sites if name == site]
        assert len(here) > 30
        for start in range(0, len(here) // 4 * 4, 4):
            group = here[start : start + 4]
            met = Counter((p.case, p.arm) for s in group for p in s.presentations if not p.practice and not p.repeat)
            assert set(met.values()) == {1} and len(met) == 240
            blocks = Counter((i, arm) for s in group for i, arm in enumerate(order_of_arms(s, 4)))
            assert set(blocks.values()) == {1} and len(blocks) == 16
            practice = Counter((p.case, p.arm) for s in group for p in s.presentations if p.practice)
            assert set(practice.values()) == {1}


def test_all_sites_together_are_as_balanced_as_their_last_groups_allow(at_sites: list[tuple[str, Allocation]]) -> None:
    sessions = [session for _, session in at_sites]
    met = Counter((p.case, p.arm) for s in sessions for p in s.presentations if not p.practice and not p.repeat)
    assert len(met) == 240 and max(met.values()) - min(met.values()) <= len(SITES)
    orders = [order_of_arms(s, 4) for s in sessions]
    successors = Counter(pair for order in orders for pair in pairwise(order))
    assert len(successors) == 12 and max(successors.values()) - min(successors.values()) <= len(SITES)
    places = Counter((p.case, p.block) for s in sessions for p in s.presentations if not p.practice and not p.repeat)
    assert max(places.values()) - min(places.values()) <= 4 * len(SITES)


def test_four_sites_with_one_reader_each_are_balanced(trust_study: Protocol) -> None:
    cases = strata(trust_study)
    group = [allocate(trust_study, cases, PRACTICE, n, Seat(n - 1, 1)) for n in range(1, 5)]
    met = Counter((p.case, p.arm) for s in group for p in s.presentations if not p.practice and not p.repeat)
    assert set(met.values()) == {1} and len(met) == 240


def test_one_site_is_allocated_as_before_there_were_seats(trust_study: Protocol, sessions: list[Allocation]) -> None:
    seated = [allocate(trust_study, strata(trust_study), PRACTICE, n, Seat(0, n)) for n in range(1, 20)]
    assert seated == sessions[:19]


def test_seats_are_filled_in_order_and_free_ones_first() -> None:
    def taken(*seats: tuple[str, int, int]) -> list[tuple[str, dict]]:
        return [(name, {"seat": {"site": site, "place": place}}) for name, site, place in seats]

    assert next_seat("Graz", []) == Seat(0, 1)
    assert next_seat("Wien", taken(("Graz", 0, 1))) == Seat(1, 1)
    assert next_seat(" graz ", taken(("Graz", 0, 1), ("Wien", 1, 1))) == Seat(0, 2)
    assert next_seat("Graz", taken(("Graz", 0, 1), ("Graz", 0, 3), ("Wien", 1, 1))) == Seat(0, 2)  # 2 has withdrawn
    assert next_seat("Linz", taken(("Wien", 1, 1))) == Seat(
        2, 1
    )  # Graz has no reader any more; its square is not mixed


def test_allocations_stored_before_there_were_seats_stay_valid(sessions: list[Allocation]) -> None:
    old = json.loads(json.dumps(sessions[6].to_dict()))
    del old["seat"]
    assert Allocation.from_dict(old) == sessions[6]
    assert next_seat("Graz", [("Graz", old)]) == Seat(0, 1)
    earlier = [{**old, "reader_number": number} for number in (1, 2, 3)]
    assert next_seat("Graz", [("Graz", one) for one in earlier]) == Seat(0, 4)


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_whole_rounds_balance_for_two_to_six_arms(k: int, trust_study: Protocol) -> None:
    protocol = with_arms(trust_study, k)
    sessions = [allocate(protocol, strata(protocol), PRACTICE, r) for r in range(1, 2 * k * k + 1)]
    n = len(sessions)
    met = Counter((p.case, p.arm) for s in sessions for p in s.presentations if not p.practice and not p.repeat)
    assert len(met) == 60 * k and set(met.values()) == {n // k}
    orders = [order_of_arms(s, k) for s in sessions]
    positions = Counter((i, arm) for order in orders for i, arm in enumerate(order))
    assert len(positions) == k * k and set(positions.values()) == {n // k}
    successors = Counter(pair for order in orders for pair in pairwise(order))
    assert len(successors) == k * (k - 1) and set(successors.values()) == {n * (k - 1) // (k * (k - 1))}
    place = Counter((p.case, p.block) for s in sessions for p in s.presentations if not p.practice and not p.repeat)
    assert set(place.values()) == {n // k}


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_strata_differ_by_at_most_one_between_lists(k: int, trust_study: Protocol) -> None:
    protocol = with_arms(trust_study, k)
    cases = strata(protocol)
    lists = split_cases(protocol, cases)
    assert sorted(case for part in lists for case in part) == sorted(cases)
    for stratum in (None, "right", "wrong", "ood"):
        sizes = [sum(stratum in (None, cases[case]) for case in part) for part in lists]
        assert max(sizes) - min(sizes) <= 1


def test_repeats_keep_their_arm_and_come_after_the_washout(trust_study: Protocol, sessions: list[Allocation]) -> None:
    cases, arms = strata(trust_study), Counter()
    for session in sessions:
        first = {p.case: p for p in session.presentations if not p.practice and not p.repeat}
        repeats = [p for p in session.presentations if p.repeat]
        assert len({p.case for p in repeats}) == len(repeats) == 6
        for p in repeats:
            assert p.arm == first[p.case].arm and p.block == 5 and cases[p.case] != "ood"
            assert p.position - first[p.case].position - 1 >= trust_study.washout.presentations
            arms[p.arm] += 1
    # The last block lies within the washout, and which arm is last rotates: over readers all arms are retested.
    assert max(arms.values()) - min(arms.values()) <= 0.02 * sum(arms.values())


def test_practice_is_apart_from_the_cases_and_balanced_over_arms(sessions: list[Allocation]) -> None:
    met: Counter = Counter()
    for session in sessions:
        practice = [p for p in session.presentations if p.practice]
        assert session.presentations[: len(practice)] == tuple(practice)
        assert sorted(p.case for p in practice) == list(PRACTICE)
        assert all(p.block == 0 and not p.repeat for p in practice)
        assert not {p.case for p in practice} & {p.case for p in session.presentations if not p.practice}
        met.update((p.case, p.arm) for p in practice)
    assert len(met) == 16 and set(met.values()) == {READERS // 4}


def test_pairs_compare_the_primary_contrast_half_the_time_on_random_sides(
    trust_study: Protocol, sessions: list[Allocation]
) -> None:
    contrasts: Counter = Counter()
    sides: Counter = Counter()
    for session in sessions:
        repeated = {p.case for p in session.presentations if p.repeat}
        seen = {p.case: p.arm for p in session.presentations if not p.practice}
        assert len({pair.case for pair in session.pairs}) == len(session.pairs) == 6
        for pair in session.pairs:
            assert pair.case not in repeated and strata(trust_study)[pair.case] != "ood"
            assert seen[pair.case] not in (pair.side_a, pair.side_b)
            contrasts[frozenset((pair.side_a, pair.side_b))] += 1
            sides[pair.side_a, pair.side_b] += 1
    primary = frozenset(("grad_cam", "regions"))
    assert contrasts[primary] == 3 * READERS
    others = [n for arms, n in contrasts.items() if arms != primary]
    assert len(others) == 2 and max(others) - min(others) <= 1
    for a, b in combinations(("grad_cam", "grad_cam_text", "regions"), 2):
        assert abs(sides[a, b] / (sides[a, b] + sides[b, a]) - 0.5) < 0.03


def test_a_contrast_with_no_explanation_leaves_pairs_among_the_aids(trust_study: Protocol) -> None:
    plan = dataclasses.replace(trust_study.plan, primary=Primary("trust", "regions", "none", 0.3))
    protocol = dataclasses.replace(trust_study, plan=plan)
    session = allocate(protocol, strata(protocol), PRACTICE, 1)
    assert len(session.pairs) == 6
    assert not any("none" in (p.side_a, p.side_b) for p in session.pairs)


def test_the_same_reader_again_is_the_same_and_another_is_not(trust_study: Protocol) -> None:
    cases = strata(trust_study)
    session = allocate(trust_study, cases, PRACTICE, 7)
    shuffled = dict(reversed(cases.items()))
    assert allocate(trust_study, shuffled, PRACTICE, 7) == session
    others = [allocate(trust_study, cases, PRACTICE, r) for r in range(8, 40)]
    orders = {tuple(p.case for p in s.presentations) for s in (session, *others)}
    assert len(orders) == 33
    assert allocate(dataclasses.replace(trust_study, seed=1), cases, PRACTICE, 7) != session


def test_an_allocation_is_stored_as_json(sessions: list[Allocation]) -> None:
    assert Allocation.from_dict(json.loads(json.dumps(sessions[0].to_dict()))) == sessions[0]
    with pytest.raises(AllocationError, match="not a stored allocation"):
        Allocation.from_dict({"presentations": []})


def test_without_repeats_pairs_and_practice(trust_study: Protocol) -> None:
    plan = dataclasses.replace(trust_study.cases, repeat_share=0.0, preference_pairs=0, practice=0)
    session = allocate(dataclasses.replace(trust_study, cases=plan), strata(trust_study), (), 1)
    assert len(session.presentations) == 60 and session.pairs == ()


def test_williams_squares_by_hand() -> None:
    assert williams(2) == (((0, 1), (1, 0)),)
    assert williams(3) == (((0, 1, 2), (1, 2, 0), (2, 0, 1)), ((2, 1, 0), (0, 2, 1), (1, 0, 2)))


def test_cases_that_do_not_fit_the_protocol(trust_study: Protocol) -> None:
    cases = strata(trust_study)
    with pytest.raises(AllocationError, match="the bundle has 33 cases of stratum 'right', the protocol says 34"):
        allocate(trust_study, {k: v for k, v in cases.items() if k != "C001"}, PRACTICE, 1)
    with pytest.raises(AllocationError, match="unknown strata easy"):
        allocate(trust_study, cases | {"C001": "easy"}, PRACTICE, 1)
    with pytest.raises(AllocationError, match="the bundle has 3 practice cases, the protocol says 4"):
        allocate(trust_study, cases, PRACTICE[:3], 1)
    with pytest.raises(AllocationError, match="C001: a practice case must not be among the cases"):
        allocate(trust_study, cases, ("C001", *PRACTICE[1:]), 1)
    with pytest.raises(AllocationError, match="begin at 1"):
        allocate(trust_study, cases, PRACTICE, 0)
