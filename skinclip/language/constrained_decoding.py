"""Rules under which only findings that exist can be cited, and every criterion named is a cited finding.

Two processors, used together by a small model and the first alone by a large one: `CitationProcessor` bars what no
finding supports; `ParaphraseProcessor` keeps the text within a tree of paraphrases that are true to the findings, as a
model of a few million parameters cannot be trusted to say by itself which way a finding speaks. `model.decoding`
decodes under them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Rule(Protocol):
    """A rule on the next token; see `CitationProcessor` and `ParaphraseProcessor`."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor: ...

    def forced_next(self, written: tuple[int, ...]) -> int | None: ...


class CitationProcessor:
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
        citations = []
        for position in range(len(written)):
            for k, reference in enumerate(self.references[: len(self.phrases)]):
                if written[position : position + len(reference)] == reference:
                    citations.append((k, position + len(reference)))
        return citations

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


class ParaphraseProcessor:
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
