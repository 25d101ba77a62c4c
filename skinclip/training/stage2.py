"""Stage 2: evidence adapter, projector, LoRA and heads learn under CFA; the tower and the NF4 weights stay frozen.

Each batch is seen through the frozen tower under one augmentation, part of it under two (consistency), part of it with
a rationale to tell (language). The CLIP tokens of a random share of photos are hidden, so that the diagnosis has to
lean on the evidence. Confidence is learnt only on lesions that stage 0 never saw.
"""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from skinclip.assessment import Context
from skinclip.clinical import CRITERIA, DIAGNOSIS_CODES
from skinclip.config import Stage2Config, TrainConfig
from skinclip.data.augment import augment
from skinclip.data.cases import Case
from skinclip.data.rationales import write_rationale
from skinclip.data.wordings import describe
from skinclip.losses import (
    STATE_COUNTS,
    CFAInputs,
    CFALoss,
    LossConfig,
    criterion_log_probs,
    prior_tilt,
)
from skinclip.measure import measure_lesion, measured_findings
from skinclip.model.evidence import CLEAR, Evidence
from skinclip.model.perception import VisualTokens
from skinclip.model.prompt import MAX_FINDINGS, Story
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.training.common import (
    MISSING,
    CsvLog,
    PhotoSet,
    cosine,
    draw_weights,
    favour_criteria,
    load_checkpoint,
    save_checkpoint,
    seed_everything,
)

log = logging.getLogger(__name__)
SAVE_EVERY = 50
SHOWN = 0.3  # a training rationale cites a labelled state only where its map gives it at least this probability


def balanced_prior(labels: Tensor, drawn: Tensor, loss: LossConfig) -> Tensor:
    """[C] the prior at which the diagnosis head's logits are in effect trained: as drawn, times the focal part's class
    weights, over the shares that its logit adjustment takes out."""
    n = len(DIAGNOSIS_CODES)
    labelled = labels != MISSING
    share = torch.zeros(n, dtype=torch.double).index_add_(0, labels[labelled], drawn[labelled].double())
    counts = torch.bincount(labels[labelled], minlength=n).tolist()
    effective = share.clamp_min(1e-6) * prior_tilt(counts, loss.beta, loss.tau).double()
    return effective / effective.sum()


def stage2_weights(train: PhotoSet, cfg: Stage2Config) -> Tensor:
    """[n] chance to be drawn; more for rare diagnoses, lesions unseen by stage 0 and labelled criteria."""
    weights = draw_weights(train.diagnosis, cfg.draw_power)
    weights[train.unseen] *= cfg.held_out_repeat
    return favour_criteria(weights, train.criteria, cfg.criteria_share)


def training_context(case: Case, rng: random.Random) -> Context:
    """The case's context with parts left out at random, so that the model can do without any of them."""
    c = case.context
    keep = [rng.random() > 0.3 for _ in range(3)]
    return Context(c.age if keep[0] else None, c.sex if keep[1] else None, c.site if keep[2] else None)


def supported_findings(photo: Tensor, mask: Tensor, labels: Tensor, scores: Tensor) -> list[str]:
    """State keys that a training rationale may cite: labelled and shown by their map, or measured on the mask.

    Args:
        photo: [3, side, side] in 0..1.
        mask: [m, m] bool.
        labels: [Q] labelled states, MISSING where not labelled.
        scores: [K] evidence scores.
    """
    found: list[tuple[float, str]] = []
    for q, log_p in enumerate(criterion_log_probs(scores.unsqueeze(0))):
        state = int(labels[q])
        if state > 0 and log_p[0, state].exp() >= SHOWN:
            found.append((log_p[0, state].exp().item(), CRITERIA[q].states[state - 1].key))
    pixels = (photo.permute(1, 2, 0) * 255).byte().numpy()
    size = (pixels.shape[1], pixels.shape[0])
    whole = F.interpolate(mask[None, None].float(), (size[1], size[0]), mode="nearest")[0, 0].bool().numpy()
    if whole.any():
        found += [(score, key) for key, score in measured_findings(measure_lesion(pixels, whole))]
    return [key for _, key in sorted(found, reverse=True)][:MAX_FINDINGS]


def tell_criteria(scores: Tensor, labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Evidence scores [B, K] of which a random `share` of photos have those of labelled criteria as if seen clearly.

    The reasoner so learns what the criteria mean from true ones, as a clinician may set them, and not only from what
    the maps make of them.

    Args:
        labels: [B, Q], MISSING where not labelled.
    """
    chosen = torch.rand(len(scores), generator=generator) < share
    columns = []
    for q, own in enumerate(scores.split(STATE_COUNTS, dim=1)):
        states = torch.arange(1, own.shape[1] + 1)
        told = torch.where(labels[:, q, None] == states, CLEAR, -CLEAR)  # [B, states]
        use = (chosen & (labels[:, q] != MISSING)).unsqueeze(1)
        columns.append(torch.where(use, told, own))
    return torch.cat(columns, 1)


class Stage2:
    """One batch at a time; see `step`."""

    def __init__(self, model: SkinClipVL, recipe: TrainConfig, train: PhotoSet, generator: torch.Generator) -> None:
        self.model, self.recipe, self.cfg, self.train, self.generator = model, recipe, recipe.stage2, train, generator
        self.rng = random.Random(recipe.seed + 2)
        self.drawn = stage2_weights(train, self.cfg)
        counts = torch.bincount(train.diagnosis[train.diagnosis != MISSING], minlength=len(DIAGNOSIS_CODES))
        self.loss = CFALoss(recipe.loss, class_counts=counts.tolist())
        wordings = [describe(code, self.cfg.wordings, self.rng) for code in DIAGNOSIS_CODES]
        with torch.no_grad():
            self.wordings = torch.stack([model.perception.embed_texts(w) for w in wordings])  # [C, P, E]

    def descriptions(self) -> Tensor:
        """[C, E] what the answer is compared with: the model's own descriptions, or, as often, others as good.

        An answer that fits only the 21 sentences it was trained with would hang on their wording.
        """
        if not self.cfg.wordings or self.rng.random() < 0.5:
            return self.model.descriptions
        n = self.model.description_bank.shape[1]
        chosen = torch.tensor([self.rng.sample(range(self.cfg.wordings), n) for _ in DIAGNOSIS_CODES])
        return F.normalize(self.wordings[torch.arange(len(chosen)).unsqueeze(1), chosen].mean(1), dim=-1)

    def step(self) -> dict[str, Tensor]:
        """Draws a batch and returns CFA's named parts."""
        cfg, model = self.cfg, self.model
        index = torch.multinomial(self.drawn, cfg.batch_size, replacement=False, generator=self.generator)
        batch = self.train.batch(index)
        batch = torch.cat([batch, batch[: cfg.second_views]])
        views = augment(batch, model.config.photo_side, self.generator, cfg.augmentation)
        seen = model.perceive(views[:, :3])
        evidence = model.find_evidence(seen)
        labels = self.train.criteria[torch.cat([index, index[: cfg.second_views]])]
        told = replace(evidence, scores=tell_criteria(evidence.scores, labels, cfg.told_criteria, self.generator))
        logits, spelled, language = self.reason(index, views, seen, evidence, told)
        b = cfg.batch_size
        has_second = torch.arange(b) < cfg.second_views
        second = torch.cat([logits[b:], logits[: b - cfg.second_views].detach()])
        first = slice(0, b)
        has_mask = self.train.has_mask[index]
        lesion = F.adaptive_avg_pool2d(views[first, 3:], seen.grid)[:, 0]
        lesion = torch.where(has_mask.view(-1, 1, 1), lesion, evidence.lesion[first].detach())
        return self.loss(
            CFAInputs(
                logits=logits[first],
                target=self.train.diagnosis[index],
                logits_second_view=second,
                has_second_view=has_second,
                spelled_logits=spelled,
                has_spelled=torch.arange(b) < cfg.stories if spelled is not None else None,
                embeddings=evidence.pooled[first],
                descriptions=model.description_bank,
                criterion_scores=evidence.scores[first],
                criterion_labels=self.train.criteria[index],
                maps=evidence.maps[first].sigmoid(),
                lesion=lesion,
                has_mask=has_mask,
                language_loss=language,
                confidence_mask=self.train.unseen[index],
            )
        )

    def reason(
        self, index: Tensor, views: Tensor, seen: VisualTokens, evidence: Evidence, told: Evidence
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Diagnosis logits of all views [B + second, C]; spelled logits [B, C], language loss of those with a story.

        Args:
            evidence: what the maps show, of which a story may tell.
            told: the same as the reasoner reads it.
        """
        n, m, model, descriptions = len(views), self.cfg.stories, self.model, self.descriptions()
        contexts = [training_context(self.train.cases[i], self.rng) for i in index.tolist()]
        contexts += contexts[: n - len(index)]
        show = torch.rand(n, generator=self.generator) >= model.config.reasoner.clip_dropout
        plain, with_story = torch.arange(m, n), torch.arange(m)
        prompts = model.reasoner.writer.write(contexts[m:])
        silent = model.reason(prompts, seen.pick(plain), told.pick(plain), show[m:], descriptions)
        stories = [self.story(int(i), views[k], evidence, k) for k, i in enumerate(index[:m])]
        prompts = model.reasoner.writer.write(contexts[:m], stories)
        spoken = model.reason(prompts, seen.pick(with_story), told.pick(with_story), show[:m], descriptions)
        logits = torch.cat([spoken.logits, silent.logits])
        if spoken.spelled is None:
            return logits, None, spoken.language_loss
        rest = torch.zeros(len(index) - m, logits.shape[1])
        return logits, torch.cat([spoken.spelled, rest]), spoken.language_loss

    def story(self, i: int, view: Tensor, evidence: Evidence, k: int) -> Story:
        """What can be told of photo `i`; a photo without a diagnosis label is told as far as its findings."""
        mask = evidence.mask_logits[k].detach() > 0
        findings = supported_findings(view[:3], mask, self.train.criteria[i], evidence.scores[k].detach())
        if self.rng.random() < 0.3:  # texts of all lengths, so that a rich label does not show in the style
            findings = findings[: self.rng.randint(0, len(findings))]
        label = int(self.train.diagnosis[i])
        if label == MISSING:
            return Story(findings)
        leading = DIAGNOSIS_CODES[label]
        similar = (evidence.pooled[k].detach() @ self.model.descriptions.T).argsort(descending=True).tolist()
        runner_up = next(DIAGNOSIS_CODES[c] for c in similar if c != label)
        return Story(findings, leading, runner_up, write_rationale(leading, runner_up, findings, self.rng))


def train_stage2(model: SkinClipVL, recipe: TrainConfig, train: PhotoSet, out: Path) -> Tensor:
    """Trains in place; resumes from `out/stage2.pt`.

    Returns:
        [C] the prior at which the diagnosis head was trained.
    """
    cfg = recipe.stage2
    generator = seed_everything(recipe.seed + 2)
    stage = Stage2(model, recipe, train, generator)
    parts = model.trainable()
    model.evidence.mask_head.requires_grad_(False)  # learnt beside the tower in stage 0
    parameters = [p for group in parts.values() for p in group if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": cfg.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=cfg.lr,
    )
    first = 0
    if state := load_checkpoint(out / "stage2.pt"):
        model.load_heads(state["heads"])
        model.reasoner.load_adapter_state(state["adapter"])
        optimizer.load_state_dict(state["optimizer"])
        stage.loss.load_state_dict(state["loss"])
        generator.set_state(state["generator"])
        stage.rng.setstate(state["rng"])
        first = state["step"] + 1
    csv_log = CsvLog(out / "log.csv")
    model.train()
    model.evidence.mask_head.eval()
    for step in tqdm(range(first, cfg.steps), desc="stage 2", initial=first, total=cfg.steps, mininterval=5):
        for group in optimizer.param_groups:
            group["lr"] = cfg.lr * cosine(step, cfg.steps, cfg.steps // 20)
        losses = stage.step()
        optimizer.zero_grad()
        losses["total"].backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 5 == 0:
            csv_log.write("stage2", step, {k: v.item() for k, v in losses.items()})
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == cfg.steps:
            save_checkpoint(
                out / "stage2.pt",
                {
                    "heads": model.heads(),
                    "adapter": model.reasoner.adapter_state(),
                    "optimizer": optimizer.state_dict(),
                    "loss": stage.loss.state_dict(),
                    "generator": generator.get_state(),
                    "rng": stage.rng.getstate(),
                    "step": step,
                },
            )
    model.eval()
    return balanced_prior(train.diagnosis, stage.drawn, recipe.loss)
