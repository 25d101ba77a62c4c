"""The one command: what is measured, kept, left out and reported; the readouts of a real, untrained model."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from eval_study.benchmarks import command, evidence, scarcity
from eval_study.benchmarks.__main__ import COMMAND
from eval_study.benchmarks.common import Bench, predict, with_labels
from skinclip.calibration.calibrator import Calibrator, StyleSample
from skinclip.calibration.outputs import DERMOSCOPY, LabelledOutputs
from skinclip.core.assessment import ModelInfo
from skinclip.core.config import ModelConfig, save_yaml
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import DataError
from skinclip.data.readers import discover
from skinclip.evaluation import metrics
from skinclip.imaging.examples import draw_with_mask
from skinclip.imaging.transform import PhotoTransform
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting.document import Section

KINDS = {"nevus": "nv", "melanoma": "mel", "keratosis": "bkl"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Nine drawn photos of HAM10000's layout, three of them a test split."""
    folder = tmp_path_factory.mktemp("data") / "ham10000"
    folder.mkdir()
    rows, number = ["image,mask,diagnosis,lesion_id,split"], 0
    for split in ("calib", "valid", "test"):
        for kind, code in KINDS.items():
            photo, mask = draw_with_mask(kind, number, (96, 96))
            cv2.imwrite(str(folder / f"{number}.png"), photo)
            cv2.imwrite(str(folder / f"{number}m.png"), mask.astype(np.uint8) * 255)
            rows.append(f"{number}.png,{number}m.png,{code},L{number},{split}")
            number += 1
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder.parent


@pytest.fixture(scope="module")
def assessor(tiny_model) -> Assessor:
    c, rng = len(DIAGNOSIS_CODES), np.random.default_rng(0)
    style = rng.normal(size=(50, sum(tiny_model.perception.level_widths)))
    prior = np.full(c, 1 / c)
    photos = LabelledOutputs.of_diagnoses(rng.normal(size=(50, c)), np.arange(50) % c)
    trust = Calibrator.fit(photos, {DERMOSCOPY: StyleSample(style, style)}, prior, np.zeros(c))
    transform = PhotoTransform(tiny_model.config.perception.image_size)
    return Assessor(tiny_model, transform, trust, {}, ModelInfo("mini", "test", "ab" * 32))


def bench_of(data, assessor, tmp_path) -> Bench:
    bench = Bench(data, tmp_path / "out", tmp_path / "work", n_boot=20, reason="a test")
    bench.__dict__.update(assessor=assessor, sha="ab" * 32)
    return bench


def test_test_photos_are_noted_once_and_predictions_kept(data, assessor, tmp_path, monkeypatch) -> None:
    bench = bench_of(data, assessor, tmp_path)
    valid, test = bench.measured("ham10000", "valid"), bench.measured("ham10000", "test")
    assert len(valid) == len(test) == 3 and test.labels.tolist() == [DIAGNOSIS_CODES.index(c) for c in KINDS.values()]
    assert test.malignant.tolist() == [0, 1, 0] and np.isfinite(test.iou).all()
    rows = (tmp_path / "out" / "test_ledger.csv").read_text().splitlines()
    assert len(rows) == 2 and rows[1].endswith(f"{'ab' * 32},ham10000,test,3,a test")
    monkeypatch.setattr("eval_study.benchmarks.common.predict", lambda *_: pytest.fail("predicted again"))
    again = bench_of(data, assessor, tmp_path).measured("ham10000", "test")
    assert np.array_equal(again.probabilities, test.probabilities)
    assert len((tmp_path / "out" / "test_ledger.csv").read_text().splitlines()) == 2
    with pytest.raises(DataError, match="no cases of isic2017"):
        bench.measured("isic2017", "test")


def test_predictions_are_those_of_an_assessment(data, assessor) -> None:
    cases = list(discover(data)["ham10000"].split("valid"))
    m = with_labels(cases, predict(assessor, cases))
    from skinclip.imaging.photo import load_photo

    photos = [load_photo(c.image) for c in cases]
    for i, p in enumerate(assessor.predict(photos, [c.context for c in cases])):
        seven = p.probabilities[:7] / p.probabilities[:7].sum()  # the diagnoses that are scored here
        assert np.allclose(m.probabilities[i], [*seven, 0, 0]) and m.refer[i] == p.refer
        assert m.shift[i] == p.shift_score
        assert {DIAGNOSIS_CODES[c] for c in np.flatnonzero(m.inside[i])} == set(p.set_codes) - {"scc", "other"}


def test_readouts_differ_only_in_what_they_hide(data, assessor, tmp_path) -> None:
    bench = bench_of(data, assessor, tmp_path)
    readings = evidence.readouts(assessor, bench.cases("ham10000", "valid"), 0)
    assert set(readings) == set(evidence.READOUTS) and all(v.shape == (3, 9) for v in readings.values())
    whole = bench.measured("ham10000", "valid").logits
    assert np.allclose(readings["full"], whole, atol=1e-5)  # in the order of the cases, whatever the order of measuring
    assert not np.allclose(readings["evidence_only"], whole, atol=1e-3)
    result = evidence.run(bench, ("valid",))["valid"]["readouts"]
    assert result["full"]["changed"]["value"] == 0 and result["full"]["total_variation"]["value"] == 0
    half = evidence._ratio(metrics.mean(np.array([0.2, 0.4])), metrics.mean(np.array([0.4, 0.8])))
    assert half(np.ones((1, 2))) == pytest.approx([0.5])
    assert np.isnan(evidence._ratio(half, metrics.mean(np.zeros(2)))(np.ones((1, 2)))).all()


def test_a_share_is_trained_once(data, assessor, tmp_path, monkeypatch) -> None:
    calls = []

    def fake_train(config, recipe, root, work, out):
        calls.append((recipe.share, (work / "reasoner").exists()))
        (work / "reasoner").mkdir(exist_ok=True)
        out.mkdir(parents=True)
        save_yaml(recipe, out / "recipe.yaml")
        (out / "findings.json").write_text("{}")

    monkeypatch.setattr(scarcity, "train", fake_train)
    bench = bench_of(data, assessor, tmp_path)
    recipes = [scarcity.dataclasses.replace(scarcity.TrainConfig(), share=s) for s in (0.12, 0.25, 0.12)]
    folders = [scarcity.trained(bench, recipe, ModelConfig()) for recipe in recipes]
    assert folders[0] == folders[2] != folders[1]
    assert calls == [(0.12, False), (0.25, True)]  # the language of the first serves the second


def test_report_holds_every_result_and_names_what_is_missing(data, assessor, tmp_path, monkeypatch) -> None:
    bench = bench_of(data, assessor, tmp_path)

    def failing(_):
        raise DataError("there is no such data")

    modules = (
        SimpleNamespace(
            NAME="one", run=lambda b: {"meta": b.meta()}, section=lambda r: Section.of("The first", ["`a` text"])
        ),
        SimpleNamespace(NAME="two", run=failing, section=lambda r: Section("never", ())),
    )
    whole = command.Command("a command", "The numbers", "REPORT.md", modules)
    command.measure(bench, modules, again=False)
    text = whole.write(bench).read_text()
    page = (bench.out / "REPORT.html").read_text()
    assert "<h2>The first</h2>" in page and "<code>a</code> text" in page and "not a medical device" in page
    assert "## The first\n\n`a` text" in text and "Not measured with these weights: two." in text
    assert "not a medical device" in text
    modules[0].run = lambda _: pytest.fail("a kept result was measured again")
    command.measure(bench, modules, again=False)
    bench.save("one", {"meta": bench.meta(unfinished=[0.5])})
    modules[0].run = lambda b: {"meta": b.meta(unfinished=[])}
    command.measure(bench, modules, again=False)
    assert bench.kept("one")["meta"]["unfinished"] == []  # what was not finished is gone on with
    bench.save("one", {"meta": bench.meta(thresholds=bench.thresholds)})
    assert bench.kept("one")
    bench.save("one", {"meta": bench.meta(thresholds=bench.thresholds | {"streaks": 0.01})})
    assert bench.kept("one") is None  # other findings
    bench.save("one", {"meta": bench.meta()})
    bench.__dict__["sha"] = "cd" * 32
    assert bench.kept("one") is None  # other weights, other numbers


def test_without_data_it_says_what_to_give(monkeypatch, capsys) -> None:
    monkeypatch.delenv("SKINCLIP_DATA", raising=False)
    assert COMMAND.main([]) == 2
    assert "--data ROOT" in capsys.readouterr().err
