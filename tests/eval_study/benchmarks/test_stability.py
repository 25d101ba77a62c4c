"""Changes of photo and wording: what they do to pixels and probabilities, by hand."""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from eval_study.benchmarks import stability
from eval_study.benchmarks.paraphrases import PARAPHRASES
from eval_study.benchmarks.stability import PHOTO_CHANGES, compare, described
from skinclip.calibration.temperature import Calibration
from skinclip.core.known import KnownVocabulary
from skinclip.core.patient_context import CONTEXT_NUMBERS
from skinclip.core.vocabulary import DIAGNOSES, EVIDENCE_STATES
from skinclip.data.cases import Case
from skinclip.evaluation import metrics
from skinclip.imaging.examples import draw
from skinclip.language.paraphrases import write_description
from skinclip.model.reasoner import InputWidths, Readout
from skinclip.reporting.markdown import section_markdown


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return draw("nevus", 3, (96, 128))


@pytest.mark.parametrize("name", list(PHOTO_CHANGES))
def test_changes_keep_the_kind_of_picture_and_change_it(name: str, photo: np.ndarray) -> None:
    changed = PHOTO_CHANGES[name](photo)
    assert changed.dtype == np.uint8 and changed.ndim == 3 and changed.flags.c_contiguous
    assert sorted(changed.shape) == sorted(photo.shape)
    assert changed.shape != photo.shape or (changed != photo).any()


def test_worse_jpeg_is_farther_from_the_photo(photo: np.ndarray) -> None:
    far = [np.abs(stability.jpeg(q)(photo).astype(int) - photo).mean() for q in (95, 75, 50, 30)]
    assert far == sorted(far) and far[0] > 0


def test_turning_back_gives_the_photo(photo: np.ndarray) -> None:
    assert (stability.turned(3)(stability.turned(1)(photo)) == photo).all()
    assert (stability.mirrored(1)(stability.mirrored(1)(photo)) == photo).all()


def test_flips_and_total_variation_by_hand() -> None:
    before = np.array([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1], [0.2, 0.8]])
    after = np.array([[0.4, 0.6], [0.4, 0.6], [0.8, 0.2], [0.2, 0.8]])
    changes = compare(before, after, metrics.GroupBootstrap(list("abcd"), 100))
    assert changes["flips"]["value"] == 0.25
    assert changes["moved"]["value"] == pytest.approx(0.1) and changes["moved_most"] == pytest.approx(0.3)


def test_other_descriptions_are_used_and_put_back(tiny_model) -> None:
    before = tiny_model.descriptions.clone()
    with described(tiny_model, [d.descriptions[::-1] for d in DIAGNOSES]):
        torch.testing.assert_close(tiny_model.descriptions, before)
    with pytest.raises(RuntimeError), described(tiny_model, [PARAPHRASES[d.code] for d in DIAGNOSES]):
        assert not torch.allclose(tiny_model.descriptions, before, atol=1e-3)
        raise RuntimeError
    assert torch.equal(tiny_model.descriptions, before)


def test_a_reordered_bank_is_put_back(tiny_model) -> None:
    before = tiny_model.descriptions.clone()
    order = [3, 0, 6, 8, 1, 5, 2, 7, 4]
    with stability.reordered(tiny_model, order):
        assert torch.equal(tiny_model.descriptions[0], before[3])
    assert torch.equal(tiny_model.descriptions, before)


def test_the_answers_of_a_readout_follow_their_diagnoses(tiny_model) -> None:
    known = KnownVocabulary()
    readout = Readout(InputWidths(tokens=2, embedding=3, adapter=2, states=14, style=4, known=known))
    model = SimpleNamespace(descriptions=tiny_model.descriptions, reasoner=SimpleNamespace(readout=readout))
    read = partial(readout.read, torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, CONTEXT_NUMBERS))
    before, order = read(), [3, 0, 6, 8, 1, 5, 2, 7, 4]
    with stability.reordered(model, order):
        assert torch.equal(read(), before[:, order])
    assert torch.equal(read(), before)


def test_probabilities_come_in_the_usual_order_whatever_that_of_the_model(tmp_path) -> None:
    logits = torch.linspace(-1, 1, 9).repeat(5, 1) * torch.arange(1, 6)[:, None]
    names, order = [str(i) for i in range(5)], [3, 0, 6, 8, 1, 5, 2, 7, 4]
    for name in names:
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((80, 80, 3), 40 * int(name), np.uint8))
    cases = [Case(tmp_path / f"{name}.png", name, "drawn", name) for name in names]

    def see(photos, contexts, order=range(9)):
        index = [round(p.pixels.mean() / 40) for p in photos]  # which photo it is can be told from its grey
        return SimpleNamespace(logits=logits[index][:, list(order)])

    def assessor(order=range(9)):
        calibrator = SimpleNamespace(calibration=Calibration(1.0, (0.0,) * 9))
        return SimpleNamespace(forward=lambda photos, contexts: see(photos, contexts, order), calibrator=calibrator)

    usual = stability.probabilities(assessor(), cases)
    assert np.allclose(usual, logits.softmax(1).numpy())
    assert np.allclose(stability.probabilities(assessor(), cases, batch=2, reverse=True), usual)
    assert np.allclose(stability.probabilities(assessor(order), cases, order=order), usual)


def test_paraphrases_were_not_in_training() -> None:
    trained = {t for d in DIAGNOSES for t in d.descriptions} | {t for s in EVIDENCE_STATES for t in s.descriptions}
    rng = random.Random(0)
    trained |= {write_description(d.code, rng) for d in DIAGNOSES for _ in range(2000)}
    assert list(PARAPHRASES) == [d.code for d in DIAGNOSES]
    for d in DIAGNOSES:
        own = PARAPHRASES[d.code]
        assert len(own) == 6 and len(set(own)) == len(own)
        assert not any(p.lower() in t.lower() for p in own for t in trained)


def test_every_wording_has_descriptions_of_every_diagnosis() -> None:
    banks = stability.paraphrases()
    assert all(len(bank) == len(DIAGNOSES) and all(bank) for bank in banks.values())
    mel = [d.code for d in DIAGNOSES].index("mel")
    first, second = (banks[name][mel] for name in stability.SETS_OF_THREE)
    assert (*first, *second) == PARAPHRASES["mel"]
    assert sorted(banks["descriptions reordered"][mel]) == sorted(DIAGNOSES[mel].descriptions)
    assert banks["descriptions reordered"][mel] != DIAGNOSES[mel].descriptions
    assert set(stability.TARGETS) <= {*banks, *stability.NOTHING}


def test_paraphrases_are_tried_on_photos_perceived_once(tiny_model, tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((80, 80, 3), 90, np.uint8))
    case = Case(tmp_path / "a.png", "a", "drawn", "a")
    looks = []

    def see(photos, contexts):
        looks.append(len(photos))
        perceived = tiny_model.perceive(torch.full((1, 3, 64, 64), 0.4))
        return SimpleNamespace(tokens=perceived, evidence=tiny_model.find_evidence(perceived))

    calibrator = SimpleNamespace(calibration=Calibration(1.0, (0.0,) * 9))
    assessor = SimpleNamespace(forward=see, calibrator=calibrator, model=tiny_model)
    banks = {"same": [d.descriptions for d in DIAGNOSES], **stability.paraphrases()}
    changes = stability.reworded(assessor, [case], banks)
    assert looks == [1] and set(changes) == set(banks)
    assert np.allclose(changes["same"], changes["descriptions reordered"], atol=1e-5)
    assert not np.allclose(changes["same"], changes["paraphrase 1 alone"], atol=1e-5)


def test_the_section_shows_every_change_beside_its_target(tmp_path) -> None:
    figure = {"value": 0.02, "low": 0.0, "high": 0.05}
    paraphrased = next(iter(stability.SETS_OF_THREE))
    names = ("repeat", paraphrased, "JPEG quality 30")
    changes = {name: {"flips": figure, "moved": figure, "moved_most": 0.4} for name in names}
    meta = {"n": 300, "data": "ham10000", "split": "valid"}
    text = section_markdown(stability.section({"meta": meta, "changes": changes}))
    row = next(line for line in text.splitlines() if line.startswith(f"| {paraphrased} |"))
    assert "0.020 (0.000-0.050)" in row and "3%" in row and "0.400" in row
    assert "(figures/stability.svg)" in text
