"""Where tensors lie when the model is on a GPU: checked without one, by tensors that have a device and no data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from skinclip.core.assessment import Context
from skinclip.language.prompt import Prompts
from skinclip.model.perception import Perception
from skinclip.model.skinclip_vl import SkinClipVL, assemble
from skinclip.model.tokenizer import load_tokenizer
from tests.helpers.tiny_hub import OWN_SIDE, tiny_base, tiny_clip, tiny_preset


def on_a_gpu(model: SkinClipVL) -> SkinClipVL:
    """`model` with all parameters and buffers replaced by ones on a GPU that hold nothing; needs a FakeTensorMode."""

    def moved(value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(moved(parameter), requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = moved(buffer)
    return model


def test_the_steps_take_tensors_from_anywhere_and_answer_on_the_model(tmp_path: Path, monkeypatch) -> None:
    base = tiny_base(tmp_path / "base")
    config = tiny_preset(base, tiny_clip(tmp_path / "clip"))
    model = assemble(config, Perception(config.perception).freeze(), base, load_tokenizer(base)).eval()
    reasoner = model.reasoner
    written = reasoner.writer.write([Context(), Context(50)])
    # what looks into its tensors' values cannot be run without any
    tokens, hidden = (OWN_SIDE // 28) ** 2, reasoner.base.config.text_config.hidden_size
    monkeypatch.setattr(reasoner, "own_tokens", lambda photos: photos.new_empty(len(photos), tokens, hidden))
    monkeypatch.setattr(
        reasoner.base.model,
        "compute_3d_position_ids",
        lambda input_ids, **_: torch.zeros(3, *input_ids.shape, dtype=torch.long, device=input_ids.device),
    )
    monkeypatch.setattr(reasoner, "spell", lambda *_: None)
    monkeypatch.setattr(reasoner, "language_loss", lambda *_: None)
    with FakeTensorMode(), torch.no_grad():
        on_a_gpu(model)
        prompts = Prompts(*(torch.empty(v.shape, dtype=v.dtype) for v in vars(written).values()))
        seen = model.perceive(torch.rand(2, 3, OWN_SIDE, OWN_SIDE))
        evidence = model.find_evidence(seen.to("cpu"))
        logits = model.reason(prompts, seen.to("cpu"), evidence.to("cpu")).logits
        assert {t.device.type for t in (seen.tokens, seen.own, evidence.scores, logits)} == {"cuda"}
        with pytest.raises(RuntimeError, match="[Dd]evice"):  # the check can fail: moved by nobody, devices differ
            reasoner(prompts, seen.to("cpu"), evidence, model.descriptions)
