"""Fits the linear readouts of diagnosis and criteria: penalised multinomial regressions on the kept views.

A linear layer with a strong penalty takes more out of the frozen tower than the language part learns to: the tower
knows nine in ten of the training lesions by heart, and whatever is trained on its outputs without such a bound learns
to rely on that. Photos are weighed as stage 2 draws them, those with labelled criteria like all others.

What a patient's context says beside the photo is fitted after that, with the photo's part held, and on lesions that
the tower never saw: of the others the photo says all. The states of the criteria are read of the style and the scores
of their maps, from photos whose criteria are labelled for sure; where a criterion is seen, the maps alone say.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.core.config import Stage2Config, TrainConfig
from skinclip.core.patient_context import context_numbers
from skinclip.data.cases import DataError
from skinclip.model.criteria import STATE_COUNTS
from skinclip.model.reasoner import Readout
from skinclip.training.losses import MISSING
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.sampling import draw_weights, source_priors
from skinclip.training.views import ViewStore

# lengths at which the penalty sees the unit-length embedding, and one standardised value of the style
EMBEDDING_SCALE, STYLE_SCALE = 5.0, 0.3
ITERATIONS = 60


class ReadoutFit:
    """The labelled views that a readout is fitted to.

    Attributes:
        rows: [m] numbers of the views that are labelled with a diagnosis that the readout knows.
        photo: [m] number of each one's photo.
        targets: [m] number of its diagnosis among those of the readout.
        drawn: [n] chance of each photo to be drawn.
    """

    def __init__(self, readout: Readout, train: PhotoSet, cfg: Stage2Config, views: int, by_source: bool) -> None:
        self.train = train
        self.columns = readout.columns.cpu()
        known = torch.isin(train.diagnosis, self.columns).repeat_interleave(views)
        self.rows = known.nonzero()[:, 0]
        self.photo = self.rows // views
        self.targets = (train.diagnosis[self.photo].unsqueeze(1) == self.columns).long().argmax(1)
        self.drawn = draw_weights(train.diagnosis, cfg.draw_power)
        self.drawn[train.unseen] *= cfg.held_out_repeat
        self.sources = train.sources if by_source else ["all"] * len(train.cases)

    def fitted(self, inputs: Tensor, start: Tensor, decay: float, with_bias: bool, chosen: Tensor) -> nn.Linear:
        """A penalised, logit-adjusted regression of the diagnoses on `inputs` [m, D], beside logits `start` [m, C].

        Args:
            decay: penalty on the squared weights.
            chosen: [m] bool, the views that it learns from.
        """
        photo, targets = self.photo[chosen], self.targets[chosen]
        there = torch.zeros(len(self.drawn), dtype=torch.bool).index_fill(0, photo, True)
        drawn = torch.where(there, self.drawn, 0)
        log_prior = source_priors(self.train.diagnosis, drawn, self.sources)[:, self.columns].log()[photo]
        weight = (drawn[photo] / drawn[photo].mean()).float()
        inputs, start = inputs[chosen], start[chosen] + log_prior

        def loss(outputs: Tensor) -> Tensor:
            return (F.cross_entropy(outputs + start, targets, reduction="none") * weight).mean()

        return penalised(nn.Linear(inputs.shape[1], len(self.columns), bias=with_bias), inputs, loss, decay)


def penalised(layer: nn.Linear, inputs: Tensor, loss: Callable[[Tensor], Tensor], decay: float) -> nn.Linear:
    """`layer` with the weights of the least `loss` of its outputs for `inputs` [m, D], and frozen.

    Args:
        decay: penalty on the squared weights.
    """
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def total() -> Tensor:
        optimizer.zero_grad()
        value = loss(layer(inputs)) + decay * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(total)
    return layer.requires_grad_(False)


def learn_readout(readout: Readout, recipe: TrainConfig, train: PhotoSet, store: ViewStore | None) -> None:
    """Fits `readout` in place to the views that are kept. Raises DataError where none are."""
    if store is None:
        raise DataError("a linear readout is fitted on views that are kept: set cached_views in the recipe's stage2")
    embedding, style = store.parts["embedding"], store.parts["style"]
    fit_readout(readout, train, embedding, style, recipe.stage2, recipe.loss.by_source)
    if "scores" in store.parts:
        fit_criteria_readout(readout, train, style, store.parts["scores"], recipe.stage2)
    else:
        pass_scores_on(readout)


@torch.no_grad()
def fit_readout(
    readout: Readout, train: PhotoSet, embedding: Tensor, style: Tensor, cfg: Stage2Config, by_source: bool
) -> None:
    """Fits `readout` in place, to V views of each of n photos.

    Args:
        embedding: [n * V, E] unit length, the views of a photo in a row.
        style: [n * V, S].
        by_source: as in `LossConfig`: adjust by the prior of each photo's source and kind.
    """
    fit = ReadoutFit(readout, train, cfg, len(embedding) // len(train.cases), by_source)
    embedding, style, unseen = embedding[fit.rows], style[fit.rows], train.unseen[fit.photo]
    mean, spread = style.mean(0), style.std(0).clamp_min(1e-6)
    inputs = torch.cat([embedding * EMBEDDING_SCALE, (style - mean) / spread * STYLE_SCALE], 1)
    nothing = inputs.new_zeros(len(inputs), len(fit.columns))
    everything = torch.ones(len(inputs), dtype=torch.bool)
    with torch.enable_grad():
        photo = fit.fitted(inputs, nothing, cfg.readout_decay, with_bias=True, chosen=everything)
    unit = torch.cat([embedding.new_full((embedding.shape[1],), 1 / EMBEDDING_SCALE), spread / STYLE_SCALE])
    readout.photo.weight.copy_(photo.weight / unit)
    readout.photo.bias.copy_(photo.bias - readout.photo.weight.cpu()[:, embedding.shape[1] :] @ mean)
    nn.init.zeros_(readout.context.weight)
    if unseen.any():
        patient = torch.tensor([context_numbers(train.cases[i].context) for i in fit.photo.tolist()])
        with torch.enable_grad():
            context = fit.fitted(patient, photo(inputs), cfg.context_decay, with_bias=False, chosen=unseen)
        readout.context.weight.copy_(context.weight)


@torch.no_grad()
def fit_criteria_readout(readout: Readout, train: PhotoSet, style: Tensor, scores: Tensor, cfg: Stage2Config) -> None:
    """Fits the readout of criteria in place; of a criterion that is not labelled the scores are passed on as they are.

    Args:
        style: [n * V, S], the views of a photo in a row.
        scores: [n * V, K] of their maps.
    """
    pass_scores_on(readout)
    views = len(style) // len(train.cases)
    known = train.criteria != MISSING
    rows = known.any(1).repeat_interleave(views).nonzero()[:, 0]
    if not len(rows):
        return
    mean, spread = style.mean(0), style.std(0).clamp_min(1e-6)
    inputs = torch.cat([(style[rows] - mean) / spread * STYLE_SCALE, scores[rows]], 1)
    labels = train.criteria[rows // views]
    with torch.enable_grad():
        layer = _fitted_criteria(inputs, labels, readout.criteria.out_features, cfg.criteria_decay)
    unit = torch.cat([spread / STYLE_SCALE, spread.new_ones(scores.shape[1])])
    weight = layer.weight / unit
    learnt = known.any(0).repeat_interleave(torch.tensor(STATE_COUNTS))
    readout.criteria.weight[learnt] = weight[learnt].to(readout.criteria.weight)
    readout.criteria.bias[learnt] = (layer.bias - weight[:, : style.shape[1]] @ mean)[learnt].to(readout.criteria.bias)


def _fitted_criteria(inputs: Tensor, labels: Tensor, states: int, decay: float) -> nn.Linear:
    """The layer whose outputs are logits of each criterion's states beside 0 for "absent", at the least penalised loss.

    Args:
        labels: [m, Q], MISSING where not labelled.
    """

    def loss(outputs: Tensor) -> Tensor:
        total = outputs.new_zeros(())
        for q, own in enumerate(outputs.split(STATE_COUNTS, dim=1)):
            logits = torch.cat([own.new_zeros(len(own), 1), own], 1)
            kept = labels[:, q] != MISSING
            if kept.any():
                total = total + F.cross_entropy(logits[kept], labels[kept, q])
        return total

    return penalised(nn.Linear(inputs.shape[1], states), inputs, loss, decay)


@torch.no_grad()
def pass_scores_on(readout: Readout) -> None:
    """Makes the readout of criteria give the scores as they are."""
    states = readout.criteria.out_features
    nn.init.zeros_(readout.criteria.weight)
    nn.init.zeros_(readout.criteria.bias)
    readout.criteria.weight[:, -states:].copy_(torch.eye(states))
