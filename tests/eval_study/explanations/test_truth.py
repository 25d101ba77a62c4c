"""Truth of regions, on masks and maps made by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from eval_study.benchmarks.common import Bench
from eval_study.explanations import truth
from skinclip.data.cases import Case
from skinclip.data.possible_states import ATTRIBUTE_CRITERIA
from skinclip.imaging.examples import draw_with_mask
from skinclip.imaging.transform import Window
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting.markdown import section_markdown

S = truth.SIDE
MAPPED = ("pigment_network", "streaks", "globules")  # by the model of these tests
WHOLE = np.array([0, 0, S])  # the window is the whole photo, as large as the grid


def box(left: int, right: int) -> np.ndarray:
    """bool [S, S]: the columns from `left` to `right`, in quarters of the photo."""
    mask = np.zeros((S, S), bool)
    mask[:, left * S // 4 : right * S // 4] = True
    return mask


def photo(name: str, drawn: np.ndarray, cited: np.ndarray, maps: dict[str, np.ndarray]) -> truth.DrawnPhoto:
    """A photo whose lesion is its left half; `drawn`, `cited` and maps are alike for every attribute with a map."""
    row = {"size": np.array([S, S]), "window": WHOLE, "lesion": box(0, 2)}
    for attribute in MAPPED:
        row |= {f"{attribute}/cited": cited, f"{attribute}/score": np.array(float(drawn.any()))}
        row |= {f"{attribute}/{key}": heat.astype(np.float32) for key, heat in maps.items()}
    made = truth.DrawnPhoto(Case(Path(name), name, "drawn", name), row)
    regions = dict.fromkeys(ATTRIBUTE_CRITERIA, np.zeros((S, S), bool)) | dict.fromkeys(MAPPED, drawn)
    made.__dict__["drawn"] = regions
    return made


@pytest.fixture
def photos() -> list[truth.DrawnPhoto]:
    """One with the attribute in the left quarter, one without; the evidence is perfect, Grad-CAM on the wrong side."""
    nothing, flat = np.zeros((S, S), bool), np.zeros((S, S))
    left, right = box(0, 1), box(1, 2)
    return [
        photo("with", left, box(0, 2), {"evidence": left, "grad_cam": right}),
        photo("without", nothing, left, {"evidence": flat, "grad_cam": flat}),
    ]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, tmp_path / "out", tmp_path / "work", n_boot=20, command="a command")


@pytest.fixture
def result(bench: Bench, photos: list[truth.DrawnPhoto], monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(truth, "COMPARED", {k: truth.COMPARED[k] for k in ("evidence", "grad_cam", "plain_grad_cam")})
    return truth.summary(bench, photos, photos[:1])


def test_a_perfect_map_gets_1_and_one_beside_it_nothing(result: dict) -> None:
    for found in result["attributes"].values():
        ours, cam = found["methods"]["evidence"], found["methods"]["grad_cam"]
        assert [ours[k]["value"] for k in truth.TITLES] == [1, 1, 1] and ours["threshold"] == 1
        assert cam["pointing"]["value"] == 0 and cam["pointing"]["evidence_less_this"]["value"] == 1
        # The last three of four quarters (of two photos with two each) hold the drawn one: precision 1/4 at all of it.
        assert cam["ap"]["value"] == found["chance"]["value"] == pytest.approx(1 / 4)
        # Fitted on the photo with it: all from 0 on, so both halves: 1 quarter of 2 + 2.
        assert cam["threshold"] == 0 and cam["jaccard"]["value"] == pytest.approx(1 / 4)
        assert cam["jaccard"]["evidence_less_this"]["value"] == pytest.approx(3 / 4)


def test_what_a_reader_sees_by_hand(result: dict) -> None:
    for found in result["attributes"].values():
        assert found["drawn"] == 1 and found["cited"] == 2 and found["shares"]["n"] == 1
        assert found["presence"]["value"] == 1 and found["presence_by_size"]["value"] == 0.5
        # Cited is the whole lesion, twice as large as what was drawn, and a quarter where nothing was: 1 of 2 + 1.
        assert found["shipped_jaccard"]["value"] == pytest.approx(1 / 3)
        assert [found["shares"][k]["value"] for k in ("region", "lesion", "gap")] == [0.5, 0.5, 0]
    assert result["together"]["shipped_jaccard"]["value"] == pytest.approx(1 / 3)


def test_an_attribute_without_a_map_is_named_and_predicts_nothing(result: dict, photos: list[truth.DrawnPhoto]) -> None:
    assert set(result["unmapped"]) == set(ATTRIBUTE_CRITERIA) - set(result["attributes"])
    assert result["unable"] == ["plain_grad_cam"]
    missing = "milia_like_cyst"
    photos[1].drawn[missing] = box(0, 4)
    pooled = truth.jaccard_as_shipped(photos, (missing, *MAPPED))(np.ones((1, 2)))[0]
    k = len(MAPPED)  # each has 1 quarter of 2 + 1; the missing one adds 4 quarters to the union
    assert pooled == pytest.approx(k / (3 * k + 4))


def test_a_random_map_is_about_chance(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    photos = [photo(str(i), box(0, 1), box(0, 1), {"evidence": rng.random((S, S))}) for i in range(8)]
    monkeypatch.setattr(truth, "COMPARED", {"evidence": truth.COMPARED["evidence"]})
    found = truth.summary(bench, photos, photos)["together"]["methods"]["evidence"]
    assert found["ap"]["value"] == pytest.approx(0.5, abs=0.02)


def test_a_method_measured_on_fewer_photos_is_compared_on_those(bench: Bench, photos: list[truth.DrawnPhoto]) -> None:
    for key in MAPPED:
        del photos[1].row[f"{key}/grad_cam"]
    figures = {k: truth.scored(photos, "streaks", k, 1.0) for k in ("evidence", "grad_cam")}
    found = truth.compared(bench_resamples(bench, photos), {"streaks": figures}, "grad_cam")
    assert found["n"] == 1 and found["ap"]["value"] == pytest.approx(0.5)  # of the first photo's lesion, half is drawn
    assert found["ap"]["evidence_less_this"]["value"] == pytest.approx(0.5)


def bench_resamples(bench: Bench, photos: list[truth.DrawnPhoto]) -> truth.metrics.GroupBootstrap:
    return truth.metrics.GroupBootstrap([p.case.image_id for p in photos], bench.n_boot, bench.seed)


def test_the_report_says_what_is_missing_and_what_a_mask_cannot_say(result: dict, bench: Bench) -> None:
    made = {"meta": {"split": "valid"}, "there": 5, **result}
    text = section_markdown(truth.section(made))
    assert (
        "n = 2 of 5" in text
        and "weak evidence of absence" in text
        and "no map" in text
        and "fitted on 1 photos of the train part" in text
    )
    assert "Grad-CAM of a plain classifier cannot explain" in text and "milia-like cysts" in text
    assert "no more than the lesion as a whole" in truth.headline(made)


def test_a_map_of_the_window_lies_where_the_window_lies() -> None:
    heat = np.arange(4.0).reshape(2, 2)
    found = truth.on_photo_grid(heat, Window(100, 0, 100), (100, 200))  # the right half of a photo twice as wide
    assert np.isneginf(found[:, : S // 2]).all() and np.isfinite(found[:, S // 2 :]).all()
    assert found[0, S // 2] == 0 and found[0, -1] == 1 and found[-1, S // 2] == 2 and found[-1, -1] == 3


def test_outlines_are_filled_on_the_grid_of_the_whole_photo() -> None:
    quarter = ((0.0, 0.0), (100.0, 0.0), (100.0, 50.0), (0.0, 50.0))
    assert truth.filled([quarter], (100, 200)).mean() == pytest.approx(0.25, abs=0.01)
    assert not truth.filled([], (100, 200)).any()


def test_photos_are_measured_once_and_on_the_split_that_is_asked_for(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = []
    for i, kind in enumerate(("melanoma", "nevus")):
        pixels, lesion = draw_with_mask(kind, i, (200, 160))
        cv2.imwrite(str(tmp_path / f"{i}.png"), pixels)
        cv2.imwrite(str(tmp_path / f"{i}m.png"), lesion.astype(np.uint8) * 255)
        mask = tmp_path / f"{i}m.png"
        masks = {"pigment_network": mask if i == 0 else None, "streaks": None}
        cases.append(Case(tmp_path / f"{i}.png", str(i), "t2", f"L{i}", mask=mask, attribute_masks=masks))
    bench.__dict__["assessor"] = Assessor.load("mini")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(Bench, "cases", lambda self, name, *splits: asked.append(splits) or cases)
    few = ("evidence", "grad_cam", "occlusion", "lesion_mask", "gaussian")
    monkeypatch.setattr(truth, "COMPARED", {k: truth.COMPARED[k] for k in few})
    monkeypatch.setattr(truth, "SLOW_PHOTOS", 1)
    found = truth.run(bench)
    assert set(asked) == {("valid",), ("train",)} and not bench.ledger.exists()
    network = found["attributes"]["pigment_network"]
    assert network["drawn"] == 1 and network["methods"]["occlusion"]["n"] == 1
    assert network["methods"]["lesion_mask"]["ap"]["value"] is not None
    assert found["meta"]["thresholds"] == bench.thresholds
    monkeypatch.setattr(truth, "maps_of", lambda *_: pytest.fail("measured again"))
    assert truth.run(bench)["attributes"] == found["attributes"]


def test_a_set_that_is_not_there_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bench, "cases", lambda self, *_: [])
    with pytest.raises(truth.DataError, match="isic2018_task2"):
        truth.run(bench)


def test_the_criterion_that_an_attribute_means() -> None:
    assert ATTRIBUTE_CRITERIA["globules"] == "dots_and_globules"
    assert truth.mapped(["streaks", "pigmentation"]) == {"streaks": "streaks"}
