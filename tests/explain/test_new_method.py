"""An explanation is one entry in the registry: a made-up one is found on the page and in the benchmark."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from eval_study.explanations import maps
from skinclip.core.assessment import Context
from skinclip.explain.methods import METHODS, reported
from skinclip.explain.registry import ALL_REPORTS, Method, registry
from skinclip.explain.subject import LabelledMap, Subject
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import encode_png, from_array, load_photo
from skinclip.pipeline.assessor import Assessor
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.tabs import compare_tab


def darkness(subject: Subject) -> list[LabelledMap]:
    return subject.labelled(255.0 - cv2.cvtColor(subject.window.crop(subject.image.pixels), cv2.COLOR_RGB2GRAY))


NEW = Method("darkness", "Darkness of the skin", darkness, "The darkest places of the photo.", uses_model=False)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {key: METHODS[key] for key in METHODS if key not in ("evidence", "grad_cam", "lesion_mask")}
    for key in few:
        monkeypatch.delitem(METHODS, key)
    monkeypatch.setitem(METHODS, NEW.key, NEW)


def test_the_page_compares_it() -> None:
    assessor = Assessor.load("mini")
    photo = encode_png(draw("nevus", 3, (300, 240)))
    assessment = assessor.assess(load_photo(photo))
    answer = AssessedPhoto(photo, assessment, b"", None)
    heats = compare_tab.layers(assessor, answer, lambda *_: None)
    assert heats["darkness"].shape == (240, 300) and heats["darkness"].max() == pytest.approx(1)
    html = compare_tab.compare(assessment, np.zeros((240, 300, 3), np.uint8), heats)
    assert "Darkness of the skin" in html and "The darkest places of the photo." in html


def test_the_benchmark_measures_it_and_every_report_shows_it() -> None:
    subject = Assessor.load("mini").subject(from_array(draw("nevus", 3, (300, 240))), Context())
    measured = maps.measure(subject, None, 0)
    assert {key.split("/")[1] for key in measured if key.startswith("darkness/")} >= {"deletion", "insertion"}
    assert all("darkness" in reported(report) for report in ALL_REPORTS)


def test_two_methods_cannot_share_a_key() -> None:
    with pytest.raises(ValueError, match="two explanation methods have the key 'darkness'"):
        registry((NEW, NEW))
