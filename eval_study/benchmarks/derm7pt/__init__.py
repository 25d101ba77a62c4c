"""Derm7pt as published: the diagnosis (DIAG) in its five groups and the seven criteria in their official states.

Three things are measured: the model as it is shipped, the rule that always says the commonest state, and logistic
readouts on the frozen tower's features (dermoscopy; with the clinical photo; with sex and site), which show what the
features hold whatever the heads make of them. Photos are taken uncropped, as users take them, and cropped to the
lesion. Choices are made on the official `valid` split, the official `test` split is reported where it is there.
"""

from eval_study.benchmarks.derm7pt.measure import NAME, run
from eval_study.benchmarks.derm7pt.report import section

__all__ = ["NAME", "run", "section"]
