"""The cost of less data: the whole training, stage 0 included, on a part of the training lesions.

Each share is trained by the same command's code with `share` set, from the ImageNet start, and measured on valid and
test. The language of rationales (stage 1) is learnt from texts and does not depend on photos; it is trained once.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.common import Bench
from eval_study.benchmarks.losses import DATA, cpu_hours
from skinclip.core.config import ModelConfig, TrainConfig, load_yaml, preset
from skinclip.core.formatting import with_interval
from skinclip.core.paths import ASSETS
from skinclip.data.cases import DataError
from skinclip.evaluation import metrics
from skinclip.model.allocator import keep_memory
from skinclip.reporting import style
from skinclip.reporting.document import Block, Picture, Section
from skinclip.training.photo_sets import gather, scarce
from skinclip.training.run import train

NAME = "scarcity"
SHARES = (0.12, 0.25, 0.5)
SPENT = "seconds"
FIGURES = ("balanced_accuracy", "auroc_macro", "nll", "lesion_iou")


def run(
    bench: Bench,
    splits: tuple[str, ...] = ("valid", "test"),
    recipe: TrainConfig | None = None,
    config: ModelConfig | None = None,
) -> dict[str, Any]:
    """Trains what was not trained yet, under `bench.work/scarcity`; the full model is the shipped one.

    Each share takes a good part of an hour, so the result is saved after each, with what is still "unfinished".

    Raises DataError for a model whose tower was trained elsewhere: it has seen all of the lesions.
    """
    shipped: ModelConfig = load_yaml(ModelConfig, (bench.weights or ASSETS / "mini") / "config.yaml")
    if shipped.evidence.kind != "adapter":
        raise DataError("its tower was trained on a GPU and has seen all lesions, whatever share stage 2 is given")
    recipe, config = recipe or TrainConfig(), config or preset("mini")
    keep_memory()
    cases = gather(bench.data)["train"]
    earlier = bench.kept(NAME)
    rows: dict[str, Any] = {} if earlier is None else earlier["shares"]
    if "1" not in rows:
        rows["1"] = {"photos": len(cases), **{s: measured(bench, s) for s in splits}}
    result: dict[str, Any] = {}
    for share in SHARES:
        if f"{share:g}" not in rows:
            weights = trained(bench, dataclasses.replace(recipe, share=share), config)
            reason = f"{bench.reason} (scarcity {share:.0%})"
            part = dataclasses.replace(bench, weights=weights, reason=reason, _measured={})
            rows[f"{share:g}"] = {
                "photos": len(scarce(cases, share, recipe.seed)),
                **{s: measured(part, s) for s in splits},
            }
        unfinished = [s for s in SHARES if f"{s:g}" not in rows]
        seconds = sum(spent(_folder(bench, s)) for s in SHARES if s not in unfinished)
        meta = bench.meta(cpu_hours=cpu_hours(seconds), train_seconds=seconds, unfinished=unfinished)
        result = {"meta": meta, "shares": dict(sorted(rows.items(), key=lambda row: float(row[0])))}
        bench.save(NAME, result)
    return result


def trained(bench: Bench, recipe: TrainConfig, config: ModelConfig) -> Path:
    """The checkpoint of one share: resumed, or taken as it is where this recipe made it."""
    folder = _folder(bench, recipe.share)
    out = folder / "checkpoint"
    if (out / "findings.json").exists() and load_yaml(TrainConfig, out / "recipe.yaml") == recipe:
        return out
    folder.mkdir(parents=True, exist_ok=True)
    language = bench.work / "scarcity" / "stage1"
    if language.exists() and not (folder / "reasoner").exists():
        shutil.copytree(language, folder / "reasoner")
    start = time.perf_counter()
    try:
        train(config, recipe, bench.data, folder, out)
    finally:  # a stop loses no time that was spent
        (folder / SPENT).write_text(f"{spent(folder) + time.perf_counter() - start:.1f}\n")
    if not language.exists():
        shutil.copytree(folder / "reasoner", language)
    return out


def spent(folder: Path) -> float:
    """Seconds of training that a share took, over all resumptions."""
    path = folder / SPENT
    return float(path.read_text()) if path.exists() else 0.0


def _folder(bench: Bench, share: float) -> Path:
    return bench.work / "scarcity" / f"{share:g}"


def measured(bench: Bench, split: str) -> dict[str, Any]:
    """Figures of the bench's model on one split, with intervals."""
    m = bench.measured(DATA, split)
    resamples = metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed)
    figures = {
        "balanced_accuracy": metrics.balanced_accuracy(m.labels, m.balanced.argmax(axis=1)),
        "auroc_macro": metrics.auroc_macro(m.probabilities, m.labels),
        "nll": metrics.nll(m.probabilities, m.labels),
        "lesion_iou": metrics.mean(m.iou),
    }
    return {"n": len(m), **{name: resamples.interval(metric) for name, metric in figures.items()}}


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    text: list[Block | str] = [
        "The whole training on a part of the training lesions of all sources, one seed each; "
        f"{result['meta']['cpu_hours']:.1f} core hours.",
    ]
    if unfinished := result["meta"]["unfinished"]:
        text += [f"Not measured yet: {', '.join(f'{s:.0%}' for s in unfinished)}."]
    rows = [
        [f"{float(share):.0%}", row["photos"], split, *(with_interval(row[split][f]) for f in FIGURES)]
        for share, row in result["shares"].items()
        for split in ("valid", "test")
        if split in row
    ]
    header = ["share", "photos", "split", "balanced accuracy", "macro AUROC", "NLL", "lesion IoU"]
    return Section.of("Less data", [*text, table(header, rows), _chart(result)])


@style.styled
def _chart(result: dict[str, Any]) -> Picture:
    rows = result["shares"]
    split = "test" if "test" in next(iter(rows.values())) else "valid"
    values, (below, above) = style.whiskers([row[split]["balanced_accuracy"] for row in rows.values()])
    figure, (axes,) = style.charts(1)
    axes.errorbar([float(s) for s in rows], values, yerr=[below, above], fmt="o-", color=style.BLUE, markersize=4)
    axes.set(xlabel="share of the training lesions", ylabel="balanced accuracy", xlim=(0, 1.03))
    axes.set_title(f"HAM10000 {split}")
    return picture(figure, "scarcity", "Balanced accuracy by share of the training data")
