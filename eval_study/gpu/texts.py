"""Descriptions as tokens, made once: drawing from a pool costs a training step nothing."""

from __future__ import annotations

import random

import open_clip
import torch
from torch import Tensor

from eval_study.gpu.vocabulary import ALL_DIAGNOSES, CODES, STATES
from skinclip.language.paraphrases import write_description

POOL = 384  # sentences per diagnosis


class TextPool:
    """Tokens of many descriptions of each diagnosis, and of one of each criterion state."""

    def __init__(self, seed: int, device: str, model: str = "derm-clip-lite2") -> None:
        rng = random.Random(seed)
        tokenizer = open_clip.get_tokenizer(model)
        made = [[write_description(code, rng) for _ in range(POOL)] for code in CODES]
        self.fixed = torch.stack([tokenizer(list(d.descriptions)) for d in ALL_DIAGNOSES]).to(device)  # [C, 3, L]
        self.pool = torch.stack([tokenizer(t) for t in made]).to(device)  # [C, POOL, L]
        self.states = tokenizer([s.descriptions[0] for s in STATES]).to(device)  # [K, L]

    def draw(self, per_class: int) -> Tensor:
        """[C * per_class + K, L] a fixed description and others of each diagnosis, then the states."""
        device = self.pool.device
        rows = torch.arange(len(CODES), device=device)
        first = self.fixed[rows, torch.randint(self.fixed.shape[1], (len(CODES),), device=device)]
        others = torch.randint(POOL, (len(CODES), per_class - 1), device=device)
        texts = torch.cat([first.unsqueeze(1), self.pool[rows.unsqueeze(1), others]], 1).flatten(0, 1)
        return torch.cat([texts, self.states])

    def answer(self) -> Tensor:
        """[C * 3 + K, L] the fixed descriptions, by which the model answers, then the states."""
        return torch.cat([self.fixed.flatten(0, 1), self.states])

    @staticmethod
    def by_class(logits: Tensor) -> Tensor:
        """[B, C * P] -> log-mean-exp per class [B, C]."""
        return logits.unflatten(1, (len(CODES), -1)).logsumexp(2)
