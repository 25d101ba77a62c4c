import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from skinclip.study.simulate import Simulation, simulate, true_contrast
from tests.study.studies import SMALL, study


def test_same_seed_same_study_and_another_seed_another():
    pd.testing.assert_frame_equal(study(5).cases, study(5).cases)
    assert not study(5).cases["trust"].equals(study(6).cases["trust"])


def test_each_reader_sees_each_case_once_and_each_case_every_arm():
    cases = study(readers=8).cases
    first = cases[~cases["repeat"]]
    assert (first.groupby("reader")["case"].nunique() == 20).all()
    assert (first.groupby(["case", "arm"]).size() == 2).all()
    again = cases[cases["repeat"]].merge(first, on=["reader", "case"])
    assert len(again) and (again["arm_x"] == again["arm_y"]).all()


def test_blocks_and_predecessors_are_balanced_over_sixteen_readers():
    cases = study(readers=16).cases
    first = cases[~cases["repeat"]]
    order = first.groupby(["reader", "arm"])["block"].first().unstack()
    assert all((order[arm].value_counts() == 4).all() for arm in order)
    rows = order.apply(lambda row: tuple(row.sort_values().index), axis=1)
    neighbours = pd.Series([pair for row in rows for pair in itertools.pairwise(row)]).value_counts()
    assert len(neighbours) == 12 and (neighbours == 4).all()


def test_true_contrast_is_what_many_answers_have():
    many = Simulation(readers=400, cases=60, repeat_share=0, missing=0, pairs=0)
    cases = simulate(many, 0).cases
    mean = {}
    for arm in ("regions", "grad_cam"):
        shown = cases[cases["arm"] == arm]
        mean[arm] = np.average(shown["trust"], weights=shown["weight"])
    truth = true_contrast(many, "regions", "grad_cam")
    assert mean["regions"] - mean["grad_cam"] == pytest.approx(truth, abs=0.12)
    assert 0.3 < truth < 0.4  # a little less than the latent 0.4: the scale has ends
    assert true_contrast(many.without_effect("regions", "grad_cam"), "regions", "grad_cam") == 0.0


def test_weights_bring_errors_back_to_their_share_in_practice():
    cases = study().cases.drop_duplicates("case")
    cases = cases[cases["stratum"] != "ood"]
    wrong = cases.loc[cases["stratum"] == "wrong", "weight"].sum()
    assert wrong / cases["weight"].sum() == pytest.approx(SMALL.natural_wrong)


def test_readers_follow_as_often_as_told():
    always = {arm: replace(e, follow_right=1.0, follow_wrong=0.0) for arm, e in SMALL.arms.items()}
    cases = study(arms=always, ood_cases=0).cases
    right = cases[cases["stratum"] == "right"]
    wrong = cases[cases["stratum"] == "wrong"]
    assert (right["diagnosis_after"] == right["ai_leading"]).all()
    assert (wrong["diagnosis_after"] == wrong["diagnosis_before"]).all()


def test_withdrawn_readers_leave_no_answers_and_stopped_ones_fewer():
    tables = study(readers=40, dropout=0.5, withdrawal=0.5)
    gone = set(tables.readers.loc[tables.readers["withdrawn"], "reader"])
    assert gone and not gone & set(tables.cases["reader"]) and not gone & set(tables.blocks["reader"])
    stopped = tables.readers.loc[~tables.readers["completed"] & ~tables.readers["withdrawn"], "reader"]
    sizes = tables.cases.groupby("reader").size()
    assert sizes.reindex(stopped).fillna(0).max() < sizes.max()


def test_always_marked_and_aid_items_never_without_an_aid():
    tables = study()
    assert tables.mark == "SIMULATED DATA"
    without = tables.cases[tables.cases["arm"] == "none"]
    assert without[["correct", "grounded", "complete", "harmful"]].isna().all().all()
