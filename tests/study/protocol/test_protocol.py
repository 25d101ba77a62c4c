"""A protocol file that is right is read as it is; one that is wrong is told everything that is wrong with it."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from skinclip.core.paths import TRUST_STUDY
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.study.analysis.tables import AID_ITEMS, COLUMNS
from skinclip.study.errors import AnswerError, ProtocolError
from skinclip.study.protocol import protocol
from skinclip.study.protocol.protocol import ARMS, PHASES, RATED, Protocol, Question, Scale

AIDS = ("grad_cam", "grad_cam_text", "regions")


def problems(values: Any) -> list[str]:
    with pytest.raises(ProtocolError) as error:
        Protocol.from_dict(values)
    return list(error.value.problems)


@pytest.fixture
def values(trust_study: Protocol) -> dict[str, Any]:
    return trust_study.to_dict()


# --- the default study ---


def test_default_study_has_four_arms_and_says_what_the_issue_asks(trust_study: Protocol) -> None:
    assert trust_study.arms == tuple(ARMS) == ("none", *AIDS)
    plan = trust_study.plan
    assert (plan.primary.endpoint, plan.primary.arm, plan.primary.reference) == ("trust", "regions", "grad_cam")
    assert (plan.safety.endpoint, plan.safety.margin, plan.alpha) == ("switch_to_wrong", 0.1, 0.05)
    assert trust_study.cases.counts == {"right": 34, "wrong": 20, "ood": 6}
    assert trust_study.cases.repeats == 6  # 10 % of 60


def test_default_questions_by_arm(trust_study: Protocol) -> None:
    def keys(phase: str, arm: str) -> list[str]:
        return [q.key for q in trust_study.asked(phase, arm)]

    unaided = ["diagnosis", "confidence", "act"]
    ess = [f"ess_{i}" for i in range(1, 10)]
    scales = [*(f"distrust_{i}" for i in range(1, 6)), *(f"trust_{i}" for i in range(1, 8))]
    assert keys("before", "none") == unaided
    assert keys("after", "none") == [*unaided, "trust"]
    assert keys("block", "none") == scales
    for arm in AIDS:
        assert keys("after", arm) == [*unaided, "trust", "correct", "grounded", "complete", "harmful"]
        assert keys("block", arm) == ess + scales
    assert [q.key for q in trust_study.questions["background"]] == ["site", "role", "years"]


def test_the_tables_can_hold_what_the_protocol_lets_through() -> None:
    assert {key: COLUMNS[key].allowed[1] for key in ("trust", *AID_ITEMS)} == RATED


def test_default_scales(trust_study: Protocol) -> None:
    asked = {(phase, q.key): q for phase in PHASES for q in trust_study.questions[phase]}
    diagnosis = asked["before", "diagnosis"].scale
    assert [o.value for o in diagnosis.options] == [*trust_study.diagnoses, "cannot_tell"]
    assert set(trust_study.diagnoses) == set(DIAGNOSIS_CODES)
    assert asked["after", "diagnosis"].scale == diagnosis
    assert asked["after", "trust"].scale.points == 7
    assert {asked["after", key].scale.points for key in ("correct", "grounded", "complete", "harmful")} == {5}
    assert {asked["block", f"ess_{i}"].scale.points for i in range(1, 10)} == {5}
    assert {asked["block", f"distrust_{i}"].scale.points for i in range(1, 6)} == {7}
    assert [q.key for q in trust_study.questions["block"] if q.reverse] == ["ess_4"]


# The published words: Hoffman et al. 2018 and 2023; Jian et al. 2000.
SCALES = {
    "ess": (
        "From the explanation, I understand how the {} works.",
        "This explanation of how the {} works is satisfying.",
        "This explanation of how the {} works has sufficient detail.",
        "This explanation of how the {} works contains irrelevant details.",
        "This explanation of how the {} works seems complete.",
        "This explanation of how the {} works tells me how to use it.",
        "This explanation of how the {} works is useful to my goals.",
        "This explanation of the {} shows me how accurate the {} is.",
        "This explanation lets me judge when I should trust and not trust the {}.",
    ),
    "distrust": (
        "The {} is deceptive.",
        "The {} behaves in an underhanded manner.",
        "I am suspicious of the {}'s intent, action, or outputs.",
        "I am wary of the {}.",
        "The {}'s actions will have a harmful or injurious outcome.",
    ),
    "trust": (
        "I am confident in the {}.",
        "The {} provides security.",
        "The {} has integrity.",
        "The {} is dependable.",
        "The {} is reliable.",
        "I can trust the {}.",
        "I am familiar with the {}.",
    ),
}


@pytest.mark.parametrize("scale", SCALES)
def test_published_scales_keep_their_words(scale: str, trust_study: Protocol) -> None:
    asked = {q.key: q for q in trust_study.questions["block"]}
    mine = [asked[f"{scale}_{i}"] for i in range(1, len(SCALES[scale]) + 1)]
    assert [q.text for q in mine] == [text.replace("{}", "aid") for text in SCALES[scale]]
    ends = ("I disagree strongly", "I agree strongly") if scale == "ess" else ("Not at all", "Extremely")
    assert {(q.scale.anchors[0], q.scale.anchors[-1]) for q in mine} == {ends}


def test_nobody_can_be_enrolled_until_the_ethics_fields_are_filled(
    trust_study: Protocol, filled_study: Protocol, values: dict[str, Any]
) -> None:
    fields = ["approval", "controller", "contact", "consent_version", "consent_text", "photo_licence", "retention"]
    assert trust_study.missing_ethics() == [f"ethics.{name}" for name in fields]
    assert filled_study.missing_ethics() == []
    values["ethics"] = dict.fromkeys(fields, "given") | {"approval": "TBD"}
    assert Protocol.from_dict(values).missing_ethics() == ["ethics.approval"]


def test_a_study_may_replace_one_phase_of_questions(values: dict[str, Any]) -> None:
    own = {"key": "city", "text": "Your city", "scale": {"kind": "text"}, "required": False}
    default = copy.deepcopy(values["questions"])
    values["questions"] = {"background": [own]}
    study = Protocol.from_dict(values)
    assert [q.key for q in study.questions["background"]] == ["city"]
    assert study.to_dict()["questions"]["after"] == default["after"]


# --- reading and writing ---


def test_dict_and_json_round_trip(filled_study: Protocol) -> None:
    assert Protocol.from_dict(json.loads(json.dumps(filled_study.to_dict()))) == filled_study


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _reversed(v) for k, v in reversed(value.items())}
    return [_reversed(v) for v in value] if isinstance(value, list) else value


def test_plan_hash_ignores_key_order_and_layout(trust_study: Protocol, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(
        yaml.safe_dump(_reversed(trust_study.to_dict()), sort_keys=False, default_flow_style=True, width=50)
    )
    assert Protocol.read(path).plan_sha256 == trust_study.plan_sha256


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "title": lambda v: v.update(title="Another title"),
    "version": lambda v: v.update(version=2),
    "seed": lambda v: v.update(seed=1),
    "order of arms": lambda v: v["arms"].reverse(),
    "fewer arms": lambda v: (v["arms"].remove("none"), v["plan"].pop("contrasts")),
    "cases": lambda v: v["cases"].update(n=64),
    "practice": lambda v: v["cases"].update(practice=8),
    "repeats": lambda v: v["cases"].update(repeat_share=0.05),
    "question text": lambda v: v["questions"]["after"][3].update(text="Do you trust it?"),
    "question order": lambda v: v["questions"]["after"].reverse(),
    "option order": lambda v: v["questions"]["before"][0]["scale"]["options"].reverse(),
    "question arms": lambda v: v["questions"]["block"][0].update(arms=["regions"]),
    "likert points": lambda v: v["questions"]["after"][3]["scale"].update(points=5),
    "margin": lambda v: v["plan"]["safety"].update(margin=0.08),
    "contrast": lambda v: v["plan"]["primary"].update(reference="grad_cam_text") or v["plan"]["contrasts"].pop(1),
    "further contrasts": lambda v: v["plan"]["contrasts"].pop(),
    "alpha": lambda v: v["plan"].update(alpha=0.01),
    "outliers": lambda v: v["plan"]["time_outliers"].update(min_seconds=5),
    "secondary": lambda v: v["plan"]["secondary"].pop(),
    "washout": lambda v: v["washout"].update(hours=24),
    "rehearsal": lambda v: v.update(rehearsal=True),
    "completion": lambda v: v["completion"].update(min_readers=24),
    "debrief": lambda v: v["texts"].update(debrief="Thank you."),
    "consent": lambda v: v["ethics"].update(consent_text="Other words"),
}


@pytest.mark.parametrize(("phase", "key"), [("background", "reader"), ("before", "seconds")])
def test_a_question_may_not_take_the_name_of_a_column(phase: str, key: str, values: dict[str, Any]) -> None:
    values["questions"][phase].append({"key": key, "text": "?", "scale": {"kind": "yes_no"}, "required": False})
    with pytest.raises(ProtocolError, match=f"questions.{phase}: {key} is the name of a column"):
        Protocol.from_dict(values)


@pytest.mark.parametrize("name", CHANGES)
def test_plan_hash_changes_with_what_readers_see_or_is_analysed(name: str, trust_study: Protocol) -> None:
    changed = trust_study.to_dict()
    CHANGES[name](changed)
    assert Protocol.from_dict(changed).plan_sha256 != trust_study.plan_sha256


def test_a_plan_without_further_contrasts_keeps_the_hash_of_before_there_were_any(values: dict[str, Any]) -> None:
    del values["plan"]["contrasts"]
    study = Protocol.from_dict(values)
    assert study.plan.contrasts == () and study.to_dict()["plan"] == values["plan"]


def test_a_study_is_no_rehearsal_unless_it_says_so(values: dict[str, Any]) -> None:
    assert not Protocol.from_dict(values).rehearsal  # nor had plans that were locked before there was this field
    values.pop("rehearsal", None)
    assert "rehearsal" not in Protocol.from_dict(values).to_dict()
    assert Protocol.from_dict(Protocol.from_dict(values | {"rehearsal": True}).to_dict()).rehearsal
    with pytest.raises(ProtocolError, match="rehearsal: must be true or false, not 'maybe'"):
        Protocol.from_dict(values | {"rehearsal": "maybe"})


@pytest.mark.parametrize("name", ["approval", "controller", "contact", "photo_licence", "retention"])
def test_plan_hash_stays_when_other_ethics_fields_are_filled(
    name: str, trust_study: Protocol, values: dict[str, Any]
) -> None:
    values["ethics"][name] = "filled in later"
    assert Protocol.from_dict(values).plan_sha256 == trust_study.plan_sha256


# --- what is wrong is said with its path ---


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]

    def change(values: Any) -> None:
        for parent in parents:
            values = values[parent]
        values[last] = value

    return change


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "points": (_set("questions.after.3.scale.points", 70), "questions.after[3].scale.points: must be a whole number"),
    "kind": (_set("questions.after.3.scale.kind", "lickert"), "questions.after[3].scale.kind: must be one of choice"),
    "field of another kind": (
        _set("questions.after.2.scale.points", 5),
        "questions.after[2].scale.points: is not a field of a scale of kind yes_no",
    ),
    "anchors": (_set("questions.after.3.scale.anchors", ["a", "b", "c"]), "anchors: must be two texts"),
    "options": (_set("questions.before.0.scale.options", []), "questions.before[0].scale.options: must be a list"),
    "option field": (_set("questions.before.0.scale.options.0.lable", "x"), "is not a field here; did you mean label?"),
    "arms of a question": (_set("questions.after.4.arms", ["gradcam"]), "questions.after[4].arms: must be all, aid or"),
    "unknown field": (_set("sede", 1), "sede: is not a field here; did you mean seed?"),
    "unknown nested": (_set("cases.repeat", 1), "cases.repeat: is not a field here"),
    "unknown phase": (_set("questions.afer", []), "questions.afer: is not a field here; did you mean after?"),
    "missing title": (lambda v: v.pop("title"), "title: must be text, not nothing"),
    "number as text": (_set("title", 2026), "title: must be text; put 2026 in quotes"),
    "share": (_set("cases.wrong_share", 20), "cases.wrong_share: must be a number from 0 to 1, not 20"),
    "truth value as number": (_set("cases.n", True), "cases.n: must be a whole number"),
    "yes": (_set("questions.after.0.required", "yes"), "questions.after[0].required: must be true or false, not 'yes'"),
    "unknown arm": (_set("arms", ["none", "gradcam"]), "arms[1]: must be one of none, grad_cam"),
    "arm twice": (_set("arms", ["none", "none"]), "arms[1]: none is already an arm"),
    "one arm": (_set("arms", ["none"]), "arms: must be at least two"),
    "not a list": (_set("arms", "none"), "arms: must be a list of two or more"),
    "not a mapping": (_set("cases", 60), "cases: must hold fields (name: value), not 60"),
    "key": (_set("key", "Trust study"), "key: must be lower-case letters"),
    "key twice": (_set("questions.after.4.key", "trust"), "questions.after[4].key: trust is already the key"),
    "shares above one": (_set("cases.wrong_share", 0.95), "cases.wrong_share: together with ood_share"),
    "too few errors": (_set("cases.wrong_share", 0), "cases.wrong_share: gives 0 cases"),
    "washout": (_set("washout.presentations", 50), "washout.presentations: 50 leaves fewer than 6 cases"),
    "too many pairs": (_set("cases.preference_pairs", 60), "cases.preference_pairs: at most 48"),
    "same contrast": (_set("plan.primary.reference", "regions"), "plan.primary.reference: must be another arm"),
    "endpoint": (_set("plan.primary.endpoint", "diagnosis"), "plan.primary.endpoint: must be a rating"),
    "endpoint not asked": (
        lambda v: v["plan"].update(
            primary={"endpoint": "correct", "arm": "regions", "reference": "none", "smallest_effect": 0.3},
            secondary=["act"],
        ),
        "plan.primary.endpoint: correct is not asked in both",
    ),
    "contrast with itself": (
        _set("plan.contrasts.0.reference", "regions"),
        "plan.contrasts[0].reference: must be another arm than its arm (regions)",
    ),
    "contrast twice": (
        _set("plan.contrasts.1", {"arm": "none", "reference": "regions"}),
        "plan.contrasts[1]: is the primary contrast, or listed above",
    ),
    "contrast of strangers": (_set("plan.contrasts.0.arm", "heatmap"), "plan.contrasts[0].arm: must be one of none"),
    "contrast field": (_set("plan.contrasts.0.than", "none"), "plan.contrasts[0].than: is not a field here"),
    "text as endpoint": (
        lambda v: (
            v["questions"]["after"].append({"key": "why", "text": "Why?", "scale": {"kind": "text"}}),
            v["plan"].update(secondary=["why"]),
        ),
        "plan.secondary[0]: must be one of confidence, act, correct",
    ),
    "arm not in study": (_set("plan.safety.arm", "heatmap"), "plan.safety.arm: must be one of none, grad_cam"),
    "secondary": (_set("plan.secondary.0", "kappa"), "plan.secondary[0]: must be one of"),
    "primary is no secondary": (_set("plan.secondary.0", "trust"), "plan.secondary[0]: must be one of"),
    "missing question": (lambda v: v["questions"]["before"].pop(2), "questions.before: the question act is missing"),
    "diagnoses": (
        lambda v: v["questions"]["before"][0]["scale"]["options"].pop(),
        "questions.before: diagnosis must offer akiec",
    ),
    "optional trust": (_set("questions.after.3.required", False), "questions.after: trust must be required in all"),
    "too many points": (_set("questions.after.3.scale.points", 9), "trust must be a likert scale of at most 7 points"),
    "no rating": (_set("questions.after.5.scale", {"kind": "yes_no"}), "grounded must be a likert scale of at most 5"),
    "rated without an aid": (_set("questions.after.4.arms", "all"), "correct is about the explanation"),
    "unblinding contact": (_set("ethics.contact", "skinclip@example.org"), "ethics.contact: says 'skinclip'"),
    "arms before an arm is known": (
        lambda v: v["questions"]["background"][0].update(arms=["none"]),
        "questions.background: site cannot be for some arms only",
    ),
    "feedback": (_set("texts.practice_feedback", "Well done."), "texts.practice_feedback: must say {truth} once"),
    "unblinding question": (_set("questions.after.3.text", "Trust in Grad-CAM?"), "after[3]: says 'grad-cam'"),
    "unblinding title": (_set("title", "SkinCLIP-VL reader study"), "title: says 'skinclip'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_message_names_the_path_and_what_is_allowed(name: str, values: dict[str, Any]) -> None:
    change, message = WRONG[name]
    change(values)
    found = problems(values)
    assert len(found) == 1, found
    assert message in found[0]


def test_several_problems_are_told_at_once(values: dict[str, Any]) -> None:
    values["seed"], values["sites"] = "one", 3
    values["questions"]["after"][2]["scale"] = {"kind": "likert", "points": 1, "anchors": ["low", "high"]}
    with pytest.raises(ProtocolError) as error:
        Protocol.from_dict(values, source="study.yaml")
    paths = [p.split(": ")[0] for p in error.value.problems]
    assert sorted(paths) == ["questions.after[2].scale.points", "seed", "sites"]
    assert str(error.value).startswith("study.yaml has 3 problems:\n  ")


@pytest.mark.parametrize("junk", [None, [], "", True, -1, float("nan"), 10**400, [[1]], {"a": 1}, {1: 2}])
def test_junk_in_any_field_is_told_or_taken_but_never_a_crash(junk: Any, values: dict[str, Any]) -> None:
    for path in _paths(values):
        changed = copy.deepcopy(values)
        _set(path, junk)(changed)
        try:
            study = Protocol.from_dict(changed)
        except ProtocolError as error:
            assert error.problems
        else:
            assert Protocol.from_dict(study.to_dict()) == study


def _paths(value: Any, path: str = "") -> list[str]:
    """Every place of a small part of the protocol and of two questions, as `_set` takes them."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    below = [p for k, v in inner if k not in ("block", "after", "background") for p in _paths(v, f"{path}.{k}")]
    return ([path[1:]] if path else []) + below


@pytest.mark.parametrize("nothing", [None, [], "text", 3])
def test_a_file_that_holds_no_mapping(nothing: Any) -> None:
    assert problems(nothing)


# --- YAML itself ---


def _read(text: str, tmp_path: Path) -> Protocol:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return Protocol.read(path)


def test_syntax_errors_give_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"study\.yaml has one problem:\n  line 2, column 9: "):
        _read("key: a\ntitle: b: c\n", tmp_path)
    with pytest.raises(ProtocolError, match="line 2, column 1: .*indent with spaces"):
        _read("cases:\n\tn: 3\n", tmp_path)


def test_a_field_given_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="line 3, column 1: seed is given twice, first in line"):
        _read("seed: 1\nkey: a\nseed: 2\n", tmp_path)


def test_yaml_guesses_nothing(tmp_path: Path) -> None:
    """Plain YAML 1.1 would read false, 83, a date and 750 here."""
    text = TRUST_STUDY.read_text()
    for written in ("no", "0123", "2026-11-24", "12:30", "1_3"):
        study = _read(text.replace("approval:    ", f"approval: {written} "), tmp_path)
        assert study.ethics.approval == written


def test_yes_and_on_are_no_truth_values(tmp_path: Path) -> None:
    own = "questions:\n  background:\n  - {key: a, text: A, scale: {kind: yes_no}, required: on}\n"
    with pytest.raises(ProtocolError, match=r"questions.background\[0\].required: must be true or false, not 'on'"):
        _read(TRUST_STUDY.read_text() + own, tmp_path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="cannot be read"):
        Protocol.read(tmp_path / "absent.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("title: Präsenz".encode("latin-1"))
    with pytest.raises(ProtocolError, match="UTF-8"):
        Protocol.read(latin)
    with pytest.raises(ProtocolError, match="could not determine a constructor"):
        _read("key: !!python/object/apply:os.getcwd []\n", tmp_path)


# --- answers ---


LIKERT = Question("trust", "Trust?", Scale("likert", points=7, anchors=("low", "high")))
PERCENT = Question("confidence", "Confident?", Scale("percent", anchors=("low", "high")))
YES_NO = Question("act", "Act?", Scale("yes_no"))
REMARK = Question("remark", "Remark", Scale("text", max_length=5), required=False)


@pytest.mark.parametrize(
    ("question", "given", "stored"),
    [(LIKERT, 1, 1), (LIKERT, 7.0, 7), (PERCENT, 0, 0.0), (PERCENT, 99.5, 99.5), (YES_NO, False, False),
     (REMARK, " abc ", "abc"), (REMARK, "  ", None), (REMARK, None, None)],
)  # fmt: skip
def test_answers_that_fit(question: Question, given: Any, stored: Any) -> None:
    answer = question.check(given)
    assert answer == stored and type(answer) is type(stored)


@pytest.mark.parametrize(
    ("question", "given", "said"),
    [(LIKERT, 0, "from 1 to 7"), (LIKERT, 8, "not 8"), (LIKERT, 3.5, "whole number"), (LIKERT, True, "not True"),
     (LIKERT, "3", "not '3'"), (LIKERT, None, "needed"), (LIKERT, float("nan"), "whole number"),
     (PERCENT, 101, "0 to 100"), (PERCENT, float("inf"), "0 to 100"), (YES_NO, 1, "yes or no"),
     (REMARK, "abcdef", "6 characters"), (REMARK, 3, "write text")],
)  # fmt: skip
def test_answers_that_do_not_fit(question: Question, given: Any, said: str) -> None:
    with pytest.raises(AnswerError, match=f"{question.key}: .*{said}"):
        question.check(given)


def test_a_step_is_checked_as_a_whole(trust_study: Protocol) -> None:
    before = {"diagnosis": "mel", "confidence": 70, "act": True}
    assert trust_study.check_answers("before", before) == before
    assert trust_study.check_answers("after", before | {"trust": 5}, "none") == before | {"trust": 5}
    with pytest.raises(AnswerError) as error:
        trust_study.check_answers("after", {"diagnosis": "melanoma", "act": True, "trust": 5, "grounded": 3}, "none")
    for said in ("grounded: this is not asked here", "diagnosis: choose one of", "confidence: an answer is needed"):
        assert said in str(error.value)


def test_the_coordinators_readme_explains_every_field(values: dict[str, Any]) -> None:
    readme = (TRUST_STUDY.parent / "README.md").read_text()
    for name, part in values.items():
        for path in (
            [f"{name}.{key}" for key in part]
            if name in ("cases", "washout", "completion", "plan", "ethics")
            else [name]
        ):
            assert f"`{path}" in readme, path


# --- every field is used ---


def _fields(kind: Any) -> set[str]:
    return {f.name for f in dataclasses.fields(kind)}


def test_every_field_of_plan_and_ethics_is_read_by_analysis_page_or_checklist() -> None:
    """A field that changes nothing would promise what is not done. Each name is looked for as an attribute."""
    code = "\n".join(
        path.read_text() for path in Path(protocol.__file__).parents[1].rglob("*.py") if path.name != "protocol.py"
    )
    kinds = (protocol.Plan, protocol.Primary, protocol.Safety, protocol.TimeOutliers, protocol.Contrast)
    kinds += (protocol.Ethics, protocol.Washout, protocol.Completion, protocol.CasePlan, protocol.Texts)
    counted = {"wrong_share", "ood_share", "repeat_share"}  # read inside the protocol, as `counts` and `repeats`
    unread = {name for kind in kinds for name in _fields(kind) - counted if not re.search(rf"\.{name}\b", code)}
    by_name = {"photo_licence"}  # the checklists take it by name
    assert unread == by_name and "photo_licence" in code


# --- lines ---


def test_problems_of_a_file_name_line_and_field(tmp_path: Path) -> None:
    lines = TRUST_STUDY.read_text().splitlines()
    wrong = {"  n: 60": "  n: sixty", "seed: 20261": "seed: -1", "  practice: 4": "  practise: 4"}
    at = {}
    for i, line in enumerate(lines):
        for start, other in wrong.items():
            if line.startswith(start):
                lines[i], at[start] = other, i + 1
    with pytest.raises(ProtocolError) as error:
        _read("\n".join(lines), tmp_path)
    found = "\n".join(error.value.problems)
    assert f"line {at['  n: 60']}: cases.n: must be a whole number from 2 to 2000, not 'sixty'" in found
    assert f"line {at['seed: 20261']}: seed: must be a whole number" in found
    assert f"line {at['  practice: 4']}: cases.practise: is not a field here; did you mean practice?" in found
    assert "cases.practice: must be a whole number from 0 to 50, not nothing" in found
    assert len(error.value.problems) == 4


def test_a_file_nested_thousands_of_levels_deep_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="nested more than 20 levels deep"):
        _read("key: " + "[" * 5000 + "]" * 5000, tmp_path)


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{m}, *{m}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(ProtocolError, match="line 2, column 8: write the value out instead of an alias"):
        _read(bomb, tmp_path)


# ---- the diagnoses that readers can name -----------------------------------------------------------------------------


def test_a_protocol_that_names_no_diagnoses_offers_those_of_the_first_version(trust_study: Protocol) -> None:
    values = trust_study.to_dict()
    del values["diagnoses"], values["questions"]
    former = Protocol.from_dict(values)
    options = next(q for q in former.questions["before"] if q.key == "diagnosis").scale.options
    assert [o.value for o in options] == ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc", "cannot_tell"]
    assert "diagnoses" not in former.to_dict() and Protocol.from_dict(former.to_dict()) == former


def test_a_study_offers_the_diagnoses_that_it_names_in_its_order(trust_study: Protocol) -> None:
    values = trust_study.to_dict()
    del values["questions"]
    values["diagnoses"] = ["nv", "mel", "bcc", "akiec", "scc", "bkl", "df", "vasc"]
    for phase in ("before", "after"):
        asked = Protocol.from_dict(values).questions[phase]
        options = next(q for q in asked if q.key == "diagnosis").scale.options
        assert [o.value for o in options] == [*values["diagnoses"], "cannot_tell"]


@pytest.mark.parametrize(
    ("diagnoses", "words"),
    [
        (["mel", "zzz"], "diagnoses"),
        (["mel", "nv", "bcc", "scc"], "diagnosis must offer akiec"),
        ([], "diagnoses"),
    ],
)
def test_diagnoses_that_cannot_be_offered_are_named(trust_study: Protocol, diagnoses: list[str], words: str) -> None:
    values = trust_study.to_dict() | {"diagnoses": diagnoses}
    del values["questions"]
    with pytest.raises(ProtocolError, match=words):
        Protocol.from_dict(values)


def test_questions_of_its_own_and_diagnoses_must_agree(trust_study: Protocol) -> None:
    values = trust_study.to_dict()
    values["diagnoses"] = [code for code in values["diagnoses"] if code != "scc"]
    with pytest.raises(ProtocolError, match="must offer what `diagnoses` names"):
        Protocol.from_dict(values)
