"""A model that only answers gives the same answers once what is constant in it is folded."""

from __future__ import annotations

from pathlib import Path

import torch
from timm.layers import BatchNormAct2d
from torch import nn

from skinclip.core.assessment import Context
from skinclip.core.config import ModelConfig
from skinclip.model.folding import fold_constants
from skinclip.model.skinclip_vl import SkinClipVL, new_model


def answered(model: SkinClipVL, photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        seen = model.perceive(photos)
        evidence = model.find_evidence(seen)
        prompts = model.reasoner.writer.write([Context(60, "male", "back")] * len(photos))
        return model.reason(prompts, seen, evidence).logits, evidence.scores


def learnt(model: SkinClipVL) -> SkinClipVL:
    """The model with batch norms and LoRA that do something."""
    torch.manual_seed(11)
    for module in model.perception.tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    for name, parameter in model.reasoner.language_model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return model.eval()


def test_folding_changes_no_answer(tiny_config: ModelConfig, tmp_path: Path) -> None:
    model = learnt(new_model(tiny_config, tmp_path))
    photos = torch.rand(2, 3, tiny_config.photo_side, tiny_config.photo_side)
    before = answered(model, photos)
    norms = sum(isinstance(m, BatchNormAct2d) for m in model.perception.tower.modules())
    fold_constants(model)
    assert norms and not any(isinstance(m, BatchNormAct2d) for m in model.perception.tower.modules())
    for old, new in zip(before, answered(model, photos), strict=True):
        torch.testing.assert_close(new, old, atol=2e-4, rtol=1e-4)


def test_what_is_left_apart_still_decides(tiny_config: ModelConfig, tmp_path: Path) -> None:
    model = learnt(new_model(tiny_config, tmp_path))
    photos = torch.rand(1, 3, tiny_config.photo_side, tiny_config.photo_side)
    with_lora = answered(model, photos)[0]
    with model.reasoner.unadapted():
        without = answered(model, photos)[0]
    assert not torch.allclose(with_lora, without, atol=1e-4)  # else the test above would show nothing
    fold_constants(model)
    with model.reasoner.unadapted():
        torch.testing.assert_close(answered(model, photos)[0], without, atol=2e-4, rtol=1e-4)
