"""The model without its language part, and one way to train it under any loss: the test bench of the loss ablation.

The same evidence finder over the same frozen tokens; in place of Qwen2.5-VL two linear layers read the photo
embedding, the evidence and the patient's context, and answer in the joint space, where descriptions decide. A run takes
about a minute, so that every loss gets three seeds. What needs words (language, spelled consistency) is measured on
the whole model (`losses.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval_study.benchmarks.features import CONTEXT_WIDTH, GRID, Features
from skinclip.core.config import Stage2Config
from skinclip.core.vocabulary import DIAGNOSIS_CODES, EVIDENCE_STATES
from skinclip.model.evidence import Evidence, EvidenceFinder
from skinclip.model.reasoner import at_most_unit
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.training.answering import force_criteria
from skinclip.training.joint import stage2_weights
from skinclip.training.losses import MISSING, CFAInputs
from skinclip.training.schedules import cosine


@dataclass(frozen=True)
class Loss:
    """A loss to train a head under.

    Attributes:
        of: (inputs, share of the training done) -> scalar.
        second_view: whether it compares two views of a photo; the second costs as much as the first.
        tilt: [C] what the loss in effect multiplies the prior of the drawn photos by (class weights, or the inverse of
            the shares that logit adjustment takes out); None is 1.
    """

    of: Callable[[CFAInputs, float], Tensor]
    second_view: bool = False
    tilt: Tensor | None = None


class WithoutLanguage(nn.Module):
    """Frozen tokens -> evidence -> diagnosis logits; what is not trained is taken from `model`."""

    def __init__(self, model: SkinClipVL, hidden: int = 256) -> None:
        super().__init__()
        self.descriptions, self.bank = model.descriptions, model.description_bank
        self.states = model.state_embeddings
        p, k, config = model.perception, len(EVIDENCE_STATES), model.config.evidence
        self.evidence = EvidenceFinder(config, p.width, p.embed_dim, p.level_widths, k)
        self.evidence.mask_head.requires_grad_(False)
        style_width = sum(p.level_widths)
        self.style_norm = nn.LayerNorm(style_width)
        self.summary = nn.Linear(config.adapter_width, 32)
        self.read = nn.Sequential(
            nn.Linear(2 * p.embed_dim + style_width + 33 * k + CONTEXT_WIDTH, hidden),
            nn.GELU(),
            nn.Dropout(model.config.reasoner.answer_dropout),
            nn.Linear(hidden, p.embed_dim),
        )
        last = self.read[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.005)  # the answer starts as CLIP's own, as the whole model's does
        nn.init.zeros_(last.bias)
        self.checklist = nn.Linear(k, p.embed_dim, bias=False)
        nn.init.zeros_(self.checklist.weight)
        self.clip_dropout = model.config.reasoner.clip_dropout
        self.logit_scale = nn.Parameter(torch.tensor(math.log(model.config.reasoner.logit_scale)))

    def forward(
        self,
        tokens: Tensor,
        embedding: Tensor,
        style: Tensor,
        lesion: Tensor,
        context: Tensor,
        show_clip: Tensor,
        tell: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Evidence]:
        """
        Args:
            tokens: [B, GRID * GRID, D].
            embedding: [B, E].
            style: [B, S] channel means.
            lesion: [B, GRID, GRID].
            context: [B, CONTEXT_WIDTH].
            show_clip: [B] bool, photos whose embedding and style may be read.
            tell: what makes the evidence scores that are read of those that the maps give.
        """
        lesion = torch.where(lesion.flatten(1).sum(1).view(-1, 1, 1) < 0.25, torch.ones_like(lesion), lesion)
        evidence = self.evidence(tokens, (GRID, GRID), torch.logit(lesion.clamp(1e-4, 1 - 1e-4)), self.states)
        image = embedding * show_clip.unsqueeze(1)
        summary = self.summary(evidence.features).flatten(1)
        style = self.style_norm(style) * show_clip.unsqueeze(1)
        scores = (evidence.scores if tell is None else tell(evidence.scores)).sigmoid()
        answer = self.read(torch.cat([image, style, evidence.pooled, scores, summary, context], 1))
        query = F.normalize(at_most_unit(answer) + image + self.checklist(scores), dim=-1)
        return query @ self.descriptions.T * self.logit_scale.exp().clamp(max=40.0), evidence


@dataclass(frozen=True)
class Trained:
    """A trained head with the prior [C] at which its logits were in effect trained and the seconds it took."""

    model: WithoutLanguage
    prior: np.ndarray
    seconds: float


def train_head(
    model: SkinClipVL, train: Features, cfg: Stage2Config, loss: Loss, steps: int, batch_size: int, seed: int
) -> Trained:
    """Trains a head from scratch under `loss`; photos are drawn as stage 2 draws them."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    head = WithoutLanguage(model).train()
    head.evidence.mask_head.eval()
    weights = stage2_weights(train.photos, cfg)
    parameters = [p for p in head.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=cfg.lr, weight_decay=cfg.weight_decay)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = cfg.lr * cosine(step, steps, steps // 20)
        index = torch.multinomial(weights, batch_size, replacement=False, generator=generator)
        view = int(torch.randint(0, train.embeddings.shape[0], (1,), generator=generator))
        total = loss.of(
            _inputs(head, train, index, view, loss.second_view, cfg.teacher_forcing, generator), step / steps
        )
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    labels = train.photos.diagnosis
    prior = torch.zeros(len(DIAGNOSIS_CODES), dtype=torch.double)
    prior.index_add_(0, labels[labels != MISSING], weights[labels != MISSING].double())
    prior = prior if loss.tilt is None else prior * loss.tilt.double()
    return Trained(head.eval(), (prior / prior.sum()).numpy(), time.perf_counter() - start)


def _tokens(features: Features, view: int, index: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(features.tokens[view, index.numpy()], dtype=np.float32))


def _frozen(features: Features, view: int, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, embeddings, style and lesion of the photos `index` under one view."""
    embeddings, style = features.embeddings[view, index], features.style[view, index]
    return _tokens(features, view, index), embeddings, style, features.lesion[view, index]


def _inputs(
    head: WithoutLanguage,
    train: Features,
    index: Tensor,
    view: int,
    second: bool,
    known_share: float,
    generator: torch.Generator,
) -> CFAInputs:
    """One batch of frozen features through the head, under one view or two."""
    show = torch.rand(len(index), generator=generator) >= head.clip_dropout
    context = train.context[index] * (torch.rand(len(index), 1, generator=generator) >= 0.3)
    other = (view + 1) % train.embeddings.shape[0]
    outs = [
        head(
            *_frozen(train, v, index),
            context,
            show,
            lambda scores: force_criteria(scores, train.photos.criteria[index], known_share, generator),
        )
        for v in ((view, other) if second else (view,))
    ]
    logits, evidence = outs[0]
    labelled = train.labelled_lesion[view, index]
    has_mask = train.photos.has_mask[index]
    return CFAInputs(
        logits=logits,
        target=train.photos.diagnosis[index],
        logits_second_view=outs[1][0] if second else None,
        embeddings=evidence.pooled,
        descriptions=head.bank,
        criterion_scores=evidence.scores,
        criterion_labels=train.photos.criterion_targets[index],
        maps=evidence.maps.sigmoid(),
        lesion=torch.where(has_mask.view(-1, 1, 1), labelled, train.lesion[view, index]).nan_to_num(0.0),
        has_mask=has_mask,
        confidence_mask=train.photos.unseen[index],
    )


@torch.inference_mode()
def head_logits(
    head: WithoutLanguage, features: Features, evidence_only: bool = False, view: int = 0
) -> tuple[np.ndarray, Tensor]:
    """Logits [n, C] and criterion scores [n, K] of photos under one of their views."""
    rows, scores = [], []
    for index in torch.arange(len(features)).split(64):
        show = torch.full((len(index),), not evidence_only)
        logits, evidence = head(*_frozen(features, view, index), features.context[index], show)
        rows.append(logits)
        scores.append(evidence.scores)
    return torch.cat(rows).double().numpy(), torch.cat(scores)
