"""The model without its language part, and one way to train it under any loss: the test bench of the loss ablation.

The same frozen features, drawn as stage 2 draws them, and the same start of the answer; in place of Qwen2.5-VL two
linear layers read the photo embedding, the evidence and the patient's context, and answer in the joint space, where
descriptions decide. A run takes about a minute, so that every loss gets three seeds. What needs words (language,
spelled consistency) is measured on the whole model (`losses.py`).
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from eval_study.benchmarks.features import Features
from skinclip.core.assessment import Context
from skinclip.core.config import TrainConfig
from skinclip.core.patient_context import CONTEXT_NUMBERS, context_numbers
from skinclip.core.vocabulary import DIAGNOSIS_CODES, EVIDENCE_STATES
from skinclip.model.answer import Start, answer_logits, at_most_unit, checklist_input
from skinclip.model.evidence import Evidence, EvidenceFinder
from skinclip.model.finders import feature_width, make_evidence_finder
from skinclip.model.perception import VisualTokens
from skinclip.model.pyramid import PyramidEvidenceFinder
from skinclip.model.skinclip_vl import NO_LOGIT, SkinClipVL
from skinclip.training.answering import MicroBatch, evidence_of, teacher_forced_scores, without_words
from skinclip.training.checkpoints import seed_everything
from skinclip.training.joint import Stage2
from skinclip.training.losses import CFAInputs
from skinclip.training.sampling import drawn_shares
from skinclip.training.schedules import cosine

EVEN = torch.full((len(DIAGNOSIS_CODES),), 1 / len(DIAGNOSIS_CODES), dtype=torch.double)


@dataclass(frozen=True)
class Loss:
    """A loss to train a head under.

    Attributes:
        of: (inputs, share of the training done) -> scalar.
        second_view: whether it compares two views of a photo; the second costs as much as the first.
        tilt: [C] what the loss in effect multiplies the prior of the drawn photos by (class weights, or the inverse of
            the shares that logit adjustment takes out); None is 1.
        by_source: it takes each photo's prior out by its source: the logits are trained at even shares.
    """

    of: Callable[[CFAInputs, float], Tensor]
    second_view: bool = False
    tilt: Tensor | None = None
    by_source: bool = False

    def prior(self, labels: Tensor, drawn: Tensor) -> Tensor:
        """[C] the prior that logits are in effect trained at, on photos drawn with chances `drawn` [n]."""
        if self.by_source:
            return EVEN
        shares = drawn_shares(labels, drawn).clamp_min(1e-6)
        effective = shares if self.tilt is None else shares * self.tilt.double()
        return effective / effective.sum()


def patients(contexts: Iterable[Context]) -> Tensor:
    """[B, CONTEXT_NUMBERS] of B contexts."""
    return torch.tensor([context_numbers(c) for c in contexts])


def own_finder(model: SkinClipVL) -> EvidenceFinder | PyramidEvidenceFinder:
    """An evidence finder as stage 2 begins with it: a frozen one is the model's, but for what stage 2 learns of it."""
    if isinstance(model.evidence, PyramidEvidenceFinder):
        finder = copy.deepcopy(model.evidence)
        finder.reset_pooled()
        finder.freeze()
        return finder
    fresh = make_evidence_finder(model.config.evidence, model.perception, len(EVIDENCE_STATES))
    fresh.mask_head.requires_grad_(False)
    return fresh


class WithoutLanguage(nn.Module):
    """Frozen features -> evidence -> diagnosis logits; what is not trained is taken from `model`.

    With a linear readout the answer starts from it as the whole model's does, else from the zero-shot answer.
    """

    def __init__(self, model: SkinClipVL, prior: Tensor = EVEN, hidden: int = 256) -> None:
        """
        Args:
            prior: [C] at which it is to be trained. The readout, which is fitted at even shares, is brought to it, so
                that no loss has to learn the prior first.
        """
        super().__init__()
        self.descriptions, self.states = model.descriptions, model.state_embeddings
        self.unknown = list(model.known.unknown_columns)
        p, k, config = model.perception, len(EVIDENCE_STATES), model.config
        self.evidence = own_finder(model)
        self.readout = copy.deepcopy(model.reasoner.readout)
        if self.readout is not None:
            self.readout.requires_grad_(False)
        self.share = config.reasoner.language_share
        self.log_prior = (prior * len(prior)).log().float()
        self.style_norm = nn.LayerNorm(p.style_width)
        width = feature_width(config.evidence, config.perception)
        self.summary = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 32))
        self.read = nn.Sequential(
            nn.Linear(2 * p.embed_dim + p.style_width + 33 * k + CONTEXT_NUMBERS, hidden),
            nn.GELU(),
            nn.Dropout(config.reasoner.answer_dropout),
            nn.Linear(hidden, p.embed_dim),
        )
        last = self.read[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.005)  # begins short: the answer starts as the whole model's does
        nn.init.zeros_(last.bias)
        self.checklist = nn.Linear(k, p.embed_dim, bias=False)
        nn.init.zeros_(self.checklist.weight)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(config.reasoner.logit_scale)))

    def train(self, mode: bool = True) -> WithoutLanguage:
        """Sets the mode of what is trained; frozen parts keep their running statistics."""
        super().train(mode)
        (self.evidence if self.evidence.frozen else self.evidence.mask_head).eval()
        return self

    def forward(self, batch: MicroBatch) -> dict[str, Tensor]:
        """The answers to views of training photos, as `ForwardPass.answer` gives them."""
        evidence = evidence_of(self.evidence, batch.features, self.states)
        read = evidence.with_scores(teacher_forced_scores(evidence.scores, batch.labels, batch.forced))
        patient, visual = patients(batch.contexts), batch.features.tokens
        start = self.start(visual, patient)
        logits = self.answer(visual, read, patient, batch.show, batch.descriptions)
        answers = without_words(batch, evidence) | {"logits": logits}
        return answers if start is None else answers | {"read": start}

    def start(self, visual: VisualTokens, patient: Tensor) -> Tensor | None:
        """[B, C] what the readout says, at the prior of the training; None where there is none."""
        return None if self.readout is None else self.readout(visual, patient) + self.log_prior

    def answer(
        self, visual: VisualTokens, evidence: Evidence, patient: Tensor, show: Tensor, descriptions: Tensor
    ) -> Tensor:
        """Logits [B, C].

        Args:
            patient: [B, CONTEXT_NUMBERS].
            show: [B] bool, photos whose embedding and style may be read.
            descriptions: [C, E].
        """
        shown = show.unsqueeze(1)
        image, style = visual.embedding * shown, self.style_norm(visual.style) * shown
        scores = evidence.scores.sigmoid()
        summary = self.summary(evidence.features).flatten(1)
        answer = self.read(torch.cat([image, style, evidence.pooled, scores, summary, patient], 1))
        direction, read = at_most_unit(answer) + image, self.start(visual, patient)
        start = None if read is None else Start(image, read * shown, self.share)
        checklist = self.checklist(checklist_input(evidence.scores, evidence.found, start))
        return answer_logits(direction, descriptions, self.logit_scale, checklist, start)


@dataclass(frozen=True)
class Trained:
    """A trained head with the prior [C] at which its logits were in effect trained and the seconds it took."""

    model: WithoutLanguage
    prior: np.ndarray
    seconds: float


def train_head(
    model: SkinClipVL, train: Features, recipe: TrainConfig, loss: Loss, steps: int, batch_size: int, seed: int
) -> Trained:
    """Trains a head from scratch under `loss`; views, contexts and descriptions are drawn as stage 2 draws them."""
    start = time.perf_counter()
    second_views = batch_size if loss.second_view else 0
    cfg = dataclasses.replace(
        recipe.stage2, batch_size=batch_size, second_views=second_views, rationale_targets=0, micro_batch=0
    )
    recipe = dataclasses.replace(recipe, seed=seed, stage2=cfg)
    stage = Stage2(model, recipe, train.photos, seed_everything(seed), views=(train.views, train.store))
    prior = loss.prior(train.photos.diagnosis, stage.drawn)
    head = WithoutLanguage(model, prior).train()
    parameters = [p for p in head.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=cfg.lr, weight_decay=cfg.weight_decay)
    everything = torch.arange(stage.n)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = cfg.lr * cosine(step, steps, steps // 20)
        drawn = stage.draw()
        answers = head(stage.assemble(drawn, everything))
        optimizer.zero_grad()
        loss.of(stage.cfa_inputs(drawn, answers), step / steps).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return Trained(head.eval(), prior.numpy(), time.perf_counter() - start)


@torch.no_grad()
def head_logits(
    head: WithoutLanguage, features: Features, evidence_only: bool = False, view: int = 0
) -> tuple[np.ndarray, Tensor]:
    """Logits [n, C] and criterion scores [n, K] of photos under one of their views."""
    rows, scores = [], []
    for index in torch.arange(len(features)).split(64):
        kept = features.read(index, view)
        evidence = evidence_of(head.evidence, kept, head.states)
        patient = patients(features.photos.cases[i].context for i in index.tolist())
        show = torch.full((len(index),), not evidence_only)
        rows.append(head.answer(kept.tokens, evidence, patient, show, head.descriptions))
        scores.append(evidence.scores)
    logits = torch.cat(rows).double()
    logits[:, head.unknown] = NO_LOGIT
    return logits.numpy(), torch.cat(scores)
