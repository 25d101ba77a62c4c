"""Every method's map of the leading diagnosis: where it lies, and what the answer does when it is followed.

Where masks are given (HAM10000) the lesion is the reference one for the measures of place. Measures of the answer are
taken inside the predicted lesion, every method clipped to the same mask; the answer is the model's own calibrated
probability of its leading diagnosis, whatever network a map was made of.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from eval_study.benchmarks import figures
from eval_study.benchmarks.common import Bench, save_arrays
from skinclip import images, metrics
from skinclip.data.cases import Case
from skinclip.data.photos import read_mask
from skinclip.explain import faithfulness
from skinclip.explain.methods import GRID, METHODS, Subject, on_grid
from skinclip.images import from_array
from skinclip.scores import cluster

NAME = "maps"
SETS = (("ham10000", "test", 300), ("isic2017", "test", 100), ("pad_ufes", None, 100))
MEASURES = (
    "energy",
    "pointing",
    "iou",
    "energy_clipped",
    "deletion",
    "insertion",
    "drop",
    "random",
    "stable",
    "seconds",
)
TITLES = {
    "energy": "energy in the lesion",
    "pointing": "pointing game",
    "iou": "IoU at the best threshold",
    "deletion": "deletion AUC (less is better)",
    "insertion": "insertion AUC",
    "beats_random": "top 20 % of the lesion moves the answer more than random places",
    "stable": "rank correlation under small noise",
    "seconds": "seconds a photo",
}
TOP = 0.2  # of the lesion, the region that each method is asked for where all are compared
NOISE = 0.02  # standard deviation, of a photo in 0..1


def chosen(cases: list[Case], n: int, seed: int) -> list[Case]:
    """`n` cases, one a lesion, drawn by a seed."""
    rng = np.random.default_rng(seed)
    first: dict[str, Case] = {}
    for i in rng.permutation(len(cases)):
        first.setdefault(cluster(cases[i]), cases[i])
    return list(first.values())[:n]


def answer_of(subject: Subject) -> faithfulness.Answer:
    """Photos [B, 3, side, side] -> the calibrated probability of the diagnosis that is explained."""
    trust = subject.assessor.trust
    network = subject.network  # made here: one made in inference mode could not be attributed

    def answer(photos: Tensor) -> np.ndarray:
        with torch.inference_mode():
            logits = torch.cat([network.logits(part) for part in photos.split(16)])
        return trust.calibration.apply(logits.double().numpy())[:, subject.target]

    return answer


def with_noise(subject: Subject, seed: int) -> Subject:
    """The same photo under small noise, explained for the same diagnosis."""
    pixels = subject.image.pixels
    noise = np.random.default_rng(seed).normal(0, NOISE * 255, pixels.shape)
    image = from_array((pixels + noise).round().clip(0, 255).astype(np.uint8))
    seen = subject.assessor.see([image], [subject.context])
    return Subject(subject.assessor, image, subject.context, seen, subject.target)


def reference_lesion(case: Case, subject: Subject) -> np.ndarray | None:
    """[GRID, GRID] bool, the labelled lesion on the model's window; None where it is not labelled."""
    if case.mask is None:
        return None
    mask = read_mask(case.mask).astype(np.float32)
    whole = cv2.resize(mask, (subject.image.width, subject.image.height))
    w = subject.window
    cut = whole[w.y : w.y + w.side, w.x : w.x + w.side]
    return cv2.resize(cut, (GRID, GRID), interpolation=cv2.INTER_AREA) > 0.5


def measure(subject: Subject, reference: np.ndarray | None, seed: int) -> dict[str, dict[str, float]]:
    """Method -> measures of one photo; those without a reference lesion are NaN.

    Args:
        reference: [GRID, GRID] bool, the labelled lesion on the model's window.
    """
    predicted = cv2.resize(subject.mask, (GRID, GRID), interpolation=cv2.INTER_AREA) > 0.5
    if not predicted.any():
        return {}
    answer, found = answer_of(subject), {}
    noisy = with_noise(subject, seed)
    for key, method in METHODS.items():
        start = time.perf_counter()
        heat = on_grid(method.maps(subject)[0].heat)
        seconds = time.perf_counter() - start
        inside = np.where(predicted, heat, 0.0)
        top = np.zeros_like(predicted)
        order = np.argsort(-np.where(predicted, heat, -1.0), axis=None, kind="stable")
        top.flat[order[: max(1, round(TOP * predicted.sum()))]] = True
        followed = faithfulness.followed(answer, subject.photo, heat, predicted)
        removed = faithfulness.removed(answer, subject.photo, top, predicted, np.random.default_rng(seed))
        again = on_grid(method.maps(noisy)[0].heat)
        nan = float("nan")
        found[key] = {
            "energy": nan if reference is None else faithfulness.energy(heat, reference),
            "pointing": nan if reference is None else float(faithfulness.pointing(heat, reference)),
            "iou": nan if reference is None else faithfulness.best_iou(heat, reference),
            "energy_clipped": nan if reference is None else faithfulness.energy(inside, reference),
            "deletion": followed.deletion,
            "insertion": followed.insertion,
            "drop": removed.drop,
            "random": removed.random,
            "stable": faithfulness.rank_correlation(heat, again),
            "seconds": seconds,
        }
    return found


def rows_of(bench: Bench, cases: list[Case], name: str) -> dict[str, np.ndarray]:
    """Method/measure -> [n]; each photo is kept as soon as it is measured."""
    settings = f"{bench.sha}|{GRID}|{TOP}|{NOISE}|{faithfulness.STEPS}|{sorted(METHODS)}"
    folder = bench.work / "explanations" / hashlib.sha256(settings.encode()).hexdigest()[:12] / name
    found: list[dict[str, float]] = []
    for i, case in enumerate(tqdm(cases, desc=f"explaining {name}", mininterval=10)):
        path = folder / f"{hashlib.sha256(f'{case.source}/{case.image_id}'.encode()).hexdigest()[:16]}.npz"
        if not path.exists():
            subject = Subject.of(bench.assessor, images.load(case.image), case.context)
            measured = measure(subject, reference_lesion(case, subject), bench.seed + i)
            flat = {f"{m}/{k}": np.array(v) for m, row in measured.items() for k, v in row.items()}
            save_arrays(path, flat)
        found.append({k: float(v) for k, v in np.load(path).items()})
    keys = [f"{method}/{measure}" for method in METHODS for measure in MEASURES]
    return {key: np.array([row.get(key, np.nan) for row in found]) for key in keys}


def run(bench: Bench) -> dict[str, Any]:
    """All sets that are there."""
    result: dict[str, Any] = {"sets": {}}
    for name, split, n in SETS:
        cases = chosen(bench.cases(name, *([split] if split else [])), n, bench.seed)
        if cases:
            bench.touch_test(name, cases)
            result["sets"][name] = {"split": split or "all", **summary(bench, cases, rows_of(bench, cases, name))}
    return {"meta": bench.meta(grid=GRID, steps=faithfulness.STEPS, top=TOP, noise=NOISE), **result}


def summary(bench: Bench, cases: list[Case], rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Each measure's mean with interval, and the paired difference evidence less the other method."""
    for method in METHODS:
        drop, random = rows[f"{method}/drop"], rows[f"{method}/random"]
        rows[f"{method}/beats_random"] = np.where(np.isfinite(drop), (drop > random).astype(float), np.nan)
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    return {
        "n": len(cases),
        "methods": {
            method: {
                name: {
                    **(resamples.interval(metrics.mean(rows[f"{method}/{name}"])) or {}),
                    "evidence_less_this": None
                    if method == "evidence"
                    else resamples.interval(metrics.mean(rows[f"evidence/{name}"] - rows[f"{method}/{name}"])),
                }
                for name in TITLES
            }
            for method in METHODS
        },
    }


def section(result: dict[str, Any], folder: Path) -> str:
    text = ["## Maps", "", "All methods on one grid, for the same photos and the same diagnosis."]
    for name, found in result["sets"].items():
        text += ["", f"**{name}, {found['split']}**, n = {found['n']}", ""]
        shown = [key for key in TITLES if found["methods"]["evidence"][key].get("value") is not None]
        rows = [
            [METHODS[method].title, *(figures.shown(row[key]) for key in shown)]
            for method, row in found["methods"].items()
        ]
        text.append(figures.table(["method", *(TITLES[key] for key in shown)], rows))
    return "\n".join(text)
