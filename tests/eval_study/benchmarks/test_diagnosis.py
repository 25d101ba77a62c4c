import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from eval_study.benchmarks import diagnosis
from eval_study.benchmarks.common import Measured, finite, labels_of, malignant_of
from skinclip.core.assessment import Context
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES, MALIGNANT_CODES
from skinclip.data.cases import Case, DataError
from skinclip.reporting import style
from skinclip.reporting.markdown import section_markdown
from tests.eval_study.benchmarks.measuring import Measuring

C = len(DIAGNOSIS_CODES)
PRIOR = np.array([0.05, 0.1, 0.13, 0.05, 0.13, 0.41, 0.05, 0.05, 0.03])
THRESHOLD = 0.3


def drawn(folder: Path, n: int = 300, seed: int = 0) -> Measured:
    """Photos (two of each lesion) whose label is drawn from the probabilities themselves."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(PRIOR * 6, n // 2).repeat(2, axis=0)
    labels = (p[::2].cumsum(axis=1) > rng.random((n // 2, 1))).argmax(axis=1).repeat(2)
    folder.mkdir(parents=True, exist_ok=True)
    for side in (20, 30):
        Image.new("RGB", (side, side + 5)).save(folder / f"{side}.png")
    ages = [None, 20.0, 40.0, 50.0, 65.0, 80.0]
    cases = [
        Case(
            folder / ("20.png" if i % 2 else "30.png"),
            f"photo{i}",
            "ham10000",
            f"lesion{i // 2}",
            diagnosis=DIAGNOSIS_CODES[labels[i]],
            malignant=DIAGNOSIS_CODES[labels[i]] in MALIGNANT_CODES,
            context=Context(age=ages[i % 6], sex=("male", "female", None)[i % 3], site="back" if i < 290 else "ear"),
            split="valid",
        )
        for i in range(n)
    ]
    balanced = p / PRIOR
    malignancy = p[:, [c in MALIGNANT_CODES for c in DIAGNOSIS_CODES]].sum(axis=1)
    return Measured(
        cases=cases,
        labels=labels_of(cases),
        malignant=malignant_of(cases),
        criteria=np.full((n, len(CRITERIA)), -1),
        groups=np.array([c.lesion_id for c in cases]),
        logits=np.log(p + 1e-9),
        probabilities=p,
        balanced=balanced / balanced.sum(axis=1, keepdims=True),
        scores=np.zeros((n, 12)),
        embeddings=np.zeros((n, 2)),
        style=np.zeros((n, 2)),
        shift=np.zeros(n),
        inside=p > 0.1,
        refer=malignancy >= THRESHOLD,
        iou=np.where(np.arange(n) % 2, 0.8, np.nan),
    )


class Given(Measuring):
    """A bench whose predictions are given: split -> Measured."""

    assessor = SimpleNamespace(calibrator=SimpleNamespace(referral=SimpleNamespace(threshold=THRESHOLD)))

    def give(self, **splits: Measured) -> "Given":
        self.given = splits
        return self

    def cases(self, name: str, *splits: str) -> list[Case]:
        return super().cases(name, *splits) if name == "ham10000" else []


def bench(folder: Path, n_boot: int = 20) -> Given:
    return Given(folder, folder / "out", folder / "work", n_boot=n_boot)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return drawn(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def block(measured: Measured, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return diagnosis.measure(bench(tmp_path_factory.mktemp("bench")).give(valid=measured), "valid")


def test_figures_equal_those_of_sklearn(measured, block):
    p, labels, guess = measured.probabilities, measured.labels, measured.balanced.argmax(axis=1)
    figures = block["all"]
    assert figures["n"] == 300
    assert figures["n_groups"] == 150
    assert figures["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(labels, guess))
    argmax = sk.balanced_accuracy_score(labels, p.argmax(axis=1))
    assert figures["balanced_accuracy_argmax"]["value"] == pytest.approx(argmax)
    assert figures["accuracy"]["value"] == pytest.approx(sk.accuracy_score(labels, p.argmax(axis=1)))
    assert figures["auroc_macro"]["value"] == pytest.approx(sk.roc_auc_score(labels, p, multi_class="ovr"))
    malignant = measured.malignant == 1
    assert figures["auroc_malignant"]["value"] == pytest.approx(sk.roc_auc_score(malignant, measured.malignancy))
    assert figures["sensitivity"]["value"] == pytest.approx(sk.recall_score(malignant, measured.refer))
    assert figures["specificity"]["value"] == pytest.approx(sk.recall_score(~malignant, ~measured.refer))
    assert figures["lesion_iou"]["value"] == pytest.approx(0.8)
    recalls = sk.recall_score(labels, guess, average=None)
    assert [figures["classes"][c]["recall"]["value"] for c in DIAGNOSIS_CODES] == pytest.approx(list(recalls))
    assert sum(c["n"] for c in figures["classes"].values()) == 300


def test_roc_equals_that_of_sklearn(measured, tmp_path):
    points = diagnosis.roc(diagnosis._Rows.of(bench(tmp_path), measured))
    fpr, tpr, _ = sk.roc_curve(measured.malignant == 1, measured.malignancy)
    for point in points:
        best = tpr[fpr <= 1 - point["specificity"] + 1e-9].max()
        assert point["sensitivity"]["value"] == pytest.approx(best)
        assert point["sensitivity"]["low"] <= point["sensitivity"]["high"]


def test_confusion_equals_that_of_sklearn(measured):
    guess = measured.probabilities.argmax(axis=1)
    expected = sk.confusion_matrix(measured.labels, guess, labels=np.arange(C))
    assert diagnosis.confusion(measured.labels, guess) == expected.tolist()
    unknown = np.where(np.arange(300) < 100, -1, measured.labels)
    assert np.sum(diagnosis.confusion(unknown, guess)) == 200


def test_photo_sizes_are_read_from_the_files_and_measured_apart(block):
    assert {size: b["n"] for size, b in block["photo_sizes"].items()} == {"20 px": 150, "30 px": 150}
    assert block["photo_sizes"]["20 px"]["n_groups"] == 150
    assert block["photo_size_auroc"]["value"] == 0.5  # each lesion has one photo of each size: no leak


def test_a_leak_of_photo_size_is_measured(measured, tmp_path):
    folder = measured.cases[0].image.parent
    leaking = [replace(c, image=folder / ("20.png" if c.malignant else "30.png")) for c in measured.cases]
    block = diagnosis.measure(bench(tmp_path).give(valid=replace(measured, cases=leaking)), "valid")
    assert block["photo_size_auroc"]["value"] == 1.0


def test_groups_too_small_are_left_out(block):
    groups = block["groups"]
    assert list(groups["site"]) == ["back"]  # ten ears are too few
    assert groups["sex"].keys() == {"female", "male", "not given"}
    assert list(groups["age"]) == ["under 30", "30-44", "45-59", "60-74", "75 and over", "not given"]
    assert sum(g["n"] for g in groups["sex"].values()) == 300


def test_a_group_with_few_malignant_photos_has_no_sensitivity(measured, tmp_path):
    few = np.flatnonzero(measured.malignant == 1)[:4]
    benign = np.isin(np.arange(300), [*few, *np.flatnonzero(measured.malignant == 0)])
    figures = diagnosis.in_short(diagnosis._Rows.of(bench(tmp_path), measured.where(benign)))
    assert figures["n_malignant"] == 4
    assert figures["sensitivity"] is None
    assert figures["auroc_malignant"] is None
    assert figures["specificity"]["value"] > 0


@pytest.mark.parametrize(
    ("age", "band"), [(None, "not given"), (0, "under 30"), (30, "30-44"), (44.9, "30-44"), (85, "75 and over")]
)
def test_age_bands(age, band):
    assert diagnosis.age_band(age) == band


def test_run_measures_what_is_there(measured, tmp_path):
    made = bench(tmp_path).give(valid=measured)
    assert list(diagnosis.run(made)["splits"]) == ["valid"]
    with pytest.raises(DataError, match="no cases of ham10000"):
        diagnosis.run(bench(tmp_path).give())


def test_section_is_made_from_the_file_alone(measured, tmp_path):
    made = bench(tmp_path).give(valid=measured, test=drawn(tmp_path / "more", seed=1))
    result = json.loads(made.save("diagnosis", diagnosis.run(made)).read_text())
    text = section_markdown(diagnosis.section(result))
    assert "| figure | valid | test |" in text
    assert with_interval(result["splits"]["test"]["all"]["balanced_accuracy"]) in text
    charts = {"diagnosis_confusion", "diagnosis_recall", "diagnosis_roc"}
    assert set(re.findall(r"\(figures/(\w+)\.svg\)", text)) == charts
    assert section_markdown(diagnosis.section(result)) == text


def test_section_without_any_malignant_photo(measured, tmp_path):
    benign = bench(tmp_path).give(valid=measured.where(measured.malignant == 0))
    text = section_markdown(diagnosis.section(finite(diagnosis.run(benign))))
    assert "| AUROC, malignant against benign | – |" in text


def test_whiskers_never_point_backwards():
    values, (below, above) = style.whiskers([{"value": 0.5, "low": 0.6, "high": 0.8}, None])
    assert values[0] == 0.5
    assert (below[0], above[0]) == (0.0, pytest.approx(0.3))
    assert np.isnan(values[1])
