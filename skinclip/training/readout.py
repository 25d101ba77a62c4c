"""Fits the linear readout that the answer starts from: multinomial logistic regression on the kept views.

A linear layer with a strong penalty takes more out of the frozen tower than the language part learns to: the tower
knows nine in ten of the training lesions by heart, and whatever is trained on its outputs without such a bound learns
to rely on that. Photos are weighed as stage 2 draws them, those with labelled criteria like all others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skinclip.core.config import Stage2Config
from skinclip.model.reasoner import Readout
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.sampling import draw_weights, source_priors

# lengths at which the penalty sees the unit-length embedding, and one standardised value of the style
EMBEDDING_SCALE, STYLE_SCALE = 5.0, 0.3
ITERATIONS = 60


def fit_readout(
    readout: Readout, train: PhotoSet, embedding: Tensor, style: Tensor, cfg: Stage2Config, by_source: bool
) -> None:
    """Fits `readout` in place, to V views of each of n photos.

    Args:
        embedding: [n * V, E] unit length, the views of a photo in a row.
        style: [n * V, S].
        by_source: as in `LossConfig`: adjust by the prior of each photo's source and kind.
    """
    columns = readout.columns.cpu()
    known = torch.isin(train.diagnosis, columns)
    drawn = draw_weights(train.diagnosis, cfg.draw_power)
    drawn[train.unseen] *= cfg.held_out_repeat
    sources = train.sources if by_source else ["all"] * len(train.cases)
    log_prior = source_priors(train.diagnosis, drawn, sources).log()[known]
    labels, weight = train.diagnosis[known], (drawn[known] / drawn[known].mean()).float()
    labels = (labels.unsqueeze(1) == columns).long().argmax(1)  # their numbers among those that are read
    views = len(embedding) // len(train.cases)
    chosen = known.repeat_interleave(views)
    mean, spread = style.mean(0), style.std(0).clamp_min(1e-6)
    inputs = torch.cat([embedding * EMBEDDING_SCALE, (style - mean) / spread * STYLE_SCALE], 1)[chosen]
    targets, log_prior, weight = (
        values.repeat_interleave(views, 0) for values in (labels, log_prior[:, columns], weight)
    )
    matrix, bias = _regression(inputs, targets, log_prior, weight, cfg.readout_decay)
    matrix = matrix / torch.cat([matrix.new_full((embedding.shape[1],), 1 / EMBEDDING_SCALE), spread / STYLE_SCALE])
    with torch.no_grad():
        readout.linear.weight.copy_(matrix)
        readout.linear.bias.copy_(bias - matrix[:, embedding.shape[1] :] @ mean)


def _regression(
    inputs: Tensor, targets: Tensor, log_prior: Tensor, weight: Tensor, decay: float
) -> tuple[Tensor, Tensor]:
    """Weights [C, D] and bias [C] of the penalised, logit-adjusted regression of `targets` [m] on `inputs` [m, D]."""
    classes = log_prior.shape[1]
    matrix = torch.zeros(classes, inputs.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([matrix, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = F.cross_entropy(F.linear(inputs, matrix, bias) + log_prior, targets, reduction="none")
        total = (entropy * weight).mean() + decay * (matrix**2).sum()
        total.backward()
        return total

    optimizer.step(loss)
    return matrix.detach(), bias.detach()
