"""Answers to photos of another kind, and how well the shift score detects these photos.

Held against HAM10000's `test` photos stand: dermoscopy of another source (ISIC 2017), smartphone photos (PAD-UFES-20),
every further set whose cases all are for testing, pictures without skin, and HAM10000 `valid` photos corrupted by kind
and severity. A set that labels fewer diagnoses than the model knows is measured by the rule over all of them and by the
rule restricted to its own. Abstaining is leaving out what the shift score calls out of domain.
"""

from eval_study.benchmarks.shift.measure import NAME, run
from eval_study.benchmarks.shift.report import section

__all__ = ["NAME", "run", "section"]
