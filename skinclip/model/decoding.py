"""Greedy decoding of one prompt under rules.

Where only one token is possible the model is not asked: within a tree of paraphrases that is most of a text, and the
model then reads such a run in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from skinclip.language.constrained_decoding import Rule
from skinclip.language.prompt import Prompts


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
