"""Verdict, set, threshold and rationale never contradict one another; what "Referral not advised" leaves open too."""

from __future__ import annotations

import dataclasses
import random
import re

import numpy as np
import pytest

from skinclip.core import assessment as record
from skinclip.core.vocabulary import CRITERIA, DIAGNOSES, DIAGNOSIS_BY_CODE, DIAGNOSIS_CODES, MALIGNANT_CODES
from skinclip.language.rationale import random_example, tidy, write_rationale
from skinclip.language.rationale_check import check_rationale
from skinclip.reporting import phrasing

SQUARE = record.Region((10, 10, 30, 30), (((10, 10), (30, 10), (30, 30), (10, 30)),))
# Every way to say that a diagnosis remains possible, in any text of the page.
POSSIBLE = (
    *("{} is not excluded", "{} remains possible", "{} cannot be ruled out", "{} stays in the differential"),
    *("could be {}", "still room for {}", "{} should be kept in mind", "not exclude {}", "keep {} in mind"),
    *("Cannot be ruled out: [^.(]*{}", "{} or [^.(]* cannot be ruled out"),
)


def made_up(
    p: np.ndarray, codes: tuple[str, ...], threshold: float, findings: tuple[str, ...] = (), rationale: str = ""
) -> record.Assessment:
    """Of a model that knows the first `len(p)` diagnoses."""
    order = np.argsort(-p, kind="stable")
    malignancy = float(sum(share for code, share in zip(DIAGNOSIS_CODES, p, strict=False) if code in MALIGNANT_CODES))
    return record.Assessment(
        model=record.ModelInfo("mini", "0", "0" * 64),
        photo=record.PhotoInfo(160, 120, "0" * 64, record.Quality(True)),
        context=record.Context(),
        diagnosis=tuple(record.DiagnosisProbability(DIAGNOSES[i].code, DIAGNOSES[i].name, float(p[i])) for i in order),
        prediction_set=record.PredictionSet(0.9, codes),
        malignancy=record.Malignancy(malignancy, threshold, malignancy >= threshold, 0.92),
        shift=record.Shift(0.5, True),
        lesion=record.Lesion((20, 20, 100, 100), SQUARE.polygons, 0.33),
        criteria={c.code: {label: 1 / len(c.labels) for label in c.labels} for c in CRITERIA},
        findings=tuple(
            record.Finding(f"r{i + 1}", *key.split(":"), 0.8, SQUARE, effect=0.1) for i, key in enumerate(findings)
        ),
        rationale=rationale,
        abstained=False,
    )


def combination(seed: int) -> record.Assessment:
    """Any probabilities, any set that holds the most probable first, any threshold, and the rationale for them."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    p = numbers.dirichlet(np.full(len(DIAGNOSES), rng.choice((0.1, 0.3, 1.0))))
    order = np.argsort(-p, kind="stable")
    codes = tuple(DIAGNOSIS_CODES[i] for i in order[: rng.choice((1, 1, 1, 2, 2, 3, len(DIAGNOSES)))])
    *_, findings = random_example(rng)
    plain = made_up(p, codes, rng.choice((0.02, 0.1, 0.3, 0.6)), findings)
    d = plain.differential
    text = write_rationale(d.leading, d.runner_up, findings, rng, d.runner_up_open)
    assert not check_rationale(text, findings, (d.leading, d.runner_up), d.runner_up_open)
    return dataclasses.replace(plain, rationale=tidy(text))


def everything(assessment: record.Assessment) -> str:
    a = phrasing.advice(assessment)
    parts = (a.verdict, a.basis, a.prediction_set, a.reconciliation, *a.leaves_open, assessment.rationale)
    return " ".join(parts).replace("**", "")


def said_possible(code: str, text: str) -> bool:
    name = DIAGNOSIS_BY_CODE[code].name
    return any(re.search(pattern.format(name), text, re.IGNORECASE) for pattern in POSSIBLE)


def contradictions(assessment: record.Assessment) -> list[str]:
    """What a reader would stumble over, by rules that know nothing of how the sentences are made."""
    text, codes, m = everything(assessment), assessment.prediction_set.codes, assessment.malignancy
    verdict = phrasing.advice(assessment).verdict
    problems = [f"{c} is outside the set and said to be possible" for c in DIAGNOSIS_CODES if c not in codes]
    problems = [p for p in problems if said_possible(p.split()[0], text)]
    if verdict == "Referral not advised":
        problems += [f"not referred, yet {c} is said to be possible" for c in MALIGNANT_CODES if said_possible(c, text)]
        problems += [f"not referred, yet {c} is in the set" for c in MALIGNANT_CODES if c in codes]
        problems += ["not referred, yet histology is asked for"] if "histology" in text and len(codes) == 1 else []
    if (verdict == "Refer") != m.refer or ("below the referral" in text.lower()) == m.refer:
        problems.append("verdict and threshold disagree")
    if len(codes) == 1 and ("Cannot be ruled out:" in text or "Only " not in text):
        problems.append("a set of one is worded as one of several")
    if bool(phrasing.leaves_open(assessment)) == m.refer:
        problems.append("what is left open is missing, or said of a referral")
    return problems


def test_no_combination_of_verdict_set_threshold_and_rationale_contradicts_itself() -> None:
    kinds = set()
    for seed in range(3000):
        assessment = combination(seed)
        assert contradictions(assessment) == [], (seed, everything(assessment))
        m, codes = assessment.malignancy, assessment.prediction_set.codes
        kinds.add(
            (m.refer, len(codes) == 1, bool(MALIGNANT_CODES & set(codes)), assessment.differential.runner_up_open)
        )
    assert len(kinds) >= 8  # the draws reach every corner


def test_the_contradiction_that_was_reported_is_recognised() -> None:
    p = np.array([0.01, 0.01, 0.02, 0.01, 0.03, 0.91, 0.01])
    kept = made_up(p, ("nv",), 0.1, rationale="This looks most like melanocytic nevus. Melanoma is not excluded.")
    assert phrasing.advice(kept).verdict == "Referral not advised"
    assert "not referred, yet mel is said to be possible" in contradictions(kept)
    assert phrasing.prediction_set(kept).startswith("Only **melanocytic nevus** remains in the 90\xa0% set")


def test_a_malignant_diagnosis_in_the_set_is_never_beside_do_not_refer() -> None:
    p = np.array([0.01, 0.01, 0.02, 0.01, 0.06, 0.88, 0.01])
    a = phrasing.advice(made_up(p, ("nv", "mel"), 0.1))
    assert a.verdict == "Below the referral threshold"
    assert "**Melanoma cannot be ruled out**" in a.reconciliation and "clinical picture" in a.reconciliation


def test_a_referral_beside_a_benign_set_says_why() -> None:
    p = np.array([0.03, 0.03, 0.02, 0.01, 0.05, 0.85, 0.01])
    a = phrasing.advice(made_up(p, ("nv",), 0.1))
    assert a.verdict == "Refer" and "no malignant diagnosis, yet" in a.reconciliation and a.leaves_open == ()


def test_do_not_refer_says_what_it_leaves_open() -> None:
    p = np.array([0.01, 0.01, 0.02, 0.01, 0.03, 0.91, 0.01])
    missed, unnamed = phrasing.leaves_open(made_up(p, ("nv",), 0.1))
    assert missed == "At this threshold 8\xa0% of malignant calibration photos were missed."
    assert "seven diagnoses" in unnamed and "Merkel cell carcinoma" in unnamed and "squamous" in unnamed
    more = np.append(p, [0.0, 0.0])
    _, unnamed = phrasing.leaves_open(made_up(more, ("nv",), 0.1))
    assert "nine diagnoses" in unnamed and "Merkel cell carcinoma" in unnamed and "squamous" not in unnamed


def test_what_counts_as_malignant_follows_what_the_model_knows() -> None:
    seven, nine = (phrasing.malignant_here(made_up(np.full(n, 1 / n), ("nv",), 0.1)) for n in (7, 9))
    assert "squamous" not in seven and "either" not in seven
    assert "squamous cell carcinoma or keratoacanthoma" in nine
    assert nine.endswith('"None of these" may be either and is counted as not malignant.')


def dependent(**values: object) -> record.Assessment:
    measured = record.Dependence("r1", 0.86, 0.85, 0.84, False)
    plain = made_up(np.eye(len(DIAGNOSES))[5], ("nv",), 0.1, ("streaks:irregular",))
    return dataclasses.replace(plain, dependence=dataclasses.replace(measured, **values))


def test_dependence_on_a_region_is_claimed_only_beyond_chance() -> None:
    assert "depends most" not in phrasing.depends(dependent()) and dependent().pivotal is None
    # a large change that random places make as well is said with its figures: "What would change" shows it too
    text = phrasing.depends(dependent(after=0.05, after_random=0.2))
    assert (
        "not shown to depend" in text
        and "Chance" in text
        and "[r1]" in text
        and "from 86\xa0% to 5.0\xa0%" in text
        and "to 20\xa0% on average" in text
    )
    text = phrasing.depends(dependent(after=0.31, after_random=0.82, beyond_chance=True))
    assert "depends most on [r1]" in text and "from 86\xa0% to 31\xa0%" in text and "to 82\xa0% on average" in text
    assert phrasing.depends(made_up(np.eye(len(DIAGNOSES))[5], ("nv",), 0.1, ("streaks:irregular",))) == ""


@pytest.mark.parametrize("n", [1, 2, len(DIAGNOSES)])
def test_the_number_of_diagnoses_comes_from_the_vocabulary(n: int) -> None:
    text = phrasing.prediction_set(made_up(np.full(len(DIAGNOSES), 1 / len(DIAGNOSES)), DIAGNOSIS_CODES[:n], 0.1))
    assert ("None of the nine" in text) == (n == len(DIAGNOSES))


def test_two_photos_of_one_kind_are_told() -> None:
    plain = made_up(np.array([0.1, 0.6, 0.3]), ("bcc",), 0.2)
    for kinds, told in ((("clinical", "clinical"), True), (("dermoscopy", "clinical"), False), ((None, None), False)):
        photos = tuple(dataclasses.replace(plain.photo, kind=kind, kind_recognised=kind) for kind in kinds)
        both = dataclasses.replace(plain, photo=photos[0], photos=photos)
        assert ("Both photos are taken for clinical close-ups" in " ".join(phrasing.cautions(both))) == told
        assert record.Assessment.from_json(both.to_json()) == both
    assert phrasing.photos_alone(both) == "these two photos alone" and phrasing.beside(plain) == ""
