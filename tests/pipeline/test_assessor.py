"""The path with the embedded checkpoint: what a user gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skinclip.core.assessment import Assessment, Context, Finding
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSIS_CODES
from skinclip.imaging.examples import LOOKS, SHIPPED_SEEDS, draw
from skinclip.imaging.photo import from_array, load_photo
from skinclip.language.rationale_check import check_rationale, read_rationale
from skinclip.model.criteria import cited_state
from skinclip.pipeline.assessor import Assessor

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def assessor() -> Assessor:
    return Assessor.load("mini")


def test_same_photo_twice_gives_the_same_assessment(assessor: Assessor) -> None:
    photo = from_array(draw("melanoma", 7))
    first = assessor.assess(photo, Context(60, "male", "back"))
    assert first == assessor.assess(photo, Context(60, "male", "back"))
    assert Assessment.from_json(first.to_json()) == first


@pytest.mark.parametrize("kind", sorted(LOOKS))
def test_every_part_of_an_assessment_holds(assessor: Assessor, kind: str) -> None:
    photo = from_array(draw(kind, SHIPPED_SEEDS[kind]))
    a = assessor.assess(photo)
    assert not a.abstained and a.photo.kind == "dermoscopy"  # as it is shown on the page
    p = [d.probability for d in a.diagnosis]
    assert {d.code for d in a.diagnosis} == set(assessor.config.diagnoses) <= set(DIAGNOSIS_CODES)
    assert set(a.criteria) == set(assessor.config.criteria)
    assert p == sorted(p, reverse=True) and abs(sum(p) - 1) < 1e-6
    assert a.diagnosis[0].code in a.prediction_set.codes
    assert a.malignancy.refer == (a.malignancy.probability >= a.malignancy.threshold)
    assert [f.ref for f in a.findings] == [f"r{i + 1}" for i in range(len(a.findings))]
    for finding in a.findings:
        xs, ys = zip(*(point for polygon in finding.region.polygons for point in polygon), strict=True)
        assert min(xs) >= 0 and max(xs) <= photo.width and min(ys) >= 0 and max(ys) <= photo.height
    if a.rationale:
        keys = [f.key for f in a.findings]
        assert not check_rationale(a.rationale, keys, [d.code for d in a.diagnosis[:2]])
        assert read_rationale(a.rationale).leading == a.diagnosis[0].code


def test_every_criterion_has_a_threshold(assessor: Assessor) -> None:
    assert set(assessor.thresholds) == set(assessor.config.criteria)


def test_a_criterion_is_cited_by_its_presence_and_as_its_most_probable_state() -> None:
    p = np.array([[0.3, 0.3, 0.4], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0]])
    assert cited_state(p, 0.5).tolist() == [2, 0, 1]
    assert cited_state(p[0], 0.75) == 0


def test_findings_are_the_criteria_that_pass(assessor: Assessor, monkeypatch) -> None:
    photo = from_array(draw("melanoma", 7))
    codes = {f.criterion for f in assessor.assess(photo).findings}

    def cited(threshold: float) -> dict[str, Finding]:
        monkeypatch.setattr(assessor, "thresholds", dict.fromkeys(assessor.config.criteria, threshold))
        return {f.criterion: f for f in assessor.assess(photo).findings if f.criterion in CRITERION_CODES}

    assert codes and not cited(1.01)
    given = assessor.assess(photo).criteria
    for code, finding in cited(0.0).items():
        states = {s: p for s, p in given[code].items() if s != "absent"}
        assert finding.state == max(states, key=states.get)
        assert finding.score == pytest.approx(states[finding.state], abs=1e-6)


def test_regions_follow_the_lesion_when_the_photo_is_larger(assessor: Assessor) -> None:
    small, large = draw("nevus", 3, (400, 300)), draw("nevus", 3, (400, 300)).repeat(2, 0).repeat(2, 1)
    a, b = assessor.assess(from_array(small)), assessor.assess(from_array(large))
    assert a.lesion.box is not None and b.lesion.box is not None
    np.testing.assert_allclose(np.array(b.lesion.box) / 2, np.array(a.lesion.box), atol=12)


def test_a_black_photo_makes_the_model_abstain(assessor: Assessor) -> None:
    a = assessor.assess(from_array(np.zeros((300, 400, 3), np.uint8)))
    assert a.abstained and not a.photo.quality.usable and a.rationale == ""


def test_grad_cam_lies_on_the_photo_and_is_not_zero(assessor: Assessor) -> None:
    photo = from_array(draw("melanoma", 7))
    heat = assessor.heat_on_photo(photo)
    assert heat.shape == (photo.height, photo.width) and heat.min() >= 0 and 0 < heat.max() <= 1


def test_command_line_prints_one_object_and_nothing_else(tmp_path: Path) -> None:
    example = ROOT / "assets/examples/synthetic_nevus.jpg"
    command = [
        sys.executable,
        "-m",
        "skinclip",
        "assess",
        str(example),
        "--age",
        "40",
        "--json",
        "--out",
        str(tmp_path),
        "--pdf",
        str(tmp_path / "lesion.pdf"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["photo"]["sha256"] == load_photo(example).sha256
    assert {"assessment.json", "regions.png", "gradcam.png", "lesion.pdf"} == {p.name for p in tmp_path.iterdir()}


def test_command_line_says_in_one_line_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("text")
    command = [sys.executable, "-m", "skinclip", "assess", str(tmp_path / "photo.jpg"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and "Choose" in done.stderr
