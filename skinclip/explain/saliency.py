"""Saliency of a diagnosis logit: which places of a photo a network's answer hangs on; by captum where it can.

    grad_cam              Grad-CAM (Selvaraju et al. 2017), captum's LayerGradCam
    layer_cam             LayerCAM (Jiang et al. 2021): each place weighted by its own gradient, not by the mean
    integrated_gradients  Sundararajan et al. 2017, from a blurred photo
    occlusion             Zeiler & Fergus 2014: the drop of the logit when a square is blurred

All take a `Network`, so that the model's own diagnosis and the plain classifier's are explained by the same code, and
give maps [h, w] on the model's window, signed, higher is more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from torch import Tensor, nn

from skinclip.language.prompt import Prompts
from skinclip.model.inference import seen_behind
from skinclip.model.looks import LookBehind
from skinclip.model.perception import MIRRORS, VisualTokens
from skinclip.model.plain import PlainClassifier
from skinclip.model.skinclip_vl import SkinClipVL

BLUR = 12.0  # pixels of a 160 px window: what is blurred so keeps its colour and loses its structures
STEPS = 16  # points of the path of integrated gradients
SQUARE, STRIDE = 0.25, 0.125  # side of an occluding square and how far it moves, as shares of the window


class ModelPath(nn.Module):
    """Photo -> logits [B, C] on the CPU, with gradients, for attribution only; the model's own weights, none added.

    Of a model that looks twice the photo is the second look's window; the first look, `behind`, changes with it.
    """

    def __init__(self, model: SkinClipVL, behind: LookBehind | None = None) -> None:
        super().__init__()
        self.model = model
        self.behind = behind

    def seen(self, photos: Tensor, own_too: bool = True) -> VisualTokens:
        """Features of photos [B, 3, side, side], in all looks that the model takes."""
        if self.behind is None:
            return self.model.perceive_with_gradients(photos, own_too=own_too)
        return seen_behind(self.model, photos, self.behind)


class DiagnosisPath(ModelPath):
    """Photo -> diagnosis logits."""

    def __init__(self, model: SkinClipVL, prompts: Prompts, behind: LookBehind | None = None) -> None:
        super().__init__(model, behind)
        self.prompts = prompts

    def forward(self, photos: Tensor) -> Tensor:
        """[B, 3, side, side] -> [B, C] on the CPU; all photos with the same patient context."""
        tokens = self.seen(photos)
        prompts = self.prompts.repeated(len(photos))
        with self.model.reasoner.recomputing():
            logits = self.model.reason(prompts, tokens, self.model.find_evidence(tokens)).logits
        return logits.cpu()


class CriterionPath(ModelPath):
    """Photo -> log-odds [B, 1] that a criterion is there, in whichever of its states; without the reasoner."""

    def __init__(self, model: SkinClipVL, states: Sequence[int]) -> None:
        """
        Args:
            states: numbers of the criterion's states in `vocabulary.EVIDENCE_STATES`, read in the last look alone.
        """
        super().__init__(model)
        self.states = list(states)

    def forward(self, photos: Tensor) -> Tensor:
        """[B, 3, side, side] -> [B, 1] on the CPU; "absent" has the fixed logit 0 (`model.criteria`)."""
        seen = self.model.perceive_with_gradients(photos, own_too=False)
        evidence = self.model.evidence.find(seen, self.model.state_embeddings)
        return evidence.scores[:, self.states].logsumexp(-1, keepdim=True).cpu()


class TokenStages(nn.Module):
    """Photo -> logits as `path`, for a tower whose blocks give tokens: patches pass as maps [B, D, h, w] on their way.

    Class activation maps need a module whose output has its channels second; of tokens they would sum over places.

    Attributes:
        maps: a module that changes nothing for each of the tower's levels, fine to coarse; then those of the other
            members of an ensemble; see `network`.
    """

    def __init__(self, path: ModelPath) -> None:
        super().__init__()
        self.path = path
        stages = path.model.perception.looking().attribution_stages()
        self.blocks = [*stages.modules, *(block for others in stages.beside for block in others)]
        self.maps = nn.ModuleList(nn.Identity() for _ in self.blocks)

    def network(self) -> Network:
        """This path with its maps as stages, those of an ensemble's other members beside those of the first."""
        stages = self.path.model.perception.looking().attribution_stages()
        own, others, m = list(self.maps), len(stages.modules), len(stages.beside[0]) if stages.beside else 0
        beside = [tuple(own[others + i * m : others + (i + 1) * m]) for i in range(len(stages.beside))]
        return Network(self, own[:others], beside)

    def forward(self, photos: Tensor) -> Tensor:
        hooks = [
            block.register_forward_hook(partial(self._as_maps, maps))
            for block, maps in zip(self.blocks, self.maps, strict=True)
        ]
        try:
            return self.path(photos)
        finally:
            for hook in hooks:
                hook.remove()

    def _as_maps(self, maps: nn.Module, block: nn.Module, args: Any, tokens: Tensor) -> Tensor:
        h, w = self.path.model.perception.grid
        first = tokens.shape[1] - h * w  # the class token
        patches = maps(tokens[:, first:].transpose(1, 2).unflatten(2, (h, w)))
        return torch.cat([tokens[:, :first], patches.flatten(2).transpose(1, 2)], 1)


@dataclass(frozen=True)
class Network:
    """The network to explain: photos [B, 3, side, side] in 0..1 -> logits [B, C], and where its maps come from.

    Attributes:
        stages: modules that give maps [B, D, h, w], fine to coarse.
        beside: for each of them the same modules of an ensemble's other members; empty for a single network.
    """

    logits: nn.Module
    stages: Sequence[nn.Module]
    beside: Sequence[tuple[nn.Module, ...]] = ()

    def at(self, stage: int) -> list[nn.Module]:
        """The modules of a stage, one a member."""
        return [self.stages[stage], *(self.beside[stage] if self.beside else ())]


@dataclass(frozen=True)
class Cam:
    """Settings of a class activation map; `eval_study.explanations.tuning` compares the choices.

    Attributes:
        stage: which of the network's stages, -1 the last.
        relu: only what speaks for the diagnosis.
        mirrors: averaged over the photo and its mirror images, as the model's answer is.
    """

    stage: int = -1
    relu: bool = True
    mirrors: bool = False


def own_network(path: ModelPath) -> Network:
    """The model's own answer. Raises NotImplementedError for a tower of a kind whose maps are not known here."""
    stages = path.model.perception.looking().attribution_stages()
    if not stages.tokens:
        return Network(path, stages.modules, stages.beside)
    return TokenStages(path).network()


def plain_network(model: PlainClassifier) -> Network:
    """The plain fine-tuned classifier."""
    return Network(model, list(model.trunk.blocks))


def grad_cam(network: Network, photo: Tensor, target: int, cam: Cam) -> np.ndarray:
    """[h, w] of the stage. `photo` is [1, 3, side, side].

    Of an ensemble it is the sum over its members: the map of their channels side by side, all of which feed the logit.
    """
    methods = [LayerGradCam(network.logits, module) for module in network.at(cam.stage)]

    def one(x: Tensor) -> Tensor:
        heat = torch.stack([method.attribute(x, target=target)[:, 0].detach() for method in methods]).sum(0)
        return heat.relu() if cam.relu else heat

    return _over_mirrors(photo, cam, one)


def layer_cam(network: Network, photo: Tensor, target: int, cam: Cam) -> np.ndarray:
    """[h, w] of the stage, summed over the members of an ensemble. captum has no LayerCAM."""
    return _over_mirrors(photo, cam, lambda x: _layer_cam(network, x, target, cam))


def integrated_gradients(network: Network, photo: Tensor, target: int) -> np.ndarray:
    """[side, side]: attributions summed over the colour channels."""
    with torch.enable_grad():
        attribution = IntegratedGradients(network.logits).attribute(
            photo.clone().requires_grad_(True), blurred(photo), target=target, n_steps=STEPS, internal_batch_size=8
        )
    return attribution.detach().sum(1)[0].cpu().numpy()


@torch.no_grad()
def occlusion(network: Network, photo: Tensor, target: int) -> np.ndarray:
    """[side, side]: mean drop of the logit over the squares that cover a pixel."""
    side = photo.shape[-1]
    square, stride = round(SQUARE * side), round(STRIDE * side)
    attribution = Occlusion(network.logits).attribute(
        photo,
        sliding_window_shapes=(3, square, square),
        strides=(3, stride, stride),
        baselines=blurred(photo),
        target=target,
        perturbations_per_eval=8,
    )
    return attribution.mean(1)[0].numpy()


def blurred(photos: Tensor, sigma: float | None = None) -> Tensor:
    """Photos [B, 3, side, side] without their structures: a Gaussian blur whose width goes with the window."""
    sigma = sigma or BLUR * photos.shape[-1] / 160
    radius = int(3 * sigma)
    x = torch.arange(-radius, radius + 1, dtype=photos.dtype)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    rows = F.conv2d(F.pad(photos, (radius, radius, 0, 0), "replicate"), kernel.unsqueeze(2), groups=3)
    return F.conv2d(F.pad(rows, (0, 0, radius, radius), "replicate"), kernel.unsqueeze(3), groups=3)


def _over_mirrors(photo: Tensor, cam: Cam, one: Callable[[Tensor], Tensor]) -> np.ndarray:
    with torch.enable_grad():
        maps = [
            one(photo.flip(axes).clone().requires_grad_(True)).flip([a - 1 for a in axes])
            for axes in (MIRRORS if cam.mirrors else MIRRORS[:1])
        ]
    return torch.stack(maps).mean(0)[0].cpu().numpy()


def _layer_cam(network: Network, photo: Tensor, target: int, cam: Cam) -> Tensor:
    kept: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda module, args, output: kept.append(output)) for m in network.at(cam.stage)]
    try:
        logit = network.logits(photo)[0, target]
    finally:
        for hook in hooks:
            hook.remove()
    gradients = torch.autograd.grad(logit, kept)
    heat = torch.stack([(g.relu() * k).sum(1).detach() for g, k in zip(gradients, kept, strict=True)]).sum(0)
    return heat.relu() if cam.relu else heat  # [1, h, w]
