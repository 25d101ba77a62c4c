"""A second session: each case again in another arm, balanced over readers, open once the washout is over."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import permutations
from pathlib import Path

import pandas as pd
import pytest

from skinclip.study.analysis import analysis_plan, statistics
from skinclip.study.coordinator import Coordinator
from skinclip.study.errors import ProtocolError, StudyRequestError
from skinclip.study.letters import write_reminders
from skinclip.study.protocol.model import SecondSession
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.allocation import Allocation, Presentation, Seat, allocate
from skinclip.study.session.session_service import Study
from skinclip.study.session.steps import session_steps
from skinclip.study.session.texts import texts_of
from tests.study import tiny
from tests.study.session.test_allocation import PRACTICE, order_of_arms, strata, with_arms
from tests.study.session.test_session_service import Clock

DAYS = 28


def crossover(protocol: Protocol) -> Protocol:
    return dataclasses.replace(protocol, second_session=SecondSession(DAYS))


def parts(allocation: Allocation) -> tuple[list[Presentation], list[Presentation]]:
    main = [p for p in allocation.presentations if not p.practice and not p.repeat]
    return [p for p in main if p.session == 1], [p for p in main if p.session == 2]


# --- the protocol and its hash ------------------------------------------------------------------------------------


def test_without_the_option_nothing_changes(trust_study: Protocol) -> None:
    assert trust_study.second_session is None and "second_session" not in trust_study.to_dict()
    assert crossover(trust_study).plan_sha256 != trust_study.plan_sha256
    plain = allocate(trust_study, strata(trust_study), PRACTICE, 5)
    first = allocate(crossover(trust_study), strata(trust_study), PRACTICE, 5)
    assert [p for p in first.presentations if p.session == 1] == list(plain.presentations)
    assert all("session" not in p for p in plain.to_dict()["presentations"])
    assert Allocation.from_dict(plain.to_dict()) == plain and Allocation.from_dict(first.to_dict()) == first


@pytest.mark.parametrize("given", [{"days": 0}, {"days": 1000}, {"days": 2.5}, {}, {"day": 28}, 28])
def test_what_is_no_washout_is_refused_by_name(given: object) -> None:
    with pytest.raises(ProtocolError, match="second_session"):
        Protocol.from_dict(tiny.protocol(second_session=given))
    assert Protocol.from_dict(tiny.protocol(second_session=None)).sessions == 1


def test_the_texts_speak_of_it(trust_study: Protocol) -> None:
    assert "second session" not in texts_of(trust_study).instructions
    for language, words in (("en", "at least 28 days"), ("de", "frühestens 28 Tage"), ("es", "al menos 28 días")):
        assert words in texts_of(crossover(trust_study), language).instructions


# --- allocation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_each_case_meets_each_pair_of_arms_equally_often(trust_study: Protocol, k: int) -> None:
    protocol = crossover(with_arms(trust_study, k))
    readers = [allocate(protocol, strata(protocol), PRACTICE, r) for r in range(1, k * (k - 1) + 1)]
    pairs, places = Counter[tuple[str, str, str]](), Counter[tuple[int, str]]()
    for reader in readers:
        first, second = parts(reader)
        before = {p.case: p.arm for p in first}
        assert sorted(before) == sorted(p.case for p in second) and len(second) == len(first)
        pairs.update((p.case, before[p.case], p.arm) for p in second)
        places.update({(p.block, p.arm) for p in second})
        assert [p.position for p in reader.presentations if not p.practice] == list(range(1, 2 * 60 + 6 + 1))
    assert set(pairs.values()) == {1} and len(pairs) == 60 * k * (k - 1)
    assert {(a, b) for _, a, b in pairs} == set(permutations(protocol.arms, 2))
    assert set(places.values()) == {k - 1} and len(places) == k * k


def test_each_group_of_a_site_is_balanced_in_both_sessions(trust_study: Protocol) -> None:
    protocol = crossover(trust_study)
    for site in (0, 3):
        group = [allocate(protocol, strata(protocol), PRACTICE, 9 + i, Seat(site, i)) for i in range(1, 5)]
        met = Counter((p.case, p.arm) for reader in group for p in parts(reader)[1])
        assert set(met.values()) == {1} and len(met) == 240
        assert all(order_of_arms(reader, 4) != [p.arm for p in parts(reader)[1][::15]] for reader in group)


def test_pairs_come_after_both_sessions_and_avoid_arms_that_were_seen(trust_study: Protocol) -> None:
    allocation = allocate(crossover(trust_study), strata(trust_study), PRACTICE, 3)
    steps = session_steps(crossover(trust_study), allocation)
    kinds = [step.kind for step in steps]
    assert kinds.index("preference") > max(i for i, kind in enumerate(kinds) if kind == "after")
    assert kinds.count("block") == 4, "the scales are asked in the first session"
    seen = {case: {p.arm for p in allocation.presentations if p.case == case} for case in strata(trust_study)}
    assert all(len(seen[pair.case] & {pair.side_a, pair.side_b}) < 2 for pair in allocation.pairs)
    titles = [str(step.title) for step in steps if step.kind == "before"]
    assert titles[4] == "Photo 1 of 120" and titles[64] == "Closing photo 1 of 6" and titles[-1] == "Photo 120 of 120"


# --- conduct ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def study(study_folder: Path, clock: Clock) -> Iterator[Study]:
    tiny.write_protocol(study_folder / "protocol.yaml", second_session={"days": DAYS})
    with Study.open(study_folder, clock=clock) as opened:
        yield opened


def test_the_second_session_opens_after_the_washout_and_not_before(study: Study, clock: Clock, tmp_path: Path) -> None:
    one = study.enrol(1, "Here")[0]
    token = study.sign_in(one.code)
    *_, (pause, _) = tiny.session(study, token)
    assert pause.kind == "pause" and "22 December 2026, 09:00 UTC" in pause.text and pause.wait == DAYS * 86_400
    row = Coordinator(study).status()[0]
    assert (row.state, row.cases, row.cases_total) == ("in progress", 8, 16) and row.opens_at.startswith(
        "2026-12-22T09"
    )
    assert write_reminders(study, tmp_path, "https://study.example/") == [], "nobody is reminded of what is not open"
    clock.forward(days=DAYS, seconds=-1)
    token = study.sign_in(one.code)
    with pytest.raises(StudyRequestError, match="not open yet"):
        study.submit(token, pause.step, {"diagnosis": "mel", "confidence": 50, "act": True}, "early")
    clock.forward(seconds=1)
    view = study.view(token)
    assert (view.kind, view.step) == ("before", pause.step) and Coordinator(study).status()[0].opens_at == ""
    *_, (done, _) = tiny.session(study, token)
    assert done.kind == "done" and Coordinator(study).status()[0].state == "completed"


def test_a_clock_that_goes_back_closes_it_again_and_shortened_washouts_are_flagged(study: Study, clock: Clock) -> None:
    two = study.enrol(2, "Here")
    for one in two:
        list(tiny.session(study, study.sign_in(one.code)))
    began = clock.now
    clock.forward(days=40)  # a wrong clock: the second session begins at once
    early = study.sign_in(two[0].code)
    list(tiny.session(study, early, lambda view: len(study.session_state("R001").answered) > 40))
    assert study.view(study.sign_in(two[1].code)).kind == "before"
    clock.now = began + (datetime(2026, 11, 25) - datetime(2026, 11, 24))  # set right: one day after
    assert study.view(study.sign_in(two[1].code)).kind == "pause"
    audit = Coordinator(study).audit()
    assert not audit.problems and any(warning.kind == "clock" for warning in audit.warnings)


def test_a_clock_that_was_ahead_leaves_no_wait_beyond_the_washout(study: Study, clock: Clock) -> None:
    one = study.enrol(1, "Here")[0]
    began = clock.now
    clock.forward(days=365)  # a wrong clock, under which the whole first session is answered
    list(tiny.session(study, study.sign_in(one.code)))
    clock.now = began
    clock.forward(days=1)  # set right
    view = study.view(study.sign_in(one.code))
    assert view.kind == "pause" and view.wait == DAYS * 86_400, "from the sign-in, the first thing known of its time"
    clock.forward(days=DAYS)
    assert study.view(study.sign_in(one.code)).kind == "before"


def test_export_and_analysis_know_the_sessions(study: Study, clock: Clock, tmp_path: Path) -> None:
    for one in study.enrol(4, "Here"):
        token = study.sign_in(one.code)
        list(tiny.session(study, token))
    clock.forward(days=DAYS + 3)
    for reader in ("R001", "R002", "R003"):
        list(tiny.session(study, study.sign_in(study.renew_code(reader).code)))
    desk = Coordinator(study)
    desk.close()
    tables = desk.tables()
    main = tables.cases[~tables.cases["repeat"]]
    assert main.groupby(["reader", "session"]).size().to_dict() == {
        ("R001", 1): 8, ("R001", 2): 8, ("R002", 1): 8, ("R002", 2): 8, ("R003", 1): 8, ("R003", 2): 8, ("R004", 1): 8,
    }  # fmt: skip
    assert main.groupby(["reader", "case"])["arm"].nunique().max() == 2
    days = tables.readers.set_index("reader")["washout_days"]
    assert days[["R001", "R002", "R003"]].tolist() == [31.0] * 3 and pd.isna(days["R004"])
    files = {path.name for path in desk.export(tmp_path / "export")}
    assert {"study.odm.xml", "redcap_data.csv", "cases.csv"} <= files
    plan = analysis_plan.from_protocol(study.protocol)
    assert (plan.cases, plan.washout_days) == (16, DAYS)
    assert statistics.completers(tables, plan) == {"R001", "R002", "R003"}
    assert "First session alone" in {row["analysis"] for row in statistics.sensitivity(tables, plan)}
