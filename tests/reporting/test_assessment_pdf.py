"""The Assessment as a PDF, read back: what stands in it, in which colours, and what must not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import pypdfium2
import pytest

from skinclip import RESEARCH_USE_ONLY
from skinclip.core import assessment as record
from skinclip.core.vocabulary import CRITERIA, DIAGNOSES, MAX_FINDINGS, STATE_BY_KEY
from skinclip.imaging.overlay import colour_of, region_overlay
from skinclip.reporting.assessment_pdf import UNKNOWN, assessment_pdf

PIXELS = np.random.default_rng(0).integers(90, 200, (120, 160, 3), dtype=np.uint8)
WHOLE = ((20.0, 20.0), (140.0, 20.0), (140.0, 100.0), (20.0, 100.0))
KEYS = tuple({state.criterion: key for key, state in STATE_BY_KEY.items()}.values())
SCALE = 6  # pixels to a point when a page is drawn
PAGE_WIDTH, PAGE_HEIGHT = 595, 842  # points


def square(i: int) -> record.Region:
    x, y = 25.0 + 10 * i, 30.0
    return record.Region((x, y, x + 8, y + 30), (((x, y), (x + 8, y), (x + 8, y + 30), (x, y + 30)),))


def made_up(n: int = 2, **changes: object) -> record.Assessment:
    """An Assessment with the first `n` of ten findings, each cited."""
    p = [0.02, 0.03, 0.09, 0.01, 0.6, 0.17, 0.04, 0.02, 0.02]
    ranked = sorted(zip(DIAGNOSES, p, strict=True), key=lambda pair: -pair[1])
    findings = tuple(
        record.Finding(f"r{i + 1}", *key.split(":"), 0.95 - 0.05 * i, square(i)) for i, key in enumerate(KEYS[:n])
    )
    cited = ", ".join(f"[r{i + 1}] {STATE_BY_KEY[key].phrase}" for i, key in enumerate(KEYS[:n]))
    whole = record.Assessment(
        model=record.ModelInfo("mini", "0.1.0", "ab12" * 16),
        photo=record.PhotoInfo(160, 120, "cd34" * 16, record.Quality(True)),
        context=record.Context(55, "female", "back"),
        diagnosis=tuple(record.DiagnosisProbability(d.code, d.name, q) for d, q in ranked),
        prediction_set=record.PredictionSet(0.9, ("mel", "nv")),
        malignancy=record.Malignancy(0.65, 0.2, True),
        shift=record.Shift(0.4, True),
        lesion=record.Lesion((20, 20, 140, 100), (WHOLE,), 0.5),
        criteria={c.code: {label: 1 / len(c.labels) for label in c.labels} for c in CRITERIA},
        findings=findings,
        rationale=f"Most likely this is melanoma, given {cited}. Melanocytic nevus is not excluded." if n else "",
        abstained=False,
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def pages(assessment: record.Assessment, pixels: np.ndarray = PIXELS) -> list[str]:
    document = pypdfium2.PdfDocument(assessment_pdf(assessment, pixels))
    texts = [page.get_textpage().get_text_range() for page in document]
    document.close()
    return texts


def text_of(assessment: record.Assessment) -> str:
    """All words of the file, line breaks being spaces."""
    return " ".join(" ".join(pages(assessment)).split())


def numbers(assessment: record.Assessment) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    """(part of the page, number, colour of its disc) of every number on a disc, as it is drawn."""
    document = pypdfium2.PdfDocument(assessment_pdf(assessment, PIXELS))
    page = document[0]
    drawn = page.render(scale=SCALE).to_numpy()[..., :3][..., ::-1]  # BGR
    words = page.get_textpage()
    text = words.get_text_range()
    places = {m.start(): m for m in re.finditer(r"\b(10|[1-9])(?= [a-z]+[a-z -]*)", text)}
    bounds = (text.index("FINDINGS"), text.index("RATIONALE"), text.index("CRITERIA, PROB"))
    for start, match in places.items():
        if bounds[0] < start < bounds[2]:
            left, bottom, right, top = words.get_charbox(start)
            right = words.get_charbox(match.end() - 1)[2]
            x, y = (left + right) / 2, (bottom + top) / 2 + 4  # above the number, still on its disc
            colour = drawn[round((page.get_height() - y) * SCALE), round(x * SCALE)]
            yield "list" if start < bounds[1] else "rationale", match.group(1), tuple(int(c) for c in colour)
    document.close()


@pytest.mark.parametrize("n", [1, 2, 5, MAX_FINDINGS])
def test_each_cited_finding_is_listed_once_in_the_colour_of_its_region(n: int) -> None:
    found = list(numbers(made_up(n)))
    expected = [(str(i + 1), colour_of(i)) for i in range(n)]
    assert sorted((k, c) for part, k, c in found if part == "list") == sorted(expected)
    assert [(k, c) for part, k, c in found if part == "rationale"] == expected


def test_the_list_says_what_was_found_with_which_score() -> None:
    text = text_of(made_up(MAX_FINDINGS))
    for i, key in enumerate(KEYS[:MAX_FINDINGS]):
        assert text.count(f"{i + 1} {STATE_BY_KEY[key].phrase} score {0.95 - 0.05 * i:.2f}") == 1
    assert "[r" not in text


def test_the_answer_stands_in_the_file_with_what_made_it() -> None:
    text = text_of(made_up())
    for d in made_up().diagnosis:
        assert re.search(rf"{d.name}( ▲)? {100 * d.probability:.0f}", text), d.name
    assert "Cannot be ruled out: melanoma or melanocytic nevus" in text
    assert "Refer" in text and "Probability of malignancy 65.0 %, at or above the referral threshold of 20.0 %" in text
    assert "Most likely this is melanoma, given 1 atypical pigment network, 2 irregular streaks. Melanocytic" in text
    assert "Patient: 55 years, female, back" in text
    assert "model mini 0.1.0, weights ab12ab12ab12" in text and "photo cd34cd34cd34" in text
    for criterion in CRITERIA:
        assert criterion.name in text
    assert "absent 33 % · regular 33 % · irregular 33 %" in text


def test_research_use_only_stands_on_every_page() -> None:
    long = made_up(MAX_FINDINGS, rationale=made_up(MAX_FINDINGS).rationale * 8)
    for assessment, count in ((made_up(), 1), (made_up(MAX_FINDINGS), 1), (long, 2)):
        texts = pages(assessment)
        assert len(texts) == count
        for i, text in enumerate(texts):
            assert text.count(RESEARCH_USE_ONLY) == 1 and f"page {i + 1} of {count}" in text


def test_an_abstained_photo_gets_no_figures_and_the_reason_first() -> None:
    issue = record.QualityIssue("blur", "The photo is blurred: take a sharper one.", True)
    photo = dataclasses.replace(made_up().photo, quality=record.Quality(False, (issue,)))
    quiet = made_up(abstained=True, rationale="", photo=photo, shift=record.Shift(0.999, False))
    text = text_of(quiet)
    assert text.index("the model abstains") < text.index(issue.message) < text.index("Photo")
    assert "more unusual than 99.9 % of them" in text
    for word in ("melanoma", "DIFFERENTIAL", "REFERRAL", "FINDINGS", "RATIONALE", "CRITERIA", "malignan"):
        assert word not in text


def test_cautions_stand_before_the_answer() -> None:
    issue = record.QualityIssue("cut_off", "The lesion is cut off at the border.", False)
    photo = dataclasses.replace(made_up().photo, quality=record.Quality(True, (issue,)))
    text = text_of(made_up(photo=photo))
    assert text.index("Please note") < text.index(issue.message) < text.index("DIFFERENTIAL")
    assert "Please note" not in text_of(made_up())


def test_without_findings_it_says_so() -> None:
    text = text_of(made_up(0))
    assert "No finding reaches its threshold." in text and "RATIONALE" not in text
    no_lesion = made_up(0, lesion=record.Lesion(None, (), 0.0), criteria={})
    assert "No lesion was found" in text_of(no_lesion) and "CRITERIA" not in text_of(no_lesion)


def test_letters_of_other_alphabets_stay_and_unknown_ones_are_marked() -> None:
    text = text_of(
        made_up(
            rationale="Меланома, μελάνωμα, Łódź; 黒色腫 \U0001f600 \u200b\x07 end [r9].",
            context=record.Context(site="спина"),
        )
    )
    assert "Меланома, μελάνωμα, Łódź; " + 3 * UNKNOWN in text and "end [r9]." in text and "Patient: спина" in text


def test_text_wider_than_the_page_is_cut_and_not_lost() -> None:
    document = pypdfium2.PdfDocument(assessment_pdf(made_up(rationale="a" + "x" * 500 + "z"), PIXELS))
    words = document[0].get_textpage()
    assert words.get_text_range().count("x") >= 500
    for i in range(words.count_chars()):
        assert words.get_charbox(i)[0] >= 0 and words.get_charbox(i)[2] <= PAGE_WIDTH
    document.close()


def test_words_that_look_like_marks_of_ours_stay_text() -> None:
    assert "**--__not bold__--** <b>" in text_of(made_up(rationale="**--__not bold__--** <b>"))


def test_the_pictures_are_the_photo_and_its_regions() -> None:
    """Both at the same size, the photo as it is and the other as on the page."""
    document = pypdfium2.PdfDocument(assessment_pdf(made_up(), PIXELS))
    pictures = [o for o in document[0].get_objects() if o.type == pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]
    photo, regions = (o.get_bitmap().to_numpy()[..., ::-1].astype(float) for o in pictures)
    assert photo.shape == regions.shape == (480, 640, 3)
    assert abs(photo.mean() - PIXELS.mean()) < 1
    large = region_overlay(photo.astype(np.uint8), made_up())
    assert np.abs(regions - large).mean() < 6 < np.abs(regions - photo).max()
    document.close()


def test_the_same_assessment_gives_the_same_bytes_and_no_metadata() -> None:
    data = assessment_pdf(made_up(), PIXELS)
    assert data == assessment_pdf(made_up(), PIXELS) != assessment_pdf(made_up(1), PIXELS)
    assert data.startswith(b"%PDF-") and b"Exif" not in data and b"<x:xmpmeta" not in data
    document = pypdfium2.PdfDocument(data)
    told = {key: value for key, value in document.get_metadata_dict().items() if value}
    assert told == {
        "Title": "SkinCLIP-VL assessment",
        "Subject": RESEARCH_USE_ONLY,
        "CreationDate": "D:19700101000000Z",
    }
    width, height = document[0].get_size()
    assert (round(width), round(height)) == (PAGE_WIDTH, PAGE_HEIGHT)
    document.close()


@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 640, 3), (900, 70, 3), (3000, 2000, 3)])
def test_photos_of_any_shape_fit_on_one_page(shape: tuple[int, int, int]) -> None:
    photo = record.PhotoInfo(shape[1], shape[0], "0" * 64, record.Quality(True))
    assert len(pages(made_up(MAX_FINDINGS, photo=photo), np.full(shape, 120, np.uint8))) == 1


def test_the_case_and_the_clinicians_version_are_marked() -> None:
    own = made_up()
    corrected = record.Revision(
        (), ("r1",), {}, own.diagnosis, own.prediction_set, record.Malignancy(0.4, 0.2, True)
    )  # fmt: skip
    added = record.ClinicianRecord("C-17", "2026-11-27", "nv", False, "turned right", corrected)
    document = pypdfium2.PdfDocument(assessment_pdf(dataclasses.replace(own, clinician=added), PIXELS))
    words = document[0].get_textpage().get_text_range().replace("\r\n", " ")
    for said in ("Case C-17 · 2026-11-27", "clinician's version", "turned right", "melanocytic nevus", "struck out"):
        assert said in words
    assert "is 40 %" in words and "Probability of malignancy 65.0 %" in words


def test_both_photos_are_named_with_their_kinds_and_shown() -> None:
    plain = made_up()
    blurred = record.Quality(False, (record.QualityIssue("blur", "The photo is out of focus.", True),))
    first = dataclasses.replace(plain.photo, kind="dermoscopy", kind_recognised="dermoscopy")
    other = record.PhotoInfo(120, 160, "ef56" * 16, blurred, "clinical", None, "clinical", "dermoscopy")
    both = dataclasses.replace(plain, photo=first, photos=(first, other))
    file = assessment_pdf(both, PIXELS, PIXELS[::2, ::2])
    with pypdfium2.PdfDocument(file) as document:
        text = " ".join(" ".join(page.get_textpage().get_text_range() for page in document).split())
        pictures = [o for page in document for o in page.get_objects() if o.type == pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]
    assert len(pictures) == 3 and "REFERRAL, ON THESE PHOTOS ALONE" in text
    assert "Photos cd34cd34 (dermoscopy) and ef56ef56 (clinical close-up as given)" in text
    assert "photo ef56ef56ef56, 120 × 160 pixels" in text and "The other photo: the photo is out of focus." in text
    assert "Other photo, clinical close-up as given" in text


def test_a_clinical_photo_gets_abcd_and_no_criteria_of_dermoscopy() -> None:
    plain = made_up(0)
    clinical = dataclasses.replace(plain.photo, kind="clinical", kind_given="clinical")
    text = text_of(dataclasses.replace(plain, photo=clinical, criteria={}))
    assert "A asymmetry: not clear either way; B border" in text and "D diameter: not measured" in text
    assert "DERMOSCOPIC" not in text and "does not tell close-ups from dermoscopy" in text
