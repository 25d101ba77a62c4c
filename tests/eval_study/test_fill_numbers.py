"""Every number in the documents is that of a result file, made with the weights that are shipped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

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
    reports = [json.loads(p.read_text()) for glob in ("evaluate_*.json", "milk10k_*.json") for p in RESULTS.glob(glob)]
    assert reports
    assert {r["meta"]["model"]["weights_sha256"] for r in reports} == {weights_sha256(ASSETS / "mini")}


def test_results_that_depend_on_thresholds_are_of_those_shipped() -> None:
    shipped = finite(json.loads((ASSETS / "mini" / "findings.json").read_text()))
    for name in ("criteria", "rationales", "regions"):
        assert json.loads((RESULTS / f"{name}.json").read_text())["meta"]["thresholds"] == shipped


def results(*names: str) -> list[dict[str, Any]]:
    return [json.loads((RESULTS / f"{name}.json").read_text()) for name in names]


@pytest.fixture(scope="module")
def against() -> str:
    """What `docs/numbers.md` says against the model, on one line."""
    text = (RESULTS.parents[1] / "docs" / "numbers.md").read_text()
    return " ".join(text.split("## What speaks against")[1].split())


def test_what_is_said_of_language_and_losses(against: str) -> None:
    losses, baselines = (one["test"] for one in results("losses", "baselines"))
    of = baselines["systems"]
    assert "The language part adds nothing to the diagnosis." in against
    less = {figure: of["readout"][figure]["shipped_less_this"] for figure in ("auroc_macro", "nll")}
    assert less["auroc_macro"]["low"] < 0 < less["nll"]["low"]

    def both(system: str, word: str) -> str:
        return word.join(f"{of[system][figure]['value']:.3f}" for figure in ("auroc_macro", "nll"))

    for figure in ("auroc_macro", "nll"):
        assert f"({of['readout'][figure]['value']:.3f} against {of['shipped'][figure]['value']:.3f})" in against
    assert f"logistic regression on the same features ({both('linear_probe', ' and ')})" in against
    assert f"reach a macro AUROC of {of['zero_shot']['auroc_macro']['value']:.3f}" in against
    assert f"plain classifier ({of['plain_flips']['auroc_macro']['value']:.3f}, averaged over four flips)" in against
    others = {name: figures for name, figures in losses["losses"].items() if name != "cfa"}

    def largest(figure: str, names: list[str]) -> float:
        return max(abs(others[name][figure]["cfa_less_this"]["value"]) for name in names)

    assert "within 0.02 of CFA's balanced accuracy" in against and largest("balanced_accuracy", list(others)) <= 0.02
    lower = others["focal"]["nll"]["cfa_less_this"]["value"]
    assert f"focal loss has an NLL {lower:.3f} lower" in against
    terms = [name for name in others if name.startswith("cfa_less_")]
    assert len(terms) == 4
    assert f"leaving out a term of CFA changes the NLL by {largest('nll', terms):.3f} at most" in against


def test_what_is_said_of_what_the_answer_rests_on(against: str) -> None:
    evidence, regions = results("evidence", "regions")
    without = evidence["test"]["readouts"]["no_evidence"]
    assert "one answer in a hundred changes" in against and without["changed"]["value"] == pytest.approx(
        0.01, abs=0.005
    )
    assert "balanced accuracy is 0.01 lower" in against
    assert without["less_than_full"]["value"] == pytest.approx(0.01, abs=0.005)
    together = regions["sets"]["ham10000"]["joined"]["beats_draws"]
    assert f"matter more than {together['value']:.2f} of such places" in against
    assert together["low"] < 0.5 < together["high"]  # "no more than random places"


def test_what_is_said_of_cited_criteria(against: str) -> None:
    (criteria,) = results("criteria")
    shipped, crossed = criteria["shipped"], criteria["cross_fitted"][str(RECALL)]
    assert "one in five is absent by Derm7pt's labels and one in seven is there but of another type" in against
    assert shipped["hallucination"]["value"] == pytest.approx(1 / 5, abs=0.02)
    assert shipped["other_type"]["value"] == pytest.approx(1 / 7, abs=0.02)
    assert shipped["macro_recall"]["value"] == pytest.approx(0.6, abs=0.03)  # "misses four in ten"
    assert "for a recall of one half, one in six is absent" in against
    assert crossed["hallucination"]["value"] == pytest.approx(1 / 6, abs=0.02)
    assert crossed["macro_recall"]["value"] == pytest.approx(1 / 2, abs=0.03)
    thresholds = json.loads((ASSETS / "mini" / "findings.json").read_text())
    assert "Negative network has a map and is never cited" in against
    assert [code for code, threshold in thresholds.items() if threshold > 1] == ["negative_network"]


def test_what_is_said_of_referral_answers_and_sets(against: str) -> None:
    report, sources, shift = results("evaluate_ham10000_test", "sources", "shift")
    groups = sources["groups"]
    assert report["sensitivity"]["value"] == 1 and "every malignant one is referred" in against
    assert f"and {1 - report['specificity']['value']:.2f} of the benign ones" in against
    calibrator = Calibrator.from_arrays(
        load_file(ASSETS / "mini" / "trust.safetensors"),
        load_yaml(ModelConfig, ASSETS / "mini" / "config.yaml").diagnoses,
    )
    worst = calibrator.referral.worst
    assert worst is not None and worst.group == "derm7pt dermoscopy" and "(dermoscopy of Derm7pt)" in against
    assert groups["milk10k clinical"]["answered"]["value"] == pytest.approx(1 / 5, abs=0.02)  # "one in five"
    accuracy = shift["sets"]["pad_ufes"]["accuracy"]["value"]
    assert f"diagnosed with an accuracy of {accuracy:.2f}" in against
    sizes = [groups[f"{source} dermoscopy"]["set_size"]["value"] for source in ("ham10000", "milk10k")]
    assert f"{sizes[0]:.1f} of nine diagnoses on HAM10000, {sizes[1]:.1f} on MILK10k" in against


def test_what_is_said_of_two_photos(against: str) -> None:
    both, alone, close = results(*(f"milk10k_valid_{photos}" for photos in ("both", "dermoscopy", "clinical")))
    assert {one["n"] for one in (both, alone, close)} == {462} and "valid lesions (n = 462," in against

    def figure(of: dict[str, Any], name: str) -> str:
        return f"{of[name]['value']:.3f} ({of[name]['low']:.3f}-{of[name]['high']:.3f})"

    auroc = f"macro AUROC is {figure(both, 'auroc_macro')} with both photos and {figure(alone, 'auroc_macro')} with"
    assert auroc in against
    accuracies = [f"{one['balanced_accuracy']['value']:.3f}" for one in (both, alone, close)]
    assert f"the balanced accuracy {accuracies[0]} and {accuracies[1]}" in against
    assert f"they are {close['auroc_macro']['value']:.3f} and {accuracies[2]}" in against
    assert f"malignant against benign {figure(close, 'auroc_malignant')}" in against


def test_what_is_said_of_other_words_and_mirror_images(against: str) -> None:
    (stability,) = results("stability")
    assert "flip two answers in a hundred; so does a mirror image" in against
    for name in ("descriptions paraphrased", "descriptions paraphrased otherwise", "mirrored left to right"):
        assert stability["changes"][name]["flips"]["value"] == pytest.approx(0.02, abs=0.005), name


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
    rows = json.loads((RESULTS / "study" / "coverage.json").read_text())["rows"]
    primary = [100 * row["coverage"]["value"] for row in rows if row["endpoint"] == "primary"]
    assert f"follow the AI, it covers in {min(primary):.0f} to {max(primary):.0f} %" in text
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
