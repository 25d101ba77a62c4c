"""Stage 2 of training: evidence adapter, projector, LoRA and heads learn under the CFA loss (`training.losses`).

The tower and the NF4 weights stay frozen. Each photo of a batch is read under one augmentation; some also under a
second one (consistency), some with a rationale as target (language). The CLIP tokens of a random share of views are
hidden, so that the diagnosis has to rely on the evidence. Confidence is learnt only on lesions that stage 0 never saw.

All presets are trained alike, in one process or several. CFA is a loss of the whole batch: its calibration part
compares means over the batch, and each part uses photos of its own. A step therefore runs all views forward first,
`micro_batch` at a time and each process its share; computes CFA on all outputs; then backpropagates through each
micro-batch from the gradient of its outputs (the gradient cache of Gao et al. 2021). The loss does not depend on how
the batch is divided.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from skinclip.core.assessment import Context
from skinclip.core.config import LossConfig, Stage2Config, TrainConfig
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.language.paraphrases import describe
from skinclip.language.prompt import RationaleTarget
from skinclip.language.rationale import write_rationale
from skinclip.model.looks import seen_beside
from skinclip.model.pyramid import PyramidEvidenceFinder
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.training.answering import PER_MICRO_BATCH, ForwardPass, MicroBatch
from skinclip.training.checkpoints import load_checkpoint, rng_state, save_checkpoint, seed_everything, set_rng_state
from skinclip.training.csv_log import CsvLog
from skinclip.training.distributed import DistributedContext, whole_tensors
from skinclip.training.losses import MISSING, CFAInputs, CFALoss, prior_tilt
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.rationale_targets import supported_findings, training_context
from skinclip.training.readout import learn_readout
from skinclip.training.sampling import class_counts, draw_weights, drawn_shares, favour_criteria, source_priors
from skinclip.training.schedules import cosine_schedule
from skinclip.training.views import (
    KeptViews,
    LiveViews,
    ViewDraw,
    ViewFeatures,
    ViewStore,
    keep_views,
    kept_grid,
    view_side,
)

CACHE_BATCH = 48  # views per forward pass of the towers when their outputs are computed once and cached


def balanced_prior(labels: Tensor, drawn: Tensor, loss: LossConfig) -> Tensor:
    """[C] the effective prior that the diagnosis head's logits are trained at.

    It is each class's share of the drawn photos, times its weight in the focal part, over the share that the logit
    adjustment takes out.
    """
    tilt = prior_tilt(class_counts(labels).tolist(), loss.beta, loss.tau).double()
    effective = drawn_shares(labels, drawn).clamp_min(1e-6) * tilt
    return effective / effective.sum()


def stage2_weights(train: PhotoSet, cfg: Stage2Config) -> Tensor:
    """[n] sampling weights, higher for rare diagnoses, lesions unseen by stage 0 and photos with labelled criteria."""
    weights = draw_weights(train.diagnosis, cfg.draw_power)
    weights[train.unseen] *= cfg.held_out_repeat
    weights[~train.unseen] *= cfg.seen_share
    return favour_criteria(weights, train.criterion_targets.weight, cfg.criteria_share)


@dataclass(frozen=True)
class StepDraw:
    """The random choices of a step for n views of B photos, the same in every process.

    Attributes:
        views: photo and augmentation of each view: first one view per photo [B], then the second views of the first
            photos. The first `rationale_targets` views carry a rationale.
        forced: [n] bool, views whose evidence scores are replaced by the labelled criteria (teacher forcing).
        show: [n] bool, views whose CLIP tokens the reasoner may read.
        contexts: patient context of each view.
        descriptions: [C, E] description embedding of each diagnosis, which the diagnosis head compares with.
        beside: views of the other photo of a lesion, and the number of the view that each of them is seen beside.
    """

    views: ViewDraw
    forced: Tensor
    show: Tensor
    contexts: list[Context]
    descriptions: Tensor
    beside: tuple[ViewDraw, Tensor] | None = None


class Stage2:
    """Draws batches and computes their loss and gradients; see `step`."""

    def __init__(
        self,
        model: SkinClipVL,
        recipe: TrainConfig,
        train: PhotoSet,
        generator: torch.Generator,
        distributed: DistributedContext | None = None,
        views: tuple[LiveViews, ViewStore | None] | None = None,
    ) -> None:
        """
        Args:
            distributed: the processes that train together (`check_even`); None for this process alone.
            views: see `views_for`; None for new augmentations at every step.
        """
        self.model, self.recipe, self.cfg, self.train, self.generator = model, recipe, recipe.stage2, train, generator
        self.distributed = distributed or DistributedContext(model.device.type)
        self.rng = random.Random(recipe.seed + 2)
        self.drawn = stage2_weights(train, self.cfg)
        self.log_prior = None  # [n, C] where it is each source's own
        if recipe.loss.by_source:
            self.log_prior = source_priors(train.diagnosis, self.drawn, train.sources).log()
        own_counts = None if recipe.loss.by_source else class_counts(train.diagnosis).tolist()
        self.loss = CFALoss(recipe.loss, class_counts=own_counts).to(model.device)
        self.partners = train.partners()
        side = view_side(model.config, recipe)
        self.views, self.store = views or (LiveViews(train, side, self.cfg.augmentation), None)
        self.forward_pass: Any = ForwardPass(model)  # DDP or FSDP around it, once prepared
        self.n = self.cfg.batch_size + self.cfg.second_views
        paraphrases = [describe(code, self.cfg.paraphrases, self.rng) for code in DIAGNOSIS_CODES]
        with torch.no_grad():
            self.paraphrases = torch.stack([model.perception.embed_texts(w) for w in paraphrases])  # [C, P, E]

    def step(self) -> dict[str, Tensor]:
        """Draws a batch and returns CFA's named parts; the gradients of the total are left in the parameters."""
        drawn = self.draw()
        batches = self.with_targets(drawn, [self.assemble(drawn, rows) for rows in self.micro_batches()])
        at_once, rng_before, answers = len(batches) == 1, [], []
        for batch in batches:
            rng_before.append(rng_state())
            with torch.set_grad_enabled(at_once):
                answers.append(self.forward_pass("answer", batch))
        rng_after = rng_state()
        one_graph = at_once and self.distributed.size == 1  # from the photos to the loss
        whole = answers[0] if one_graph else self.gathered(answers)
        losses = self.compute_losses(drawn, whole)
        losses["total"].backward()
        for number, batch in enumerate([] if one_graph else batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self.distributed.accelerator.no_sync(self.forward_pass):
                if not at_once:
                    set_rng_state(rng_before[number])  # the same dropout as in the first forward pass
                    answers[number] = self.forward_pass("answer", batch)
                self.backward(batch, answers[number], whole, number)
        set_rng_state(rng_after)
        return {name: value.detach() for name, value in losses.items()}

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def trained(self) -> list[nn.Parameter]:
        """The parameters that receive gradients."""
        return [p for group in self.model.trainable().values() for p in group if p.requires_grad]

    def prepare(self) -> Any:
        """Puts DDP or FSDP around the model where there are several processes, and returns the optimizer."""
        groups = [
            {"params": some, "weight_decay": decay, "rate": rate}
            for part, rate in (("lora", self.cfg.lora_rate), ("heads", 1.0))
            for decay, some in self._by_decay(self.model.trainable()[part])
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.cfg.lr)
        language = {id(p) for p in self.model.reasoner.language_model.parameters()}
        others = [p for p in self.model.parameters() if id(p) not in language]  # heads and CLIP: small beside it
        self.forward_pass, optimizer = self.distributed.prepare(self.forward_pass, optimizer, others)
        return optimizer

    def _by_decay(self, parameters: list[nn.Parameter]) -> list[tuple[float, list[nn.Parameter]]]:
        """Weight decay for matrices, none for norms, biases and scales."""
        learnt = [p for p in parameters if p.requires_grad]
        kinds = ((self.cfg.weight_decay, True), (0.0, False))
        split = [(decay, [p for p in learnt if (p.ndim > 1) == matrix]) for decay, matrix in kinds]
        return [(decay, some) for decay, some in split if some]

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a checkpoint except its optimizer state, which needs the optimizer of `prepare`."""
        self.model.load_heads(state["heads"])
        self.model.reasoner.load_adapter_state(state["adapter"])
        self.loss.load_state_dict(state["loss"])
        self.generator.set_state(state["generator"])
        self.rng.setstate(state["draws"])

    def save(self, optimizer: Any, path: Path, step: int, log_rows: int) -> None:
        """Writes the checkpoint of a finished step. All processes must call this; it waits for all of them."""
        state = {
            "heads": whole_tensors(self.model.heads()),
            "adapter": whole_tensors(self.model.reasoner.adapter_state()),
            "optimizer": self.distributed.optimizer_state(self.forward_pass, optimizer),
            "loss": self.loss.state_dict(),
            "generator": self.generator.get_state(),
            "draws": self.rng.getstate(),
            "rng": self.distributed.gather_objects([rng_state()]),
            "step": step,
            "log_rows": log_rows,
        }
        if self.distributed.is_main:
            save_checkpoint(path, state)
        self.distributed.wait()

    # ---- random choices ----------------------------------------------------------------------------------------------

    def draw(self) -> StepDraw:
        """Draws the photos of a step, their views, contexts and descriptions."""
        cfg = self.cfg
        index = torch.multinomial(self.drawn, cfg.batch_size, replacement=False, generator=self.generator)
        views = self.views.draw(index, cfg.second_views, self.generator)
        forced = torch.rand(self.n, generator=self.generator) < cfg.teacher_forcing
        descriptions = self.descriptions()
        contexts = [training_context(self.train.cases[i], self.rng) for i in index.tolist()]
        show = torch.rand(self.n, generator=self.generator) >= self.model.config.reasoner.clip_dropout
        contexts = [*contexts, *contexts[: cfg.second_views]]
        return StepDraw(views, forced, show, contexts, descriptions, self.draw_beside(views.photo))

    def draw_beside(self, photo: Tensor) -> tuple[ViewDraw, Tensor] | None:
        """Views of other photos for a share of the lesions that have two; both views of a photo are seen alike."""
        if not self.cfg.pair_share:
            return None
        chosen = torch.rand(self.cfg.batch_size, generator=self.generator) < self.cfg.pair_share
        chosen = torch.cat([chosen, chosen[: self.cfg.second_views]])
        rows = (chosen & (self.partners[photo] != MISSING)).nonzero()[:, 0]
        return (self.views.draw(self.partners[photo[rows]], 0, self.generator), rows) if len(rows) else None

    def descriptions(self) -> Tensor:
        """[C, E] the model's own description embeddings or, with probability 0.5, means of random paraphrases.

        Trained with the same 21 sentences only, the diagnosis head would depend on their exact words.
        """
        if not self.cfg.paraphrases or self.rng.random() < 0.5:
            return self.model.descriptions
        n = self.model.description_bank.shape[1]
        chosen = torch.tensor([self.rng.sample(range(self.cfg.paraphrases), n) for _ in DIAGNOSIS_CODES])
        return F.normalize(self.paraphrases[torch.arange(len(chosen)).unsqueeze(1), chosen].mean(1), dim=-1)

    # ---- this process's share ----------------------------------------------------------------------------------------

    def micro_batches(self, rank: int | None = None) -> list[Tensor]:
        """The numbers of the views that this process, or that of another `rank`, runs, split into micro-batches."""
        m, size = self.cfg.rationale_targets, self.cfg.micro_batch
        with_text, without_text = (
            self.distributed.own_rows(rows, rank) for rows in torch.arange(self.n).split([m, self.n - m])
        )
        if not size:
            return [torch.cat([with_text, without_text])]
        return [rows for kind in (with_text, without_text) if len(kind) for rows in kind.split(size)]

    def assemble(self, drawn: StepDraw, rows: Tensor) -> MicroBatch:
        """The views numbered `rows` with the outputs of the frozen parts, computed now or read from the cache."""
        photo, device = drawn.views.photo[rows], self.model.device
        features = self.features(drawn.views, rows)
        if drawn.beside is not None:
            views, seen_with = drawn.beside
            there = torch.isin(seen_with, rows).nonzero()[:, 0]
            if len(there):
                at = [int((rows == row).nonzero()[0, 0]) for row in seen_with[there]]
                beside = self.features(views, there).tokens
                features = replace(features, tokens=seen_beside(features.tokens, beside, at))
        return MicroBatch(
            rows,
            features,
            labels=self.train.criteria[photo].to(device),
            forced=drawn.forced[rows].to(device),
            show=drawn.show[rows].to(device),
            has_mask=self.train.has_mask[photo].to(device),
            contexts=[drawn.contexts[i] for i in rows.tolist()],
            descriptions=drawn.descriptions,
        )

    def features(self, drawn: ViewDraw, rows: Tensor) -> ViewFeatures:
        """Outputs of the frozen parts for the views numbered `rows`."""
        device = self.model.device
        if self.store is None:
            return self.forward_pass("see", self.views.pixels(drawn, rows, device), self.cfg.encode_in)
        return self.store.read(drawn, rows, kept_grid(self.model), device)

    def with_targets(self, drawn: StepDraw, batches: list[MicroBatch]) -> list[MicroBatch]:
        """The micro-batches with their rationale targets.

        The citable findings of a view come from the process that runs it; then every process draws the same texts, in
        the order of the views.
        """
        citable = [entry for batch in batches for entry in self.citable(drawn, batch)]
        by_view = dict(self.distributed.gather_objects(citable))
        rationale_targets = [
            self.rationale_target(int(drawn.views.photo[row]), *by_view[row])
            for row in range(self.cfg.rationale_targets)
        ]
        return [
            replace(
                p, rationale_targets=[rationale_targets[r] for r in p.rows.tolist() if r < self.cfg.rationale_targets]
            )
            for p in batches
        ]

    @torch.no_grad()
    def citable(self, drawn: StepDraw, batch: MicroBatch) -> Iterator[tuple[int, tuple[list[str], list[int]]]]:
        """Yields (number of a view, (findings, diagnoses)) for each view of a micro-batch that carries a rationale.

        The findings are those that its maps and mask support; the diagnoses are class numbers, the most similar first.
        """
        rows = batch.rows[batch.rows < self.cfg.rationale_targets]
        if not len(rows):
            return
        rng_before = rng_state()
        evidence = self.forward_pass("find", batch.features).to("cpu")
        set_rng_state(rng_before)  # so that this extra pass does not change the dropout of the step itself
        photos = self.views.pixels(drawn.views, rows)[:, :3]
        similar = (evidence.pooled @ self.model.descriptions.cpu().T).argsort(descending=True)
        for k, row in enumerate(rows.tolist()):
            labels = self.train.criteria[drawn.views.photo[row]]
            findings = supported_findings(photos[k], evidence.mask_logits[k] > 0, labels, evidence.scores[k])
            yield row, (findings, similar[k].tolist())

    def rationale_target(self, i: int, findings: list[str], similar: list[int]) -> RationaleTarget:
        """The rationale target of photo `i`; one without a diagnosis label has its findings alone, and no text."""
        if self.rng.random() < 0.3:  # varies the length, so that it does not reveal how many criteria are labelled
            findings = findings[: self.rng.randint(0, len(findings))]
        label = int(self.train.diagnosis[i])
        if label == MISSING:
            return RationaleTarget(findings)
        leading = DIAGNOSIS_CODES[label]
        runner_up = next(DIAGNOSIS_CODES[c] for c in similar if c != label)
        return RationaleTarget(findings, leading, runner_up, write_rationale(leading, runner_up, findings, self.rng))

    # ---- the loss of the whole batch ---------------------------------------------------------------------------------

    def compute_losses(self, drawn: StepDraw, whole: dict[str, Tensor]) -> dict[str, Tensor]:
        """CFA's named parts on the outputs for all views."""
        return self.loss(self.cfa_inputs(drawn, whole))

    def cfa_inputs(self, drawn: StepDraw, whole: dict[str, Tensor]) -> CFAInputs:
        """The outputs for all views in order, with their labels; `language` and `words` have one per micro-batch."""
        b, m, s = self.cfg.batch_size, self.cfg.rationale_targets, self.cfg.second_views
        photo, device = drawn.views.photo[:b], self.model.device
        logits, spelled, words = whole["logits"], whole.get("spelled"), whole["words"]
        if spelled is not None:
            spelled = torch.cat([spelled, spelled.new_zeros(b - m, spelled.shape[1])])
        number = torch.arange(b, device=device)
        return CFAInputs(
            logits=logits[:b],
            target=self.train.diagnosis[photo].to(device),
            logits_second_view=torch.cat([logits[b:], logits[: b - s].detach()]),
            has_second_view=number < s,
            spelled_logits=spelled,
            has_spelled=number < m if spelled is not None else None,
            embeddings=whole["pooled"][:b],
            descriptions=self.model.description_bank,
            criterion_scores=whole["scores"][:b],
            criterion_labels=self.train.criterion_targets[photo].to(device),
            maps=whole["maps"][:b].sigmoid(),
            lesion=whole["lesion"][:b],
            has_mask=self.train.has_mask[photo].to(device),
            language_loss=(whole["language"] * (words / words.sum())).sum() if words.any() else None,
            confidence_mask=self.train.unseen[photo].to(device),
            log_prior=None if self.log_prior is None else self.log_prior[photo].to(device),
            read=whole["read"][:b] if "read" in whole else None,
            has_read=drawn.show[:b].to(device),
        )

    def gathered(self, answers: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The outputs for all micro-batches of all processes, as leaf tensors that collect gradients.

        Rows of views are in the order of the views, rows of micro-batches in the order of the processes.
        """
        order = torch.cat([rows for rank in range(self.distributed.size) for rows in self.micro_batches(rank)])
        places = {"spelled": order[order < self.cfg.rationale_targets].argsort()} | dict.fromkeys(PER_MICRO_BATCH, None)
        whole = {}
        for name in dict.fromkeys(name for answer in answers for name in answer):
            values = self.distributed.gather_rows(torch.cat([a[name].detach() for a in answers if name in a]))
            place = places.get(name, order.argsort())
            whole[name] = (values if place is None else values[place]).requires_grad_()
        return whole

    def backward(self, batch: MicroBatch, answer: dict[str, Tensor], whole: dict[str, Tensor], number: int) -> None:
        """Backpropagates the gradients of the outputs for this process's micro-batch `number` to the parameters.

        DDP and FSDP average over processes; the factor here turns that into a sum.
        """
        number += self.distributed.rank * (len(whole["words"]) // self.distributed.size)
        places = {"spelled": batch.rows[: len(batch.rationale_targets)]} | dict.fromkeys(
            PER_MICRO_BATCH, torch.tensor([number])
        )
        tensors, gradients = [], []
        for name, value in answer.items():
            if value.requires_grad:
                gradient = whole[name].grad
                tensors.append(value)
                gradients.append(
                    torch.zeros_like(value)  # unused by CFA, but DDP and FSDP need every parameter in the backward pass
                    if gradient is None
                    else gradient[places.get(name, batch.rows)] * self.distributed.size
                )
        torch.autograd.backward(tensors, gradients)


def views_for(
    model: SkinClipVL, recipe: TrainConfig, train: PhotoSet, folder: Path, base: str, distributed: DistributedContext
) -> tuple[LiveViews, ViewStore | None]:
    """The views that the recipe asks for: a few fixed ones per photo with a cache, or new ones at every step."""
    cfg = recipe.stage2
    if not cfg.cached_views:
        return LiveViews(train, view_side(model.config, recipe), cfg.augmentation), None
    views = KeptViews(train, view_side(model.config, recipe), cfg.augmentation, cfg.cached_views, recipe.seed)
    return views, keep_views(model, views, base, folder, CACHE_BATCH, distributed, cfg.encode_in)


def train_stage2(
    model: SkinClipVL,
    recipe: TrainConfig,
    train: PhotoSet,
    out: Path,
    distributed: DistributedContext | None = None,
    base: str = "",
) -> Tensor:
    """Trains `model` in place; resumes from `out/stage2.pt`.

    Args:
        distributed: the processes that train together; None for this process alone.
        base: identity of the language model's weights, part of the key of the view cache.

    Returns:
        [C] the prior that the diagnosis head was trained at; see `balanced_prior`.

    Raises DataError where a model with a linear readout would be trained without views that are kept.
    """
    cfg, distributed = recipe.stage2, distributed or DistributedContext(model.device.type)
    generator = seed_everything(recipe.seed + 2)
    if distributed.rank:
        torch.manual_seed(recipe.seed + 2 + 7919 * distributed.rank)  # different dropout in each process
    freeze_earlier(model)
    stage = Stage2(
        model, recipe, train, generator, distributed, views_for(model, recipe, train, out / "cache", base, distributed)
    )
    if model.reasoner.readout is not None:
        learn_readout(model.reasoner.readout, recipe, train, stage.store)
    if cfg.gradient_checkpointing:
        model.reasoner.save_memory(torch.bfloat16 if model.device.type == "cuda" else None)
    state = load_checkpoint(out / "stage2.pt", distributed.rank)
    if state:
        stage.restore(state)
    optimizer = stage.prepare()
    if state:
        distributed.load_optimizer_state(stage.forward_pass, optimizer, state["optimizer"])
    first, rows = (state["step"] + 1, state["log_rows"]) if state else (0, None)
    csv_log = CsvLog(out / "log.csv", "stage2", rows) if distributed.is_main else None
    peaks = [cfg.lr * group["rate"] for group in optimizer.param_groups]
    schedule = cosine_schedule(optimizer, peaks, cfg.steps, cfg.steps // 20, first)
    model.train()
    freeze_earlier(model)
    numbers = range(first, cfg.steps)
    for step in tqdm(
        numbers, "stage 2", initial=first, total=cfg.steps, mininterval=5, disable=not distributed.is_main
    ):
        optimizer.zero_grad()
        losses = stage.step()
        distributed.average_gradients()
        distributed.accelerator.clip_grad_norm_(stage.trained(), 1.0)
        optimizer.step()
        schedule.step()
        if csv_log and step % cfg.log_every == 0:
            csv_log.write(step, {name: value.item() for name, value in losses.items()})
        if (step + 1) % cfg.save_every == 0 or step + 1 == cfg.steps:
            stage.save(optimizer, out / "stage2.pt", step, csv_log.rows if csv_log else 0)
    model.eval()
    if recipe.loss.by_source:
        return torch.full((len(DIAGNOSIS_CODES),), 1 / len(DIAGNOSIS_CODES), dtype=torch.double)
    return balanced_prior(train.diagnosis, stage.drawn, recipe.loss)


def freeze_earlier(model: SkinClipVL) -> None:
    """Freezes what is learnt before: the readout, the mask, and the maps too where they come from a pyramid."""
    if model.reasoner.readout is not None:
        model.reasoner.readout.requires_grad_(False)
    if isinstance(model.evidence, PyramidEvidenceFinder):
        model.evidence.freeze()
    else:
        model.evidence.mask_head.requires_grad_(False).eval()
