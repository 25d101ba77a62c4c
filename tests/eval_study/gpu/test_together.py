"""Figures without lesions that were trained on elsewhere."""

from types import SimpleNamespace

import pytest
import torch

from eval_study.gpu.together import trained_elsewhere, with_intervals


def record(source: str, image: str, lesion: str, split: str) -> dict[str, str]:
    return {"source": source, "image_id": image, "lesion_id": lesion, "split": split}


def test_a_valid_lesion_is_known_where_its_near_duplicate_is_trained_on() -> None:
    photos = SimpleNamespace(
        records=[
            record("ham", "h1", "H1", "train"),
            record("milk", "m1", "M1", "valid"),
            record("ham", "h2", "H2", "valid"),
            record("milk", "m2", "M2", "train"),
            record("ham", "h3", "H3", "valid"),
            record("milk", "m3", "M3", "valid"),
        ]
    )
    pairs = [("ham/h1", "milk/m1"), ("ham/h2", "milk/m2"), ("ham/h3", "milk/m3"), ("ham/h1", "milk/not packed")]
    assert trained_elsewhere(photos, pairs) == {("milk", "M1"), ("ham", "H2")}


def test_intervals_hold_their_figure_and_draw_lesions_whole() -> None:
    labels = torch.tensor([0, 1, 4, 5] * 10)
    logits = torch.nn.functional.one_hot(labels, 9).float() * 9
    logits[:4] = logits[:4].flip(1)
    result = with_intervals(logits, labels, 7, [f"L{i // 2}" for i in range(40)])
    value, low, high = result["auroc"]
    assert result["n"] == 40 and low <= value <= high
    assert value == pytest.approx(result["auroc"][0]) and value < 1
    assert result == with_intervals(logits, labels, 7, [f"L{i // 2}" for i in range(40)])
