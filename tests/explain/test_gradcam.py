from __future__ import annotations

import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam

from skinclip.assessment import Context
from skinclip.explain.gradcam import DiagnosisPath, target_layer


def test_equals_a_hand_made_reference_and_is_not_zero(tiny_model) -> None:
    """Grad-CAM by its definition: ReLU of the maps weighted by the mean gradient of the logit."""
    torch.manual_seed(5)
    photo = torch.rand(1, 3, 160, 160, requires_grad=True)
    path = DiagnosisPath(tiny_model, tiny_model.reasoner.writer.write([Context()]))
    kept = {}
    layer = target_layer(tiny_model)
    hook = layer.register_forward_hook(lambda module, args, output: kept.update(maps=output))
    logits = path(photo)
    hook.remove()
    nonzero = 0
    for target in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[0, target], kept["maps"], retain_graph=True)
        weights = gradient.mean((2, 3), keepdim=True)
        expected = F.relu((weights * kept["maps"]).sum(1, keepdim=True))
        given = LayerGradCam(path, layer).attribute(photo, target=target, relu_attributions=True)
        torch.testing.assert_close(given, expected, atol=1e-6, rtol=1e-3)
        nonzero += int(given.abs().max() > 0)
    assert nonzero > 0
