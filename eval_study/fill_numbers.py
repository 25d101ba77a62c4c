"""Writes measured numbers into the documents, the model card and the page: `python -m eval_study.fill_numbers`.

Numbers stand between two markers in each document and come from eval_study/results/*.json alone; a test holds the
documents equal to the files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from eval_study.explanations.maps import MADE_BY_MEASURING, TITLES, made_by_measuring
from eval_study.explanations.regions import WHICH
from eval_study.explanations.truth import named
from skinclip.calibration.calibrator import Calibrator
from skinclip.calibration.referral import SENSITIVITY
from skinclip.core.config import ModelConfig, load_yaml
from skinclip.core.formatting import with_interval
from skinclip.core.paths import ASSETS
from skinclip.explain.measured import FIGURES as PAGE_FIGURES
from skinclip.explain.measured import GOOD_AT
from skinclip.explain.methods import METHODS, reported
from skinclip.explain.registry import SUMMARY
from skinclip.reporting.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "eval_study" / "results"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "numbers.md", ROOT / "assets" / "mini" / "README.md")
COMPARED = reported(SUMMARY)
COMPARED_BY = ("energy", "deletion", "insertion", "beats_random")
CHOSEN_HERE = (
    "Recipe, rules and thresholds were chosen with a view to this split, so its figures are optimistic by an unknown "
    "amount."
)
START, END = "<!-- numbers: made by eval_study.fill_numbers -->", "<!-- end of numbers -->"
OVERVIEW_START, OVERVIEW_END = "<!-- overview: made by eval_study.fill_numbers -->", "<!-- end of overview -->"
OVERVIEW = (  # the README's one table
    *("balanced_accuracy", "auroc_macro", "auroc_malignant", "sensitivity", "specificity", "ece", "coverage"),
    *("lesion_iou", "criteria_mean_accuracy"),
)
FIGURES = {
    "balanced_accuracy": "balanced accuracy (argmax p / prior)",
    "balanced_accuracy_argmax": "balanced accuracy (argmax p)",
    "accuracy": "accuracy (argmax p)",
    "auroc_macro": "macro AUROC, one against the rest",
    "auroc_malignant": "AUROC, malignant against benign",
    "sensitivity": "sensitivity at the referral threshold",
    "specificity": "specificity at the referral threshold",
    "ece": "expected calibration error, 15 bins",
    "brier": "Brier score",
    "lesion_iou": "lesion mask, mean IoU",
    "agreement": "rationale names the leading diagnosis first (by construction in `mini`: no merit)",
    "coverage": "coverage of the 90 % prediction set",
    "diag_accuracy": "Derm7pt diagnosis, five groups, accuracy",
    "criteria_mean_accuracy": "Derm7pt criteria, mean accuracy of seven",
}


def table(path: Path) -> str:
    """One report as a Markdown table with what made it."""
    report = json.loads(path.read_text())
    meta = report["meta"]
    rows = [f"| {text} | {with_interval(report[name])} |" for name, text in FIGURES.items() if report.get(name)]
    data = ", ".join(meta["data"])
    head = f"**{data}, split `{meta['split']}`**, n = {report['n']} photos, 95 % intervals by bootstrap of lesions."
    head += "" if meta["split"] == "test" else f" {CHOSEN_HERE}"
    made = f"Made by `{meta['command']}`, seed {meta['seed']}, weights `{meta['model']['weights_sha256'][:12]}`."
    return "\n".join([head, "", "| figure | value (95 % interval) |", "|---|---|", *rows, "", made])


def overview() -> str:
    """The main figures of every report, side by side, as one Markdown table."""
    reports = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("evaluate_*.json"), reverse=True)]
    heads = [f"{', '.join(r['meta']['data'])}, `{r['meta']['split']}`, n = {r['n']}" for r in reports]
    rows = [
        f"| {FIGURES[name]} | {' | '.join(with_interval(r[name]) if r.get(name) else '' for r in reports)} |"
        for name in OVERVIEW
    ]
    head = f"| `mini`: figure, 95 % interval | {' | '.join(heads)} |"
    return "\n".join([head, f"|---|{'---|' * len(reports)}", *rows])


def speed() -> str:
    """Sentence on what `python -m eval_study.speed` measured."""
    s = json.loads((RESULTS / "speed.json").read_text())
    return (
        f"**Speed** on {s['threads']} CPU cores: a whole Assessment takes {s['assess_median_s']} s at "
        f"the median of {s['photos']} drawn photos ({s['assess_max_s']} s at most), predictions in batches "
        f"{s['predict_photos_per_s']:.0f} photos a second; {s['peak_resident_gb']} GB resident at the peak; the page "
        f"is ready {s['page_ready_s']} s after launch. Made by `python -m eval_study.speed`."
    )


def compared() -> str:
    """Markdown table of the explanations that are compared most."""
    result = json.loads((RESULTS / "maps.json").read_text())
    figures = result["sets"]["ham10000"]
    rows = [
        [METHODS[method].title, *(with_interval(figures["methods"][method][name]) for name in COMPARED_BY)]
        for method in COMPARED
    ]
    return "\n\n".join(
        [
            f"**Explanations**, HAM10000, split `{figures['split']}`, n = {figures['n']} photos; deletion (less is "
            "better) and insertion inside the predicted lesion.",
            markdown_table(["method", *(TITLES[name] for name in COMPARED_BY)], rows),
            f"{made_by_measuring(figures)} Made by `{result['meta']['command']}`.",
            cited_regions(),
        ]
    )


def cited_regions() -> str:
    """Paragraph on what taking out the regions of cited criteria does to the diagnosis."""
    result = json.loads((RESULTS / "regions.json").read_text())
    row = result["sets"]["ham10000"]
    together, strongest = row["joined"], row["pivotal"]
    return (
        f"**Regions of cited criteria taken out of the photo**, HAM10000, split `{row['split']}`, "
        f"n = {row['n']} photos that have some: all together, the diagnosis loses {with_interval(together['drop'])} "
        f"of its probability, without random places of the lesion as large {with_interval(together['random'])}; "
        f"it loses more than without {with_interval(together['beats_draws'])} of these places (chance: 0.5). "
        f"The region with the largest effect, {with_interval(strongest['drop'])}; the strongest of as many random "
        f"places of the same sizes, {with_interval(strongest['random'])}; it loses more than without "
        f"{with_interval(strongest['beats_draws'])} of those. Made by `{result['meta']['command']}`."
    )


def cited() -> str:
    """Paragraph on how many of the criteria that a rationale cites are there."""
    result = json.loads((RESULTS / "criteria.json").read_text())
    recall = str(result["meta"]["recall"])
    return (
        f"**Criteria cited**, Derm7pt, split `{result['meta']['split']}`, n = {result['n']} photos: of all cited, "
        f"{_truth(result['cross_fitted'][recall])}, with thresholds chosen on the other half of the photos; as "
        f"shipped, chosen on these photos, {_truth(result['shipped'])}. Made by `{result['meta']['command']}`."
    )


def _truth(figures: dict[str, Any]) -> str:
    return (
        f"{with_interval(figures['hallucination'])} are absent by the label, {with_interval(figures['other_type'])} "
        f"are there but of another type; {with_interval(figures['macro_recall'])} of those that are there are cited "
        "(mean over the seven)"
    )


def drawn() -> str:
    """Markdown table of the maps against the regions that experts drew."""
    result = json.loads((RESULTS / "truth.json").read_text())
    rows = []
    for name, row in result["attributes"].items():
        shares = row["shares"]
        rows.append(
            [
                named(name),
                row["drawn"],
                *(
                    with_interval(row["methods"][method]["ap"])
                    for method in ("evidence", "fine_grad_cam", "lesion_mask")
                ),
                with_interval(row["chance"]),
                with_interval(row["presence"]),
                *(with_interval(shares[of]) for of in ("region", "lesion")),
            ]
        )
    evidence = METHODS["evidence"].title
    head = [
        *("attribute", "photos", f"pixel AP, {evidence}", "Grad-CAM of the same score", "lesion mask", "chance"),
        *("presence AUROC", "share of the cited region in the drawn one", "of the whole lesion"),
    ]
    return "\n\n".join(
        [
            f"**Regions that experts drew**, ISIC 2018 Task 2, split `valid`, n = {result['n']} photos; pixels inside "
            "the labelled lesion.",
            markdown_table(head, rows),
            f"Made by `{result['meta']['command']}`.",
        ]
    )


def numbers() -> str:
    """Tables of evaluation, explanations, findings and speed, in Markdown."""
    tables = (table(path) for path in sorted(RESULTS.glob("evaluate_*.json")))
    return "\n\n".join(part for part in [*tables, referral(), drawn(), compared(), cited(), speed()] if part)


def referral(folder: Path = ASSETS / "mini") -> str:
    """Markdown table of the referral in every source that the checkpoint in `folder` was calibrated on, with its bound.

    Empty of a checkpoint that keeps none.
    """
    arrays = load_file(folder / "trust.safetensors")
    calibrator = Calibrator.from_arrays(arrays, load_yaml(ModelConfig, folder / "config.yaml").diagnoses)
    groups = [g for part in calibrator.by_kind.values() for g in part.referral.by_group if g.n]
    if not groups:
        return ""
    rows = [[g.group, g.n, f"{g.sensitivity:.3f}", f"{g.bound:.3f}", f"{g.specificity:.3f}"] for g in groups]
    return "\n\n".join(
        [
            f"**Referral, by source**, on the calibration lesions, at the prevalence `{calibrator.prevalence}`. By "
            f"conformal risk control the sensitivity on a new lesion of any is at least {SENSITIVITY} on average "
            "over calibration sets; *bound* is its one-sided 90 % lower bound for this one (Clopper-Pearson).",
            markdown_table(["source and kind", "malignant lesions", "sensitivity", "bound", "specificity"], rows),
        ]
    )


def filled(text: str) -> str:
    """A document with the numbers of today between its markers."""
    for start, end, block in ((START, END, numbers()), (OVERVIEW_START, OVERVIEW_END, overview())):
        filling = f"{start}\n\n{block}\n\n{end}"
        text = re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _, new=filling: new, text, flags=re.S)
    return text


def explanations() -> str:
    """JSON of what the page says of each explanation, from the results of `eval_study.explanations`."""
    maps, regions = (json.loads((RESULTS / f"{n}.json").read_text())["sets"]["ham10000"] for n in ("maps", "regions"))
    figures = {
        "data": f"HAM10000, split {maps['split']}",
        "n": maps["n"],
        "methods": {
            method: {name: round(row[name]["value"], 3) for name in GOOD_AT} for method, row in maps["methods"].items()
        },
        "made_by_measuring": list(MADE_BY_MEASURING),
        "cited": {
            which: {name: round(row[name]["value"], 3) for name in ("drop", "random", "beats_draws")}
            for which, row in regions.items()
            if which in WHICH
        },
        "experts": drawn_by_experts(),
    }
    return json.dumps(figures, indent=1) + "\n"


def drawn_by_experts() -> dict[str, Any]:
    """Share of photos in which a map's strongest place lies in the network that experts drew (ISIC 2018 Task 2)."""
    network = json.loads((RESULTS / "truth.json").read_text())["attributes"]["pigment_network"]
    pointing = {method: round(row["pointing"]["value"], 3) for method, row in network["methods"].items()}
    random = pointing.pop("random")
    return {"structure": "pigment network", "n": network["drawn"], "pointing": pointing, "random": random}


def main() -> None:
    """Writes the page's figures and fills the documents."""
    PAGE_FIGURES.write_text(explanations())
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text()))


if __name__ == "__main__":
    main()
