"""LoRA merged into the language model that it was trained on, in 16 bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from skinclip.core.config import ReasonerConfig
from skinclip.model.qwen import add_lora


def merged_language_model(base: Path, adapter: Path, config: ReasonerConfig, dtype: torch.dtype) -> Any:
    """The Qwen2_5_VLForConditionalGeneration in `base`, dense in `dtype`, with LoRA in its weights.

    Args:
        adapter: the file of LoRA weights.
    """
    dense = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=dtype)
    model = add_lora(dense, config)
    set_peft_model_state_dict(model, load_file(adapter))
    return model.merge_and_unload(safe_merge=True)
