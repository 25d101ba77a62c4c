"""The compact derm-CLIP that sees where: one tower, a decoder to fine maps, and the losses that teach both.

Notable:
- diagnoses are learnt as similarity with descriptions in new words at every step, with the prior of each source and
  kind of photo added to the logits, so that the tower need not learn where a photo comes from;
- a decoder over the tower's levels gives one feature map at a quarter of the photo's side; the lesion mask and the map
  of every criterion state are read from it, the latter as similarity with what sets a state's description apart;
- drawn regions teach the maps where they exist; a photo's labels teach, through the pooled map, elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval_study.gpu.pack import TASK2_ATTRIBUTES, TASK2_CRITERION
from eval_study.gpu.photos import MISSING, MOST_STATES
from eval_study.gpu.vocabulary import ALL_CRITERIA, STATES
from skinclip.core.config import EvidenceConfig, PerceptionConfig
from skinclip.model.evidence import log_mean_exp
from skinclip.model.pyramid import PyramidDecoder
from skinclip.model.towers import OpenClipTower

LEVELS = (1, 2, 3, 4)  # of the trunk's five maps, strides 4 to 32
MEAN, STD = 127 / 255, 128 / 255
TOWER = "clip."  # what the names of the tower's weights begin with in a run's file
EVIDENCE = EvidenceConfig(kind="pyramid")
# the numbers of the states of each criterion, and of the criterion of each drawn attribute
STATES_OF = [[k for k, s in enumerate(STATES) if s.criterion == c.code] for c in ALL_CRITERIA]
STATES_OF_ATTRIBUTE = [STATES_OF[[c.code for c in ALL_CRITERIA].index(TASK2_CRITERION[a])] for a in TASK2_ATTRIBUTES]


class GpuDermClip(nn.Module):
    """Tower, text tower, decoder, and the readouts of the decoder's map; one member of the product's ensemble.

    `eval_study.gpu.assemble` turns its weights into those of `EnsembleTower` and `PyramidEvidenceFinder`.
    """

    def __init__(self, name: str = "derm-clip-lite2") -> None:
        super().__init__()
        self.tower = OpenClipTower(PerceptionConfig(model=name, levels=LEVELS))
        with torch.no_grad():
            dry = self.tower.eval().features(torch.zeros(1, 3, 64, 64))
        self.tower.train()
        fine = EVIDENCE.fine_width
        self.decoder = PyramidDecoder([x.shape[1] for x in dry.levels], EVIDENCE.coarse_width, fine)
        self.to_mask = nn.Conv2d(fine, 1, 1)
        self.to_text = nn.Linear(fine, dry.embedding.shape[1])
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.bias = nn.Parameter(torch.full((len(STATES),), -2.5))

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, s, s] in 0..1 -> unit embedding [B, E], decoder features [B, fine, s/4, s/4]."""
        x = ((photos - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        features = self.tower.features(x)
        return F.normalize(features.embedding.float(), dim=-1), self.decoder(features.levels)

    def mask(self, features: Tensor) -> Tensor:
        """[B, h, w] logits of the lesion mask."""
        return self.to_mask(features)[:, 0].float()

    def maps(self, features: Tensor, directions: Tensor) -> Tensor:
        """[B, K, h, w] logits of the states, by their directions [K, E]."""
        patches = F.normalize(self.to_text(features.permute(0, 2, 3, 1)).float(), dim=-1)  # [B, h, w, E]
        similarity = (patches @ directions.T).permute(0, 3, 1, 2)
        return similarity * self.scale.exp() + self.bias.view(1, -1, 1, 1)

    def embed_texts(self, tokens: Tensor) -> Tensor:
        """Unit embeddings [n, E] of texts as tokens [n, L]."""
        return F.normalize(self.tower.embed_tokens(tokens).float(), dim=-1)

    def weights(self) -> dict[str, Tensor]:
        """All weights by the names under which a run's file keeps them: the tower's begin with `TOWER`."""
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("tower.")}
        return {TOWER + k: v for k, v in self.tower.weights().items()} | own

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `weights` gives. Raises RuntimeError where names or shapes differ."""
        inside = {k.removeprefix(TOWER): v for k, v in state.items() if k.startswith(TOWER)}
        self.tower.load_weights(inside)
        ours = {k: v for k, v in state.items() if not k.startswith(TOWER)}
        kept = {k: v for k, v in self.state_dict().items() if k.startswith("tower.")}
        self.load_state_dict(kept | ours)


def pool(maps: Tensor, lesion: Tensor) -> Tensor:
    """Log-mean-exp of maps [B, K, h, w] inside the lesion [B, h, w] -> [B, K]; everywhere for less than 1 % lesion."""
    large_enough = lesion.sum((1, 2), keepdim=True) >= 0.01 * lesion[0].numel()
    return log_mean_exp(maps, torch.where(large_enough, lesion, torch.ones_like(lesion)), EVIDENCE.sharpness)


def by_criterion(scores: Tensor) -> Tensor:
    """State scores [B, K] -> logits [B, Q, 3]: absent (0), then the states; -inf where a criterion has fewer."""
    rows = []
    for own in STATES_OF:
        absent = scores.new_zeros(len(scores), 1)
        rest = scores.new_full((len(scores), MOST_STATES - 1 - len(own)), float("-inf"))
        rows.append(torch.cat([absent, scores[:, own], rest], 1))
    return torch.stack(rows, 1)


def criterion_loss(scores: Tensor, allowed: Tensor, weight: Tensor) -> Tensor:
    """-log of the probability of the states that a label leaves possible, weighted.

    Args:
        scores: [B, K].
        allowed: bool [B, Q, 3].
        weight: [B, Q], 0 where nothing is known.
    """
    logits = by_criterion(scores)
    inside = logits.masked_fill(~allowed, float("-inf"))
    known = weight > 0
    if not known.any():
        return scores.sum() * 0
    nll = logits.logsumexp(-1)[known] - inside[known].logsumexp(-1)
    return (nll * weight[known]).sum() / weight.sum()


def contrast(by_class: Tensor, labels: Tensor, prior: Tensor, smoothing: float, mixed: tuple | None = None) -> Tensor:
    """Cross-entropy of similarity with descriptions under the prior of each photo's source.

    Args:
        by_class: [B, C] log-sum-exp of the scaled similarities with a class's descriptions.
        labels: [B], MISSING where not labelled.
        prior: [B, C] shares of the classes among the photos drawn from the same source.
        mixed: (other labels [B], share [B] of the first) of photos that may be mixed; a share of 1 is not mixed.
    """
    known = labels != MISSING
    if mixed is not None:
        known = known & ((mixed[0] != MISSING) | (mixed[1] == 1))
    if not known.any():
        return by_class.sum() * 0
    log_p = (by_class + prior.log()).log_softmax(-1)[known]
    target = F.one_hot(labels[known], by_class.shape[1]).float()
    if mixed is not None:
        share = mixed[1][known].unsqueeze(1)
        target = target * share + F.one_hot(mixed[0][known].clamp_min(0), by_class.shape[1]) * (1 - share)
    target = target * (1 - smoothing) + prior[known] * smoothing
    return -(target * log_p).sum(1).mean()


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice. [b, m, m] each."""
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum((1, 2)) + 1) / (p.sum((1, 2)) + target.sum((1, 2)) + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + dice.mean()


def region_loss(maps: Tensor, drawn: Tensor, lesion: Tensor) -> Tensor:
    """Maps against the regions that experts drew: weighted cross-entropy, and Dice over the whole batch.

    An unmarked place is weak evidence of absence: it counts half inside the lesion of a photo where the attribute was
    drawn, a quarter elsewhere.

    Args:
        maps: [b, K, h, w] of the photos whose regions were drawn.
        drawn: [b, 5, h, w] share of each cell that lies in the region.
        lesion: [b, h, w].
    """
    total = maps.new_zeros(())
    for a, own in enumerate(STATES_OF_ATTRIBUTE):
        z, t = maps[:, own].logsumexp(1), drawn[:, a]
        has = (t.flatten(1).amax(1) > 0.3).float().view(-1, 1, 1)
        weight = t + (1 - t) * (0.25 + 0.25 * has * (lesion > 0.5))
        bce = F.binary_cross_entropy_with_logits(z, t, reduction="none")
        total = total + (bce * weight).sum() / weight.sum()
        p = z.sigmoid() * has
        if has.any():
            total = total + 0.5 * (1 - (2 * (p * t).sum() + 1) / (p.sum() + (t * has).sum() + 1))
    return total / len(STATES_OF_ATTRIBUTE)
