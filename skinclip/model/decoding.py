"""Greedy decoding of one prompt under token rules (`language.constrained_decoding`).

Tokens that the rules force need no forward pass of their own: a chosen token and the forced ones after it form a run,
which the model reads in one step. Within a tree of paraphrases most tokens are forced.
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
    """The beginning of a prompt that the language model has already read.

    Attributes:
        ids: [P] its token ids.
        cache: their keys and values, for a single prompt (B = 1).
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
    """Yields the greedy continuation of one prompt in runs: a chosen token, then those that the rules force after it.

    The last token is `end_id`, unless `longest` is reached first.

    Args:
        model: a Qwen2_5_VLForConditionalGeneration.
        embeds: [1, L, H] of the whole prompt, `prefix` included.
        longest: the most tokens that are generated.
        prefix: its tokens are not read again; its cache is cropped back to them afterwards, so it can be reused.

    Raises ValueError where the prompt does not begin with `prefix`.
    """
    cached = 0 if prefix is None else len(prefix.ids)
    if prefix is not None and not torch.equal(prompts.input_ids[0, :cached], prefix.ids):
        raise ValueError("the prompt does not begin with what was read")
    cache = DynamicCache(config=model.config.text_config) if prefix is None else prefix.cache
    ids, grids = prompts.input_ids, prompts.image_grid_thw.flatten(0, 1)
    positions, _ = model.model.get_rope_index(ids, prompts.mm_token_type_ids, image_grid_thw=grids)  # [3, 1, L]
    next_position = int(positions.max()) + 1
    length, new_embeds, new_positions = ids.shape[1], embeds[:, cached:], positions[:, :, cached:]
    try:
        while ids.shape[1] < length + longest:
            hidden = model.model.language_model(
                inputs_embeds=new_embeds, position_ids=new_positions, past_key_values=cache, use_cache=True
            ).last_hidden_state
            scores = model.lm_head(hidden[:, -1]).float()
            for rule in rules:
                scores = rule(ids, scores)
            run = _run(tuple(ids[0, length:].tolist()), int(scores.argmax()), rules, end_id, longest)
            yield run
            if run[-1] == end_id:
                return
            ids = torch.cat([ids, ids.new_tensor([run])], 1)
            new_embeds = model.get_input_embeddings()(ids[:, -len(run) :])
            new_positions = torch.arange(next_position, next_position + len(run), device=ids.device).expand(3, 1, -1)
            next_position += len(run)
    finally:
        if prefix is not None:
            cache.crop(cached - cache.get_seq_length())  # a negative number: so many tokens are removed


def _run(written: tuple[int, ...], token: int, rules: Sequence[Rule], end_id: int, longest: int) -> list[int]:
    """`token` and the tokens that the rules force after it, up to the end token or a text of `longest` tokens."""
    run = [token]
    while run[-1] != end_id and len(written) + len(run) < longest:
        forced = [f for f in (rule.forced_next((*written, *run)) for rule in rules) if f is not None]
        if not forced:
            break
        run.append(forced[0])
    return run
