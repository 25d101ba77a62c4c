"""A made-up question type and a made-up arm, one entry each, are found on the page, in the tables and in the report."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from skinclip.study.coordinator import Coordinator
from skinclip.study.protocol.arms import ARMS, Arm
from skinclip.study.protocol.checklists import checklist
from skinclip.study.protocol.protocol import Protocol, default_questions
from skinclip.study.protocol.question_types import QUESTION_TYPES, AnswerColumn, QuestionType
from skinclip.study.session.session_service import Study
from skinclip.study.session.view_models import StepView
from skinclip.ui import study_html
from tests.browser import tiny_study
from tests.study import tiny

STARS = QuestionType(
    fields=("points",),
    widget="likert",
    check=lambda scale, value: int(value),
    in_words=lambda scale, value: f"{value} stars",
    column=lambda scale: AnswerColumn("number", f"1 to {scale.points} stars", (1.0, float(scale.points))),
    example=lambda scale, position: 1 + round(position * (scale.points - 1)),
    analysed="rating",
    unit=lambda scale: f"stars, 1-{scale.points}",
    bounds=lambda scale: (1, scale.points),
)
TEXT_ALONE = Arm("text_alone", "Text alone", "the rationale's text without a picture", "#009e73", text="plain")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    """A study with a question of the new type and the new arm as the one of its plan."""
    monkeypatch.setitem(QUESTION_TYPES, "stars", STARS)
    monkeypatch.setitem(ARMS, TEXT_ALONE.key, TEXT_ALONE)
    after = default_questions()["questions"]["after"]
    after = [*after]
    after.append({"key": "liking", "text": "How do you like it?", "scale": {"kind": "stars", "points": 5}})
    plan = tiny.protocol()["plan"]
    for name in ("primary", "safety"):
        plan[name].update(arm="text_alone", reference="grad_cam")
    built = tiny_study.build(
        tmp_path,
        arms=["none", "grad_cam", "text_alone"],
        questions={"after": after},
        plan={**plan, "secondary": ["liking"]},
    )
    with Study.open(built.folder) as opened:
        yield opened


def _finish(study: Study) -> list[StepView]:
    """Every view of three readers who answer everything."""
    views = []
    for one in study.enrol(3, "here"):
        views += [view for view, _ in tiny.session(study, study.sign_in(one.code))]
    return views


def test_one_entry_reaches_page_tables_and_reports(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, always = itertools.cycle((1, 4, 2, 5, 3, 3, 1)), tiny.answer
    monkeypatch.setattr(tiny, "answer", lambda q: next(points) if q.key == "liking" else always(q))
    views = _finish(study)
    shown = [view for view in views if view.kind == "after" and view.aid and view.aid.text and not view.aid.picture]
    assert shown, "nobody saw the new arm"
    asked = {question.key: question for question in shown[0].questions}["liking"]
    assert (asked.kind, asked.field, asked.points) == ("stars", "likert", 5)
    page = study_html.step(shown[0])
    assert "What it says" in page and 'data-key="liking" data-kind="likert"' in page

    coordinator = Coordinator(study)
    coordinator.close("a test")
    written = coordinator.export(tmp_path / "export")
    assert written
    cases = pd.read_csv(tmp_path / "export" / "cases.csv")
    assert set(cases["arm"]) == {"none", "grad_cam", "text_alone"} and set(cases["liking"]) == {1, 2, 3, 4, 5}
    dictionary = pd.read_csv(tmp_path / "export" / "data_dictionary.csv").set_index(["table", "column"])
    entry = dictionary.loc[("cases", "liking")]
    assert (entry["type"], entry["values"], entry["meaning"]) == ("number", "1 to 5 stars", "How do you like it?")

    report = coordinator.analyse(tmp_path / "report")["report.html"].read_text()
    assert "Text alone" in report and "Liking" in report and "stars, 1-5" in report
    assert "the rationale's text without a picture" in checklist("decide_ai", study.protocol)


def test_without_the_entry_the_protocol_names_what_there_is(study: Study) -> None:
    text = study.protocol.to_dict()
    del QUESTION_TYPES["stars"], ARMS["text_alone"]
    with pytest.raises(ValueError, match=r"arms\[2\]: must be one of none, grad_cam, .*not 'text_alone'"):
        Protocol.from_dict(text)
