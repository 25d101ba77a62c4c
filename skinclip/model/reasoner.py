"""The reasoner: Qwen2.5-VL, linear layers in NF4, LoRA on the language layers, CLIP and evidence tokens as inputs.

Third step of the path: VisualTokens + Evidence + patient context -> Reasoning. Notable:
- projected CLIP tokens take the places of the photo's tokens (so their positions are two-dimensional), evidence
  tokens those of a special token, a learnt vector that of the answer token: one masked scatter each;
- the diagnosis is the similarity of the answer token's hidden state with the embedded descriptions, so it does not
  depend on any order of options; with a linear readout of the tower, it is that readout's, corrected by how far the
  language model has moved the similarity;
- the big presets' own vision tower, frozen, shows the photo a second time, beside CLIP;
- a rationale goes on from the prompt that the diagnosis was read from, which so is read once;
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peft import set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    DynamicCache,
    PreTrainedTokenizerBase,
)

from skinclip.core.assessment import Context, Differential
from skinclip.core.config import ReasonerConfig
from skinclip.core.known import KnownVocabulary
from skinclip.core.patient_context import CONTEXT_NUMBERS
from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_BY_CODE, DIAGNOSIS_CODES, STATE_BY_KEY
from skinclip.language.constrained_decoding import CitationProcessor, ParaphraseProcessor, Rule
from skinclip.language.prompt import IGNORE, REFERENCES, Prompts, PromptWriter, RationaleTarget
from skinclip.language.rationale import write_rationale
from skinclip.language.rationale_check import FORBIDDEN_OUTSIDE, check_rationale
from skinclip.model.answer import Start, answer_logits, at_most_unit, checklist_input
from skinclip.model.decoding import Prefix, greedy
from skinclip.model.evidence import Evidence
from skinclip.model.own_vision import own_grid, own_tokens
from skinclip.model.perception import VisualTokens
from skinclip.model.qwen import ADAPTER

FALLBACK_PARAPHRASES = 64  # among which a rationale is decoded once more where it was written freely and is not sound


@dataclass
class Reasoning:
    """The language model's outputs for a batch of photos.

    Attributes:
        logits: [B, C] diagnosis.
        spelled: [B, C] logits of the diagnosis that the text itself would spell, None without a rationale.
        language_loss: mean next-token cross-entropy of the rationale tokens, None without a rationale.
        prefix: the prompt as the language model has read it, for the rationale to go on from; None unless asked for.
        read: [B, C] what the linear readout says, where there is one and the photo may be seen.
    """

    logits: Tensor
    spelled: Tensor | None = None
    language_loss: Tensor | None = None
    prefix: Prefix | None = None
    read: Tensor | None = None


class TokenProjector(nn.Module):
    """CLIP tokens into the language model's width: pool to the grid that it reads, then two linear layers."""

    def __init__(self, token_width: int, hidden: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.layers = nn.Sequential(
            nn.LayerNorm(token_width), nn.Linear(token_width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, N, D] on `grid` -> [B, g * g, H], still row by row."""
        maps = tokens.transpose(1, 2).unflatten(2, grid)
        pooled = F.adaptive_avg_pool2d(maps, self.grid).flatten(2).transpose(1, 2)
        return self.layers(pooled)


class EvidenceProjector(nn.Module):
    """One token per criterion state: which state it is, how strongly it scores, and what is seen in its region."""

    def __init__(self, adapter_width: int, hidden: int, n_states: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(adapter_width)
        self.features = nn.Linear(adapter_width, hidden)
        self.score = nn.Linear(1, hidden)
        self.state = nn.Parameter(torch.randn(n_states, hidden) * 0.02)

    def forward(self, evidence: Evidence) -> Tensor:
        """-> [B, K, H]."""
        scores = evidence.scores.sigmoid().unsqueeze(-1)
        return self.features(self.norm(evidence.features)) + self.score(scores) + self.state


@dataclass(frozen=True)
class InputWidths:
    """Widths of what the reasoner reads.

    Attributes:
        tokens: D, of a patch token.
        embedding: E, of the joint space.
        adapter: A, of an evidence feature.
        states: K, criterion states.
        style: S, channel means of all levels.
        known: the diagnoses that can be named, and the criteria whose states are read, one token each.
    """

    tokens: int
    embedding: int
    adapter: int
    states: int
    style: int
    known: KnownVocabulary = field(default_factory=KnownVocabulary)


class Readout(nn.Module):
    """Linear layers that read the tower's whole outputs: the diagnosis, with the patient's context, and criteria."""

    columns: Tensor

    def __init__(self, widths: InputWidths) -> None:
        super().__init__()
        known = [DIAGNOSIS_CODES.index(code) for code in widths.known.diagnoses]
        self.register_buffer("columns", torch.tensor(known), persistent=False)
        self.photo = nn.Linear(widths.embedding + widths.style, len(known))
        self.context = nn.Linear(CONTEXT_NUMBERS, len(known), bias=False)
        self.criteria = nn.Linear(widths.style + widths.states, widths.states)

    def criterion_scores(self, style: Tensor, scores: Tensor) -> Tensor:
        """Style [B, S] and evidence scores [B, K] -> [B, K] scores of the criteria's states."""
        return self.criteria(torch.cat([style, scores], 1))

    def forward(self, visual: VisualTokens, patient: Tensor) -> Tensor:
        """-> [B, C] logits, 0 for diagnoses that the model does not know.

        Args:
            patient: [B, CONTEXT_NUMBERS].
        """
        return self.read(visual.embedding, visual.style, patient)

    def read(self, embedding: Tensor, style: Tensor, patient: Tensor) -> Tensor:
        """`forward` of photo embeddings [B, E] and styles [B, S]."""
        read = self.photo(torch.cat([embedding, style], 1)) + self.context(patient)
        return read.new_zeros(len(read), len(DIAGNOSES)).index_copy(1, self.columns, read)


class Reasoner(nn.Module):
    """A language model with LoRA and everything that ties it to perception and evidence."""

    name_ids: Tensor

    def __init__(
        self,
        config: ReasonerConfig,
        language_model: Any,
        tokenizer: PreTrainedTokenizerBase,
        widths: InputWidths,
        adapter: str = ADAPTER,
    ) -> None:
        """
        Args:
            adapter: the name of its LoRA layers in `language_model`, which may hold those of several models.
        """
        super().__init__()
        self.config = config
        self.adapter = adapter
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.compute_type: torch.dtype | None = None  # of the language layers in training on a GPU
        hidden = self.base.config.text_config.hidden_size
        self.projector = TokenProjector(widths.tokens, hidden, config.clip_grid)
        self.evidence_projector = EvidenceProjector(widths.adapter, hidden, widths.states)
        # the embedding keeps what tells diagnoses apart in words; the channel means under it hold more than that
        self.style_norm = nn.LayerNorm(widths.style)
        self.whole_projector = nn.Linear(widths.embedding + widths.style, hidden)
        self.blank = nn.Parameter(torch.randn(hidden) * 0.02)  # stands where a photo's tokens are hidden
        self.answer = nn.Parameter(torch.randn(hidden) * 0.02)
        correction = nn.Linear(hidden, widths.embedding)
        nn.init.normal_(correction.weight, std=0.005)  # begins short: the answer starts as CLIP's own
        self.to_diagnosis = nn.Sequential(nn.LayerNorm(hidden), nn.Dropout(config.answer_dropout), correction)
        # what each state of a criterion speaks for: the part of the answer that can be read off and edited
        self.checklist = nn.Linear(widths.states, widths.embedding, bias=False)
        nn.init.zeros_(self.checklist.weight)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale)))
        self.readout = Readout(widths) if config.readout else None
        own = own_grid(config.own_side) if config.own_vision else 0
        self.known = widths.known
        self.writer = PromptWriter(tokenizer, config.clip_grid, 1 + len(self.known.states), config.prompt, own)
        self.register_buffer("name_ids", self._first_tokens(), persistent=False)

    @property
    def base(self) -> Any:
        """The Qwen2_5_VLForConditionalGeneration under the LoRA layers."""
        model = self.language_model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def device(self) -> torch.device:
        return self.answer.device

    def _first_tokens(self) -> Tensor:
        """[C] the first token of each diagnosis name; a byte-pair tokenizer may begin two names with the same one."""
        return torch.tensor([self.writer.words_between(d.in_text)[0] for d in DIAGNOSES])

    def own_tokens(self, photos: Tensor) -> Tensor | None:
        """[B, 3, side, side] in 0..1 -> [B, M, H] as Qwen's own frozen tower sees them; None where the preset has none.

        Raises ValueError for photos of another side than the prompts are written for.
        """
        if not self.config.own_vision:
            return None
        if photos.shape[-1] != self.config.own_side:
            raise ValueError(f"photos must be {self.config.own_side} pixels wide, got {list(photos.shape)}")
        return own_tokens(self.base, photos)

    def inputs(
        self, prompts: Prompts, visual: VisualTokens | None, evidence: Evidence | None, show_clip: Tensor | None = None
    ) -> Tensor:
        """Embeddings [B, L, H] with projected tokens in their places.

        Args:
            visual: None hides the photo's tokens of the whole batch (stage 1, and the evidence-only readout).
            evidence: None hides the evidence tokens.
            show_clip: [B] bool, the photos whose tokens may be read, CLIP's and Qwen's own (training hides some).
        """
        embeds = self.base.get_input_embeddings()(prompts.input_ids)
        b, n_photo = embeds.shape[0], sum(grid**2 for grid in self.writer.grids)
        blank = self.blank.to(embeds.dtype)
        photo_slots = blank.expand(b, n_photo + 1, -1)
        if visual is not None:
            projected = self.projector(visual.tokens, visual.grid)
            whole = self.whole_projector(torch.cat([visual.embedding, self.style_norm(visual.style)], 1)).unsqueeze(1)
            own = [] if visual.own is None else [visual.own]
            photo_slots = torch.cat(
                [part.to(embeds.dtype) for part in (*own, projected, whole)], 1
            )  # [B, M + g*g + 1, H]
            if show_clip is not None:
                photo_slots = torch.where(show_clip.view(-1, 1, 1), photo_slots, blank)
        evidence_slots = blank.expand(b, len(self.known.states), -1)
        if evidence is not None:
            evidence_slots = self.evidence_projector(evidence)[:, list(self.known.states)].to(embeds.dtype)
        ids = prompts.input_ids.unsqueeze(-1)
        # the photo's own embedding takes the first evidence slot: it is perception too, and is hidden with it
        slots = torch.cat([photo_slots[:, n_photo:], evidence_slots], 1)
        embeds = embeds.masked_scatter(ids == self.writer.image_id, photo_slots[:, :n_photo])
        embeds = embeds.masked_scatter(ids == self.writer.evidence_id, slots)
        return torch.where(ids == self.writer.answer_id, self.answer.to(embeds.dtype), embeds)

    def hidden(self, prompts: Prompts, embeds: Tensor, cache: DynamicCache | None = None) -> Tensor:
        """Last hidden states [B, L, H]; `cache` is filled where one is given."""
        with torch.autocast(embeds.device.type, self.compute_type, enabled=self.compute_type is not None):
            return self.base.model(
                input_ids=prompts.input_ids,
                inputs_embeds=embeds,
                attention_mask=prompts.attention_mask,
                mm_token_type_ids=prompts.mm_token_type_ids,
                image_grid_thw=prompts.image_grid_thw.flatten(0, 1),
                past_key_values=cache,
                use_cache=cache is not None,
            ).last_hidden_state

    def save_memory(self, compute_type: torch.dtype | None) -> None:
        """For training: language layers keep their inputs only and compute the rest again in the backward pass.

        What `peft.prepare_model_for_kbit_training` would do beside that is left undone: it casts all that is not
        quantized to fp32, the untouched vision tower included.

        Args:
            compute_type: what the language layers compute in, LoRA among them, which is kept in fp32; None leaves each
                layer its own. Heads and losses stay in fp32.
        """
        self.compute_type = compute_type
        layers = self.base.model.language_model
        layers.activation_checkpointing_enable({"use_reentrant": False})
        layers.disable_input_require_grads()  # only the reentrant kind needs gradients of frozen embeddings

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """For attribution through a big preset: as `save_memory`, as long as the context lasts, and not in training.

        transformers checkpoints layers in training mode alone. Otherwise a Grad-CAM of the 3B model would hold several
        GB of activations.
        """
        layers = self.base.model.language_model.layers if self.config.base is not None else ()
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward  # of the instance; that of its class is there again

    def diagnose(
        self,
        hidden: Tensor,
        answer: Tensor,
        descriptions: Tensor,
        whole: Tensor | None = None,
        evidence: Evidence | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, C]: similarity of the answer with C descriptions [C, E].

        The answer token's state [B, L, H] is read in the joint space, as a correction of the photo's own embedding
        `whole` [B, E] where that may be seen: reasoning starts from CLIP's zero-shot answer. The correction is never
        longer than that embedding; left free it grows to several times its length, and what CLIP knew is drowned.
        The evidence scores add their own directions, linearly, so that an edited checklist moves the answer the way its
        states speak, whatever the language model makes of them beside that.

        Args:
            read: [B, C] logits that take the place of the zero-shot answer as what reasoning starts from: a share
                (`ReasonerConfig.language_share`) of how far the language model moves that answer counts, and all of
                how far what is changed in the checklist does.
        """
        state = hidden[torch.arange(len(answer), device=hidden.device), answer].float()
        direction = at_most_unit(self.to_diagnosis(state))
        if whole is not None:
            direction = direction + whole
        start = None if whole is None or read is None else Start(whole, read, self.config.language_share)
        checklist = None
        if evidence is not None:
            checklist = self.checklist(checklist_input(evidence.scores, evidence.found, start))
        return answer_logits(direction, descriptions, self.logit_scale, checklist, start)

    def forward(
        self,
        prompts: Prompts,
        visual: VisualTokens | None,
        evidence: Evidence | None,
        descriptions: Tensor,
        show_clip: Tensor | None = None,
        keep: bool = False,
    ) -> Reasoning:
        """
        Args:
            descriptions: [C, E] unit-length embeddings of the diagnoses.
            keep: keep what was read as a prefix for the rationale, of a single photo (B = 1).
        """
        cache = DynamicCache(config=self.base.config.text_config) if keep else None
        hidden = self.hidden(prompts, self.inputs(prompts, visual, evidence, show_clip), cache)
        whole = None if visual is None else visual.embedding
        read = None if visual is None or self.readout is None else self.readout(visual, prompts.patient)
        if show_clip is not None:
            whole, read = (None if seen is None else seen * show_clip.unsqueeze(1) for seen in (whole, read))
        logits = self.diagnose(hidden, prompts.answer, descriptions, whole, evidence, read)
        prefix = None if cache is None else Prefix(prompts.input_ids[0], cache)
        spelled = self.spell(hidden, prompts.spell, logits.detach())
        return Reasoning(logits, spelled, self.language_loss(hidden, prompts.labels), prefix, read)

    def spell(self, hidden: Tensor, position: Tensor, logits: Tensor) -> Tensor | None:
        """[B, C] logits of the first token of each diagnosis name where the text is about to spell one.

        Names that begin with the same token ("melanoma", "melanocytic nevus" in byte pairs) share its probability as
        the diagnosis head, `logits` [B, C], divides it: a divergence from the head then is that of the tokens.
        """
        if (position < 0).any():
            return None
        state = hidden[torch.arange(len(position), device=hidden.device), position]
        first = self.base.lm_head(state)[:, self.name_ids].float()
        alike = self.name_ids.unsqueeze(0) == self.name_ids.unsqueeze(1)  # [C, C]
        together = logits.unsqueeze(1).masked_fill(~alike, -torch.inf).logsumexp(-1)
        return first + (logits - together)

    def language_loss(self, hidden: Tensor, labels: Tensor) -> Tensor | None:
        """Mean cross-entropy where `labels` ask for a token; logits are made only there."""
        chosen = labels != IGNORE
        if not chosen.any():
            return None
        return F.cross_entropy(self.base.lm_head(hidden[chosen]).float(), labels[chosen])

    @torch.no_grad()
    def explain(
        self,
        context: Context,
        visual: VisualTokens,
        evidence: Evidence,
        findings: Sequence[str],
        differential: Differential,
        prefix: Prefix | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        """The generated rationale of one photo (B = 1), as raw text; greedy, so the same photo gives the same words.

        A text written freely (`config.paraphrases` = 0) is shown to nobody before it was found sound as a whole. Where
        it is not, another is decoded among `FALLBACK_PARAPHRASES` true ones.

        Args:
            findings: state keys in the order of their references, at most MAX_FINDINGS.
            differential: the first two diagnoses; no other can be named.
            prefix: what was read of the same photo's prompt when it was diagnosed; it is as good as new afterwards.
            on_text: called with all the text there is whenever there is more of it.
        """
        d = differential
        prompts = self.writer.write([context], [RationaleTarget(findings, d.leading, d.runner_up)]).to(self.device)
        embeds = self.inputs(prompts, visual.to(self.device), evidence.to(self.device))
        length = prompts.input_ids.shape[1]

        def write(paraphrases: int, show: Callable[[str], None] | None) -> str:
            rules, longest = self.rules(length, findings, differential, paraphrases)
            written: list[int] = []
            for tokens in greedy(self.base, prompts, embeds, rules, self.writer.end_id, longest, prefix):
                written += tokens
                if show is not None:
                    show(self.decode(written))
            return self.decode(written)

        if self.config.paraphrases:
            return write(self.config.paraphrases, on_text)
        text = write(0, None)
        if check_rationale(text, findings, (d.leading, d.runner_up), d.runner_up_open):
            return write(FALLBACK_PARAPHRASES, on_text)
        if on_text is not None:
            on_text(text)
        return text

    @torch.no_grad()
    def ask(self, own: Tensor, question: str, longest: int) -> str:
        """Answer of the published model, LoRA off, to a question about a photo; greedy, bound by no rules.

        Args:
            own: [1, M, H] as `own_tokens` gives them.
            longest: tokens at most.
        """
        prompts = self.writer.question(question).to(self.device)
        embeds = self.base.get_input_embeddings()(prompts.input_ids)
        photo = (prompts.input_ids == self.writer.image_id).unsqueeze(-1)
        embeds = embeds.masked_scatter(photo, own.to(self.device, embeds.dtype))
        with self.unadapted():
            runs = greedy(self.base, prompts, embeds, (), self.writer.end_id, longest)
            return self.decode([token for run in runs for token in run])

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def rules(
        self, length: int, findings: Sequence[str], differential: Differential, paraphrases: int
    ) -> tuple[list[Rule], int]:
        """Rules that hold a rationale after `length` tokens to the truth, and the most tokens that it may have."""
        rules: list[Rule] = [self.citations(length, findings, differential)]
        if not paraphrases:
            return rules, self.config.max_new_tokens
        texts = self.paraphrases(findings, differential, paraphrases)
        return [*rules, ParaphraseProcessor(length, texts, self.writer.end_id)], max(map(len, texts)) + 1

    def paraphrases(self, findings: Sequence[str], differential: Differential, n: int) -> list[list[int]]:
        """Ways to say what the findings mean for the differential: the same ones for the same findings."""
        d = differential
        rng = random.Random(" ".join([d.leading, d.runner_up, *findings]))
        texts = {write_rationale(d.leading, d.runner_up, findings, rng, d.runner_up_open) for _ in range(n)}
        return [self.writer.words_between(text) for text in sorted(texts)]

    def citations(self, prompt_length: int, findings: Sequence[str], differential: Differential) -> CitationProcessor:
        words = self.writer.words_between
        others = set(self.known.diagnoses) - {differential.leading, differential.runner_up}
        names = [DIAGNOSIS_BY_CODE[code].in_text for code in sorted(others)]
        return CitationProcessor(
            prompt_length,
            references=[words(r) for r in REFERENCES],
            phrases=[words(STATE_BY_KEY[key].phrase) for key in findings],
            forbidden=[words(text) for text in (*FORBIDDEN_OUTSIDE, *names)],
            end_id=self.writer.end_id,
        )

    @property
    def adapted(self) -> bool:
        """True where there are LoRA layers; they may have been merged into the base."""
        return bool(self.config.lora.r)

    def adapter_state(self) -> dict[str, Tensor]:
        return get_peft_model_state_dict(self.language_model, adapter_name=self.adapter) if self.adapted else {}

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Raises RuntimeError where keys are missing or unexpected."""
        expected, given = set(self.adapter_state()), set(state)
        if expected != given:
            missing, unknown = sorted(expected - given)[:3], sorted(given - expected)[:3]
            raise RuntimeError(f"the adapter does not fit: missing {missing}, unexpected {unknown}")
        if self.adapted:
            set_peft_model_state_dict(self.language_model, state, adapter_name=self.adapter)

    def unadapted(self) -> AbstractContextManager[Any]:
        """The language model as it was published, as long as the context lasts."""
        return self.language_model.disable_adapter() if self.adapted else nullcontext()
