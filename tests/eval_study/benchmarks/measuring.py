"""A bench whose predictions are given, for tests of what is figured from them."""

from __future__ import annotations

from eval_study.benchmarks.common import Bench, Measured
from skinclip.data.cases import Case


class Measuring(Bench):
    """`given`: split -> predictions. A test's own subclass says what its assessor is."""

    sha = "0" * 64
    given: dict[str, Measured]

    def cases(self, name: str, *splits: str) -> list[Case]:
        return [c for s in splits if s in self.given for c in self.given[s].cases]

    def measured(self, name: str, split: str | None) -> Measured:
        return self.given[str(split)]
