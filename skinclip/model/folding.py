"""Folds what need not be computed for every photo: batch norms into convolutions, LoRA into what it adapts.

A model that only answers gives the same answers up to rounding, about a quarter sooner. It can neither be trained nor
saved afterwards: do this to a model that was just loaded to answer.
"""

from __future__ import annotations

from itertools import pairwise

from timm.layers import BatchNormAct2d
from timm.models.efficientnet import EfficientNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from skinclip.model.skinclip_vl import SkinClipVL


def fold_constants(model: SkinClipVL) -> None:
    """Folds what is constant in a model in eval mode, in place; of a model on published weights, nothing.

    A language model that several adapters share keeps LoRA apart.
    """
    for module in model.perception.modules():
        if isinstance(module, EfficientNet):
            fold_batch_norms(module)
    if model.config.reasoner.base is None and model.reasoner.adapted:
        model.reasoner.language_model.merge_adapter()


def fold_batch_norms(trunk: EfficientNet) -> None:
    """Folds each batch norm of a trunk into the convolution before it; the activation behind it stays.

    In timm's EfficientNet a batch norm is the module after its convolution, in the order of definition as in that of
    use.
    """
    for block in list(trunk.modules()):
        children = list(block.named_children())
        for (name, conv), (next_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                setattr(block, name, fuse_conv_bn_eval(conv, norm).requires_grad_(False))
                setattr(block, next_name, nn.Sequential(norm.drop, norm.act))
