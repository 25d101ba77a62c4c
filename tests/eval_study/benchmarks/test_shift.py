"""Figures under shift: by hand and against scikit-learn, on given predictions; and the whole run on drawn photos."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from eval_study.benchmarks import pictures, shift
from eval_study.benchmarks.common import Bench, Measured
from eval_study.benchmarks.pictures import MissingPhotographs
from eval_study.benchmarks.shift import measure, one_set, report
from skinclip.calibration.calibrator import MALIGNANT
from skinclip.calibration.shift import IN_DOMAIN_SCORE
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.imaging.examples import draw
from skinclip.reporting.markdown import section_markdown

C = len(DIAGNOSIS_CODES)
TRUST = SimpleNamespace(
    shift=SimpleNamespace(in_domain=lambda score: np.asarray(score) <= IN_DOMAIN_SCORE),
    kinds_of=lambda style: ["clinical" if i % 4 else "neither" for i in range(len(style))],
)
NV, MEL, BKL, AKIEC = (DIAGNOSIS_CODES.index(c) for c in ("nv", "mel", "bkl", "akiec"))


def measured(labels: np.ndarray, seed: int = 0, source: str = "other", far: float = 0.0, **of_case) -> Measured:
    """Given labels [n], drawn probabilities that lean towards them, and shift scores raised by `far`."""
    rng, n = np.random.default_rng(seed), len(labels)
    p = rng.dirichlet(np.ones(C), n) + np.eye(C)[labels] * 0.3 * (labels >= 0)[:, None]
    p /= p.sum(axis=1, keepdims=True)
    malignant = np.where(labels >= 0, MALIGNANT[labels].astype(int), -1)
    cases = [Case(Path("no.jpg"), str(i), source, f"{source}{i // 2}", **of_case) for i in range(n)]
    groups = np.array([f"{source}/{c.lesion_id}" for c in cases])
    nothing, score = np.zeros((n, 1)), np.clip(rng.random(n) + far, 0, 1)
    refer = p[:, MALIGNANT].sum(axis=1) > 0.4
    return Measured(
        *(cases, labels, malignant, np.full((n, 9), -1), groups, p, p, p / p.sum(axis=0)),
        *(nothing, nothing, nothing, score, p > 0.2, refer, np.full(n, np.nan)),
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path, tmp_path / "out", tmp_path / "work", n_boot=30)
    made.__dict__.update(assessor=SimpleNamespace(calibrator=TRUST), sha="ab" * 32, tables={})
    return made


def drawn_labels(n: int, classes: tuple[int, ...] = tuple(range(C)), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(classes, n)


# --- which sets -------------------------------------------------------------------------------------------------------


def test_sets_for_testing_alone_are_measured_whatever_their_name(bench: Bench) -> None:
    def table(*splits: str | None) -> CaseTable:
        return CaseTable(tuple(Case(Path("a.jpg"), str(i), "x", str(i), split=s) for i, s in enumerate(splits)))

    bench.__dict__["tables"] = {
        "ham10000": table("train", "valid", "test"),
        "derm7pt": table("train", "valid", "test"),
        "isic2017": table("train", "valid", "test"),
        "pad_ufes": table("shift", "shift"),
        "clinic": table(None, None),
        "official": table("test", None),
        "mixed": table("shift", "train"),
        "own_training": table("train"),
        "empty": table(),
    }
    split_of = measure.other_sets(bench)
    assert split_of == {"isic2017": "test", "pad_ufes": "shift", "clinic": None, "official": None, "mixed": "shift"}
    assert measure.other_sets(bench, "valid")["isic2017"] == "valid"


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_scikit_learn(bench: Bench) -> None:
    m, own = measured(drawn_labels(200), far=0.4), measured(drawn_labels(150, seed=1), seed=1, source="own")
    figures = one_set.block(bench, m, own)
    guess = m.probabilities.argmax(axis=1)
    assert figures["accuracy"]["value"] == pytest.approx(accuracy_score(m.labels, guess))
    assert figures["nll"]["value"] == pytest.approx(log_loss(m.labels, m.probabilities, labels=range(C)))
    assert figures["auroc_malignant"]["value"] == pytest.approx(roc_auc_score(m.malignant, m.malignancy))
    shifted = np.r_[np.ones(200), np.zeros(150)]
    auroc = roc_auc_score(shifted, np.r_[m.shift, own.shift])
    assert figures["shift"]["auroc"]["value"] == pytest.approx(auroc)
    assert figures["shift"]["auroc"]["low"] < auroc < figures["shift"]["auroc"]["high"]
    assert figures["shift"]["out_of_domain"]["value"] == pytest.approx(np.mean(m.shift > IN_DOMAIN_SCORE))
    assert figures["shift"]["neither"]["value"] == pytest.approx(np.mean(np.arange(len(m)) % 4 == 0))
    assert figures["restricted"] is None and figures["malignant_by_class"] is None
    assert (figures["n"], figures["n_groups"], figures["n_malignant"]) == (200, 100, int(m.malignant.sum()))
    assert one_set.block(bench, own, None)["shift"]["auroc"] is None
    one = one_set.shift_figures(bench, m.where(np.arange(200) < 2), own)["auroc"]
    assert one["value"] is not None and one["low"] is None  # two photos of one lesion


def test_restricted_rule_chooses_among_the_labelled_diagnoses(bench: Bench) -> None:
    labels = drawn_labels(120, (BKL, MEL, NV))
    m = measured(labels)
    classes = np.array(sorted((BKL, MEL, NV)))
    p, places, balanced = one_set.to_classes(m, classes)
    assert np.allclose(p.sum(axis=1), 1) and (classes[places] == labels).all()
    assert np.allclose(p[0], m.probabilities[0, classes] / m.probabilities[0, classes].sum())
    assert np.array_equal(balanced, m.balanced[:, classes])
    figures = one_set.block(bench, m, measured(labels, source="own"))
    right = classes[m.probabilities[:, classes].argmax(axis=1)] == labels
    assert figures["restricted"]["accuracy"]["value"] == pytest.approx(right.mean())
    assert figures["restricted"]["accuracy"]["value"] > figures["accuracy"]["value"]
    assert figures["classes"] == [DIAGNOSIS_CODES[c] for c in classes]


def test_a_photo_without_a_diagnosis_has_no_place() -> None:
    m = measured(np.array([NV, -1, MEL]))
    assert one_set.to_classes(m, np.array(sorted((MEL, NV))))[1].tolist() == [1, -1, 0]


def test_abstaining_by_hand() -> None:
    m = measured(np.array([MEL, MEL, NV, NV]))
    m.probabilities[:] = np.eye(C)[[MEL, NV, NV, MEL]]  # right, wrong, right, wrong
    m.refer[:] = [True, False, False, True]
    figures = one_set.abstaining(m, np.array([True, False, True, True]))
    value = {name: float(metric(np.ones((1, 4)))[0]) for name, metric in figures.items()}
    assert value["kept"] == 0.75
    assert value["accuracy_kept"] == pytest.approx(2 / 3) and value["accuracy_gain"] == pytest.approx(2 / 3 - 1 / 2)
    assert value["sensitivity_kept"] == 1 and value["sensitivity_gain"] == 0.5
    assert value["specificity_kept"] == 0.5 and value["specificity_gain"] == 0


def test_where_a_set_counts_malignancy_otherwise_both_counts_are_figured(bench: Bench) -> None:
    m = measured(drawn_labels(80, (AKIEC, MEL, NV)))
    m.malignant[m.labels == AKIEC] = 0
    figures = one_set.block(bench, m, measured(drawn_labels(40), source="own"))
    other = figures["malignant_by_class"]
    assert other["classes"] == ["akiec"] and other["n_differs"] == int((m.labels == AKIEC).sum())
    assert other["sensitivity"]["value"] == pytest.approx(m.refer[m.labels != NV].mean())
    assert figures["sensitivity"]["value"] == pytest.approx(m.refer[m.labels == MEL].mean())
    assert "counts" in report._malignancy_notes({"pad_ufes": {**figures, "split": "shift"}})[0]


# --- groups -----------------------------------------------------------------------------------------------------------


def group(n: int, low: float | None, high: float | None, malignant: int = 5) -> dict:
    return {"n": n, "n_malignant": malignant, "accuracy": {"value": 0.6, "low": low, "high": high}}


def test_the_sentence_names_the_types_that_show_nothing() -> None:
    groups = {
        "FST1": group(21, 0.4, 0.8),
        "FST2": group(147, 0.52, 0.68),
        "FST3": group(78, 0.4, 0.7),
        "FST5": group(1, None, None, malignant=1),
        one_set.NO_GROUP: group(162, 0.5, 0.6, malignant=0),
    }
    sentence = report.too_few(groups)
    assert (
        "Too few photos to show anything: FST1 (21 photos, accuracy's interval 0.40 wide); FST3 (78 photos" in sentence
    )
    assert "FST5 (1 photo, no interval to be had)" in sentence
    assert "Enough for a rough figure: FST2 (147 photos, accuracy's interval 0.16 wide)." in sentence
    assert "Of types V and VI there are 1 photo together: nothing can be said" in sentence
    assert "162 photos have no type, 0 of them malignant." in sentence


def test_the_sentence_says_nothing_of_types_that_suffice() -> None:
    groups = {name: group(200, 0.55, 0.65) for name in ("FST1", "FST5", "FST6")}
    sentence = report.too_few(groups)
    assert "Too few" not in sentence and "nothing can be said" not in sentence and "FST6 (200 photos" in sentence


def test_groups_are_measured_apart(bench: Bench) -> None:
    labels = drawn_labels(60)
    m = measured(labels)
    kinds = ["FST2", "FST3", None]
    m.cases[:] = [Case(c.image, c.image_id, c.source, c.lesion_id, group=kinds[i % 3]) for i, c in enumerate(m.cases)]
    figures = one_set.by_group(bench, m, measured(labels, source="own"))
    assert list(figures) == ["FST2", "FST3", one_set.NO_GROUP] and {g["n"] for g in figures.values()} == {20}
    part = np.arange(60) % 3 == 1
    right = (m.probabilities.argmax(axis=1) == labels)[part]
    assert figures["FST3"]["accuracy"]["value"] == pytest.approx(right.mean())
    assert one_set.by_group(bench, measured(labels), m) is None


# --- the whole run ----------------------------------------------------------------------------------------------------


class Drawn(Bench):
    """A bench of drawn photos whose every prediction is made by `answers` from the photos' brightness."""

    assessor = SimpleNamespace(calibrator=TRUST)
    sha = "cd" * 32


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drawn:
    for name, splits in {"ham10000": ("valid", "test"), "pad_ufes": ("shift",)}.items():
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        rows = ["image,diagnosis,lesion_id,split,group"]
        for split in splits:
            for i in range(12):
                photo = draw("nevus" if i % 2 else "melanoma", i, (160, 160))
                cv2.imwrite(str(folder / f"{split}{i}.png"), photo[:, :, ::-1])
                rows.append(f"{split}{i}.png,{'nv' if i % 2 else 'mel'},{split}{i},{split},FST{1 + i % 2}")
        (folder / "manifest.csv").write_text("\n".join(rows) + "\n")

    def answers(assessor, cases, photos=None):
        light = np.array([1.0 if photos is None else p.pixels.mean() / 255 for p in photos or cases])
        p = np.tile(np.linspace(1, 2, C) / np.linspace(1, 2, C).sum(), (len(cases), 1))
        nothing = np.zeros((len(cases), 1))
        figures = dict.fromkeys(("logits", "probabilities", "balanced"), p)
        figures |= dict.fromkeys(("scores", "embeddings", "style"), nothing)
        return figures | {"shift": light, "inside": p > 0.1, "refer": light > 0.5, "iou": light * np.nan}

    monkeypatch.setattr(measure, "predict", answers)
    monkeypatch.setattr("eval_study.benchmarks.common.predict", answers)
    root = tmp_path / "data"
    return Drawn(root, tmp_path / "out", tmp_path / "work", n_boot=20, reason="a test")


def test_everything_is_measured_and_reported(drawn: Drawn) -> None:
    try:
        pictures.located()
    except MissingPhotographs as error:
        pytest.skip(str(error))
    result = measure.measure(drawn, "test", sample=5, kinds=("jpeg", "darkness"), severities=(1, 5))
    kept = json.loads(drawn.save(shift.NAME, result).read_text())
    assert set(kept["sets"]) == {"ham10000", "pad_ufes"} and set(kept["sets"]["pad_ufes"]["groups"]) == {"FST1", "FST2"}
    assert kept["meta"]["reference"] == "test" and kept["sets"]["ham10000"]["split"] == "test"
    assert kept["corruptions"]["n"] == 5 and kept["corruptions"]["split"] == "valid"
    dark = kept["corruptions"]["kinds"]["darkness"]
    assert dark["1"]["level"] == 0.8 and dark["5"]["scores"][50] < dark["1"]["scores"][50]  # score is brightness here
    assert kept["not_skin"]["n"] >= 200 and len(kept["not_skin"]["photographs"]) == len(pictures.PHOTOGRAPHS)
    text = section_markdown(shift.section(kept))
    assert set(re.findall(r"\(figures/(\w+)\.svg\)", text)) == {"shift_scores", "shift_corruptions"}
    for words in ("PAD-UFES-20", "Too few photos", "astronaut.png", "darkness", "0.8 (factor)", "CC BY 2.0"):
        assert words in text
    assert len((drawn.ledger).read_text().splitlines()) == 2  # a header, and the reference's test photos once


def test_corrupted_photos_are_made_once(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = drawn.measured("ham10000", "valid")
    first = measure._corrupted(drawn, plain, plain, "hair", 3)
    monkeypatch.setattr(measure, "predict", lambda *_: pytest.fail("predicted again"))
    again = measure._corrupted(drawn, plain, plain, "hair", 3)
    assert again["scores"] == first["scores"]
    a, b = (measure.corrupted_photos(plain.cases, "hair", 3, 0) for _ in range(2))
    assert [x.sha256 for x in a] == [x.sha256 for x in b] and len({x.sha256 for x in a}) == len(plain)


def test_missing_photographs_raise_before_measuring(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = pictures.Photograph("no-such-package", "a.png", "nothing", "none")
    monkeypatch.setattr(pictures, "PHOTOGRAPHS", (absent,))
    with pytest.raises(DataError, match="no-such-package"):
        shift.run(drawn)
    assert not drawn.ledger.exists()
