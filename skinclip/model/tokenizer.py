"""The reasoner's tokenizer: word-level for the mini preset, Qwen's own for the big ones."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from skinclip.core.vocabulary import SEXES, SITES
from skinclip.language.prompt import ANSWER_TOKEN, CHAT_TOKENS, END_TOKEN, EVIDENCE_TOKEN, REFERENCES
from skinclip.language.rationale import vocabulary


def mini_tokenizer() -> PreTrainedTokenizerFast:
    """The word-level tokenizer of the mini preset: every word the generator and the prompts can say, none other."""
    texts = [
        *vocabulary(),
        "user assistant findings : none . diagnosis : ; then rationale : patient : not given , . age",
    ]
    texts += [str(age) for age in range(0, 125, 5)] + [*SEXES, *SITES]
    words = dict.fromkeys(word for text in texts for word in text.split())
    special = ["<pad>", "<unk>", *CHAT_TOKENS, EVIDENCE_TOKEN, ANSWER_TOKEN, *REFERENCES]
    numbers = {w: i for i, w in enumerate([*special, *(w for w in words if w not in special)])}
    core = Tokenizer(WordLevel(numbers, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token=END_TOKEN,
        additional_special_tokens=[*CHAT_TOKENS, EVIDENCE_TOKEN, ANSWER_TOKEN],
        model_max_length=1024,
    )


def load_tokenizer(source: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer from a directory or hub id, with our special tokens added where they are missing."""
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    missing = [
        t
        for t in (EVIDENCE_TOKEN, ANSWER_TOKEN)
        if tokenizer.convert_tokens_to_ids(t) in (None, tokenizer.unk_token_id)
    ]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    return tokenizer
