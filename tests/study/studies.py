"""Small simulated studies for the tests."""

from dataclasses import replace

from skinclip.study.analysis.analysis_plan import AnalysisPlan
from skinclip.study.analysis.tables import StudyTables
from skinclip.study.simulate import Simulation, simulate

SMALL = Simulation(readers=6, cases=16, ood_cases=4)
PLAN = AnalysisPlan(resamples=40)


def study(seed: int = 1, **changes) -> StudyTables:
    return simulate(replace(SMALL, **changes), seed)
