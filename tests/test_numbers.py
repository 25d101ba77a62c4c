"""Every number in the documents is that of a result file, made with the weights that are shipped."""

from __future__ import annotations

import json

import pytest

from eval_study.fill_numbers import DOCUMENTS, RESULTS, filled
from skinclip.model.skinclip_vl import ASSETS, weights_sha256


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.parent.name))
def test_documents_quote_the_result_files(document) -> None:
    text = document.read_text()
    assert filled(text) == text, "run python -m eval_study.fill_numbers"


def test_results_are_those_of_the_embedded_weights() -> None:
    reports = [json.loads(p.read_text()) for p in RESULTS.glob("evaluate_*.json")]
    assert reports
    assert {r["meta"]["model"]["weights_sha256"] for r in reports} == {weights_sha256(ASSETS / "mini")}
