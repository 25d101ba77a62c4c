import csv
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_score, recall_score, roc_auc_score

from skinclip.core.assessment import Context, DiagnosisProbability, ModelInfo
from skinclip.core.config import preset
from skinclip.core.vocabulary import (
    CRITERIA,
    DERM7PT_GROUPS,
    DIAGNOSIS_BY_CODE,
    DIAGNOSIS_CODES,
    ISIC2018_COLUMNS,
)
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.evaluation import metrics
from skinclip.evaluation import run as evaluation
from skinclip.evaluation.prediction_file import PredictionFile
from skinclip.evaluation.report import page, scored_note
from skinclip.evaluation.scores import ISIC2018_CODES, Row, figures
from tests.hostile_texts import TEXTS

C = len(ISIC2018_CODES)
PRIOR = np.array([0.03, 0.05, 0.11, 0.01, 0.11, 0.67, 0.02])
MALIGNANT = [0, 1, 4]
SIDE = 64


class FakeAssessor:
    """Answers by the number that a photo's first pixel holds; its answers are drawn once from a seed."""

    model_info = ModelInfo("fake", "0.0", "ab" * 32)
    calibrator = SimpleNamespace(prevalence="fake clinic")
    config = replace(preset("mini"), diagnoses=ISIC2018_CODES)

    def __init__(self, n: int = 250) -> None:
        rng = np.random.default_rng(0)
        self.p = rng.dirichlet(PRIOR * 8 + 0.05, n)  # [n, 7]: of the others 0, as of a model that does not know them
        self.criteria = [
            {c.code: dict(zip(c.labels, rng.dirichlet(np.ones(len(c.labels))), strict=True)) for c in CRITERIA}
            for _ in range(n)
        ]
        self.batches: list[int] = []
        self.assessed: list[int] = []

    def predict(self, images, contexts, others=None):
        assert len(images) == len(contexts) and all(isinstance(c, Context) for c in contexts)
        self.batches.append(len(images))
        return [self._prediction(int(image.pixels[0, 0, 0]), image.pixels.shape[:2]) for image in images]

    def _prediction(self, i, shape):
        mask = np.zeros(shape, dtype=bool)
        mask[: shape[0] // 2] = True
        balanced = self.p[i] / PRIOR
        malignancy = self.p[i][MALIGNANT].sum()
        return SimpleNamespace(
            probabilities=in_columns(self.p[i]),
            balanced=in_columns(balanced / balanced.sum()),
            criteria=self.criteria[i],
            lesion_mask=mask,
            malignancy=malignancy,
            refer=malignancy >= 0.2,
            set_codes=tuple(DIAGNOSIS_CODES[c] for c in np.argsort(-self.p[i])[:2]),
            shift_score=0.5,
            in_domain=True,
            confident=i % 5 > 0,
            kind="dermoscopy",
            ita=float(i % 80 - 20),
        )

    def assess(self, image, context, clinical=None):
        i = int(image.pixels[0, 0, 0])
        self.assessed.append(i)
        order = np.argsort(-self.p[i])
        codes = [DIAGNOSIS_CODES[c] for c in order]
        diagnosis = tuple(DiagnosisProbability(c, DIAGNOSIS_BY_CODE[c].name, 0.1) for c in codes)
        named = diagnosis[1 if i % 4 == 0 else 0].name  # every fourth rationale names another diagnosis first
        return SimpleNamespace(
            diagnosis=diagnosis, abstained=i == 3, rationale="" if i == 3 else f"Most likely this is {named}."
        )


def in_columns(p: np.ndarray) -> np.ndarray:
    """[C] of the seven -> one for each diagnosis."""
    return np.append(p, np.zeros(len(DIAGNOSIS_CODES) - len(p)))


class FakeOfNine(FakeAssessor):
    """One that knows every diagnosis."""

    config = preset("mini")

    def __init__(self, n: int = 250) -> None:
        super().__init__(n)
        self.wide = np.random.default_rng(1).dirichlet(np.ones(len(DIAGNOSIS_CODES)), n)

    def _prediction(self, i, shape):
        answer = super()._prediction(i, shape)
        answer.probabilities = answer.balanced = self.wide[i]
        return answer


def write_photo(path: Path, number: int, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    pixels = np.full((size[1], size[0], 3), 120, dtype=np.uint8)
    pixels[0, 0] = number
    Image.fromarray(pixels).save(path)
    return path


def make_cases(folder: Path, n: int = 40, **changes) -> list[Case]:
    rng = np.random.default_rng(1)
    cases = []
    for i in range(n):
        code = DIAGNOSIS_CODES[i % C] if i < 2 * C else DIAGNOSIS_CODES[rng.choice(C, p=PRIOR)]
        labels = {
            "diagnosis": code,
            "malignant": DIAGNOSIS_BY_CODE[code].malignant,
            "split": "test" if i % 2 else "valid",
            **{k: v(i) if callable(v) else v for k, v in changes.items()},
        }
        photo = write_photo(folder / f"photo_{i:03d}.png", i)
        cases.append(Case(image=photo, image_id=photo.stem, source="made", lesion_id=f"lesion_{i // 2}", **labels))
    return cases


def run(cases, assessor=None, **options):
    against = options.pop("against", None)
    options = {"n_boot": 20, "progress": False, "rationales": 0} | options
    table = CaseTable(tuple(cases))
    return evaluation.evaluate(assessor or FakeAssessor(), table, evaluation.Options(**options), against)


def test_figures_equal_sklearn_by_their_decision_rules(tmp_path):
    cases, assessor = make_cases(tmp_path), FakeAssessor()
    report, rows = run(cases, assessor, batch_size=16)
    predictions = evaluation.submission(rows)
    labels, p = np.array([DIAGNOSIS_CODES.index(c.diagnosis) for c in cases]), assessor.p[:40]
    assert assessor.batches == [16, 16, 8] and report["n"] == 40
    assert report["balanced_accuracy"]["value"] == pytest.approx(
        balanced_accuracy_score(labels, (p / PRIOR).argmax(axis=1))
    )
    assert report["balanced_accuracy_argmax"]["value"] == pytest.approx(
        balanced_accuracy_score(labels, p.argmax(axis=1))
    )
    recalls = [r["value"] for r in report["per_class_recall"].values()]
    assert np.mean(recalls) == pytest.approx(report["balanced_accuracy"]["value"])
    malignant = np.array([c.malignant for c in cases])
    score = p[:, [0, 1, 4]].sum(axis=1)
    assert report["auroc_malignant"]["value"] == pytest.approx(roc_auc_score(malignant, score))
    assert report["sensitivity"]["value"] == pytest.approx(np.mean(score[malignant] >= 0.2))
    assert report["specificity"]["value"] == pytest.approx(np.mean(score[~malignant] < 0.2))
    in_set = [c.diagnosis in [DIAGNOSIS_CODES[k] for k in np.argsort(-p[i])[:2]] for i, c in enumerate(cases)]
    assert report["coverage"]["value"] == pytest.approx(np.mean(in_set))
    assert list(predictions.columns) == ["image", *ISIC2018_COLUMNS]
    assert predictions[list(ISIC2018_COLUMNS)].sum(axis=1).to_numpy() == pytest.approx(np.ones(40))
    assert report["meta"]["n_lesions"] == 20 and report["meta"]["model"]["weights_sha256"] == "ab" * 32
    json.dumps(report, allow_nan=False)


def test_figures_of_confidence_and_melanoma_are_those_of_the_displayed_probabilities(tmp_path):
    cases, assessor = make_cases(tmp_path), FakeAssessor()
    report, rows = run(cases, assessor)
    labels, p = np.array([DIAGNOSIS_CODES.index(c.diagnosis) for c in cases]), assessor.p[:40]
    guess, mel, ones = p.argmax(axis=1), DIAGNOSIS_CODES.index("mel"), np.ones((1, 40))
    for key, metric in (
        ("adaptive_ece", metrics.adaptive_ece(p, labels)),
        ("classwise_ece", metrics.classwise_ece(p, labels)),
        ("aurc", metrics.aurc(p.max(axis=1), guess == labels)),
        (
            "melanoma_sensitivity_at_90_specificity",
            metrics.sensitivity_at_specificity(p[:, mel], labels == mel, None, 0.9),
        ),
    ):
        assert report[key]["value"] == pytest.approx(float(metric(ones)[0])), key
    assert report["melanoma_sensitivity"]["value"] == pytest.approx(recall_score(labels == mel, guess == mel))
    assert report["melanoma_precision"]["value"] == pytest.approx(precision_score(labels == mel, guess == mel))
    floor = metrics.ece_noise_floor(p, draws=20)
    wanted = {"value": floor["mean"], "low": floor["low"], "high": floor["high"]}
    assert report["ece_noise_floor"] == pytest.approx(wanted)
    natural = evaluation.probabilities(rows)
    columns = [DIAGNOSIS_CODES.index(code) for code in ISIC2018_COLUMNS.values()]
    assert natural[list(ISIC2018_COLUMNS)].to_numpy() == pytest.approx(p[:, columns])


def test_curves_are_those_of_the_figures(tmp_path):
    cases, assessor = make_cases(tmp_path, 39), FakeAssessor()
    cases.append(Case(write_photo(tmp_path / "x.png", 39), "x", "made", "x"))  # without any label
    report, _ = run(cases, assessor)
    labels, p = np.array([DIAGNOSIS_CODES.index(c.diagnosis) for c in cases[:39]]), assessor.p[:39]
    curves = report["curves"]
    decided = (p / PRIOR).argmax(axis=1)
    assert curves["confusion"] == confusion_matrix(labels, decided, labels=range(C)).tolist()
    gaps = [point["n"] * abs(point["confidence"] - point["rate"]["value"]) for point in curves["reliability"]]
    assert sum(gaps) / 39 == pytest.approx(report["ece"]["value"])
    assert sum(point["n"] for point in curves["reliability"]) == 39
    last = curves["risk_coverage"][-1]
    assert last["coverage"] == 1 and last["risk"]["value"] == pytest.approx(1 - report["accuracy"]["value"])
    x, y = curves["roc"]["false_positive_rate"], curves["roc"]["true_positive_rate"]
    assert np.trapezoid(y, x) == pytest.approx(report["auroc_malignant"]["value"])
    bare, _ = run(make_cases(tmp_path, 4, diagnosis=None, malignant=None))
    assert set(bare["curves"].values()) == {None}


def as_file(cases, p, prior=None, name="theirs", **changes) -> PredictionFile:
    rows = {case.image_id: row for case, row in zip(cases, p, strict=True)}
    return PredictionFile(name, "cd" * 32, rows, prior, (), 0, (1.0, 1.0), 0, codes=ISIC2018_CODES, **changes)


def test_a_file_of_our_own_probabilities_gives_our_own_figures(tmp_path):
    cases, assessor = make_cases(tmp_path), FakeAssessor()
    ours, _ = run(cases, assessor)
    theirs, rows = run(cases, as_file(cases, assessor.p[:40], PRIOR))
    unknown = {"sensitivity", "specificity", "coverage", "set_size", "in_domain"}
    unknown |= {"answered", "accuracy_answered", "accuracy_not_answered"}
    for key in set(ours) - unknown - {"meta"}:
        assert theirs[key] == ours[key], key
    assert {key for key in unknown if theirs[key] is None} == unknown
    assert theirs["meta"]["rules"]["balanced_accuracy"] == "argmax p / prior" and theirs["meta"]["model"] is None
    assert theirs["meta"]["system"]["prior"]["nv"] == 0.67 and len(rows) == 40
    json.dumps(theirs, allow_nan=False)


def test_without_a_prior_both_rules_of_a_file_are_argmax(tmp_path):
    cases, assessor = make_cases(tmp_path), FakeAssessor()
    report, _ = run(cases, as_file(cases, assessor.p[:40]))
    assert report["balanced_accuracy"] == report["balanced_accuracy_argmax"]
    rules = report["meta"]["rules"]
    assert {rules[key] for key in ("balanced_accuracy", "per_class_recall", "confusion")} == {"argmax p"}
    assert "sensitivity, specificity" not in rules and report["meta"]["system"]["prior"] is None


def test_criteria_of_a_file_are_not_measured(tmp_path):
    cases = make_cases(tmp_path, criteria={CRITERIA[0].code: CRITERIA[0].labels[0]})
    report, _ = run(cases, as_file(cases, FakeAssessor().p[:40]))
    assert report["criteria"] is None and report["criteria_mean_accuracy"] is None


def test_a_comparison_is_paired(tmp_path):
    cases, assessor = make_cases(tmp_path), FakeAssessor()
    labels = np.array([DIAGNOSIS_CODES.index(c.diagnosis) for c in cases])
    p = assessor.p[:40]
    better = 0.5 * p + 0.5 * np.eye(C)[labels]
    report, _ = run(cases, as_file(cases, better, PRIOR), against=assessor, n_boot=200)
    found, alone = report["comparison"], run(cases, assessor, n_boot=200)[0]
    assert found["n"] == 40 and found["against"]["kind"] == "model"
    for key in ("accuracy", "balanced_accuracy", "ece", "auroc_malignant"):
        assert found["first"][key] == report[key] and found["second"][key] == alone[key]
        gap = report[key]["value"] - alone[key]["value"]
        assert found["differences"][key]["value"] == pytest.approx(gap)
    assert found["differences"]["accuracy"]["low"] > 0 and found["differences"]["sensitivity"] is None
    right, ours = better.argmax(axis=1) == labels, p.argmax(axis=1) == labels
    only, less = int((right & ~ours).sum()), int((~right & ours).sum())
    expected = binomtest(only, only + less).pvalue
    assert found["mcnemar_accuracy"] == {
        "n": 40,
        "only_a_right": only,
        "only_b_right": less,
        "p_value": pytest.approx(expected),
    }
    json.dumps(report, allow_nan=False)


def test_a_system_against_itself_does_not_differ(tmp_path):
    cases, assessor = make_cases(tmp_path), FakeAssessor()
    one = as_file(cases, assessor.p[:40], PRIOR)
    found = run(cases, one, against=as_file(cases, assessor.p[:40], PRIOR, name="again"))[0]["comparison"]
    assert {v for d in found["differences"].values() if d for v in d.values()} == {0.0}
    assert found["mcnemar_accuracy"]["p_value"] == 1


def test_photos_that_one_of_two_systems_lacks_are_not_compared(tmp_path):
    cases, p = make_cases(tmp_path), FakeAssessor().p[:40]
    report, _ = run(cases, as_file(cases, p), against=as_file(cases[:30], p[:30]))
    assert report["n"] == 40 and report["comparison"]["n"] == 30
    apart, _ = run(cases, as_file(cases[:5], p[:5]), against=as_file(cases[30:], p[30:]))
    assert apart["comparison"] is None
    unlabelled = make_cases(tmp_path, diagnosis=None, malignant=None)
    nothing = run(unlabelled, as_file(cases, p), against=as_file(cases, p))[0]["comparison"]
    assert nothing["mcnemar_accuracy"] is None and set(nothing["differences"].values()) == {None}


def test_every_figure_has_an_interval_or_is_null(tmp_path):
    report, _ = run(make_cases(tmp_path))
    figures = {k: v for k, v in report.items() if k not in ("n", "meta", "per_class_recall", "curves")}
    for figure in [*figures.values(), *report["per_class_recall"].values()]:
        assert figure is None or set(figure) == {"value", "low", "high"}
    wanted = (
        "accuracy balanced_accuracy auroc_macro per_class_recall ece brier nll lesion_iou agreement auroc_malignant"
    )
    wanted += " sensitivity specificity groups criteria diag_accuracy criteria_mean_accuracy n curves"
    wanted += " adaptive_ece classwise_ece ece_noise_floor aurc melanoma_sensitivity melanoma_precision"
    wanted += " melanoma_sensitivity_at_90_specificity"
    assert set(wanted.split()) <= set(report)
    nulls = {"lesion_iou", "agreement", "groups", "criteria", "diag_accuracy", "criteria_mean_accuracy"}
    assert {k for k, v in report.items() if v is None} == nulls


def test_only_the_split_asked_for_is_used(tmp_path):
    cases = make_cases(tmp_path)
    report, rows = run(cases, split="test")
    assert report["n"] == 20
    assert list(evaluation.submission(rows)["image"]) == [c.image_id for c in cases if c.split == "test"]
    with pytest.raises(DataError, match="no case of split 'tset'; splits found: test, valid"):
        run(cases, split="tset")


def test_lesions_that_another_set_holds_too_are_left_out_and_counted(tmp_path):
    cases = make_cases(tmp_path)
    first = cases[0]
    lesion = [c for c in cases if c.lesion_id == first.lesion_id]
    pair = (f"{first.source}/{first.image_id}", "elsewhere/ISIC_1")
    report, rows = run(cases, shared=(pair,))
    assert len(rows) == len(cases) - len(lesion) and report["meta"]["left_out_shared"] == len(lesion)
    report, rows = run(cases)
    assert len(rows) == len(cases) and report["meta"]["left_out_shared"] is None


def test_labels_that_are_missing_give_null(tmp_path):
    cases = make_cases(tmp_path, 8, diagnosis=None, malignant=lambda i: i % 2 == 0)
    report, _ = run(cases)
    assert report["accuracy"] is None and report["per_class_recall"] is None and report["coverage"] is None
    assert report["auroc_malignant"] is not None and report["set_size"]["value"] == 2
    all_benign, _ = run(make_cases(tmp_path, 8, malignant=False))
    assert all_benign["auroc_malignant"] is None and all_benign["sensitivity"] is None
    assert all_benign["specificity"] is not None


def test_groups_repeat_all_figures(tmp_path):
    cases = make_cases(tmp_path, 30, group=lambda i: ["FST1", "FST2", None][i % 3])
    report, _ = run(cases)
    assert set(report["groups"]) == {"FST1", "FST2"}
    first, _ = run([c for c in cases if c.group == "FST1"])
    assert report["groups"]["FST1"] == {k: v for k, v in first.items() if k not in ("meta", "groups", "curves")}


def test_criteria_and_derm7pt_figures(tmp_path):
    def criteria(i):
        network = CRITERIA[0]
        return {network.code: network.labels[i % 3]} if i < 20 else {}

    cases = make_cases(tmp_path, criteria=criteria, diagnosis_group=lambda i: DERM7PT_GROUPS[i % 5])
    assessor = FakeAssessor()
    report, _ = run(cases, assessor)
    states = CRITERIA[0].labels
    p = np.array([[assessor.criteria[i][CRITERIA[0].code][s] for s in states] for i in range(20)])
    truth = np.arange(20) % 3
    found = report["criteria"]
    assert set(found) == {CRITERIA[0].code}
    assert found[CRITERIA[0].code]["accuracy"]["value"] == pytest.approx(np.mean(p.argmax(axis=1) == truth))
    assert found[CRITERIA[0].code]["auroc"]["value"] == pytest.approx(roc_auc_score(truth, p, multi_class="ovr"))
    assert report["criteria_mean_accuracy"]["value"] == pytest.approx(found[CRITERIA[0].code]["accuracy"]["value"])
    # BCC, NEV, MEL, MISC (df + vasc + akiec), SK, in the columns of akiec, bcc, bkl, df, mel, nv, vasc.
    q = assessor.p[:40]
    grouped = np.stack([q[:, 1], q[:, 5], q[:, 4], q[:, 3] + q[:, 6] + q[:, 0], q[:, 2]], axis=1)
    assert report["diag_accuracy"]["value"] == pytest.approx(np.mean(grouped.argmax(axis=1) == np.arange(40) % 5))


def test_lesion_iou_on_the_photos_own_pixels(tmp_path):
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[8:24] = 255  # the middle half of the rows, at half the photo's size; predicted is the upper half
    Image.fromarray(mask).save(tmp_path / "mask.png")
    report, _ = run(make_cases(tmp_path, 4, mask=tmp_path / "mask.png"))
    assert report["lesion_iou"]["value"] == pytest.approx(1 / 3)


def test_agreement_is_read_from_a_seeded_sample_of_rationales(tmp_path):
    cases, assessor = make_cases(tmp_path), FakeAssessor()
    report, _ = run(cases, assessor, rationales="all")
    assert sorted(assessor.assessed) == list(range(40))
    assert report["meta"]["n_rationales"] == 39  # the fake abstains once: there is nothing to agree with
    assert report["agreement"]["value"] == pytest.approx(29 / 39)
    samples = []
    for seed in (5, 5, 6):
        some = FakeAssessor()
        run(cases, some, rationales=7, seed=seed)
        samples.append(some.assessed)
    assert len(samples[0]) == 7 and samples[0] == samples[1] != samples[2]


def test_photos_and_masks_that_cannot_be_read_are_counted_or_stop(tmp_path):
    cases = make_cases(tmp_path, 6, mask=lambda i: tmp_path / "no_such_mask.png" if i == 1 else None)
    cases[2].image.write_text("not a photo")
    report, rows = run(cases)
    assert report["n"] == 5 and cases[2].image_id not in [row.case.image_id for row in rows]
    assert report["meta"]["problems"] == 2
    assert {line.split(":")[0] for line in report["meta"]["problem_lines"]} == {
        "mask no_such_mask.png",
        "photo photo_002.png",
    }
    with pytest.raises(DataError, match=r"no_such_mask|photo_002"):
        run(cases, strict=True)
    with pytest.raises(DataError, match="none of 1 photos could be read"):
        run([cases[2]])


def test_ledger_gets_a_row_a_run(tmp_path):
    path = tmp_path / "results" / "ledger.csv"
    evaluation.log_test_use(path, "abc", "ham10000", "test", 1019, "release 0.1")
    evaluation.log_test_use(path, "abd", "ham10000", None, 1019, "")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(r["weights_sha256"], r["split"], r["n"]) for r in rows] == [
        ("abc", "test", "1019"),
        ("abd", "all", "1019"),
    ]
    assert rows[0]["reason"] == "release 0.1" and rows[0]["date"].startswith("20")


@pytest.mark.parametrize("text", TEXTS)
def test_the_ledger_takes_any_reason_as_text(tmp_path, text):
    path = tmp_path / "ledger.csv"
    for _ in range(2):
        evaluation.log_test_use(path, "abc", text, None, 5, text)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(row["split"] == "all" and row["n"] == "5" for row in rows)
    assert not rows[0]["reason"].lstrip().startswith(("=", "+", "-", "@")) and "\r" not in rows[0]["data"]


def test_command_line_names_the_data_by_its_variable(monkeypatch):
    monkeypatch.setenv("SKINCLIP_DATA", "/some/where/")
    words = ["evaluate", "--data", "/some/where/ham10000", "--out", "my report.json"]
    assert evaluation.command_line(words) == (
        "python -m skinclip evaluate --data $SKINCLIP_DATA/ham10000 --out 'my report.json'"
    )
    assert evaluation.command_line(["--data", "/some/wherever"]).endswith("--data /some/wherever")


@pytest.mark.skipif(
    not os.environ.get("ISIC_SCORER_PYTHON"), reason="set ISIC_SCORER_PYTHON, see eval_study/check_isic_scorer.py"
)
def test_isic_own_scorer_agrees(tmp_path):
    """The official scorer, in a Python environment of its own, gives our balanced accuracy."""
    cases = make_cases(tmp_path)
    cases.append(Case(write_photo(tmp_path / "x.png", 40), "ISIC_0035068", "made", "x", diagnosis="mel"))
    report, rows = run(cases)
    evaluation.submission(rows).to_csv(tmp_path / "predictions.csv", index=False)
    with (tmp_path / "truth.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *ISIC2018_COLUMNS])
        for case in cases:
            writer.writerow([case.image_id, *[float(code == case.diagnosis) for code in ISIC2018_COLUMNS.values()]])
    command = [os.environ["ISIC_SCORER_PYTHON"], "-m", "isic_challenge_scoring", "-o", "json", "classification"]
    files = [str(tmp_path / "truth.csv"), str(tmp_path / "predictions.csv")]
    scored = json.loads(subprocess.run([*command, *files], check=True, capture_output=True, text=True).stdout)
    assert scored["aggregate"]["balanced_accuracy"] == pytest.approx(report["balanced_accuracy"]["value"], abs=1e-12)
    assert report["n"] == 40 and report["meta"]["not_scored"] == ["ISIC_0035068"]


def test_a_benchmark_of_seven_is_scored_on_its_seven(tmp_path):
    """Two diagnoses that the seven do not hold take their part of every probability: the figures are as without it."""
    cases = make_cases(tmp_path, 30, diagnosis=lambda i: ISIC2018_CODES[i % 7])
    report, rows = run(cases, FakeOfNine())
    seven, p = len(ISIC2018_CODES), np.array([row.probabilities for row in rows])
    assert report["meta"]["scored_diagnoses"] == list(ISIC2018_CODES)
    bare = [
        replace(
            row,
            probabilities=row.probabilities[:seven] / row.probabilities[:seven].sum(),
            balanced=row.balanced[:seven] / row.balanced[:seven].sum(),
            codes=ISIC2018_CODES,
        )
        for row in rows
    ]
    found = figures(bare, 20, 0)
    for name in ("accuracy", "balanced_accuracy", "auroc_macro", "ece", "classwise_ece", "brier", "nll", "aurc"):
        assert found[name]["value"] == pytest.approx(report[name]["value"], abs=1e-9), name
    assert set(report["per_class_recall"]) == set(ISIC2018_CODES) and len(report["curves"]["confusion"]) == seven
    nine = figures(rows, 20, 0)
    shares = p[:, :seven].sum(axis=1)
    assert nine["nll"]["value"] == pytest.approx(report["nll"]["value"] - np.log(shares).mean(), abs=1e-6)
    assert set(nine["per_class_recall"]) == set(DIAGNOSIS_CODES)
    lost = replace(rows[0], case=replace(rows[0].case, diagnosis="scc")).scored_on(ISIC2018_CODES)
    assert lost.case.diagnosis is None  # of another diagnosis: it has no label among the seven


@pytest.mark.parametrize(("more", "scored"), [((), 7), (("scc",), 8), (("scc", "other"), 9), (("other",), 8)])
def test_a_benchmark_is_scored_on_the_seven_and_what_else_it_labels(tmp_path, more, scored):
    codes = (*ISIC2018_CODES, *more)
    report, rows = run(make_cases(tmp_path, 30, diagnosis=lambda i: codes[i % len(codes)]), FakeOfNine())
    assert report["meta"]["scored_diagnoses"] == [c for c in DIAGNOSIS_CODES if c in codes]
    assert len(report["per_class_recall"]) == scored and report["meta"]["known_diagnoses"] == list(DIAGNOSIS_CODES)
    assert list(evaluation.submission(rows).columns) == ["image", *ISIC2018_COLUMNS]  # the challenge knows seven
    assert len(evaluation.probabilities(rows).columns) == 1 + len(DIAGNOSIS_CODES)


def test_a_model_that_does_not_know_a_diagnosis_is_not_scored_on_it(tmp_path):
    cases = make_cases(tmp_path, 27, diagnosis=lambda i: DIAGNOSIS_CODES[i % 9])
    report, _ = run(cases)
    assert report["meta"]["scored_diagnoses"] == list(ISIC2018_CODES)
    assert any("6 photos" in line and "other 3, scc 3" in line for line in report["meta"]["problem_lines"])
    assert scored_note(report["meta"]) == ""


def test_all_probability_elsewhere_leaves_equal_shares(tmp_path):
    case = make_cases(tmp_path, 1)[0]
    only = np.array([0.0] * 8 + [1.0])
    row = Row(case, only, only, 0.0).scored_on(ISIC2018_CODES)
    assert row.probabilities == pytest.approx(np.full(7, 1 / 7))


def test_a_report_says_on_which_diagnoses_it_was_scored(tmp_path):
    report, _ = run(make_cases(tmp_path, 7), FakeOfNine())
    assert report["meta"]["scored_diagnoses"] == list(ISIC2018_CODES)
    note = scored_note({"scored_diagnoses": ["mel", "nv"]})  # a report of before: the system knew seven
    assert "knows 7 diagnoses, of which 2 are scored" in note and "mel, nv alone, renormalised" in note
    assert "knows 9 diagnoses, of which 7 are scored" in scored_note(report["meta"])


def test_a_negative_seed_is_refused():
    with pytest.raises(DataError, match="-1 is no seed"):
        evaluation.Options(seed=-1)


def test_a_folder_named_in_latin_1_gets_its_row(tmp_path):
    path = tmp_path / "ledger.csv"
    evaluation.log_test_use(path, "ab", os.fsdecode(b"M\xfcller"), "test", 1, "")
    assert path.read_text(encoding="utf-8").splitlines()[1].endswith("M\\udcfcller,test,1,")


def test_abstention_is_measured_as_accuracy_of_what_is_answered(tmp_path):
    cases, assessor = make_cases(tmp_path), FakeAssessor()
    report, rows = run(cases, assessor)
    right = np.array([DIAGNOSIS_CODES[r.probabilities.argmax()] == r.case.diagnosis for r in rows])
    answered = np.array([r.answered for r in rows])
    assert 0 < answered.sum() < 40 and report["answered"]["value"] == pytest.approx(answered.mean())
    assert report["accuracy_answered"]["value"] == pytest.approx(right[answered].mean())
    assert report["accuracy_not_answered"]["value"] == pytest.approx(right[~answered].mean())
    assert report["meta"]["system"]["prevalence"] == "fake clinic"


def test_figures_by_skin_tone_and_fitzpatrick_type(tmp_path):
    tones = {"skin_tone": lambda i: (0, 3, 3)[i % 3], "fitzpatrick": lambda i: None if i % 2 else 2 + i % 4}
    cases = make_cases(tmp_path, **tones)
    report, rows = run(cases, by=("skin_tone", "fitzpatrick", "ita"))
    by = report["by"]
    assert list(by["skin_tone"]) == ["0 (very dark)", "3 (medium)"] and by["skin_tone"]["0 (very dark)"] == {"n": 14}
    medium = [r for r in rows if r.case.skin_tone == 3]
    expected = figures([r.scored_on(ISIC2018_CODES) for r in medium], 20, 0)
    assert by["skin_tone"]["3 (medium)"] == expected and expected["accuracy"]["low"] is not None
    assert set(by["fitzpatrick"]) == {"type II", "type IV"} and sum(g["n"] for g in by["fitzpatrick"].values()) == 20
    assert sum(g["n"] for g in by["ita"].values()) == 40
    html = page(report)
    assert "The same figures by skin tone" in html and "0 (very dark)" in html
    assert "by" not in run(cases)[0]
