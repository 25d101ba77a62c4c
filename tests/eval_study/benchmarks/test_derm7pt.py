import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from eval_study.benchmarks import derm7pt
from eval_study.benchmarks.common import Measured, with_labels
from eval_study.benchmarks.derm7pt import measure, photos, readouts, tasks
from skinclip.calibration.criteria import CriteriaCalibration
from skinclip.core.assessment import Context
from skinclip.core.vocabulary import DERM7PT_GROUPS, DIAGNOSIS_CODES, EVIDENCE_STATES
from skinclip.data.cases import Case, DataError
from skinclip.data.readers import read_cases
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.imaging.photo import LesionImage, encode_png, from_array
from skinclip.imaging.transform import PhotoTransform
from skinclip.model.criteria import criterion_probabilities
from skinclip.reporting.markdown import section_markdown
from tests.eval_study.benchmarks.measuring import Measuring

C, K = len(DIAGNOSIS_CODES), len(EVIDENCE_STATES)
PRIOR = np.array([0.05, 0.1, 0.13, 0.05, 0.13, 0.41, 0.05, 0.05, 0.03])


def photo(height: int, width: int) -> LesionImage:
    rows, columns = np.mgrid[:height, :width]
    return from_array(np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8))


# --- cropping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "x", "y", "side"),
    [
        ((100, 60, 140, 80), 90, 40, 60),  # longer side 40 with a quarter of it on either side, around (120, 70)
        (None, 50, 0, 100),  # no lesion: the centre square
        ((0, 0, 20, 20), 0, 0, 30),  # at the border, pushed inside
        ((180, 90, 200, 100), 170, 70, 30),
        ((0, 0, 200, 100), 50, 0, 100),  # larger than any square of the photo
    ],
)
def test_cropped_is_the_square_around_the_lesion(box, x, y, side):
    square = photos.cropped(photo(100, 200), box)
    assert (square.width, square.height) == (side, side)
    assert tuple(square.pixels[0, 0, :2]) == (x, y)


def seeing(mask: np.ndarray) -> SimpleNamespace:
    """An assessor whose mask of every photo is `mask`."""
    logits = torch.from_numpy(np.where(mask, 9.0, -9.0)).float()[None]
    model = SimpleNamespace(
        perceive=lambda photos: SimpleNamespace(levels=photos), evidence=SimpleNamespace(segment=lambda levels: logits)
    )
    return SimpleNamespace(transform=PhotoTransform(16), model=model)


def test_lesion_box_is_that_of_the_largest_part():
    mask = np.zeros((10, 10), bool)
    mask[2:5, 4:8] = True
    mask[9, 0] = True
    assert photos.lesion_box(seeing(mask), photo(100, 200)) == (80, 20, 160, 50)
    assert photos.lesion_box(seeing(np.zeros((10, 10), bool)), photo(100, 200)) is None


# --- probabilities ----------------------------------------------------------------------------------------------------


def drawn(split: str, n: int, seed: int, signal: float = 2.0) -> Measured:
    """Cases whose criteria can be read from their embedding, and whose diagnosis the model knows."""
    rng = np.random.default_rng(seed)
    states = {q: rng.integers(0, len(c.labels), n) for q, c in tasks.LABELLED.items()}
    groups = rng.choice(len(DERM7PT_GROUPS), n, p=[0.1, 0.4, 0.3, 0.1, 0.1])
    cases = [
        Case(
            Path(f"{split}{i}.jpg"),
            f"{split}{i}",
            "derm7pt",
            f"{split}{i // 2}",
            diagnosis_group=DERM7PT_GROUPS[groups[i]],
            criteria={c.code: c.labels[states[q][i]] for q, c in tasks.LABELLED.items()},
            split=split,
            context=Context(sex="female" if i % 2 else None, site="back"),
            clinical_image=None if i % 10 == 9 else Path(f"{split}{i}-clinical.jpg"),
        )
        for i in range(n)
    ]
    informative = np.hstack([np.eye(3)[own] for own in states.values()] + [np.eye(5)[groups]])
    p = rng.dirichlet(np.ones(C), n)
    nothing = np.zeros(n)
    return with_labels(
        cases,
        {
            "logits": np.log(p),
            "probabilities": p,
            "balanced": p,
            "scores": rng.normal(size=(n, K)),
            "embeddings": signal * informative + rng.normal(size=informative.shape),
            "style": rng.normal(size=(n, 4)),
            "shift": nothing,
            "inside": p > 0.1,
            "refer": nothing > 0,
            "iou": nothing,
        },
    )


class Given(Measuring):
    """A bench of given predictions; the clinical photos show what the dermoscopic ones show."""

    assessor = SimpleNamespace(
        calibrator=SimpleNamespace(natural_prior=tuple(PRIOR), criteria=CriteriaCalibration.identity())
    )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    made = Given(tmp_path, tmp_path / "out", tmp_path / "work", n_boot=10)
    made.given = {"train": drawn("train", 120, 0), "valid": drawn("valid", 60, 1)}

    def view(bench: Given, split: str, photo: str, crop: str) -> Measured:
        m = bench.given[split]
        return m if photo == "dermoscopy" else m.where(np.array([c.clinical_image is not None for c in m.cases]))

    monkeypatch.setattr(measure, "view", view)
    monkeypatch.setattr(readouts, "view", view)
    monkeypatch.setattr(readouts, "STRENGTHS", (0.1, 1.0))
    return made


def test_as_shipped_reads_the_models_own_probabilities():
    m = drawn("valid", 20, 0)
    p = tasks.as_shipped(m)
    for i in (0, 7):
        own = criterion_probabilities(torch.from_numpy(m.scores[i]).float())
        for criterion in tasks.LABELLED.values():
            assert list(p[criterion.code][i]) == pytest.approx(list(own[criterion.code].values()), abs=1e-6)
    of = {code: m.probabilities[:, DIAGNOSIS_CODES.index(code)] for code in DIAGNOSIS_CODES}
    assert p["diagnosis"][:, DERM7PT_GROUPS.index("MEL")] == pytest.approx(of["mel"])
    misc = of["df"] + of["vasc"] + of["akiec"] + of["scc"] + of["other"]
    assert p["diagnosis"][:, DERM7PT_GROUPS.index("MISC")] == pytest.approx(misc)
    assert p["diagnosis"].sum(axis=1) == pytest.approx(np.ones(20))


def test_criteria_are_calibrated_on_the_other_folds_alone():
    m = drawn("valid", 60, 0)
    crossed = tasks.cross_calibrated(m, seed=0)
    of_lesion = m.groups == m.groups[0]
    assert 0 < of_lesion.sum() < 60
    criteria = np.where(of_lesion[:, None], 1, m.criteria)  # a photo's own labels have no say in its probabilities
    again = tasks.cross_calibrated(replace(m, criteria=criteria), seed=0)
    for criterion in tasks.LABELLED.values():
        assert again[criterion.code][of_lesion] == pytest.approx(crossed[criterion.code][of_lesion])
    assert any(abs(crossed[c.code] - tasks.as_shipped(m)[c.code]).max() > 1e-3 for c in tasks.LABELLED.values())


def test_at_prevalence():
    p = tasks.as_shipped(drawn("valid", 20, 0))
    grouped = PRIOR @ tasks._TO_GROUP
    same = tasks.at_prevalence(p, PRIOR, grouped)
    assert same["diagnosis"] == pytest.approx(p["diagnosis"])
    none = np.where(np.array(DERM7PT_GROUPS) == "SK", 0.0, grouped)
    moved = tasks.at_prevalence(p, PRIOR, none)["diagnosis"]
    assert (moved[:, DERM7PT_GROUPS.index("SK")] == 0).all()
    assert moved.sum(axis=1) == pytest.approx(np.ones(20))
    assert moved[:, 0] / moved[:, 2] == pytest.approx(p["diagnosis"][:, 0] / p["diagnosis"][:, 2])


def test_commonest_state_scores_its_share():
    labels = tasks.labels_of(drawn("train", 100, 0).cases)
    p = tasks.commonest(labels, 100)
    resamples = metrics.GroupBootstrap([str(i) for i in range(100)], 5)
    figures = measure.figures_of(p, labels, resamples)
    shares = [np.bincount(own).max() / 100 for own in labels.values()]
    assert figures["average"]["value"] == pytest.approx(np.mean(shares))
    assert figures["criteria_auroc"]["value"] == 0.5
    assert figures["melanoma_precision"] is None or figures["melanoma_sensitivity"]["value"] == 1.0


def test_figures_equal_those_of_sklearn():
    m = drawn("valid", 200, 0)
    labels, p = tasks.labels_of(m.cases), tasks.as_shipped(m)
    labels["streaks"] = np.where(np.arange(200) < 50, -1, labels["streaks"])
    figures = measure.figures_of(p, labels, metrics.GroupBootstrap([str(i) for i in range(200)], 5))
    known = labels["streaks"] >= 0
    streaks, own = labels["streaks"][known], p["streaks"][known]
    assert figures["tasks"]["streaks"]["n"] == 150
    assert figures["tasks"]["streaks"]["accuracy"]["value"] == pytest.approx(
        sk.accuracy_score(streaks, own.argmax(axis=1))
    )
    assert figures["tasks"]["streaks"]["auroc"]["value"] == pytest.approx(
        sk.roc_auc_score(streaks, own, multi_class="ovr")
    )
    veil = sk.roc_auc_score(labels["blue_whitish_veil"], p["blue_whitish_veil"][:, 1])
    assert figures["tasks"]["blue_whitish_veil"]["auroc"]["value"] == pytest.approx(veil)
    mel = DERM7PT_GROUPS.index("MEL")
    truth, guess = labels["diagnosis"] == mel, p["diagnosis"].argmax(axis=1) == mel
    assert figures["melanoma_sensitivity"]["value"] == pytest.approx(sk.recall_score(truth, guess))
    assert figures["melanoma_precision"]["value"] == pytest.approx(sk.precision_score(truth, guess))
    assert figures["melanoma_auroc"]["value"] == pytest.approx(sk.roc_auc_score(truth, p["diagnosis"][:, mel]))
    accuracies = [t["accuracy"]["value"] for t in figures["tasks"].values()]
    assert figures["average"]["value"] == pytest.approx(np.mean(accuracies))
    assert figures["criteria_accuracy"]["value"] == pytest.approx(np.mean(accuracies[1:]))


# --- readouts ---------------------------------------------------------------------------------------------------------


def test_features_weigh_blocks_alike_and_mark_missing_photos(bench):
    f = readouts.features(bench, ["train", "valid"], ("dermoscopy", "clinical", "context"), "uncropped")
    width = bench.given["train"].embeddings.shape[1]
    assert f.x.shape == (180, 2 * (width + K + 4) + 2 + 15)
    assert (f.weights**2).sum() == pytest.approx(7)  # seven blocks of total weight 1
    missing = np.isnan(f.x).any(axis=1)
    assert missing.tolist() == [i % 10 == 9 for i in range(120)] + [i % 10 == 9 for i in range(60)]
    assert not np.isnan(f.x[:, : width + K + 4]).any()
    clinical = f.x[~missing, width + K + 4 : 2 * width + K + 4]
    assert (clinical == f.x[~missing, :width]).all()


def test_readout_is_fitted_on_its_rows_alone():
    labels = np.repeat([0, 1], 20)
    x = np.column_stack([labels + 0.0, np.where(np.arange(40) % 3, 1.0, np.nan)])
    x[30:, 1] = 5.0  # as no fitted row has it
    f = readouts.ReadoutInputs(x, np.ones(2))
    fit = np.arange(10, 30)
    p = readouts.fit_predict(f, np.where(np.arange(40) >= 30, -1, labels), fit, np.arange(40), 10.0, 3)
    assert (p.argmax(axis=1) == labels).all()
    assert (p[:, 2] == 0).all()  # a state that was never seen
    only = readouts.fit_predict(f, labels, np.arange(20, 40), np.arange(3), 10.0, 3)
    assert only.tolist() == [[0, 1, 0]] * 3


def test_no_case_is_predicted_by_a_readout_that_saw_it(bench, monkeypatch):
    m = bench.given["train"]
    labels = tasks.labels_of(m.cases)
    fitted_on = []

    def spy(f, labels, fit, rows, s, n_states):
        assert not set(m.groups[fit]) & set(m.groups[rows])
        fitted_on.extend(rows)
        return np.zeros((len(rows), n_states))

    monkeypatch.setattr(readouts, "fit_predict", spy)
    folds = readouts.folds_of(labels, m.groups, seed=0)
    readouts.out_of_fold(readouts.ReadoutInputs(m.embeddings, np.ones(1)), labels["streaks"], folds, 1.0, 3)
    assert sorted(fitted_on) == list(range(120))


def test_run_and_section(bench, tmp_path):
    result = json.loads(bench.save("derm7pt", derm7pt.run(bench)).read_text())
    block = result["splits"]["valid"]
    assert list(result["splits"]) == ["valid"]
    assert block["n"] == 60
    assert block["chosen_above_commonest"]["low"] > 0
    readout = block["systems"]["dermoscopy, uncropped"]
    assert (
        readout["criteria_accuracy"]["value"] > block["systems"]["commonest state"]["criteria_accuracy"]["value"] + 0.1
    )
    crossed = result["cross_validation"]["dermoscopy, uncropped"]
    assert (crossed["all"]["n"], crossed["train"]["n"], crossed["valid"]["n"]) == (180, 120, 60)
    parts = (120 * crossed["train"]["average"]["value"] + 60 * crossed["valid"]["average"]["value"]) / 180
    assert crossed["all"]["average"]["value"] == pytest.approx(parts, abs=1e-5)
    text = section_markdown(derm7pt.section(result))
    assert "not comparable" in text
    assert "optimistic" in text
    assert result["chosen_readout"] in text
    assert text.count("(figures/derm7pt_tasks.svg)") == 1


def test_the_official_test_split_is_reported_where_it_is_there(bench, tmp_path):
    bench.given["test"] = drawn("test", 50, 2)
    result = json.loads(bench.save("derm7pt", derm7pt.run(bench)).read_text())
    assert list(result["splits"]) == ["valid", "test"]
    text = section_markdown(derm7pt.section(result))
    assert "not comparable" not in text
    assert f"here: {result['chosen_readout']}" in text


def test_a_copy_without_clinical_photos_has_dermoscopy_readouts_alone(bench):
    m = bench.given["valid"]
    bench.given["valid"] = replace(m, cases=[replace(c, clinical_image=None) for c in m.cases])
    assert set(derm7pt.run(bench)["cross_validation"]) == {"dermoscopy, uncropped", "dermoscopy, cropped"}


def test_run_wants_train_and_valid(bench):
    del bench.given["valid"]
    with pytest.raises(DataError, match="train and valid"):
        derm7pt.run(bench)


def test_views_are_kept_and_test_photos_noted(bench, tmp_path, monkeypatch):
    monkeypatch.undo()
    m = drawn("test", 6, 0)
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode_png(photo(100, 120).pixels))
    bench.given = {"test": replace(m, cases=[replace(c, clinical_image=folder / "a.png") for c in m.cases])}
    sizes = []

    def predict(assessor, cases, photos):
        sizes.extend((p.width, p.height) for p in photos)
        return {name: getattr(m, name) for name in ("logits", "probabilities", "balanced", "scores", "embeddings")} | {
            name: getattr(m, name) for name in ("style", "shift", "inside", "refer", "iou")
        }

    monkeypatch.setattr(photos, "predict", predict)
    monkeypatch.setattr(photos, "lesion_box", lambda assessor, photo: (10, 10, 30, 20))
    first = photos.view(bench, "test", "clinical", "cropped")
    assert sizes == [(30, 30)] * 6
    assert photos.view(bench, "test", "clinical", "cropped").embeddings.tolist() == first.embeddings.tolist()
    assert len(sizes) == 6  # the second time from the kept file
    assert [cluster(c) for c in first.cases] == list(m.groups)
    lines = bench.ledger.read_text().splitlines()
    assert len(lines) == 2
    assert "clinical, cropped" in lines[1]


@pytest.mark.skipif("SKINCLIP_DATA" not in os.environ, reason="needs Derm7pt")
def test_the_commonest_state_on_derm7pt():
    table = read_cases(Path(os.environ["SKINCLIP_DATA"]) / "derm7pt")
    train, valid = tasks.labels_of(table.split("train")), tasks.labels_of(table.split("valid"))
    p = tasks.commonest(train, len(valid["diagnosis"]))
    accuracies = [sk.accuracy_score(own, p[task].argmax(axis=1)) for task, own in valid.items()]
    assert len(valid["diagnosis"]) == 203
    assert np.mean(accuracies[1:]) == pytest.approx(0.626, abs=0.001)
