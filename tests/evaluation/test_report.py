import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_BY_CODE, DIAGNOSIS_CODES
from skinclip.data.cases import Case, CaseTable
from skinclip.evaluation import report as reporting
from skinclip.evaluation import run as evaluation
from skinclip.evaluation.prediction_file import PredictionFile
from skinclip.evaluation.scores import ISIC2018_CODES, Row, compare, curves, figures

C = len(DIAGNOSIS_CODES)
NASTY = """<script>alert("x")</script><img src=http://example.org/a.png onerror='x'>&"""
VOID = {"meta", "link", "img", "br", "hr", "input"}


def make_cases(n: int = 60, **changes) -> list[Case]:
    codes = [ISIC2018_CODES[i % 7] for i in range(n)]
    return [
        Case(
            Path(f"{i}.jpg"),
            f"photo_{i}",
            "made",
            f"lesion_{i // 2}",
            **{"diagnosis": code, "malignant": DIAGNOSIS_BY_CODE[code].malignant} | changes,
        )
        for i, code in enumerate(codes)
    ]


def make_report(cases: list[Case] | None = None, name: str = "theirs", prior=None, **options) -> dict:
    cases = make_cases() if cases is None else cases
    p = np.random.default_rng(0).dirichlet(np.ones(C), len(cases))
    rows = {case.image_id: row for case, row in zip(cases, p, strict=True)}
    file = PredictionFile(name, "cd" * 32, rows, prior, (), 0, (1.0, 1.0), 0)
    against = options.pop("against", None)
    options = evaluation.Options(n_boot=20, progress=False, **options)
    report, _ = evaluation.evaluate(file, CaseTable(tuple(cases)), options, against)
    return report


def model_report() -> dict:
    """A report with everything that only a model answers."""
    cases = make_cases(group="FST2", criteria={CRITERIA[0].code: CRITERIA[0].labels[0]})
    rng, rows = np.random.default_rng(0), []
    for case in cases:
        p = rng.dirichlet(np.ones(C))
        states = {c.code: dict.fromkeys(c.labels, 0.5) for c in CRITERIA}
        malignancy = float(p[[0, 1, 4, 7]].sum())
        answers = {"criteria": states, "refer": malignancy > 0.4, "set_codes": ("nv",), "in_domain": True, "iou": 0.8}
        rows.append(Row(case, p, p, malignancy, **answers).scored_on(ISIC2018_CODES))
    report = make_report(cases)
    report |= {**figures(rows, 20, 0), "groups": {"FST2": figures(rows, 20, 0)}, "curves": curves(rows, 20, 0)}
    report["comparison"] = {"against": report["meta"]["system"] | {"rules": {}}, **compare(rows, rows, 20, 0)}
    return report


class Page(HTMLParser):
    """The page's elements, with every tag that is opened and not closed, or closed and not opened, as a fault."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.open, self.faults, self.words = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_a_page_holds_every_figure_with_interval_and_rule():
    report = model_report()
    page = Page(reporting.page(report))
    assert page.faults == [] and page.open == []
    for key, (name, note) in reporting.MEASURES.items():
        assert (name in page.text) and (report[key] is None or note in page.text), key
        if report[key]:
            assert f"{report[key]['value']:.3f}" in page.text
    low, high = report["auroc_malignant"]["low"], report["auroc_malignant"]["high"]
    assert f"{low:.3f}-{high:.3f}" in page.text
    assert "P(malignant) >= referral threshold" not in page.text  # the rules are those of a file
    assert page.text.count("Research use only - not a medical device") == 2
    assert page.tags.count("svg") == 5
    for section in ("Charts", "All figures", "Class by class", "7-point criteria", "By group", "Comparison"):
        assert section in page.text
    assert "FST2" in page.text and "cd" * 32 in page.text and "pigment network" in page.text


def test_every_figure_of_a_report_is_on_the_page():
    report = make_report()
    single = {k for k, v in report.items() if v is None or (isinstance(v, dict) and set(v) == {"value", "low", "high"})}
    assert single - {"groups", "criteria"} == set(reporting.MEASURES)


def test_a_page_needs_nothing_else_and_runs_nothing():
    text = reporting.page(model_report())
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert all(value.startswith("#") for value in links)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "url(http" not in text and "@import" not in text and "default-src 'none'" in text
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {value[1:] for value in links} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(ids)


def test_a_page_is_made_for_screen_readers():
    text = reporting.page(model_report())
    page = Page(text)
    assert '<html lang="en">' in text and "<title>" in text and "viewport" in text
    pictures = re.findall(r'<div role="img" aria-label="([^"]+)"><svg', text)
    assert len(pictures) == 5 and all(len(words) > 40 for words in pictures)
    heads = re.findall(r"<th\b([^>]*)>", text)
    assert heads and all("scope=" in attributes for attributes in heads)
    assert page.tags.count("table") == page.tags.count("caption")


def test_charts_take_their_colours_from_the_page():
    text = reporting.page(model_report())
    pictures = re.findall(r"<svg.*?</svg>", text, flags=re.S)
    for picture in pictures:
        assert set(re.findall(r"#[0-9a-f]{6}\b", picture)) <= {"#ffffff"}
        assert "currentColor" in picture and "<style" not in picture and "<metadata" not in picture
    for variable in set(re.findall(r"var\((--\w+)\)", text)):
        assert text.count(f"{variable}:") >= 1
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_what_comes_from_data_is_escaped():
    cases = make_cases(group=NASTY)
    report = make_report(cases, name=NASTY, layout=NASTY, command=NASTY)
    meta = report["meta"]
    meta |= {"problems": 2, "problem_lines": [NASTY], "data": [NASTY], "split": NASTY, "not_scored": [NASTY]}
    meta["system"] |= {"missing": 3, "missing_first": [NASTY], "renormalised": 1, "rows_of_other_splits": 2}
    report["comparison"] = {
        "against": {"name": NASTY, "sha256": NASTY, "rules": {"balanced_accuracy": NASTY}},
        "n": 60,
        "first": {"balanced_accuracy": report["balanced_accuracy"]},
        "second": {"balanced_accuracy": report["balanced_accuracy"]},
        "differences": {"balanced_accuracy": {"value": 0.1, "low": None, "high": None}},
        "mcnemar_accuracy": {"n": 60, "only_a_right": 1, "only_b_right": 2, "p_value": 1.0},
    }
    text = reporting.page(report)
    page = Page(text)
    assert page.faults == [] and not {"script", "img"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.text.count("alert(") >= 12  # shown as text wherever it stood
    assert "More rows or photos: 1" in page.text and "did not sum to 1" in page.text


def test_a_report_read_back_from_its_file_gives_the_same_page():
    report = model_report()
    assert reporting.page(json.loads(json.dumps(report))) == reporting.page(report)
    assert reporting.page(copy.deepcopy(report)) == reporting.page(report)


def test_data_without_labels_still_gives_a_page():
    page = Page(reporting.page(make_report(make_cases(diagnosis=None, malignant=None))))
    assert page.faults == [] and "svg" not in page.tags
    assert "Not measured, for want of labels or answers: Balanced accuracy;" in page.text
    one = Page(reporting.page(make_report(make_cases(1))))  # one lesion: figures without intervals
    assert one.faults == [] and one.tags.count("svg") == 4


@pytest.mark.parametrize(("high", "words"), [(2.0, "no more than chance gives"), (-1.0, "above what chance gives")])
def test_the_calibration_error_is_read_beside_its_noise_floor(high, words):
    report = make_report()
    report["ece_noise_floor"]["high"] = high
    assert words in Page(reporting.page(report)).text


def test_a_comparison_says_which_rule_each_system_decided_by():
    cases = make_cases()
    p = np.random.default_rng(1).dirichlet(np.ones(C), 60)
    other = PredictionFile(
        "other", "ef" * 32, dict(zip([c.image_id for c in cases], p, strict=True)), p[0], (), 0, (1, 1), 0
    )
    page = Page(reporting.page(make_report(cases, against=other)))
    assert "argmax p; for other argmax p / prior" in page.text
    assert "McNemar's exact test of accuracy (argmax p) on 60 photos" in page.text
