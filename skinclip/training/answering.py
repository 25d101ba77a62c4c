"""The model as stage 2 runs it: from views to the inputs of the CFA loss (Consistency-aware Focal Alignment).

All passes go through a single `forward`, as DDP and FSDP require.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from skinclip.core.assessment import Context
from skinclip.language.prompt import IGNORE, Prompts, RationaleTarget
from skinclip.model.criteria import STATE_COUNTS
from skinclip.model.evidence import CLEAR, Evidence, EvidenceFinder
from skinclip.model.pyramid import PyramidEvidenceFinder
from skinclip.model.reasoner import Reasoning
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.training.losses import MISSING
from skinclip.training.views import ViewFeatures, see

PER_MICRO_BATCH = ("language", "words")  # answers that are given once; of the others there is one row per view


def teacher_forced_scores(scores: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    """Evidence scores [B, K], those of labelled criteria [B, Q] as if seen clearly in the `chosen` photos [B].

    What reads them so learns what the criteria mean from true ones, as a clinician may set them, and not only from what
    the maps make of them.

    Args:
        labels: MISSING where not labelled.
    """
    columns = []
    for q, own in enumerate(scores.split(STATE_COUNTS, dim=1)):
        states = torch.arange(1, own.shape[1] + 1, device=own.device)
        forced = torch.where(labels[:, q, None] == states, CLEAR, -CLEAR)  # [B, states]
        use = (chosen & (labels[:, q] != MISSING)).unsqueeze(1)
        columns.append(torch.where(use, forced, own))
    return torch.cat(columns, 1)


@dataclass(frozen=True)
class MicroBatch:
    """Views that go through the model together, with their labels and prompts; those with a rationale come first.

    Attributes:
        rows: [k] their numbers among the n of the step.
        features: outputs of the frozen parts for them.
        labels: [k, Q] criteria.
        forced, show, contexts, descriptions: as in `StepDraw`.
        has_mask: [k] bool, views with a reference mask.
        rationale_targets: of the first of them.
    """

    rows: Tensor
    features: ViewFeatures
    labels: Tensor
    forced: Tensor
    show: Tensor
    has_mask: Tensor
    contexts: list[Context]
    descriptions: Tensor
    rationale_targets: list[RationaleTarget] = field(default_factory=list)


def evidence_of(
    finder: EvidenceFinder | PyramidEvidenceFinder, features: ViewFeatures, state_embeddings: Tensor
) -> Evidence:
    """The evidence of kept views: found now or, where the finder is frozen, as it was found, projected anew."""
    tokens = features.tokens
    if isinstance(finder, PyramidEvidenceFinder):
        assert features.evidence is not None and features.evidence.mean is not None
        return replace(features.evidence, pooled=finder.in_text_space(features.evidence.mean))
    return finder(tokens.tokens, tokens.grid, features.mask_logits, state_embeddings)


def without_words(batch: MicroBatch, evidence: Evidence) -> dict[str, Tensor]:
    """The part of `ForwardPass.answer` that is known before anything reasons, no rationale among it."""
    lesion = torch.where(batch.has_mask.view(-1, 1, 1), batch.features.lesion, evidence.lesion.detach())
    answers = {"pooled": evidence.pooled, "scores": evidence.scores, "maps": evidence.maps, "lesion": lesion}
    return answers | dict.fromkeys(PER_MICRO_BATCH, evidence.scores.new_zeros(1))


class ForwardPass(nn.Module):
    """Forward passes of the model behind a single `forward`, which DDP and FSDP wrap."""

    def __init__(self, model: SkinClipVL) -> None:
        super().__init__()
        self.model = model

    def forward(self, do: str, *args: Any) -> Any:
        """One of the methods below, by its name."""
        return getattr(self, do)(*args)

    def see(self, views: Tensor, encode_in: str) -> ViewFeatures:
        return see(self.model, views, encode_in)

    def find(self, features: ViewFeatures) -> Evidence:
        return evidence_of(self.model.evidence, features, self.model.state_embeddings)

    def answer(self, batch: MicroBatch) -> dict[str, Tensor]:
        """Computes what CFA reads of k views, m of them with a rationale.

        Returns:
            logits [k, C], spelled [m, C], pooled [k, E], scores [k, K], maps [k, K, h, w], lesion [k, h, w], and
            language [1], the mean cross-entropy of the words [1] of the rationales, 0 where there are none; read [k, C]
            where the model has a linear readout.
        """
        evidence = self.find(batch.features)
        forced = evidence.with_scores(teacher_forced_scores(evidence.scores, batch.labels, batch.forced))
        m, k, answers = len(batch.rationale_targets), len(batch.rows), without_words(batch, evidence)
        write, logits, read = self.model.reasoner.writer.write, [], []
        if m < k:  # apart from those with a rationale, whose sequences are twice as long
            without = self._reason(write(batch.contexts[m:]), batch, forced, torch.arange(m, k))
            logits.append(without.logits)
            read.append(without.read)
        if m:
            prompts = write(batch.contexts[:m], batch.rationale_targets)
            with_text = self._reason(prompts, batch, forced, torch.arange(m))
            logits.insert(0, with_text.logits)
            read.insert(0, with_text.read)
            if with_text.spelled is not None:
                answers["spelled"] = with_text.spelled
            if with_text.language_loss is not None:
                words = (prompts.labels != IGNORE).sum().to(answers["words"])
                answers |= {"language": with_text.language_loss.view(1), "words": words.view(1)}
        if read[0] is not None:
            answers["read"] = torch.cat([part for part in read if part is not None])
        return answers | {"logits": torch.cat(logits)}

    def _reason(self, prompts: Prompts, batch: MicroBatch, forced: Evidence, index: Tensor) -> Reasoning:
        return self.model.reason(
            prompts, batch.features.tokens.pick(index), forced.pick(index), batch.show[index], batch.descriptions
        )
