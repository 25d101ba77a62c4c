"""Every number in the documents is that of a result file, made with the weights that are shipped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.numpy import load_file, save_file

from eval_study.benchmarks.common import finite
from eval_study.explanations.tuning import name_of
from eval_study.fill_numbers import DOCUMENTS, PAGE_FIGURES, RESULTS, explanations, filled, referral
from skinclip.calibration.calibrator import Calibrator
from skinclip.calibration.referral import SourceSensitivity
from skinclip.core.config import ModelConfig, load_yaml
from skinclip.core.paths import ASSETS
from skinclip.explain.methods.grad_cam import OWN_CAM
from skinclip.explain.methods.plain_grad_cam import PLAIN_CAM
from skinclip.model.checkpoint import weights_sha256
from skinclip.training.calibrate import RECALL


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.parent.name))
def test_documents_quote_the_result_files(document) -> None:
    text = document.read_text()
    assert filled(text) == text, "run python -m eval_study.fill_numbers"


def test_the_model_card_shows_the_referral_in_each_source_with_its_bound(tmp_path) -> None:
    shutil.copy(ASSETS / "mini" / "config.yaml", tmp_path)
    known = load_yaml(ModelConfig, tmp_path / "config.yaml").diagnoses
    calibrator = Calibrator.from_arrays(load_file(ASSETS / "mini" / "trust.safetensors"), known)
    groups = tuple(SourceSensitivity(f"{name} dermoscopy", 61, 0.951, 0.891, 0.5) for name in ("isic2017", "derm7pt"))
    part = replace(calibrator.first, referral=replace(calibrator.referral, by_group=groups))
    save_file(replace(calibrator, by_kind={"dermoscopy": part}).to_arrays(), tmp_path / "trust.safetensors")
    text = referral(tmp_path)
    assert "| isic2017 dermoscopy | 61 | 0.951 | 0.891 | 0.500 |" in text and "derm7pt dermoscopy" in text


def test_results_are_those_of_the_embedded_weights() -> None:
    reports = [json.loads(p.read_text()) for p in RESULTS.glob("evaluate_*.json")]
    assert reports
    assert {r["meta"]["model"]["weights_sha256"] for r in reports} == {weights_sha256(ASSETS / "mini")}


def test_results_that_depend_on_thresholds_are_of_those_shipped() -> None:
    shipped = finite(json.loads((ASSETS / "mini" / "findings.json").read_text()))
    for name in ("criteria", "rationales", "regions"):
        assert json.loads((RESULTS / f"{name}.json").read_text())["meta"]["thresholds"] == shipped


def test_statements_against_the_model_are_what_was_measured() -> None:
    text = " ".join((RESULTS.parents[1] / "docs" / "numbers.md").read_text().split())
    losses, baselines, stability, criteria = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("losses", "baselines", "stability", "criteria")
    )
    probe = baselines["test"]["systems"]["linear_probe"]["nll"]["shipped_less_this"]
    assert f"an NLL {probe['value']:.2f} lower (no more than chance)" in text and probe["low"] < 0 < probe["high"]
    seeds = len(losses["meta"]["seeds"])
    aurocs = {name: sum(result["criteria_auroc"]) / seeds for name, result in losses["purposes"].items()}
    ours, plainly = aurocs["cfa"], aurocs["logit_adjustment"]
    assert f"AUROC {ours:.2f} against {plainly:.2f}" in text
    less = losses["valid"]["losses"]["logit_adjustment"]["nll"]["cfa_less_this"]
    assert less["low"] < 0 < less["high"]  # "has the NLL of CFA"
    assert "one in five is absent by Derm7pt's labels and one in six is there but of another type" in text
    for cited in (criteria["shipped"], criteria["cross_fitted"][str(RECALL)]):
        assert cited["hallucination"]["value"] == pytest.approx(1 / 5, abs=0.02)
        assert cited["other_type"]["value"] == pytest.approx(1 / 6, abs=0.02)
        assert cited["macro_recall"]["value"] == pytest.approx(1 / 2, abs=0.05)  # "misses about half"
    flips = stability["changes"]
    assert "flip seven diagnoses in a thousand" in text and "seven in a hundred" in text
    assert flips["descriptions paraphrased"]["flips"]["value"] == pytest.approx(0.007, abs=0.0005)
    assert flips["descriptions paraphrased otherwise"]["flips"]["value"] == pytest.approx(0.07, abs=0.005)


def test_the_study_guide_says_of_the_analysis_what_was_simulated() -> None:
    text = " ".join((RESULTS.parents[1] / "docs" / "study_guide.md").read_text().split())
    result = json.loads((RESULTS / "study" / "power.json").read_text())["settings"].values()
    proofs = [setting for setting in result if setting["question"] != "power"]
    (studies,) = {setting["studies"] for setting in proofs}
    covered = [100 * setting["coverage"]["value"] for setting in proofs]
    positive = [100 * setting["significant"]["value"] for setting in proofs if setting["question"] == "null"]
    sizes = {(s["readers"], s["cases"]) for s in result if s["question"] == "power"}
    assert f"covers in {min(covered):.0f} to {max(covered):.0f} % of {studies} studies a setting" in text
    assert f"{min(positive):.0f} to {max(positive):.0f} % are significant where there is no effect" in text
    assert f"power for {['no', 'one', 'two', 'three', 'four', 'five', 'six'][len(sizes)]} sizes" in text


def test_the_page_on_serving_says_how_long_readers_waited() -> None:
    text = " ".join((RESULTS.parents[1] / "docs" / "serving.md").read_text().split())

    def slowest(database: str, pause: float) -> str:
        result = [json.loads(path.read_text()) for path in (RESULTS / "study").rglob("study_served_*.json")]
        waits = [one["p95_ms"] for one in result if (one["database"], one["mean_pause_s"]) == (database, pause)]
        assert len(waits) == 2
        return f"{max(waits):.0f}"

    assert f"wait {slowest('sqlite', 2)} ms at p95 for the next step over HTTP with 2 s between submits" in text
    assert f"{slowest('sqlite', 0)} ms if none ever pauses" in text
    assert f"on the same cores {slowest('postgresql', 2)} and {slowest('postgresql', 0)} ms" in text


def test_the_page_says_of_explanations_what_was_measured() -> None:
    assert PAGE_FIGURES.read_text() == explanations(), "run python -m eval_study.fill_numbers"


def test_grad_cam_has_the_settings_that_tuning_chose() -> None:
    chosen = json.loads((RESULTS / "tuning.json").read_text())["chosen"]
    assert chosen == {"own": name_of(OWN_CAM), "plain": name_of(PLAIN_CAM)}
