"""A study's page needs no model: what it imports."""

from __future__ import annotations

import subprocess
import sys

from tests.helpers.served import ROOT

HEAVY = ("torch", "transformers", "open_clip", "scipy", "matplotlib", "fpdf", "statsmodels")


def test_a_study_is_served_without_the_libraries_of_models_and_reports() -> None:
    code = f"import sys, skinclip.ui.study_page; print([m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
