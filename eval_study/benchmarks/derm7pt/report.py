"""The Derm7pt benchmark's section of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.derm7pt.tasks import DIAG, STATES
from skinclip.core.formatting import with_interval
from skinclip.reporting import style
from skinclip.reporting.document import Block, Picture, Section, Table

CHOSEN_HERE = (
    "It was chosen among the readouts on these very cases, so the figure is optimistic: the best of several is above "
    "what it would reach elsewhere."
)


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    meta, blocks, chosen = result["meta"], result["splits"], result["chosen_readout"]
    last = blocks["test"] if "test" in blocks else blocks["valid"]
    parts: list[Block | str] = [
        "Derm7pt (Kawahara et al. 2019) in its official splits, groups and states; 95 % intervals over "
        f"{meta['resamples']} bootstrap resamples of cases, seed {meta['seed']}, weights "
        f"`{meta['weights_sha256'][:12]}`. *As shipped*: the model's own criterion probabilities, and its seven "
        "diagnoses added up by group; it learnt from the photos of `train`. *Readouts*: logistic regression on the "
        "frozen tower's features, fitted on `train`, its strength chosen over folds of `train`. *Cropped*: the square "
        f"around the predicted lesion with {meta['crop_margin']:.0%} of its length on each side. The average is that "
        "of the published papers, over the diagnosis and seven criteria. Always saying the commonest state comes "
        "close in accuracy, which is why AUROC stands beside it.",
        *(part for block in blocks.values() for part in _split_part(block)),
        f"On `{last['split']}` the readout chosen (**{chosen}**) is "
        f"{with_interval(last['chosen_above_commonest'])} above the commonest state on average."
        + ("" if last["split"] == "test" else f" {CHOSEN_HERE}"),
        f"### Each task, `{last['split']}`",
        _task_table(last["systems"], chosen),
        _chart(last, chosen),
        "### Cross-validation over train and valid",
        f"{meta['folds']} folds by case. **The frozen tower learnt from the photos of `train`, labels and all, so "
        "folds made of `train` cases are optimistic**, and more so the longer it was trained; the `valid` cases of the "
        "folds are the honest part, and chose the readout. For the same reason a readout fitted on `train`, which the "
        "tower knows by heart, is held back a little elsewhere.",
        _cross_table(result["cross_validation"]),
        "### Published systems",
        "Measured by their authors on the official test split, from clinical photo, dermoscopy and context together. "
        + _comparable("test" in blocks),
        _published_table(result),
    ]
    return Section.of("Derm7pt: diagnosis and the seven criteria", parts)


def _comparable(has_test: bool) -> str:
    if has_test:
        return "The last line is the readout chosen here on the same split."
    return "The figures above are not on that split, and are not comparable with these."


def _split_part(block: Mapping[str, Any]) -> list[Block | str]:
    head = f"### `{block['split']}`: {block['n']} cases, {block['n_melanoma']} melanomas"
    keys = ("average", "criteria_accuracy", "criteria_auroc")
    header = ["system", "average of 8", "criteria, accuracy", "criteria, AUROC", "diagnosis, accuracy"]
    header += ["diagnosis, AUROC", "melanoma sensitivity", "precision", "AUROC"]
    melanoma = ("melanoma_sensitivity", "melanoma_precision", "melanoma_auroc")
    rows = [
        [
            name,
            *(with_interval(s[k]) for k in keys),
            *(with_interval(s["tasks"][DIAG][k]) for k in ("accuracy", "auroc")),
            *(with_interval(s[k]) for k in melanoma),
        ]
        for name, s in block["systems"].items()
    ]
    return [head, table(header, rows)]


def _compared(chosen: str) -> dict[str, str]:
    return {"commonest state": "commonest", "as shipped, uncropped": "as shipped", chosen: f"readout ({chosen})"}


def _task_table(systems: Mapping[str, Any], chosen: str) -> Table:
    names = _compared(chosen)
    header = ["task", "labelled", "commonest, accuracy"]
    for text in list(names.values())[1:]:
        header += [f"{text}: accuracy", "AUROC"]
    rows = []
    for task in STATES:
        first, *others = (systems[name]["tasks"][task] for name in names)
        row = [task.replace("_", " "), first["n"], with_interval(first["accuracy"])]
        for figures in others:
            row += [with_interval(figures["accuracy"]), with_interval(figures["auroc"])]
        rows.append(row)
    return table(header, rows)


def _cross_table(crossed: Mapping[str, Any]) -> Table:
    header = ["readout", "average of 8, all: mean and SD of folds", "all", "`train` part", "`valid` part"]
    header += ["diagnosis, `valid` part", "criteria AUROC, `valid` part", "melanoma AUROC, `valid` part"]
    rows = [
        [
            name,
            f"{c['all']['folds']['mean']:.3f}, {c['all']['folds']['sd']:.3f}",
            *(with_interval(c[part]["average"]) for part in ("all", "train", "valid")),
            with_interval(c["valid"]["tasks"][DIAG]["accuracy"]),
            with_interval(c["valid"]["criteria_auroc"]),
            with_interval(c["valid"]["melanoma_auroc"]),
        ]
        for name, c in crossed.items()
    ]
    return table(header, rows)


def _published_table(result: Mapping[str, Any]) -> Table:
    rows = [[p["system"], f"{p['average']:.4f}", f"{p[DIAG]:.4f}"] for p in result["published"]]
    if "test" in result["splits"]:
        own = result["splits"]["test"]["systems"][result["chosen_readout"]]
        rows.append(
            [
                f"here: {result['chosen_readout']}",
                with_interval(own["average"]),
                with_interval(own["tasks"][DIAG]["accuracy"]),
            ]
        )
    return table(["system", "average of 8, accuracy", "diagnosis, accuracy"], rows)


@style.styled
def _chart(block: Mapping[str, Any], chosen: str) -> Picture:
    figure, axes = style.charts(2, width=4.4, height=3.8)
    at, names = np.arange(len(STATES)), _compared(chosen)
    for ax, key in zip(axes, ("accuracy", "auroc"), strict=True):
        for i, ((name, text), colour) in enumerate(
            zip(names.items(), (style.GREY, style.BLUE, style.ORANGE), strict=True)
        ):
            values, errors = style.whiskers([block["systems"][name]["tasks"][task][key] for task in STATES])
            label = "readout" if name == chosen else text
            ax.errorbar(values, at + 0.22 * (i - 1), xerr=errors, fmt="o", color=colour, ms=4, capsize=2, label=label)
        ax.set_yticks(at, [task.replace("_", " ") for task in STATES] if key == "accuracy" else [""] * len(at))
        ax.set(xlabel="accuracy" if key == "accuracy" else "macro AUROC", xlim=(0.3, 1.0))
        ax.invert_yaxis()
        ax.grid(axis="x", color=style.PALE, linewidth=0.6)
    axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    alt = f"Accuracy and AUROC of the diagnosis and each criterion on {block['split']}"
    return picture(figure, "derm7pt_tasks", alt)
