"""Two photos of one lesion: which is read first, what the record says of their kinds, and what is asserted on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from skinclip.calibration.outputs import PAIR
from skinclip.core.assessment import Assessment, Context, Kind
from skinclip.core.vocabulary import CRITERION_CODES
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import LesionImage, from_array
from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.photos import dermoscopy_first

LESION, CLOSE_UP = from_array(draw("melanoma", 7)), from_array(draw("nevus", 8))


@pytest.fixture(scope="module")
def plain() -> Assessor:
    """An assessor whose calibration tells no kinds apart, as one of dermoscopy alone does."""
    assessor = Assessor.load("mini")
    first = assessor.calibrator.first
    calibrator = replace(assessor.calibrator, by_kind={"dermoscopy": first})
    assessor.predictor = replace(assessor.predictor, calibrator=calibrator)
    return assessor


@pytest.fixture(scope="module")
def assessor() -> Assessor:
    """An assessor to which `LESION` looks like dermoscopy, and `CLOSE_UP` like a clinical photo."""
    made = Assessor.load("mini")
    first = made.calibrator.first
    styles = made.forward([LESION, CLOSE_UP], [Context()] * 2).style.double().numpy()
    kinds = {
        kind: replace(first, shift=replace(first.shift, mean=style))
        for kind, style in zip(("dermoscopy", "clinical"), styles, strict=True)
    }
    made.predictor = replace(made.predictor, calibrator=replace(made.calibrator, by_kind=kinds))
    return made


class Recogniser:
    """Recognises photos by their width."""

    kinds: dict[int, Kind | None] = {8: "dermoscopy", 9: "clinical"}  # noqa: RUF012

    def recognise(self, images: Sequence[LesionImage]) -> list[Kind | None]:
        return [self.kinds.get(image.width) for image in images]


def photo(width: int, kind: Kind | None = None) -> LesionImage:
    return LesionImage(np.zeros((8, width, 3), np.uint8), str(width), kind)


@pytest.mark.parametrize(
    ("first", "other", "swapped"),
    [
        (photo(8), photo(9), False),
        (photo(9), photo(8), True),
        (photo(9), photo(8, "clinical"), False),  # both are clinical: they keep their order
        (photo(8, "clinical"), photo(9, "dermoscopy"), True),  # what a person says counts
        (photo(7), photo(6), False),  # nobody knows
        (photo(7), photo(6, "dermoscopy"), True),
        (photo(9), photo(7), True),
    ],
)
def test_dermoscopy_is_read_first(first: LesionImage, other: LesionImage, swapped: bool) -> None:
    assert dermoscopy_first(Recogniser(), first, other) == ((other, first) if swapped else (first, other))
    assert dermoscopy_first(Recogniser(), first, None) == (first, None)


def test_the_record_says_what_each_photo_was_recognised_as_and_what_a_person_said(assessor: Assessor) -> None:
    assert assessor.recognise([LESION, CLOSE_UP]) == ["dermoscopy", "clinical"]
    found = assessor.assess(LESION, clinical=CLOSE_UP)
    assert [(p.kind, p.kind_given, p.kind_recognised) for p in found.photos] == [
        ("dermoscopy", None, "dermoscopy"),
        ("clinical", None, "clinical"),
    ]
    assert found.photos[0] == found.photo and found.of_one_kind is None and found.dermoscopic
    corrected = assessor.assess(LESION, clinical=replace(CLOSE_UP, kind="dermoscopy"))
    assert corrected.photos[1].kind == corrected.photos[1].kind_given == corrected.of_one_kind == "dermoscopy"
    assert corrected.photos[1].kind_recognised == "clinical"
    assert Assessment.from_json(corrected.to_json()) == corrected


def test_a_photo_that_a_person_says_is_clinical_gets_no_dermoscopic_finding(
    assessor: Assessor, plain: Assessor
) -> None:
    for one in (assessor, plain):  # whether or not the calibration knows of clinical photos
        assert set(one.assess(LESION).criteria) <= set(CRITERION_CODES) and one.assess(LESION).criteria
        said = replace(LESION, kind="clinical")
        found = one.assess(said)
        assert found.criteria == {} and not {f.criterion for f in found.findings} & set(CRITERION_CODES)
        assert found.photo.kind_given == "clinical" and not found.dermoscopic
        assert one.predict([said], [Context()])[0].criteria == {}
        assert not {f.criterion for f in one.subject(said).findings} & set(CRITERION_CODES)
    assert plain.recognise([LESION]) == [None] and plain.assess(LESION).photo.kind is None


def test_a_given_kind_gets_the_calibration_of_that_kind(assessor: Assessor) -> None:
    kinds = [replace(LESION, kind=kind) for kind in (None, "dermoscopy", "clinical")]
    output = assessor.forward(kinds, [Context()] * 3)
    assert output.calibrated.kinds == ("dermoscopy", "dermoscopy", "clinical")


def test_the_photo_beside_stays_where_the_first_is_changed(plain: Assessor) -> None:
    """A model that looks once as well: what a region is worth is measured on both photos, as the answer is."""
    alone, both = (plain.forward([LESION], [Context()], [other]) for other in (None, CLOSE_UP))
    known = [i for i, logit in enumerate(both.logits[0].tolist()) if np.isfinite(logit)]
    assert float((alone.logits - both.logits)[0, known].abs().max()) > 0.1
    window = both.windows[0].crop(LESION.pixels)
    again = plain.predictor.forward_changed([window, window], Context(), both)
    for row in again.logits:
        assert float((row - both.logits[0])[known].abs().max()) < 0.01
    assert plain.heat_on_photo(LESION, clinical=CLOSE_UP).shape == LESION.pixels.shape[:2]


def test_a_pair_gets_the_calibration_of_pairs_where_there_is_one(assessor: Assessor) -> None:
    of_pairs = replace(assessor.calibrator.first, min_confidence=0.5)
    kinds = {**assessor.calibrator.by_kind, PAIR: of_pairs}
    predictor = replace(assessor.predictor, calibrator=replace(assessor.calibrator, by_kind=kinds))
    said = replace(LESION, kind="clinical")
    context = [Context()]
    assert predictor.forward([said], context, ["clinical"], [CLOSE_UP]).calibrated.kinds == (PAIR,)
    assert predictor.forward([said], context, ["clinical"], [None]).calibrated.kinds == ("clinical",)
    # without one what was given holds
    assert assessor.forward([said], context, [CLOSE_UP]).calibrated.kinds == ("clinical",)
