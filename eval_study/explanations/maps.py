"""Every method's map of the leading diagnosis: where it lies, and what the answer does when it is followed.

Where masks are given the lesion is the reference one for the measures of place. Measures of the answer are taken inside
the predicted lesion, every method clipped to the same mask; the answer is the model's own calibrated probability of its
leading diagnosis, whatever network a map was made of.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests
from tqdm import tqdm

from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.common import Bench, save_arrays
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import Case
from skinclip.data.masks import read_mask
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.explain import faithfulness
from skinclip.explain.methods import METHODS, reported
from skinclip.explain.methods.evidence import SMOOTH
from skinclip.explain.methods.grad_cam import OWN_CAM
from skinclip.explain.methods.plain_grad_cam import PLAIN_CAM
from skinclip.explain.registry import CURVES
from skinclip.explain.subject import GRID, Subject, on_grid
from skinclip.imaging.photo import from_array, load_photo
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting import style
from skinclip.reporting.document import Block, Picture, Section

NAME = "maps"
SETS = (("ham10000", "test", 150), ("isic2017", "test", 40), ("pad_ufes", None, 40))
TITLES = {
    "energy": "energy in the lesion",
    "pointing": "pointing game",
    "iou": "IoU at the best threshold",
    "energy_clipped": "energy, clipped to the predicted lesion",
    "deletion": "deletion AUC (less is better)",
    "insertion": "insertion AUC",
    "insertion_less_deletion": "insertion less deletion",
    "beats_random": "top 20 % moves the answer more than random places",
    "stable": "rank correlation under small noise",
    "seconds": "seconds per photo",
}
LESS_IS_BETTER = ("deletion", "seconds")
# Methods whose map is made of measured effects on the answer, as deletion, insertion and `beats_random` measure them.
MADE_BY_MEASURING = ("evidence", "rise", "occlusion")
CONTROL = "rise"  # as the evidence, with as many random regions in place of the criteria's
OF_THE_ANSWER = ("deletion", "insertion", "beats_random")
NOISY = 40  # photos of a set on which small noise is tried: it doubles the time
DRAWN_CURVES = reported(CURVES)
TOP = 0.2  # of the lesion, the region that each method is asked for where all are compared
NOISE = 0.02  # standard deviation, of a photo in 0..1


def chosen(cases: list[Case], n: int, seed: int) -> list[Case]:
    """`n` cases, one per lesion, drawn by a seed."""
    rng = np.random.default_rng(seed)
    first: dict[str, Case] = {}
    for i in rng.permutation(len(cases)):
        first.setdefault(cluster(cases[i]), cases[i])
    return list(first.values())[:n]


def photos(bench: Bench, sets: Sequence[tuple[str, str | None, int]] = SETS) -> Iterator[tuple[str, str, list[Case]]]:
    """Yields name, split and photos of each of `sets` that is there; those of a test split are noted in the ledger."""
    for name, split, n in sets:
        cases = chosen(bench.cases(name, *([split] if split else [])), n, bench.seed)
        if cases:
            bench.touch_test(name, cases)
            yield name, split or "all", cases


def with_noise(assessor: Assessor, subject: Subject, seed: int) -> Subject:
    """The same photo under small noise, explained for the same diagnosis."""
    pixels = subject.image.pixels
    noise = np.random.default_rng(seed).normal(0, NOISE * 255, pixels.shape)
    image = from_array((pixels + noise).round().clip(0, 255).astype(np.uint8))
    return assessor.subject(image, subject.context, DIAGNOSIS_CODES[subject.target])


def reference_lesion(case: Case, subject: Subject) -> np.ndarray | None:
    """[GRID, GRID] bool, the labelled lesion on the model's window; None where it is not labelled."""
    if case.mask is None:
        return None
    mask = read_mask(case.mask).astype(np.float32)
    whole = cv2.resize(mask, (subject.image.width, subject.image.height))
    return cv2.resize(subject.window.crop(whole), (GRID, GRID), interpolation=cv2.INTER_AREA) > 0.5


def measure(
    subject: Subject, reference: np.ndarray | None, seed: int, again: Subject | None = None
) -> dict[str, np.ndarray]:
    """ "method/measure" -> figure of one photo, and the curves; what is not measured is left out.

    Args:
        reference: [GRID, GRID] bool, the labelled lesion on the model's window.
        again: the same photo under small noise, whose map is made too.
    """
    figures: dict[str, np.ndarray] = {}
    for key, method in METHODS.items():
        start = time.perf_counter()
        heat = on_grid(method.maps(subject)[0].heat)
        row = {"seconds": time.perf_counter() - start}
        if reference is not None:
            row |= place(heat, subject.lesion, reference)
        row |= answered(subject, heat, seed)
        if again is not None:
            row["stable"] = faithfulness.rank_correlation(heat, on_grid(method.maps(again)[0].heat))
        figures |= {f"{key}/{name}": np.asarray(value) for name, value in row.items()}
    return figures


def place(heat: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Measures of where a map lies, against the labelled lesion."""
    return {
        "energy": faithfulness.energy(heat, reference),
        "pointing": float(faithfulness.pointing(heat, reference)),
        "iou": faithfulness.best_iou(heat, reference),
        "energy_clipped": faithfulness.energy(np.where(predicted, heat, 0.0), reference),
    }


def answered(subject: Subject, heat: np.ndarray, seed: int) -> dict[str, Any]:
    """Measures of the answer when a map is followed inside the predicted lesion."""
    followed = faithfulness.perturbation_curves(subject.answer, subject.photo, heat, subject.lesion)
    top = faithfulness.top_region(heat, subject.lesion, TOP)
    rng = np.random.default_rng(seed)
    removed = faithfulness.removal_effect(subject.answer, subject.photo, top, subject.lesion, rng)
    return {
        "deletion": followed.deletion,
        "insertion": followed.insertion,
        "insertion_less_deletion": followed.insertion - followed.deletion,
        "beats_random": float(removed.more_than_random),
        "deleting": followed.deleting,
        "inserting": followed.inserting,
    }


def rows_of(bench: Bench, cases: list[Case], name: str) -> list[dict[str, np.ndarray]]:
    """Figures of each photo by `measure`."""
    settings = f"{bench.sha}|{GRID}|{TOP}|{NOISE}|{faithfulness.STEPS}|{sorted(METHODS)}|{OWN_CAM}|{PLAIN_CAM}|{SMOOTH}"

    def made(subject: Subject, case: Case, i: int) -> dict[str, np.ndarray]:
        seed = bench.seed + i
        again = with_noise(bench.assessor, subject, seed) if i < NOISY else None
        return measure(subject, reference_lesion(case, subject), seed, again)

    return kept(bench, cases, Path(short(settings)) / name, made)


def kept(
    bench: Bench, cases: list[Case], folder: Path, made: Callable[[Subject, Case, int], dict[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Figures of each photo by `made`, kept in a file as soon as it is measured."""
    rows: list[dict[str, np.ndarray]] = []
    for i, case in enumerate(tqdm(cases, desc=f"explaining {folder.name}", mininterval=10)):
        path = bench.work / "explanations" / folder / f"{short(f'{case.source}/{case.image_id}', 16)}.npz"
        if not path.exists():
            save_arrays(path, made(bench.assessor.subject(load_photo(case.image), case.context), case, i))
        rows.append(dict(np.load(path)))
    return rows


def short(text: str, length: int = 12) -> str:
    """The first `length` hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:length]


def column(rows: list[dict[str, np.ndarray]], key: str) -> np.ndarray:
    """[n] a figure of every photo, NaN where it was not measured."""
    return np.array([float(row.get(key, np.nan)) for row in rows])


def run(bench: Bench) -> dict[str, Any]:
    """All sets that are there."""
    result: dict[str, Any] = {"sets": {}}
    for name, split, cases in photos(bench):
        result["sets"][name] = {"split": split, **summary(bench, cases, rows_of(bench, cases, name))}
    settings = {"own_cam": repr(OWN_CAM), "plain_cam": repr(PLAIN_CAM), "smooth": SMOOTH}
    return {"meta": bench.meta(grid=GRID, steps=faithfulness.STEPS, top=TOP, noise=NOISE, **settings), **result}


def summary(bench: Bench, cases: list[Case], rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Each measure's mean with interval, and evidence less the other method, paired, with Wilcoxon's p."""
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    own = {name: column(rows, f"evidence/{name}") for name in TITLES}
    methods: dict[str, Any] = {}
    for method in METHODS:
        methods[method] = {}
        for name in TITLES:
            values = column(rows, f"{method}/{name}")
            paired = None if method == "evidence" else resamples.interval(metrics.mean(own[name] - values))
            methods[method][name] = {
                **(resamples.interval(metrics.mean(values)) or {}),
                "evidence_less_this": paired,
                "p": None if method == "evidence" else wilcoxon_p(own[name] - values),
            }
        methods[method]["curves"] = {c: mean_curve(rows, f"{method}/{c}") for c in ("deleting", "inserting")}
    return {"n": len(cases), "methods": methods}


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided signed-rank test of paired differences [n], NaN left out; 1 where all are 0."""
    known = differences[np.isfinite(differences)]
    return float(wilcoxon(known).pvalue) if np.any(known) else 1.0


def mean_curve(rows: list[dict[str, np.ndarray]], key: str) -> list[float]:
    """Mean of a curve over the photos that have it."""
    return np.mean([row[key] for row in rows if key in row], axis=0).tolist()


def wins(figures: dict[str, Any]) -> list[str]:
    """Measures on which another method is better than evidence, the paired interval excluding 0, in words."""
    sentences = []
    for name, title in TITLES.items():
        sign = -1 if name in LESS_IS_BETTER else 1
        better = []
        for method, row in figures["methods"].items():
            gap = row[name].get("evidence_less_this")
            if gap and gap.get("low") is not None and (gap["high"] if sign > 0 else -gap["low"]) < 0:
                better.append(METHODS[method].title)
        if better:
            sentences.append(f"{title.split(' (')[0]}: {', '.join(better)}")
    return sentences


def headline(result: dict[str, Any]) -> str:
    """Sentence on what speaks against the evidence, which the report begins with."""
    lost = [f"on {name}, {'; '.join(wins(figures))}" for name, figures in result["sets"].items() if wins(figures)]
    if not lost:
        return "No other method and no control beats the evidence on any measure."
    return f"Other methods and controls beat the evidence (paired 95 % interval) in: {'. '.join(lost)}."


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    text: list[Block | str] = [
        "All methods on one grid, for the same photos and the same diagnosis.",
    ]
    for name, figures in result["sets"].items():
        text += [f"**{name}, {figures['split']}**, n = {figures['n']}"]
        columns = [key for key in TITLES if figures["methods"]["evidence"][key].get("value") is not None]
        rows = [
            [METHODS[method].title, *(with_interval(row[key]) for key in columns)]
            for method, row in figures["methods"].items()
        ]
        text += [table(["method", *(TITLES[key] for key in columns)], rows), "", *paired(figures, columns)]
        text += [made_by_measuring(figures), curves(figures, name)]
    return Section.of("Maps", text)


def made_by_measuring(figures: dict[str, Any]) -> str:
    """Caveat on measures that repeat how a map was made, with the difference from the control that shares it."""
    gaps = ", ".join(
        f"{TITLES[name].split(' (')[0]} {with_interval(row['evidence_less_this'], sign=True)}"
        for name in OF_THE_ANSWER
        if (row := figures["methods"].get(CONTROL, {}).get(name))
    )
    names = ", ".join(METHODS[key].title for key in MADE_BY_MEASURING if key in figures["methods"])
    fair = f" {METHODS[CONTROL].title} is the same of as many random regions; evidence less it: {gaps}." if gaps else ""
    return (
        f"{names}: made by measuring the answer on the same photo, so what the answer does when such a map is followed "
        f"repeats in part how it was made, and random places are no fair control.{fair}"
    )


def paired(figures: dict[str, Any], columns: list[str]) -> list[Block | str]:
    """Evidence less each other method, with Wilcoxon's p after Holm over all of the table."""
    others = [m for m in figures["methods"] if m != "evidence"]
    measured = [key for key in columns if key != "seconds"]
    p = np.array([figures["methods"][m][key]["p"] for m in others for key in measured], float)
    held = iter(holm(p))
    rows = []
    for method in others:
        row = figures["methods"][method]
        cells = [f"{with_interval(row[k]['evidence_less_this'], sign=True)}{stars(next(held))}" for k in measured]
        rows.append([METHODS[method].title, *cells])
    return [
        "Evidence less the other method, paired; * where Wilcoxon's p after Holm over the table is below 0.05:",
        table(["method", *(TITLES[key] for key in measured)], rows),
    ]


def holm(p: np.ndarray) -> np.ndarray:
    """[n] p-values adjusted by Holm's step-down procedure (1979)."""
    return multipletests(p, method="holm")[1]


def stars(p: float) -> str:
    """A star for a p-value below 0.05."""
    return " *" if p < 0.05 else ""


@style.styled
def curves(figures: dict[str, Any], name: str) -> Picture:
    """Mean deletion and insertion curves of the methods that are compared most."""
    figure, axes = style.charts(2)
    for axis, curve, label in zip(axes, ("deleting", "inserting"), ("taken out", "put back"), strict=True):
        for method, colour in zip(DRAWN_CURVES, style.CYCLE, strict=False):
            if method in figures["methods"]:
                y = figures["methods"][method]["curves"][curve]
                axis.plot(np.linspace(0, 100, len(y)), y, color=colour, label=METHODS[method].title, linewidth=1.4)
        axis.set(xlabel=f"% of the lesion {label}", ylabel="probability of the diagnosis explained")
    axes[0].legend()
    return picture(figure, f"followed_{name}", f"Deletion and insertion curves, {name}")
