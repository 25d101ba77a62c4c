"""Prompts: everything the language model reads is written here.

A prompt is <user: photo tokens, evidence tokens, patient context> <assistant: answer token>. The diagnosis is read at
the answer token, before any finding is spelled out, so it does not hang on thresholds or wording. Then follow the
findings by reference, the differential, and the rationale. Nothing that leaks the answer is ever part of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from skinclip.core.assessment import Context
from skinclip.core.config import PromptConfig
from skinclip.core.patient_context import CONTEXT_NUMBERS, context_numbers
from skinclip.core.vocabulary import DIAGNOSIS_BY_CODE, MAX_FINDINGS, STATE_BY_KEY

EVIDENCE_TOKEN, ANSWER_TOKEN, IMAGE_TOKEN = "<|evidence|>", "<|answer|>", "<|image_pad|>"
END_TOKEN = "<|im_end|>"
ASSISTANT = "You are a helpful assistant."  # the system prompt of Qwen2.5-VL's own chat template
CHAT_TOKENS = ("<|im_start|>", END_TOKEN, "<|vision_start|>", "<|vision_end|>", IMAGE_TOKEN, "<|video_pad|>")
REFERENCES = tuple(f"[r{i + 1}]" for i in range(MAX_FINDINGS))
IGNORE = -100  # a position the language loss leaves out


class TextTokenizer(Protocol):
    """The part of a tokenizer that prompts need; transformers' tokenizers have it."""

    unk_token_id: Any
    pad_token_id: Any

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any: ...

    def convert_tokens_to_ids(self, tokens: str) -> Any: ...


def context_text(context: Context) -> str:
    """Patient context in words; what was not given is left out. Ages are rounded to five years."""
    parts = []
    if context.age is not None:
        parts.append(f"age {5 * round(context.age / 5)}")
    parts += [word for word in (context.sex, context.site) if word]
    return "patient : " + (" , ".join(parts) if parts else "not given") + " ."


def findings_text(findings: Sequence[str]) -> str:
    """ "findings : [r1] atypical pigment network , [r2] ... ." for state keys in the order of their references."""
    listed = (f"{ref} {STATE_BY_KEY[key].phrase}" for ref, key in zip(REFERENCES, findings, strict=False))
    return "findings : " + (" , ".join(listed) if findings else "none") + " . diagnosis :"


def differential_text(leading: str, runner_up: str) -> str:
    return f"{DIAGNOSIS_BY_CODE[leading].in_text} ; then {DIAGNOSIS_BY_CODE[runner_up].in_text} . rationale :"


def token_id(tokenizer: TextTokenizer, token: str) -> int:
    """The number of one special token. Raises ValueError where the tokenizer does not have it."""
    number = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(number, int) or number == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer has no token {token}; use one made for Qwen2.5-VL")
    return number


@dataclass
class RationaleTarget:
    """The text after the answer: findings (state keys), the differential's first two, and a rationale to learn."""

    findings: Sequence[str] = ()
    leading: str | None = None
    runner_up: str | None = None
    rationale: str | None = None


@dataclass
class Prompts:
    """A right-padded batch of prompts.

    Attributes:
        input_ids, attention_mask, mm_token_type_ids: [B, L]; type 1 marks the photo's tokens.
        labels: [B, L] next-token targets of the rationale and the spelled diagnosis, IGNORE elsewhere.
        image_grid_thw: [B, 1 or 2, 3] grid of each photo in unmerged patches: in Qwen's own tower, then in CLIP.
        answer: [B] position of the answer token.
        spell: [B] position whose next token spells the diagnosis, -1 where there is no rationale target.
        patient: [B, CONTEXT_NUMBERS] what the prompt says of the patient; see `context_numbers`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    mm_token_type_ids: Tensor
    labels: Tensor
    image_grid_thw: Tensor
    answer: Tensor
    spell: Tensor
    patient: Tensor

    def repeated(self, times: int) -> Prompts:
        """The prompts of one photo (B = 1) for `times` photos."""
        return Prompts(
            *(getattr(self, f.name).expand(times, *getattr(self, f.name).shape[1:]) for f in dataclasses.fields(self))
        )

    def to(self, device: torch.device | str) -> Prompts:
        return Prompts(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


class PromptWriter:
    """Writes token sequences for photos of `clip_grid` x `clip_grid` tokens and `n_evidence` evidence tokens.

    With an `own_grid`, the photo stands in a prompt twice: as Qwen's own vision tower sees it, then as CLIP does.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        clip_grid: int,
        n_evidence: int,
        prompt: PromptConfig | None = None,
        own_grid: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.grids = [grid for grid in (own_grid, clip_grid) if grid]
        self.n_evidence = n_evidence
        self.prompt = prompt or PromptConfig()
        self.image_id, self.evidence_id, self.answer_id, self.end_id = (
            token_id(tokenizer, t) for t in (IMAGE_TOKEN, EVIDENCE_TOKEN, ANSWER_TOKEN, END_TOKEN)
        )
        self.pad_id = tokenizer.pad_token_id

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def words_between(self, text: str) -> list[int]:
        """`text` as it is tokenized in the middle of a sentence (a byte-pair tokenizer marks the space before)."""
        return self.encode(" " + text)

    def head(self, context: Context) -> list[int]:
        """Everything up to and including the answer token."""
        start, end = self.encode("<|vision_start|>"), self.encode("<|vision_end|>")
        return [
            *self.encode(self.prompt.opening),
            *(token for grid in self.grids for token in (*start, *[self.image_id] * grid**2, *end)),
            *[self.evidence_id] * self.n_evidence,
            *self.encode(context_text(context) + self.prompt.closing),
            self.answer_id,
        ]

    def write(self, contexts: Sequence[Context], rationale_targets: Sequence[RationaleTarget] | None = None) -> Prompts:
        """One sequence per photo; a rationale target is written as far as it goes."""
        rows, labels, answers, spells = [], [], [], []
        for i, context in enumerate(contexts):
            ids = self.head(context)
            answers.append(len(ids) - 1)
            target = [IGNORE] * len(ids)
            rationale_target = rationale_targets[i] if rationale_targets is not None else None
            spells.append(-1)
            if rationale_target is not None:
                ids += self.words_between(findings_text(rationale_target.findings))
                target += [IGNORE] * (len(ids) - len(target))
                spells[-1] = len(ids) - 1
                more, learn = self._differential(rationale_target)
                ids, target = ids + more, target + learn
            rows.append(ids)
            labels.append(target)
        return self._pad(rows, labels, answers, spells, contexts)

    def write_text_only(self, contexts: Sequence[Context], rationale_targets: Sequence[RationaleTarget]) -> Prompts:
        """Context and rationale target as plain text, without photo, evidence and answer: what stage 1 learns from."""
        rows, labels = [], []
        for context, rationale_target in zip(contexts, rationale_targets, strict=True):
            ids = self.encode(context_text(context)) + self.words_between(findings_text(rationale_target.findings))
            more, learn = self._differential(rationale_target)
            rows.append(ids + more)
            labels.append([IGNORE] * len(ids) + learn)
        return self._pad(rows, labels, [-1] * len(rows), [-1] * len(rows), contexts)

    def question(self, text: str) -> Prompts:
        """One question about a photo that Qwen's own tower sees, as to the published model: no CLIP, no evidence.

        Raises ValueError where the prompts are written without an `own_grid`.
        """
        if len(self.grids) < 2:
            raise ValueError("these prompts have no photo of Qwen's own vision tower")
        own = self.grids[0]
        ids = [
            *self.encode(f"<|im_start|>system\n{ASSISTANT}<|im_end|>\n<|im_start|>user\n{text}<|vision_start|>"),
            *[self.image_id] * own**2,
            *self.encode("<|vision_end|><|im_end|>\n<|im_start|>assistant\n"),
        ]
        prompts = self._pad([ids], [[IGNORE] * len(ids)], [-1], [-1], [Context()])
        return dataclasses.replace(prompts, image_grid_thw=prompts.image_grid_thw[:, :1])

    def _differential(self, rationale_target: RationaleTarget) -> tuple[list[int], list[int]]:
        if rationale_target.leading is None or rationale_target.runner_up is None:
            return [], []
        name = self.words_between(DIAGNOSIS_BY_CODE[rationale_target.leading].in_text)
        whole = self.words_between(differential_text(rationale_target.leading, rationale_target.runner_up))
        ids, target = list(whole), [*name, *[IGNORE] * (len(whole) - len(name))]
        if rationale_target.rationale is not None:
            text = [*self.words_between(rationale_target.rationale), self.end_id]
            ids, target = ids + text, target + text
        return ids, target

    def _pad(
        self,
        rows: list[list[int]],
        labels: list[list[int]],
        answers: list[int],
        spells: list[int],
        contexts: Sequence[Context],
    ) -> Prompts:
        length = max(map(len, rows))
        ids = torch.tensor([r + [self.pad_id] * (length - len(r)) for r in rows])
        # labels[t] is what position t must predict: the token after it
        shifted = [(t[1:] + [IGNORE]) + [IGNORE] * (length - len(t)) for t in labels]
        mask = torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows])
        grid = torch.tensor([[[1, 2 * g, 2 * g] for g in self.grids]] * len(rows))  # two patches a token each way
        types = (ids == self.image_id).int()
        patient = torch.tensor([context_numbers(c) for c in contexts]).reshape(len(rows), CONTEXT_NUMBERS)
        places = (torch.tensor(answers), torch.tensor(spells))
        return Prompts(ids, mask, types, torch.tensor(shifted), grid, *places, patient)
