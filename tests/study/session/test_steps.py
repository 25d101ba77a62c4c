"""The steps of a session: a pure function of protocol and allocation, named by position alone."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from skinclip.study.errors import AnswerError
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.allocation import Allocation, allocate
from skinclip.study.session.steps import check, session_steps


@pytest.fixture(scope="module")
def allocation(trust_study: Protocol) -> Allocation:
    strata = [s for s, n in trust_study.cases.counts.items() for _ in range(n)]
    cases = {f"C{i:03d}": stratum for i, stratum in enumerate(strata, start=1)}
    return allocate(trust_study, cases, ["P01", "P02", "P03", "P04"], 1)


def test_a_session_has_its_steps_in_order(trust_study: Protocol, allocation: Allocation) -> None:
    steps = session_steps(trust_study, allocation)
    kinds = [step.kind for step in steps]
    assert kinds[:3] == ["consent", "instructions", "background"]
    assert kinds[3:15] == ["before", "after", "feedback"] * 4
    assert kinds[15:45] == ["before", "after"] * 15
    assert kinds[45] == "block"
    assert kinds.count("block") == 4
    assert kinds.count("before") == kinds.count("after") == 4 + 60 + 6
    assert kinds[-7:] == ["preference"] * 6 + ["debrief"]
    assert [step.name for step in steps] == [f"s{i:03d}" for i in range(1, len(steps) + 1)]


def test_each_unaided_step_is_followed_by_its_own_aided_one(trust_study: Protocol, allocation: Allocation) -> None:
    for first, second in pairwise(session_steps(trust_study, allocation)):
        if first.kind == "before":
            assert second.kind == "after"
            assert second.presentation == first.presentation


def test_the_scales_follow_the_block_of_their_arm(trust_study: Protocol, allocation: Allocation) -> None:
    for before, block in pairwise(session_steps(trust_study, allocation)):
        if block.kind == "block":
            assert before.presentation is not None
            assert block.arm == before.presentation.arm


def test_titles_tell_no_arm(trust_study: Protocol, allocation: Allocation) -> None:
    steps = session_steps(trust_study, allocation)
    one_arm = dataclasses.replace(
        allocation, presentations=tuple(dataclasses.replace(p, arm="none") for p in allocation.presentations)
    )
    assert [s.title for s in steps] == [s.title for s in session_steps(trust_study, one_arm)]


def test_titles_count_the_cases_of_the_study_apart_from_practice_and_closing(
    trust_study: Protocol, allocation: Allocation
) -> None:
    titles = [s.title for s in session_steps(trust_study, allocation) if s.kind == "before"]
    practice, repeats = trust_study.cases.practice, trust_study.cases.repeats
    assert titles[0] == f"Practice 1 of {practice}"
    assert titles[practice] == "Photo 1 of 60" and titles[practice + 59] == "Photo 60 of 60"
    assert titles[-repeats] == f"Closing photo 1 of {repeats}" and titles[-1] == f"Closing photo {repeats} of {repeats}"
    assert not any("repeat" in title.lower() or "again" in title.lower() for title in titles)


def test_a_step_that_asks_nothing_takes_no_answers(trust_study: Protocol, allocation: Allocation) -> None:
    instructions = session_steps(trust_study, allocation)[1]
    assert check(trust_study, instructions, {}) == {}
    with pytest.raises(AnswerError, match="nothing is asked"):
        check(trust_study, instructions, {"diagnosis": "mel"})


@pytest.mark.parametrize("answers", [{}, {"consent": False}, {"consent": "yes"}, {"consent": 1}])
def test_without_consent_nothing_begins(trust_study: Protocol, allocation: Allocation, answers: dict) -> None:
    with pytest.raises(AnswerError, match="without your agreement"):
        check(trust_study, session_steps(trust_study, allocation)[0], answers)
