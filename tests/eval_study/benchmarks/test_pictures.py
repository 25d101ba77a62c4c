"""Pictures without skin: that their photographs are there, and that crops are what they are said to be."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from eval_study.benchmarks import pictures
from eval_study.benchmarks.pictures import Crop, MissingPhotographs, Photograph, crops, locate, overlap
from skinclip.imaging.photo import LesionImage

SIZES = [(224, 224), (150, 150), (150, 200)]


@pytest.fixture(scope="module")
def made() -> list[Crop]:
    try:
        pictures.located()
    except MissingPhotographs as error:
        pytest.skip(str(error))
    return crops(SIZES, seed=3)


def test_every_listed_file_is_there_and_is_a_photo(made: list[Crop]) -> None:
    rows = pictures.listing(made)
    assert len(rows) == len(pictures.PHOTOGRAPHS)
    assert sum(int(row["crops"]) for row in rows) == len(made)
    for row, photograph in zip(rows, pictures.PHOTOGRAPHS, strict=True):
        path = locate(photograph)
        assert path is not None and path.as_posix().endswith(str(row["file"]))
        assert row["licence"] and row["version"] and row["shows"]
        height, width = cv2.imread(str(path)).shape[:2]
        assert all(0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height for x0, y0, x1, y1 in photograph.skin)


def test_there_are_enough_in_the_sizes_asked_for(made: list[Crop]) -> None:
    assert len(made) >= pictures.ENOUGH
    sizes = {(c.image.height, c.image.width) for c in made}
    assert sizes == set(SIZES)
    assert all(c.image.pixels.dtype == np.uint8 for c in made)
    assert len({c.image.sha256 for c in made}) == len(made)


def test_the_same_seed_gives_the_same_pictures_and_another_gives_others(made: list[Crop]) -> None:
    again = pictures.not_skin(SIZES, seed=3)
    assert all(isinstance(image, LesionImage) for image in again)
    assert [i.sha256 for i in again] == [c.image.sha256 for c in made]
    other = {i.sha256 for i in pictures.not_skin(SIZES, seed=4)}
    assert len(other & {i.sha256 for i in again}) < 0.05 * len(again)


def test_crops_of_a_photograph_hardly_overlap_and_show_little_skin(made: list[Crop]) -> None:
    for photograph, group in itertools.groupby(made, key=lambda c: c.photograph):
        boxes = [c.box for c in group]
        assert len(boxes) <= pictures.MOST_CROPS
        assert all(overlap(a, b) <= pictures.MAX_OVERLAP for a, b in itertools.combinations(boxes, 2))
        for x0, y0, x1, y1 in boxes:
            cover = np.zeros((y1 - y0, x1 - x0), bool)
            for left, top, right, bottom in photograph.skin:
                cover[max(0, top - y0) : max(0, bottom - y0), max(0, left - x0) : max(0, right - x0)] = True
            assert cover.mean() <= pictures.MAX_SKIN


def test_no_crop_is_almost_uniform(made: list[Crop]) -> None:
    assert min(pictures.contrast(c.image.pixels) for c in made) > pictures.MIN_CONTRAST / 2  # resampling smooths


def test_crops_of_one_photograph_are_one_group_and_have_no_label(made: list[Crop]) -> None:
    cases = pictures.cases_of(made)
    assert len({c.image_id for c in cases}) == len(made)
    assert {c.lesion_id for c in cases} == {p.name for p in pictures.PHOTOGRAPHS}
    assert all(c.diagnosis is None and c.malignant is None and c.split is None for c in cases)


def test_overlap_and_contrast_by_hand() -> None:
    assert overlap((0, 0, 10, 10), (5, 5, 10, 15)) == pytest.approx(0.5)  # 25 of the smaller one's 50
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    grey = np.repeat(np.repeat([[0, 100]], 50, axis=1), 100, axis=0).astype(np.uint8)
    assert pictures.contrast(np.stack([grey] * 3, axis=2)) == 100


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Photograph("no-such-package", "a/b.png", "nothing", "none")
    unheld = Photograph("numpy", "numpy/no_such_photo.png", "nothing", "none")
    assert locate(absent) is None and locate(unheld) is None
    monkeypatch.setattr(pictures, "PHOTOGRAPHS", (absent, unheld))
    with pytest.raises(MissingPhotographs, match=r"no-such-package, numpy .*no_such_photo.*requirements-dev"):
        crops([(100, 100)])
