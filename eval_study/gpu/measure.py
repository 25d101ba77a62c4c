"""Figures of a derm-CLIP on the packed valid splits: diagnosis by source and kind of photo, lesion mask, regions.

These follow a training; what a release reports is measured by `skinclip evaluate` and `eval_study`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from eval_study.gpu.derm_clip import STATES_OF_ATTRIBUTE, GpuDermClip, by_criterion, pool
from eval_study.gpu.pack import TASK2_ATTRIBUTES
from eval_study.gpu.photos import MISSING, Photos, grid, lesion_window, mask_boxes, sample, shrunk, whole_window
from eval_study.gpu.texts import TextPool
from eval_study.gpu.vocabulary import ALL_CRITERIA, ALL_DIAGNOSES, CODES
from skinclip.model.evidence import symmetric_orthogonalize
from skinclip.training.epochs import mean_recall

THRESHOLDS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5)  # of the logits, tried for the best Jaccard index
MALIGNANT = [i for i, d in enumerate(ALL_DIAGNOSES) if d.malignant]


@torch.no_grad()
def look(
    model: GpuDermClip, photos: Photos, index: Tensor, window: Tensor, side: int, mirrors: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """(embedding, features, grid) of a window of each photo, averaged with its mirror image where `mirrors`."""
    where = grid(photos, index, window, side, turn=False)
    view = sample(photos.pixels[index], where)
    with torch.autocast(view.device.type, dtype=torch.bfloat16, enabled=view.is_cuda):
        e1, f1 = model(view)
        if not mirrors:
            return e1, f1.float(), where
        e2, f2 = model(view.flip(3))
    return F.normalize(e1 + e2, dim=-1), (f1.float() + f2.flip(3).float()) / 2, where


@torch.no_grad()
def answers(
    model: GpuDermClip,
    photos: Photos,
    texts: TextPool,
    index: Tensor,
    side: int,
    batch: int = 128,
    mirrors: bool = True,
) -> dict:
    """The answer of both looks at the photos `index`: embeddings, class logits, state scores, masks."""
    described = model.embed_texts(texts.answer())
    n = len(CODES) * texts.fixed.shape[1]
    scale = model.tower.similarity_scale()
    directions = symmetric_orthogonalize(described[n:])
    rows: dict[str, list[Tensor]] = {k: [] for k in ("first", "second", "scores", "lesion_iou")}
    for part in index.split(batch):
        window = whole_window(photos, part)
        e1, features, where = look(model, photos, part, window, side, mirrors)
        mask = model.mask(features)
        small = shrunk(sample(photos.lesion[part].unsqueeze(1), where), mask)[:, 0] > 0.5
        on = mask > 0
        iou = (on & small).sum((1, 2)) / (on | small).sum((1, 2)).clamp_min(1)
        close = lesion_window(photos, part, mask_boxes(mask, window))
        e2, near, _ = look(model, photos, part, close, side, mirrors)
        scores = pool(model.maps(near, directions), model.mask(near).sigmoid())
        for key, value in (("first", e1), ("second", e2), ("scores", scores), ("lesion_iou", iou)):
            rows[key].append(value)
    out: dict[str, Any] = {k: torch.cat(v) for k, v in rows.items()}
    out["logits"] = {
        k: TextPool.by_class(v @ described[:n].T * scale)
        for k, v in (("first", out["first"]), ("second", out["second"]))
    }
    both = F.normalize(out["first"] + out["second"], dim=-1)
    out["logits"]["both"] = TextPool.by_class(both @ described[:n].T * scale)
    out["described"], out["scale"] = described[:n], scale
    return out


def figures(logits: Tensor, labels: Tensor, classes: list[int]) -> dict[str, float]:
    """Balanced accuracy at equal priors, macro AUROC, melanoma sensitivity at 90 % specificity, malignant AUROC."""
    known = (labels != MISSING) & torch.isin(labels, torch.tensor(classes, device=labels.device))
    y = labels[known].cpu().numpy()
    p = logits[known][:, classes].softmax(1).double().cpu().numpy()
    mal_all = logits[known].softmax(1)[:, MALIGNANT].sum(1).cpu().numpy()
    there = [c for c in classes if (y == c).any() and (y != c).any()]
    if len(there) < 2:
        return {}
    out = {"n": int(known.sum()), "balanced_accuracy": mean_recall(y, np.array(classes)[p.argmax(1)])}
    out["auroc"] = float(np.mean([roc_auc_score(y == c, p[:, classes.index(c)]) for c in there]))
    mel = CODES.index("mel")
    if mel in there:
        fpr, tpr, _ = roc_curve(y == mel, p[:, classes.index(mel)])
        out["melanoma_sensitivity_at_90"] = float(tpr[fpr <= 0.1].max())
        out["melanoma_auroc"] = roc_auc_score(y == mel, p[:, classes.index(mel)])
    malignant = np.isin(y, MALIGNANT)
    if malignant.any() and (~malignant).any():
        out["malignant_auroc"] = roc_auc_score(malignant, mal_all)
    return {k: round(float(v), 4) for k, v in out.items()}


@torch.no_grad()
def evaluate(model: GpuDermClip, photos: Photos, texts: TextPool, side: int) -> dict:
    """All figures, by source and kind of photo."""
    seven = list(range(7))
    out: dict[str, dict] = {}
    for group in photos.groups:
        index = photos.of("valid", group)
        if not len(index):
            continue
        got, labels = answers(model, photos, texts, index, side), photos.diagnosis[index]
        nine = list(range(len(CODES))) if group.startswith("milk10k") else seven
        if group.startswith("isic2017"):
            nine = [CODES.index(c) for c in ("mel", "nv", "bkl")]
        for name in ("first", "second", "both"):
            out[f"{group}/{name}"] = figures(got["logits"][name], labels, nine)
        if photos.has_lesion[index].any():
            out[f"{group}/both"]["lesion_iou"] = round(got["lesion_iou"][photos.has_lesion[index]].mean().item(), 4)
        if (photos.weight[index] > 0).any():
            out[f"{group}/criteria"] = criteria_figures(got["scores"], photos, index)
        if group == "milk10k/dermoscopy":
            out["milk10k/pairs"] = pairs(model, photos, texts, index, got, side)
    out["regions"] = regions(model, photos, texts, side)
    return out


def pairs(
    model: GpuDermClip, photos: Photos, texts: TextPool, index: Tensor, derm: dict, side: int
) -> dict[str, float]:
    """Both photos of a lesion: the sum of their embeddings."""
    other = answers(model, photos, texts, photos.partner[index], side)
    total = F.normalize(derm["first"] + derm["second"] + other["first"] + other["second"], dim=-1)
    logits = TextPool.by_class(total @ derm["described"].T * derm["scale"])
    return figures(logits, photos.diagnosis[index], list(range(len(CODES))))


def criteria_figures(scores: Tensor, photos: Photos, index: Tensor) -> dict[str, float]:
    """AUROC of presence, and accuracy of the state, of each criterion with sure labels."""
    logits = by_criterion(scores)
    out = {}
    for q, criterion in enumerate(ALL_CRITERIA):
        allowed, sure = photos.allowed[index, q], photos.weight[index, q] > 0
        present = ~allowed[sure, 0]
        if not len(present) or present.all() or not present.any():
            continue
        p = 1 - logits[sure, q].softmax(-1)[:, 0]
        out[f"{criterion.code}/auroc"] = roc_auc_score(present.cpu(), p.cpu())
        exact = sure & (allowed.sum(1) == 1)
        if exact.sum() > 50:
            right = logits[exact, q].argmax(-1) == allowed[exact].float().argmax(-1)
            out[f"{criterion.code}/accuracy"] = right.float().mean().item()
    accuracies = [v for k, v in out.items() if k.endswith("/accuracy")]
    if accuracies:
        out["mean_accuracy"] = float(np.mean(accuracies))
    return {k: round(float(v), 4) for k, v in out.items()}


def _jaccard(predicted: Tensor, reference: Tensor) -> float:
    """Intersection over union of two bool tensors, all photos together."""
    return ((predicted & reference).sum() / (predicted | reference).sum().clamp_min(1)).item()


@torch.no_grad()
def regions(model: GpuDermClip, photos: Photos, texts: TextPool, side: int, batch: int = 64) -> dict[str, float]:
    """Drawn regions of Task 2 valid, second look: pixel AP inside the lesion, presence AUROC, pooled Jaccard (in the
    window) at the best of a few thresholds: to follow a training, not to report."""
    index = photos.of("valid", "isic2017/dermoscopy")
    index = index[photos.region_row[index] != MISSING]
    if not len(index):
        return {}
    described = model.embed_texts(texts.answer())
    directions = symmetric_orthogonalize(described[len(CODES) * texts.fixed.shape[1] :])
    z_all, t_all, inside_all = [], [], []
    for part in index.split(batch):
        window = whole_window(photos, part)
        _, features, _ = look(model, photos, part, window, side)
        close = lesion_window(photos, part, mask_boxes(model.mask(features), window))
        _, near, where = look(model, photos, part, close, side)
        maps = model.maps(near, directions)
        z_all.append(torch.stack([maps[:, own].logsumexp(1) for own in STATES_OF_ATTRIBUTE], 1))
        t_all.append(shrunk(sample(photos.regions[photos.region_row[part]], where), maps))
        lesion = sample(photos.lesion[part].unsqueeze(1), where)
        inside_all.append(shrunk(lesion, maps)[:, 0] > 0.5)
    z, t, inside = torch.cat(z_all), torch.cat(t_all) > 0.5, torch.cat(inside_all)
    out: dict[str, float] = {}
    for a, name in enumerate(TASK2_ATTRIBUTES):
        y, s = t[:, a][inside].cpu().numpy(), z[:, a][inside].cpu().numpy()
        out[f"{name}/chance"], out[f"{name}/ap"] = y.mean(), average_precision_score(y, s)
        out[f"{name}/jaccard_best"] = max(_jaccard(z[:, a] > threshold, t[:, a]) for threshold in THRESHOLDS)
        present = photos.regions[photos.region_row[index], a].flatten(1).amax(1) > 127
        out[f"{name}/presence_auroc"] = roc_auc_score(present.cpu(), z[:, a].flatten(1).topk(20).values.mean(1).cpu())
    for key in ("ap", "jaccard_best"):
        out[f"mean_{key}"] = float(np.mean([out[f"{n}/{key}"] for n in TASK2_ATTRIBUTES]))
    return {k: round(float(v), 4) for k, v in out.items()}
