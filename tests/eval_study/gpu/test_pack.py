"""Packing: the rules of labels by hand, colours put right, what is packed and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval_study.gpu import pack
from eval_study.gpu.pack import UNMARKED_WEIGHT, mark_labels
from eval_study.gpu.photos import MISSING, load
from eval_study.gpu.vocabulary import ALL_CRITERIA, CODES
from tests.eval_study.gpu.synthetic_sets import MARKS, make_sets


def marks(*given: str) -> pd.Series:
    return pd.Series({m: int(m in given) for m in MARKS})


def test_marks_of_a_melanoma() -> None:
    labels = mark_labels(marks("TRBL", "GP"), "mel")
    assert labels["pigment_network"] == (["atypical"], 1.0)
    assert labels["regression_structures"] == (["present"], 1.0)
    states, weight = labels["streaks"]  # offered, not marked: not irregular, and weaker than a label
    assert "irregular" not in states and {"absent", "regular"} <= set(states) and weight == UNMARKED_WEIGHT
    assert "blue_whitish_veil" not in labels  # never offered: unknown
    assert mark_labels(marks("TRBL"), "mel")["regression_structures"] == (["absent"], UNMARKED_WEIGHT)


def test_marks_of_a_nevus() -> None:
    labels = mark_labels(marks("PRLC"), "nv")
    assert labels["streaks"] == (["regular"], 1.0)
    assert set(labels) == {"streaks", "vascular_structures"}  # those of melanoma were not offered
    assert "regular" not in labels["vascular_structures"][0]


def test_none_marked_says_nothing() -> None:
    assert mark_labels(marks("none"), "mel") == {}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packs")
    data = make_sets(tmp_path_factory.mktemp("data"))
    pack.main(["--data", str(data), "--out", str(out), "--part-bytes", "4000"])
    return out


def test_what_was_packed_is_loaded(packs: Path) -> None:
    assert len(list(packs.glob("part-*.bin"))) > 1
    photos = load(packs, "cpu", workers=1)
    assert len(photos) == 6 and photos.pixels.shape == (6, 3, 256, 256)
    rows = {r["image_id"]: i for i, r in enumerate(photos.records)}
    assert CODES[photos.diagnosis[rows["i1"]]] == "scc"
    assert photos.partner[rows["i1"]] == rows["i2"] and photos.partner[rows["h1"]] == MISSING
    assert photos.groups[photos.group[rows["t1"]]] == "isic2017/dermoscopy"
    assert photos.aspect[rows["i1"]] == pytest.approx(4 / 3) and photos.aspect[rows["t1"]] == pytest.approx(1.28)
    assert photos.has_lesion.sum() == 3
    x, y, side = photos.box[rows["h1"]].tolist()
    assert (x, y) == pytest.approx((0.5, 0.5), abs=0.01) and side == pytest.approx(0.5, abs=0.02)


def test_criteria_are_packed_as_states_that_stay_possible(packs: Path) -> None:
    photos = load(packs, "cpu", workers=1)
    rows = {r["image_id"]: i for i, r in enumerate(photos.records)}
    q = [c.code for c in ALL_CRITERIA].index("dots_and_globules")
    globules = photos.allowed[rows["t1"], q].tolist()
    assert globules == [False, True, True] and photos.weight[rows["t1"], q] == 1  # drawn: of one kind or the other
    assert photos.weight[rows["h2"]].sum() == 0
    region = photos.regions[photos.region_row[rows["t1"]]]
    assert [bool(r.any()) for r in region] == [False, False, False, False, True]


def test_exchanged_colours_are_put_right(packs: Path) -> None:
    records = json.loads((packs / "index.json").read_text())
    assert [r["image_id"] for r in records if r["swapped"]] == ["e1"]
    photos = load(packs, "cpu", workers=1)
    row = [r["image_id"] for r in photos.records].index("e1")
    mean = photos.pixels[row].float().mean((1, 2)).numpy()
    np.testing.assert_allclose(mean, [0, 0, 200], atol=8)  # red in the file, blue in truth


def test_sets_that_are_missing_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="none of the sets ham10000"):
        list(pack.records(tmp_path))
    make_sets(tmp_path)
    list(pack.records(tmp_path))
    assert "not packed: isic2017, derm7pt" in capsys.readouterr().out
