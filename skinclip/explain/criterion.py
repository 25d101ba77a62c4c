"""The subject of an explanation of one criterion: its score stands where else a diagnosis stands.

Methods that ask a subject for its `network`, `target` or `answer` explain the criterion as they are; a method that
knows diagnoses alone says so in its entry (`Method.of_criteria`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skinclip.core.vocabulary import CRITERIA, EVIDENCE_STATES
from skinclip.explain.faithfulness import Answer
from skinclip.explain.saliency import CriterionPath, ModelPath
from skinclip.explain.subject import Subject


@dataclass(frozen=True)
class CriterionSubject(Subject):
    """A photo, the model's output for it and the criterion to be explained, in whichever of its states.

    Attributes:
        criterion: its code.
    """

    criterion: str

    @classmethod
    def of(cls, subject: Subject, criterion: str) -> CriterionSubject:
        """The same photo and output, for a criterion. Raises ValueError where the model has no map of it."""
        if not states_of(criterion) or criterion not in subject.predictor.model.config.criteria:
            raise ValueError(f"the model has no map of {criterion!r}")
        s = subject
        return cls(s.predictor, s.image, s.context, s.output, s.findings, 0, criterion)

    @property
    def diagnosis(self) -> str:
        """The name of what is explained."""
        return next(c.name for c in CRITERIA if c.code == self.criterion)

    @property
    def score(self) -> float:
        """Log-odds that the criterion is there."""
        return float(self.output.evidence.scores[0, states_of(self.criterion)].logsumexp(-1))

    @property
    def evidence_map(self) -> np.ndarray:
        """[h, w] log-odds of each patch, over all states, as the score has them of the lesion."""
        return self.output.evidence.maps[0, states_of(self.criterion)].logsumexp(0).numpy()

    @cached_property
    def path(self) -> ModelPath:
        """Photos -> the criterion's log-odds [B, 1], one view of each."""
        return CriterionPath(self.predictor.model, states_of(self.criterion))

    @cached_property
    def answer(self) -> Answer:
        """Photos [B, 3, side, side] -> the probability that the criterion is there, [B]."""
        path = self.path

        def probability(photos: Tensor) -> np.ndarray:
            with torch.inference_mode():
                logits = torch.cat([path(part) for part in photos.split(min(16, path.model.config.batch))])
            return logits[:, 0].double().sigmoid().numpy()

        return probability


def states_of(criterion: str) -> Sequence[int]:
    """Numbers of a criterion's states in `vocabulary.EVIDENCE_STATES`; none where the model has no map of it."""
    return [k for k, state in enumerate(EVIDENCE_STATES) if state.criterion == criterion]
