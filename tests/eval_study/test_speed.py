from __future__ import annotations

from eval_study.speed import BATCHES, WAYS, fastest, serving
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import from_array


def test_the_ways_to_write_a_rationale_are_timed_on_the_same_text(big_assessor) -> None:
    result = serving(big_assessor, [from_array(draw("melanoma", 7)), from_array(draw("nevus", 7))], repeats=1)
    assert set(result["rationale_ms_median"]) == set(WAYS) and all(result["rationale_ms_median"].values())
    asked = result["language_model_calls_mean"]
    assert asked["runs"] == asked["runs, prompt kept"] < asked["generate"] / 2  # forced tokens are not asked for
    assert list(result["predict_photos_per_s"]) == list(BATCHES) and result["photos"] == 2


def test_the_fastest_time_of_each_item_counts() -> None:
    assert fastest([[3.0, 1.0], [2.0, 4.0]]) == [2.0, 1.0]
