"""Stage 1: the small reasoner learns the language of rationales from texts alone, then is quantized to NF4.

The texts are the project's own (`data.rationales`), for made-up combinations of findings and diagnoses: no photo and
no label is read, so whatever a photo shows can later be described in the same words, wherever the photo came from.
"""

from __future__ import annotations

import logging
import random
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from skinclip.core.assessment import Context
from skinclip.core.config import ModelConfig, TrainConfig
from skinclip.core.vocabulary import DIAGNOSIS_CODES, MAX_FINDINGS
from skinclip.language.prompt import IGNORE, Prompts, PromptWriter, RationaleTarget
from skinclip.language.rationale import random_example, write_rationale
from skinclip.model.qwen import quantize_to, qwen_config
from skinclip.training.checkpoints import load_checkpoint, save_checkpoint, seed_everything
from skinclip.training.csv_log import CsvLog
from skinclip.training.schedules import cosine_schedule

log = logging.getLogger(__name__)
SAVE_EVERY = 100


def random_rationale_target(rng: random.Random) -> tuple[Context, RationaleTarget]:
    """A made-up case with the text that tells it."""
    context, leading, runner_up, findings = random_example(rng)
    findings = findings[:MAX_FINDINGS]
    runner_up = runner_up or rng.choice([c for c in DIAGNOSIS_CODES if c != leading])
    return context, RationaleTarget(findings, leading, runner_up, write_rationale(leading, runner_up, findings, rng))


def language_loss(model: Qwen2_5_VLForConditionalGeneration, prompts: Prompts) -> torch.Tensor:
    hidden = model.model(input_ids=prompts.input_ids, attention_mask=prompts.attention_mask).last_hidden_state
    chosen = prompts.labels != IGNORE
    return nn.functional.cross_entropy(model.lm_head(hidden[chosen]), prompts.labels[chosen])


def train_stage1(config: ModelConfig, recipe: TrainConfig, tokenizer: PreTrainedTokenizerBase, out: Path) -> Path:
    """Trains the small Qwen2.5-VL on texts and writes it in NF4; resumes from `out/stage1.pt`.

    Returns:
        The directory of the quantized model.
    """
    target = out / "reasoner"
    if target.exists():
        load_checkpoint(out / "stage1.pt")  # for its random generators: what comes next starts as it would have
        return target
    cfg = recipe.stage1
    seed_everything(recipe.seed + 1)
    rng = random.Random(recipe.seed + 1)
    model = Qwen2_5_VLForConditionalGeneration(qwen_config(config.reasoner, tokenizer))
    writer = PromptWriter(tokenizer, config.reasoner.clip_grid, 1 + len(config.known.states))
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=0.01, betas=(0.9, 0.98))
    first, rows = 0, None
    if state := load_checkpoint(out / "stage1.pt"):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rng.setstate(state["draws"])
        first, rows = state["step"] + 1, state["log_rows"]
    csv_log = CsvLog(out / "log.csv", "stage1", rows)
    schedule = cosine_schedule(optimizer, [cfg.lr], cfg.steps, cfg.steps // 20, first)
    model.train()
    for step in tqdm(range(first, cfg.steps), desc="stage 1", initial=first, total=cfg.steps, mininterval=5):
        cases = [random_rationale_target(rng) for _ in range(cfg.batch_size)]
        loss = language_loss(model, writer.write_text_only([c for c, _ in cases], [s for _, s in cases]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            csv_log.write(step, {"language": loss.item()})
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == cfg.steps:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "draws": rng.getstate(),
                "step": step,
                "log_rows": csv_log.rows,
            }
            save_checkpoint(out / "stage1.pt", state)
    quantize_to(model.eval(), target)
    return target
