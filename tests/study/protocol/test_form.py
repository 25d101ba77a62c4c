"""The protocol's form: it has the protocol's own bounds, loses nothing of a file, and names a problem by its label."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from skinclip.study.errors import ProtocolError
from skinclip.study.protocol import form
from skinclip.study.protocol.protocol import Protocol
from tests.study import tiny


def read(document: dict[str, Any], folder: Path) -> Protocol:
    path = folder / "form.yaml"
    path.write_text(form.as_yaml(document), encoding="utf-8")
    return Protocol.read(path)


def test_the_default_protocol_goes_through_the_form_unchanged(trust_study: Protocol, tmp_path: Path) -> None:
    document = form.new_document("mine")
    again = read(form.with_values(document, form.form_values(document)), tmp_path)
    same = dataclasses.replace(again, key=trust_study.key, seed=trust_study.seed)
    assert same == trust_study and same.plan_sha256 == trust_study.plan_sha256


def test_what_the_form_does_not_have_stays(tmp_path: Path) -> None:
    document = tiny.protocol(questions={"background": tiny.default_questions("background")[:1]})
    changed = form.with_values(document, {**form.form_values(document), "title": "Another"})
    protocol = read(changed, tmp_path)
    assert protocol.title == "Another" and len(protocol.questions["background"]) == 1
    assert document["title"] != "Another", "the document that was given is not changed"


def test_bounds_are_those_of_the_protocol() -> None:
    fields = {field.path: field for field in form.form_fields()}
    assert (fields["cases.n"].kind, fields["cases.n"].low, fields["cases.n"].high) == ("whole", 2, 2000)
    assert (fields["plan.safety.margin"].kind, fields["plan.safety.margin"].high) == ("number", 0.5)
    assert fields["rehearsal"].kind == "flag" and fields["ethics.consent_text"].kind == "long_text"
    assert len(fields) == len(form.form_fields()), "no field twice"
    assert all(field.label and field.help for field in form.form_fields())


def test_every_field_of_a_protocol_but_its_own_words_is_in_the_form() -> None:
    elsewhere = {"key", "questions", "texts", "translations", "plan.contrasts", "plan.safety.endpoint"}

    def paths(values: dict[str, Any], above: str = "") -> set[str]:
        found = set()
        for name, value in values.items():
            path = f"{above}{name}"
            found |= paths(value, f"{path}.") if isinstance(value, dict) and path not in elsewhere else {path}
        return found

    document = Protocol.from_dict(form.new_document("mine")).to_dict()
    assert paths(document) <= {field.path for field in form.form_fields()} | elsewhere


@pytest.mark.parametrize("value", [40, 40.0])
def test_whole_numbers_of_a_browser_are_whole(value: float, tmp_path: Path) -> None:
    document = form.with_values(form.new_document("mine"), {"cases.n": value})
    assert document["cases"]["n"] == 40 and isinstance(document["cases"]["n"], int)


def test_choices_keep_their_order_and_steps_of_a_test_that_of_testing() -> None:
    document = form.new_document("mine")
    changed = form.with_values(
        document, {"diagnoses": ["other", "mel", "nv"], "plan.gatekeeping": ["safety", "primary"]}
    )
    assert changed["diagnoses"] == ["mel", "nv", "other"]
    assert changed["plan"]["gatekeeping"] == ["primary", "safety"]
    assert form.with_values(changed, {"plan.gatekeeping": list(form.GATES)[::-1]})["plan"]["gatekeeping"] == list(
        form.GATES
    )


def test_an_arm_that_is_taken_out_leaves_no_contrast_behind(tmp_path: Path) -> None:
    changed = form.with_values(form.new_document("mine"), {"arms": ["none", "grad_cam", "regions"]})
    assert {c["arm"] for c in changed["plan"]["contrasts"]} == {"regions", "grad_cam"}
    assert len(read(changed, tmp_path).plan.contrasts) == 2


def test_problems_name_the_fields_label(tmp_path: Path) -> None:
    document = form.with_values(
        form.new_document("mine"), {"cases.n": None, "plan.safety.arm": "regions", "arms": ["regions"]}
    )
    with pytest.raises(ProtocolError) as refused:
        read(document, tmp_path)
    words = [form.labelled(problem) for problem in refused.value.problems]
    assert "Cases: must be a whole number from 2 to 2000, not nothing" in words
    assert any(problem.startswith("Kinds of explanation (arms): ") for problem in words)
    assert form.labelled("line 3: plan.safety.arm: no") == "Safety, Arm: no", "a label that stands twice has its group"
    assert form.labelled("questions.after[3].key: no") == "questions.after[3].key: no"


def test_a_second_session_is_there_where_its_field_is_filled_in(tmp_path: Path) -> None:
    document = form.with_values(form.new_document("mine"), {"second_session.days": 28.0})
    assert read(document, tmp_path).second_session is not None
    assert form.form_values(document)["second_session.days"] == 28
    assert "second_session" not in form.with_values(document, {"second_session.days": None})
    with pytest.raises(ProtocolError) as refused:
        read(form.with_values(document, {"second_session.days": 0}), tmp_path)
    assert form.labelled(refused.value.problems[0]).startswith("Days until a second session: must be")


def test_the_file_is_plain_yaml() -> None:
    document = form.with_values(form.new_document("mine"), {"title": "Vertrauen: ü # no comment"})
    assert yaml.safe_load(form.as_yaml(document))["title"] == "Vertrauen: ü # no comment"
