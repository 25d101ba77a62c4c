"""What labels of criteria of three strengths leave possible."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from eval_study.gpu.pack import mark_labels
from skinclip.core.vocabulary import CRITERION_BY_CODE
from skinclip.data.cases import Case, CriteriaReading
from skinclip.data.dermatologist_criteria import CRITERIA
from skinclip.data.possible_states import NOT_DRAWN, NOT_MARKED, PossibleStates, certain_labels, possible_states

ALL = frozenset(c.code for c in CRITERIA)


def case(**labels) -> Case:
    return Case(Path("a.jpg"), "a", "made", "L1", **labels)


def reading(*marked: str) -> CriteriaReading:
    return CriteriaReading(frozenset(marked), ALL - set(marked))


def test_a_labelled_state_is_the_only_one() -> None:
    labelled = case(criteria={"streaks": "irregular", "blue_whitish_veil": "absent"})
    assert possible_states(labelled) == {
        "streaks": PossibleStates(frozenset(("irregular",))),
        "blue_whitish_veil": PossibleStates(frozenset(("absent",))),
    }
    assert certain_labels(labelled) == labelled.criteria


def test_a_drawn_attribute_is_there_in_any_state_and_one_not_drawn_probably_absent() -> None:
    drawn = case(attribute_masks={"globules": Path("m.png"), "streaks": None, "milia_like_cyst": Path("n.png")})
    assert possible_states(drawn) == {
        "dots_and_globules": PossibleStates(frozenset(("regular", "irregular"))),
        "streaks": PossibleStates(frozenset(("absent",)), NOT_DRAWN),
        "milia_like_cysts": PossibleStates(frozenset(("present",))),
    }
    # only of a criterion with one state does a drawing say which
    assert certain_labels(drawn) == {"milia_like_cysts": "present"}
    assert certain_labels(case(attribute_masks={"negative_network": None})) == {"negative_network": "absent"}


def test_a_mark_is_a_state_and_not_marked_is_weaker_than_absent() -> None:
    found = possible_states(case(diagnosis="mel", readings=(reading("TRBL", "GP"),)))
    assert found["pigment_network"] == PossibleStates(frozenset(("atypical",)))
    assert found["regression_structures"] == PossibleStates(frozenset(("present",)))
    assert found["streaks"] == PossibleStates(frozenset(("absent", "regular")), NOT_MARKED)  # irregular was offered
    assert "milia_like_cysts" not in found and "blue_whitish_veil" not in found  # nobody asked
    assert certain_labels(case(diagnosis="mel", readings=(reading("TRBL"),))) == {}


def test_what_was_not_offered_is_missing() -> None:
    """Marks of melanoma are offered on melanomas, those of nevi on nevi."""
    found = possible_states(case(diagnosis="nv", readings=(reading("PRLC"),)))
    assert set(found) == {"streaks", "vascular_structures"}
    assert found["streaks"] == PossibleStates(frozenset(("regular",)))
    assert possible_states(case(diagnosis="bkl", readings=(reading("PRLC"),))) == {}
    assert possible_states(case(readings=(reading("PRLC"),))) == {}


def test_a_reading_without_any_mark_says_nothing() -> None:
    assert possible_states(case(diagnosis="mel", readings=(reading(),))) == {}


def test_two_readings_that_disagree_count_by_the_share_of_the_marks() -> None:
    both = possible_states(case(diagnosis="mel", readings=(reading("PV"), reading("PV", "BDG"))))
    assert both["vascular_structures"].weight == 1.0
    assert both["dots_and_globules"] == PossibleStates(frozenset(("irregular",)), 0.5)
    part = CriteriaReading(frozenset(("TRBL",)), frozenset(("BDG",)))  # a shorter list of criteria
    found = possible_states(case(diagnosis="mel", readings=(part, reading("ESA"))))
    assert found["pigment_network"].weight == 0.5 and found["pigmentation"].weight == 1.0


def test_the_strongest_label_wins() -> None:
    found = possible_states(
        case(
            diagnosis="mel",
            criteria={"streaks": "absent"},
            attribute_masks={"streaks": Path("m.png"), "pigment_network": None},
            readings=(reading("PRL", "TRBL"),),
        )
    )
    assert found["streaks"] == PossibleStates(frozenset(("absent",)))
    assert found["pigment_network"] == PossibleStates(frozenset(("absent",)), NOT_DRAWN)


@pytest.mark.parametrize("diagnosis", ["mel", "nv"])
@pytest.mark.parametrize("marked", [(), ("TRBL",), ("GP", "PV"), ("WLSA", "ESA", "PRL"), ("PRLC",), ("MVP", "BDG")])
def test_the_gpu_runs_learn_from_the_same_labels(diagnosis: str, marked: tuple[str, ...]) -> None:
    row = pd.Series({code: int(code in marked) for code in ALL} | {"none": int(not marked)})
    packed = {
        code: PossibleStates(frozenset(states) & set(CRITERION_BY_CODE[code].labels), weight)
        for code, (states, weight) in mark_labels(row, diagnosis).items()
    }
    assert possible_states(case(diagnosis=diagnosis, readings=(reading(*marked),))) == packed


def test_the_mapping_of_the_marks_is_written_down_as_it_is() -> None:
    """docs/model.md has a row for each of the 18, with what it stands for and why."""
    page = (Path(__file__).parents[2] / "docs" / "model.md").read_text()
    for mark in CRITERIA:
        stands_for = f"`{mark.state}`" if mark.state else "no state"
        assert f"| {mark.code} | {mark.meaning} | {stands_for} | {mark.reason} |" in page, mark.code
