"""A diagnosis is one entry in the vocabulary: a made-up one is found wherever diagnoses are named or counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The vocabulary's own source with one more entry, before anything else is imported.
PROGRAM = '''
import importlib.util, json, random, sys
from pathlib import Path

source = Path("skinclip/core/vocabulary.py").read_text()
entry = """    Diagnosis(
        "zzz", "zebra carcinoma", True, ("a zebra carcinoma with stripes",), also=("Merkel cell carcinoma",)
    ),
)

DIAGNOSIS_CODES"""
source = source.replace(")\\n\\nDIAGNOSIS_CODES", entry, 1)
assert "zebra" in source
spec = importlib.util.spec_from_loader("skinclip.core.vocabulary", loader=None)
module = importlib.util.module_from_spec(spec)
sys.modules["skinclip.core.vocabulary"] = module
exec(compile(source, "vocabulary.py", "exec"), module.__dict__)

import numpy as np
from skinclip.calibration.calibrator import MALIGNANT
from skinclip.evaluation.prediction_file import as_table
from skinclip.language.paraphrases import describe
from skinclip.language.rationale import vocabulary, write_rationale
from skinclip.language.rationale_check import check_rationale
from skinclip.model.tokenizer import mini_tokenizer
from skinclip.reporting import phrasing
from skinclip.reporting.assessment_pdf import assessment_pdf
from skinclip.ui import components
from tests.reporting.test_phrasing import made_up

codes = module.DIAGNOSIS_CODES
p = np.full(len(codes), 1 / len(codes))
p[-1] += 0.1
p /= p.sum()
every, one = made_up(p, codes, 0.99), made_up(p, ("zzz",), 0.99)
text = write_rationale("zzz", "mel", (), random.Random(0))
words = mini_tokenizer().get_vocab()
print(json.dumps({
    "set of all": phrasing.prediction_set(every),
    "set of one": phrasing.prediction_set(one),
    "malignant": phrasing.malignant_here(every),
    "open": " ".join(phrasing.leaves_open(every)),
    "verdict": phrasing.verdict(one),
    "page": components.differential(one),
    "empty page": components.EMPTY,
    "rationale": text,
    "problems": check_rationale(text, (), ("zzz", "mel")),
    "known words": [w in words for w in "zebra carcinoma".split()],
    "descriptions": describe("zzz", 4, random.Random(0)),
    "columns": list(as_table(["a"], [p], codes).columns),
    "counts as malignant": bool(MALIGNANT[-1]),
    "pdf": assessment_pdf(one, np.zeros((120, 160, 3), np.uint8))[:4].decode(),
}))
'''


@pytest.fixture(scope="module")
def found() -> dict:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_sentences_count_and_name_it(found: dict) -> None:
    assert "None of the ten" in found["set of all"]
    assert "Only **zebra carcinoma** remains" in found["set of one"]
    assert "zebra carcinoma or Merkel cell carcinoma" in found["malignant"]
    assert found["verdict"] == "Below the referral threshold"  # it is malignant, and the only one in the set
    assert "ten diagnoses" in found["open"] and "Merkel" not in found["open"]  # now it can be named


def test_page_and_pdf_show_it(found: dict) -> None:
    assert "zebra carcinoma" in found["page"] and "ten diagnoses" in found["empty page"]
    assert found["pdf"] == "%PDF"


def test_the_language_knows_it(found: dict) -> None:
    assert "zebra carcinoma" in found["rationale"] and found["problems"] == [] and all(found["known words"])
    assert len(found["descriptions"]) == 4 and any("zebra" in text for text in found["descriptions"])


def test_results_have_its_column(found: dict) -> None:
    assert found["columns"] == ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC", "SCC", "OTHER", "ZZZ"]
    assert found["counts as malignant"]
