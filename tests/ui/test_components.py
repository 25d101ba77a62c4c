from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from skinclip import assessment as record
from skinclip.clinical import DIAGNOSES
from skinclip.explain.render import heatmap_overlay, hex_colour, region_overlay
from skinclip.images import PhotoError
from skinclip.ui import components
from skinclip.ui.assess_tab import ALL, Upload, choices, context_of, read_upload


@pytest.fixture
def made_up() -> record.Assessment:
    square = ((40.0, 40.0), (80.0, 40.0), (80.0, 80.0), (40.0, 80.0))
    whole = ((20.0, 20.0), (100.0, 20.0), (100.0, 100.0), (20.0, 100.0))
    return record.Assessment(
        model=record.ModelInfo("mini", "0", "0" * 64),
        photo=record.PhotoInfo(160, 120, "0" * 64, record.Quality(True)),
        context=record.Context(),
        diagnosis=tuple(record.DiagnosisProbability(d.code, d.name, 1 / 7) for d in DIAGNOSES),
        prediction_set=record.PredictionSet(0.9, ("mel", "nv")),
        malignancy=record.Malignancy(0.4, 0.2, True),
        shift=record.Shift(0.5, True),
        lesion=record.Lesion((20, 20, 100, 100), (whole,), 0.33),
        findings=(
            record.Finding("r1", "streaks", "irregular", 0.8, record.Region((40, 40, 80, 80), (square,))),
            record.Finding("r2", "border", "irregular", 0.7, record.Region((20, 20, 100, 100), (whole,))),
        ),
        rationale="Melanoma is the leading diagnosis, supported by [r1] irregular streaks and [r2] irregular border.",
        abstained=False,
    )


def test_references_have_the_colour_of_their_regions(made_up: record.Assessment) -> None:
    html = components.rationale(made_up)
    for i in range(2):
        assert html.count(f"--chip:{hex_colour(i)}") == 2  # in the text and in the list
    assert "[r1]" not in html
    pixels = np.full((120, 160, 3), 90, np.uint8)
    alone = region_overlay(pixels, made_up, "r1")
    assert (alone == np.array([230, 159, 0])).all(-1).any()
    assert not np.array_equal(alone, region_overlay(pixels, made_up, "r2"))


def test_all_seven_are_drawn_and_the_referral_says_why(made_up: record.Assessment) -> None:
    assert components.differential(made_up).count('class="sk-row') == 7
    text = components.referral(made_up)
    assert "Refer" in text and "40.0%" in text and "20.0%" in text


def test_an_abstained_photo_claims_nothing(made_up: record.Assessment) -> None:
    quiet = dataclasses.replace(made_up, abstained=True, rationale="", shift=record.Shift(1.0, False))
    html = components.result(quiet)
    assert "abstains" in html and "Refer" not in html and "Rationale" not in html


def test_text_is_escaped() -> None:
    assert "<script>" not in components.error("<script>alert(1)</script>")


def test_heat_map_leaves_cold_places_alone() -> None:
    pixels = np.full((20, 20, 3), 100, np.uint8)
    heat = np.zeros((20, 20), np.float32)
    heat[:10] = 1
    out = heatmap_overlay(pixels, heat)
    assert np.array_equal(out[15:], pixels[15:]) and not np.array_equal(out[:5], pixels[:5])


def test_upload_is_read_once_and_its_file_removed(tmp_path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"bytes")
    upload = read_upload(str(path), None)
    assert upload.data == b"bytes" and not path.exists()
    assert read_upload(str(path), upload) is upload
    with pytest.raises(PhotoError, match="Add the photo again"):
        read_upload(str(path), Upload("another", b""))


def test_context_and_choices(made_up: record.Assessment) -> None:
    assert context_of("", "not given", "back") == record.Context(None, None, "back")
    with pytest.raises(PhotoError, match="0 to 120"):
        context_of("130", None, None)
    assert context_of(" 61 ", "male", "not given") == record.Context(61.0, "male", None)
    assert choices(made_up) == [ALL, "r1 irregular streaks", "r2 irregular border"]
