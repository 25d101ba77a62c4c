"""Decoding in which only findings that exist can be cited, and every criterion named is a cited finding.

Two processors, used together by a small model and the first alone by a large one: `CitationProcessor` bars what no
finding supports; `ParaphraseProcessor` keeps the text within a tree of paraphrases that are true to the findings, as a
model of a few million parameters cannot be trusted to say by itself which way a finding speaks.

`greedy` decodes under them. Where only one token is possible the model is not asked: within a tree of paraphrases that
is most of a text, and the model then reads such a run in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor

from skinclip.language.prompt import Prompts


class Rule(Protocol):
    """What may be written next; see `CitationProcessor` and `ParaphraseProcessor`."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor: ...

    def forced_next(self, written: tuple[int, ...]) -> int | None: ...


@dataclass
class Prefix:
    """The beginning of a prompt as the language model has read it.

    Attributes:
        ids: [P] its tokens.
        cache: their keys and values, B = 1.
    """

    ids: Tensor
    cache: DynamicCache


def greedy(
    model: Any,
    prompts: Prompts,
    embeds: Tensor,
    rules: Sequence[Rule],
    end_id: int,
    longest: int,
    prefix: Prefix | None = None,
) -> Iterator[list[int]]:
    """The most probable continuation of one prompt, token by token, in the runs it is found in; the end token is last.

    Args:
        model: a Qwen2_5_VLForConditionalGeneration.
        embeds: [1, L, H] of the prompt.
        longest: tokens at most.
        prefix: its tokens are not read again; its cache is cut back to them in the end.

    Raises ValueError where the prompt does not begin with `prefix`.
    """
    read = 0 if prefix is None else len(prefix.ids)
    if prefix is not None and not torch.equal(prompts.input_ids[0, :read], prefix.ids):
        raise ValueError("the prompt does not begin with what was read")
    cache = DynamicCache(config=model.config.text_config) if prefix is None else prefix.cache
    ids, grids = prompts.input_ids, prompts.image_grid_thw.flatten(0, 1)
    positions, _ = model.model.get_rope_index(ids, prompts.mm_token_type_ids, image_grid_thw=grids)  # [3, 1, L]
    following = int(positions.max()) + 1
    length, new, places = ids.shape[1], embeds[:, read:], positions[:, :, read:]
    try:
        while ids.shape[1] < length + longest:
            states = model.model.language_model(
                inputs_embeds=new, position_ids=places, past_key_values=cache, use_cache=True
            ).last_hidden_state
            scores = model.lm_head(states[:, -1]).float()
            for rule in rules:
                scores = rule(ids, scores)
            run = _run(tuple(ids[0, length:].tolist()), int(scores.argmax()), rules, end_id, longest)
            yield run
            if run[-1] == end_id:
                return
            ids = torch.cat([ids, ids.new_tensor([run])], 1)
            new = model.get_input_embeddings()(ids[:, -len(run) :])
            places = torch.arange(following, following + len(run), device=ids.device).expand(3, 1, -1)
            following += len(run)
    finally:
        if prefix is not None:
            cache.crop(read - cache.get_seq_length())


def _run(written: tuple[int, ...], token: int, rules: Sequence[Rule], end_id: int, longest: int) -> list[int]:
    """`token` and what must follow it, as far as the text may go."""
    run = [token]
    while run[-1] != end_id and len(written) + len(run) < longest:
        forced = [f for f in (rule.forced_next((*written, *run)) for rule in rules) if f is not None]
        if not forced:
            break
        run.append(forced[0])
    return run


class CitationProcessor(LogitsProcessor):
    """Masks the next token so that a rationale can assert nothing but the given findings.

    - a reference is possible only to a finding that exists and is not cited yet;
    - after a reference comes the phrase of that finding, to the letter;
    - criterion phrases and diagnoses outside the differential are impossible anywhere else;
    - the text cannot end before every finding is cited.

    All arguments are token id sequences, so that word-level and byte-pair tokenizers work alike.
    """

    def __init__(
        self,
        prompt_length: int,
        references: Sequence[Sequence[int]],
        phrases: Sequence[Sequence[int]],
        forbidden: Sequence[Sequence[int]],
        end_id: int,
    ) -> None:
        """
        Args:
            references: every reference there could be, the findings' first.
            phrases: of the findings, in the order of their references.
            forbidden: sequences that may never be completed outside a cited phrase.
        """
        self.prompt_length = prompt_length
        self.references = [tuple(r) for r in references]
        self.phrases = [tuple(p) for p in phrases]
        self.forbidden = [tuple(f) for f in forbidden]
        self.end_id = end_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row in range(input_ids.shape[0]):
            written = tuple(input_ids[row, self.prompt_length :].tolist())
            forced = self.forced_next(written)
            if forced is not None:
                keep = scores[row, forced].clone()
                scores[row] = -torch.inf
                scores[row, forced] = keep if torch.isfinite(keep) else 0.0
            else:
                scores[row, self.banned_next(written)] = -torch.inf
        return scores

    def cited(self, written: tuple[int, ...]) -> list[tuple[int, int]]:
        """(finding, position after its reference) in the order written."""
        found = []
        for position in range(len(written)):
            for k, reference in enumerate(self.references[: len(self.phrases)]):
                if written[position : position + len(reference)] == reference:
                    found.append((k, position + len(reference)))
        return found

    def forced_next(self, written: tuple[int, ...]) -> int | None:
        """The token that must come next because a phrase is due or under way, else None."""
        citations = self.cited(written)
        if not citations:
            return None
        finding, start = citations[-1]
        done = len(written) - start
        phrase = self.phrases[finding]
        return phrase[done] if done < len(phrase) else None

    def banned_next(self, written: tuple[int, ...]) -> list[int]:
        citations = self.cited(written)
        used = {k for k, _ in citations}
        banned = [*self.forbidden]
        banned += [r for k, r in enumerate(self.references) if k in used or k >= len(self.phrases)]
        free = written[citations[-1][1] + len(self.phrases[citations[-1][0]]) :] if citations else written
        out = [b[-1] for b in banned if free[len(free) - len(b) + 1 :] == b[:-1] and len(free) >= len(b) - 1]
        if len(used) < len(self.phrases):
            out.append(self.end_id)
        return out


class ParaphraseProcessor(LogitsProcessor):
    """Restricts generation to a set of texts by a prefix tree (constrained decoding after De Cao et al. 2021)."""

    def __init__(self, prompt_length: int, texts: Sequence[Sequence[int]], end_id: int) -> None:
        """
        Args:
            texts: token sequences of the texts, without the end token; at least one.
        """
        if not texts:
            raise ValueError("there is no wording to choose from")
        self.prompt_length = prompt_length
        self.tree: dict[int, dict] = {}
        for text in texts:
            node = self.tree
            for token in (*text, end_id):
                node = node.setdefault(token, {})

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        allowed = torch.full_like(scores, -torch.inf)
        for row in range(input_ids.shape[0]):
            for token in self.after(input_ids[row, self.prompt_length :].tolist()):
                allowed[row, token] = 0.0
        return scores + allowed

    def after(self, written: Sequence[int]) -> dict[int, dict]:
        """The part of the tree that follows `written`; empty where nothing does."""
        node: dict[int, dict] = self.tree
        for token in written:
            node = node.get(token, {})
        return node

    def forced_next(self, written: tuple[int, ...]) -> int | None:
        """The only token that can come next, None where there is a choice."""
        possible = list(self.after(written))
        return possible[0] if len(possible) == 1 else None
