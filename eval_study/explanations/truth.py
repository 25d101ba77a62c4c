"""Truth of regions: maps of a criterion against the regions that experts drew (ISIC 2018 Task 2).

For each drawn attribute that the model has a map of, in whichever of its states:

    pixel AP        average precision of the places of all photos inside the labelled lesion, by the map's own value
    Jaccard         pooled over the photos, each with the same weight, as the challenge scores it
    pointing        photos with the attribute drawn in which the map's highest place lies in the drawn region
    presence AUROC  of the criterion's score, and of the lesion's size
    share           of what a reader sees, the part of a cited finding's region that lies in the drawn one

All methods explain the same score, the log-odds that the criterion is there, and are clipped to the same predicted
lesion for Jaccard and pointing. Shipped is a rule: the regions of cited findings, nothing where none is cited. Beside
it every map is cut at a threshold that was fitted on training photos of the set. The masks were drawn by superpixel and
are incomplete, so a place that was not marked is weak evidence of absence, and every figure errs against the maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import Bench
from eval_study.explanations import overlap
from eval_study.explanations.maps import chosen, kept, short
from skinclip.core.assessment import Polygon
from skinclip.core.formatting import listed, number, with_interval
from skinclip.data.cases import Case, DataError
from skinclip.data.masks import read_mask
from skinclip.data.possible_states import ATTRIBUTE_CRITERIA
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.explain import saliency
from skinclip.explain.criterion import CriterionSubject, states_of
from skinclip.explain.methods import METHODS, OWN
from skinclip.explain.methods.grad_cam import OWN_CAM
from skinclip.explain.registry import Method
from skinclip.explain.saliency import Cam
from skinclip.explain.subject import LabelledMap, Subject
from skinclip.imaging.transform import Window
from skinclip.pipeline.findings import lesion_of
from skinclip.reporting.document import Block, Section

NAME = "truth"
DATA, SPLIT, FITTED_ON = "isic2018_task2", "valid", "train"
PHOTOS, FIT = 310, 240  # most valid photos, drawn by a seed, and training photos on which thresholds are fitted
SLOW, SLOW_PHOTOS = ("layer_cam", "integrated_gradients", "occlusion", "rise"), 20  # on so many photos
SIDE = 160  # of the grid that a whole photo is brought to, its aspect given up: every photo has the same weight
TITLES = {"ap": "pixel AP", "jaccard": "Jaccard at the fitted threshold", "pointing": "pointing"}
Row = dict[str, np.ndarray]
# The stage with the highest pixel AP of the four, on 70 photos of the training part: a fair Grad-CAM for small places
FINE_CAM = Cam(stage=-3, relu=False, mirrors=True)


def fine_grad_cam(subject: Subject) -> list[LabelledMap]:
    """Grad-CAM at the stage that suits criteria; the registry's was tuned for diagnoses."""
    return subject.labelled(saliency.grad_cam(subject.network, subject.photo, subject.target, FINE_CAM))


FINE = Method("fine_grad_cam", "Grad-CAM, tuned for criteria", fine_grad_cam, "Grad-CAM at a finer stage.")
COMPARED: dict[str, Method] = {OWN: METHODS[OWN], FINE.key: FINE, **METHODS}


def explaining(slow: bool = False) -> tuple[str, ...]:
    """Keys of the methods that can explain a criterion's score, the `slow` ones apart."""
    return tuple(key for key, method in COMPARED.items() if method.of_criteria and (key in SLOW) == slow)


# --- a photo ------------------------------------------------------------------------------------------------------


def mapped(criteria: Sequence[str]) -> dict[str, str]:
    """Attribute -> criterion, of those among `criteria`, the model's own."""
    return {a: code for a, code in ATTRIBUTE_CRITERIA.items() if states_of(code) and code in criteria}


def maps_of(subject: Subject, keys: Sequence[str]) -> Row:
    """ "attribute/method" -> map on the model's window as the method gives it; "method" alone for a control."""
    row: Row = {}
    for attribute, code in mapped(subject.predictor.model.config.criteria).items():
        one = CriterionSubject.of(subject, code)
        for key in keys:
            name = f"{attribute}/{key}" if COMPARED[key].uses_model else key
            if name not in row:
                row[name] = COMPARED[key].maps(one)[0].heat.astype(np.float32)
    return row


def reader_view(subject: Subject) -> Row:
    """The outlines that a reader sees, on the grid of the photo, and each criterion's log-odds.

    "lesion" and "attribute/cited" bool [SIDE, SIDE], the latter empty where the criterion is not cited.
    """
    image, window = subject.image, subject.window
    size = (image.height, image.width)
    row = {
        "size": np.array(size),
        "window": np.array([window.x, window.y, window.side]),
        "lesion": filled(lesion_of(image, subject.output).polygons, size),
    }
    for attribute, code in mapped(subject.predictor.model.config.criteria).items():
        cited = [p for f in subject.findings if f.criterion == code for p in f.region.polygons]
        row[f"{attribute}/cited"] = filled(cited, size)
        row[f"{attribute}/score"] = np.array(CriterionSubject.of(subject, code).score)
    return row


def filled(polygons: Sequence[Polygon], size: tuple[int, int]) -> np.ndarray:
    """bool [SIDE, SIDE]: what outlines in pixels of a photo (height, width) enclose, on the grid of the whole photo."""
    mask, scale = np.zeros((SIDE, SIDE), np.uint8), SIDE / np.array(size[::-1])
    cv2.fillPoly(mask, [np.round(np.array(p) * scale - 0.5).astype(np.int32) for p in polygons], 1)
    return mask > 0


def on_photo_grid(heat: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """float32 [SIDE, SIDE]: a map of the window on the grid of the whole photo, -inf past the window."""
    place = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    x, y = (place * size[1] - window.x) / window.side, (place * size[0] - window.y) / window.side  # 0..1 in the window
    columns, rows = np.meshgrid(x * heat.shape[1] - 0.5, y * heat.shape[0] - 0.5)
    fine = cv2.remap(
        heat.astype(np.float32),
        columns.astype(np.float32),
        rows.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    inside = ((y >= 0) & (y < 1))[:, None] & ((x >= 0) & (x < 1))
    return np.where(inside, fine, -np.inf).astype(np.float32)


def drawn_mask(path: Path | None) -> np.ndarray:
    """bool [SIDE, SIDE], a mask file on the grid; empty where there is none."""
    if path is None:
        return np.zeros((SIDE, SIDE), bool)
    return cv2.resize(read_mask(path).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) >= 0.5


@dataclass(frozen=True)
class DrawnPhoto:
    """A photo's labels, and the maps and outlines that the model gave of it."""

    case: Case
    row: Row

    def heat(self, attribute: str, key: str) -> np.ndarray | None:
        """float32 [SIDE, SIDE], -inf past the window; None where the method was not measured on the photo."""
        native = self.row.get(f"{attribute}/{key}", self.row.get(key))
        size = tuple(int(n) for n in self.row["size"])
        return None if native is None else on_photo_grid(native, self.window, (size[0], size[1]))

    @property
    def mapped(self) -> tuple[str, ...]:
        """The attributes of which the model has a map."""
        return tuple(a for a in ATTRIBUTE_CRITERIA if f"{a}/score" in self.row)

    @property
    def window(self) -> Window:
        """The square of the photo that the model read."""
        return Window(*(int(n) for n in self.row["window"]))

    @cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        """Attribute -> bool [SIDE, SIDE], where an expert drew it."""
        return {attribute: drawn_mask(self.case.attribute_masks.get(attribute)) for attribute in ATTRIBUTE_CRITERIA}

    @cached_property
    def lesion(self) -> np.ndarray:
        """bool [SIDE, SIDE], the predicted lesion as it is outlined; the whole photo where none was found."""
        lesion = self.row["lesion"]
        return lesion if lesion.any() else np.ones_like(lesion)

    @cached_property
    def labelled_lesion(self) -> np.ndarray:
        """bool [SIDE, SIDE], the labelled lesion, the predicted one where it is not labelled."""
        return self.lesion if self.case.mask is None else drawn_mask(self.case.mask)


def measured(bench: Bench, cases: list[Case], slow: int) -> list[DrawnPhoto]:
    """The maps and outlines of each photo, kept as they are made; of the first `slow`, by the slow methods too."""
    settings = f"{bench.sha}|{bench.thresholds}|truth|{SIDE}|{OWN_CAM}|{FINE_CAM}"
    fast_keys, slow_keys = explaining(), explaining(slow=True)

    def made(keys: Sequence[str]) -> Callable[[Subject, Case, int], Row]:
        return lambda subject, case, i: maps_of(subject, keys) | reader_view(subject)

    def rows(cases: list[Case], keys: Sequence[str]) -> list[Row]:
        return kept(bench, cases, Path(short(f"{settings}|{keys}")) / DATA, made(keys)) if keys and cases else []

    fast = rows(cases, fast_keys)
    for row, more in zip(fast, rows(cases[:slow], slow_keys), strict=False):
        row |= more
    return [DrawnPhoto(case, row) for case, row in zip(cases, fast, strict=True)]


# --- a set --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MapFigures:
    """Figures of one method's maps of one attribute.

    Attributes:
        known: [n] bool, photos on which the method was measured.
        counts: `overlap.binned` of the places inside the labelled lesion, [n, bins] each.
        parts, wholes: [n] intersection and union at the fitted threshold, NaN where none was fitted.
        pointing: [n], NaN in photos without the attribute.
    """

    known: np.ndarray
    threshold: float | None
    counts: tuple[np.ndarray, np.ndarray]
    parts: np.ndarray
    wholes: np.ndarray
    pointing: np.ndarray

    def metrics(self, among: np.ndarray) -> dict[str, metrics.Metric]:
        """The three figures of `TITLES`, over the photos `among` [n] bool."""
        drawn, others = (c * among[:, None] for c in self.counts)
        jaccard = overlap.pooled_ratio(np.where(among, self.parts, 0), np.where(among, self.wholes, 0))
        return {
            "ap": overlap.average_precision(drawn, others),
            "jaccard": jaccard,
            "pointing": metrics.mean(np.where(among, self.pointing, np.nan)),
        }


def scored(photos: Sequence[DrawnPhoto], attribute: str, key: str, threshold: float | None) -> MapFigures:
    """Figures of a method on photos; those on which it was not measured count for nothing."""
    n, nothing = len(photos), np.zeros(0)
    known, parts, wholes, hits = np.zeros(n, bool), np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    values, labels = [nothing.astype(np.float32)] * n, [nothing.astype(bool)] * n
    for i, photo in enumerate(photos):
        heat = photo.heat(attribute, key)
        if heat is None:
            continue
        drawn, known[i] = photo.drawn[attribute], True
        values[i], labels[i] = heat[photo.labelled_lesion], drawn[photo.labelled_lesion]
        if threshold is not None:
            parts[i], wholes[i] = overlap.overlap(photo.lesion & (heat >= threshold), drawn)
        if drawn.any():
            hits[i] = overlap.pointing(heat, photo.lesion, drawn)
    return MapFigures(known, threshold, overlap.binned(values, labels), parts, wholes, hits)


def fitted(photos: Sequence[DrawnPhoto], attribute: str, key: str) -> float | None:
    """The threshold with the highest pooled Jaccard on `photos`; None where the method was not measured on them."""
    values, labels, missed = [], [], 0
    for photo in photos:
        heat, drawn = photo.heat(attribute, key), photo.drawn[attribute]
        if heat is not None:
            values.append(heat[photo.lesion])
            labels.append(drawn[photo.lesion])
            missed += int(np.count_nonzero(drawn & ~photo.lesion))
    return overlap.best_threshold(np.concatenate(values), np.concatenate(labels), missed) if values else None


# --- the result -----------------------------------------------------------------------------------------------------


def run(bench: Bench) -> dict[str, Any]:
    """Measures valid photos, at thresholds fitted on training photos. Raises DataError where the set is missing."""
    there = bench.cases(DATA, SPLIT)
    cases = chosen(there, PHOTOS, bench.seed)
    if not cases:
        raise DataError(f"{bench.data} has no cases of {DATA}, split {SPLIT}")
    training = chosen(bench.cases(DATA, FITTED_ON), FIT, bench.seed)
    return {
        "there": len(there),
        "meta": bench.meta(
            data=DATA,
            split=SPLIT,
            thresholds=bench.thresholds,
            side=SIDE,
            own_cam=repr(OWN_CAM),
            fine_cam=repr(FINE_CAM),
        ),
        **summary(bench, measured(bench, cases, SLOW_PHOTOS), measured(bench, training, 0)),
    }


def summary(bench: Bench, photos: list[DrawnPhoto], training: list[DrawnPhoto]) -> dict[str, Any]:
    """Each attribute's figures with intervals, each method's paired with ours, and those of all attributes together."""
    resamples = metrics.GroupBootstrap([cluster(p.case) for p in photos], bench.n_boot, bench.seed)
    able = [key for key in COMPARED if COMPARED[key].of_criteria]
    attributes = photos[0].mapped
    keys = [key for key in able if photos[0].heat(attributes[0], key) is not None]
    table_of = {
        attribute: {key: scored(photos, attribute, key, fitted(training, attribute, key)) for key in keys}
        for attribute in attributes
    }
    return {
        "n": len(photos),
        "fitted": {"split": FITTED_ON, "n": len(training), "drawn": {a: drawn_in(training, a) for a in attributes}},
        "unable": [key for key in COMPARED if key not in able],
        "unmeasured": [key for key in able if key not in keys],
        "unmapped": [a for a in ATTRIBUTE_CRITERIA if a not in attributes],
        "attributes": {
            a: {
                **of_attribute(resamples, photos, a),
                "methods": {k: compared(resamples, {a: table_of[a]}, k) for k in keys},
            }
            for a in attributes
        },
        "together": {
            "shipped_jaccard": resamples.interval(jaccard_as_shipped(photos, tuple(ATTRIBUTE_CRITERIA))),
            "methods": {key: compared(resamples, table_of, key) for key in keys},
        },
    }


def drawn_in(photos: Sequence[DrawnPhoto], attribute: str) -> int:
    """The number of photos in which an attribute was drawn."""
    return sum(bool(photo.drawn[attribute].any()) for photo in photos)


def compared(
    resamples: metrics.GroupBootstrap, attributes: dict[str, dict[str, MapFigures]], key: str
) -> dict[str, Any]:
    """A method's figures, the mean over `attributes` (attribute -> method -> figures), and ours less it, paired."""
    among = {a: methods[key].known for a, methods in attributes.items()}

    def figure(name: str, method: str) -> metrics.Metric:
        return metrics.mean_of([methods[method].metrics(among[a])[name] for a, methods in attributes.items()])

    figures: dict[str, Any] = {"n": int(next(iter(among.values())).sum())}
    for name in TITLES:
        of_method = figure(name, key)
        gap = None if key == OWN else resamples.interval(metrics.difference(figure(name, OWN), of_method))
        figures[name] = {**(resamples.interval(of_method) or {}), "evidence_less_this": gap}
    if len(attributes) == 1:
        figures["threshold"] = next(iter(attributes.values()))[key].threshold
    return figures


def of_attribute(resamples: metrics.GroupBootstrap, photos: Sequence[DrawnPhoto], attribute: str) -> dict[str, Any]:
    """Figures that are no method's own: base rate, presence, what is shipped."""
    drawn = np.array([p.drawn[attribute].any() for p in photos])
    inside = [p.drawn[attribute][p.labelled_lesion] for p in photos]
    score = metrics.auroc(np.array([float(p.row[f"{attribute}/score"]) for p in photos]), drawn)
    size = metrics.auroc(np.array([p.row["lesion"].mean() for p in photos]), drawn)
    base = overlap.pooled_ratio(np.array([np.count_nonzero(d) for d in inside]), np.array([d.size for d in inside]))
    return {
        "drawn": int(drawn.sum()),
        "cited": sum(bool(p.row[f"{attribute}/cited"].any()) for p in photos),
        "chance": resamples.interval(base),
        "presence": resamples.interval(score),
        "presence_by_size": resamples.interval(size),
        "presence_gap": resamples.interval(metrics.difference(score, size)),
        "shipped_jaccard": resamples.interval(jaccard_as_shipped(photos, (attribute,))),
        "shares": shares(resamples, photos, attribute),
    }


def jaccard_as_shipped(photos: Sequence[DrawnPhoto], attributes: Sequence[str]) -> metrics.Metric:
    """Pooled Jaccard of the cited findings' regions over all `attributes`; one without a map predicts nothing."""
    nothing = np.zeros((SIDE, SIDE), bool)
    pairs = np.array(
        [
            np.sum([overlap.overlap(p.row.get(f"{a}/cited", nothing), p.drawn[a]) for a in attributes], axis=0)
            for p in photos
        ]
    )
    return overlap.pooled_ratio(pairs[:, 0], pairs[:, 1])


def shares(resamples: metrics.GroupBootstrap, photos: Sequence[DrawnPhoto], attribute: str) -> dict[str, Any]:
    """Shares of cited regions and of the lesion in the drawn region, where the attribute is both drawn and cited."""
    pairs = np.full((len(photos), 2), np.nan)
    for i, photo in enumerate(photos):
        drawn, cited = photo.drawn[attribute], photo.row[f"{attribute}/cited"]
        if drawn.any() and cited.any():
            pairs[i] = overlap.share_inside(cited, drawn), overlap.share_inside(photo.lesion, drawn)
    return {
        "n": int(np.isfinite(pairs[:, 0]).sum()),
        "region": resamples.interval(metrics.mean(pairs[:, 0])),
        "lesion": resamples.interval(metrics.mean(pairs[:, 1])),
        "gap": resamples.interval(metrics.mean(pairs[:, 0] - pairs[:, 1])),
    }


# --- the report -----------------------------------------------------------------------------------------------------


def named(attribute: str) -> str:
    """An attribute's name in a text."""
    return attribute.replace("milia_like_cyst", "milia-like cysts").replace("_", " ")


def headline(result: dict[str, Any]) -> str:
    """Sentence on attributes whose cited regions hold no more of what was drawn than the lesion does; else empty."""
    lines = [
        f"{named(a)} {with_interval(shares['region'])}, the lesion {with_interval(shares['lesion'])}"
        for a, shares in ((a, figures["shares"]) for a, figures in result["attributes"].items())
        if (gap := shares["gap"]) and (gap["low"] is None or gap["low"] <= 0)
    ]
    start = "Regions of cited findings lie inside what experts drew no more than the lesion as a whole does"
    return f"{start}: {'; '.join(lines)}." if lines else ""


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    text: list[Block | str] = [introduction(result), shipped_table(result)]
    for attribute, figures in result["attributes"].items():
        title = f"**{named(attribute)}**, drawn in {figures['drawn']} photos; pixel AP of chance {number_of(figures)}"
        text += [title, *methods_tables(figures["methods"])]
    names = listed([named(a) for a in result["attributes"]])
    text += [f"**Mean of {names}**", *methods_tables(result["together"]["methods"])]
    return Section.of("Truth of regions", text)


def number_of(figures: dict[str, Any]) -> str:
    """The pixel AP that a map without any knowledge has: the share of the labelled lesions that was drawn."""
    return number(None if figures["chance"] is None else figures["chance"]["value"])


def introduction(result: dict[str, Any]) -> str:
    """Paragraph on what is measured, on which photos, and what the masks cannot say."""
    meta, fit = result["meta"], result["fitted"]
    few = ", ".join(f"{named(a)} in {n}" for a, n in fit["drawn"].items())
    unmapped = (
        f" The model has no map of {listed([named(a) for a in result['unmapped']])}." if result["unmapped"] else ""
    )
    unable = listed([COMPARED[key].title for key in result["unable"] if key in COMPARED])
    cannot = f" {unable} cannot explain a criterion's score and is left out." if unable else ""
    unmeasured = listed([COMPARED[key].title for key in result["unmeasured"]])
    cannot += f" Not measured, for their time: {unmeasured}." if unmeasured else ""
    photos = f"n = {result['n']} of {result['there']}"
    return (
        f"ISIC 2018 Task 2, {meta['split']}, {photos}: maps of a criterion, in whichever of its states, against the "
        f"regions that experts drew.{unmapped}{cannot} Pixel AP counts the places of all photos inside the labelled "
        "lesion; Jaccard is pooled over the photos as the challenge scores it; pointing is the share of photos with an "
        "attribute in which the map's highest place lies in the drawn region. Maps are clipped to the predicted lesion "
        f"for the latter two. Thresholds were fitted on {fit['n']} photos of the {fit['split']} part ({few}), none on "
        "these photos. Shipped is the regions of cited findings, nothing where none is cited. Masks were drawn by "
        "superpixel and are incomplete: a place that is not marked is weak evidence of absence, and the figures err "
        "against every map."
    )


def shipped_table(result: dict[str, Any]) -> Block:
    """Table of what a reader sees: presence, pooled Jaccard of cited regions, their shares in drawn ones."""
    header = (
        *("attribute", "drawn", "cited", "presence AUROC", "by the lesion's size", "Jaccard as shipped"),
        *("drawn and cited", "share of the cited region", "of the lesion", "difference"),
    )
    rows: list[list[object]] = [
        [
            *(named(a), figures["drawn"], figures["cited"]),
            *(with_interval(figures[k]) for k in ("presence", "presence_by_size", "shipped_jaccard")),
            figures["shares"]["n"],
            *(with_interval(figures["shares"][k]) for k in ("region", "lesion")),
            with_interval(figures["shares"]["gap"], sign=True),
        ]
        for a, figures in result["attributes"].items()
    ]
    rows += [[named(a), *(["no map"] * (len(header) - 1))] for a in result["unmapped"]]
    together = with_interval(result["together"]["shipped_jaccard"])
    rows.append(["all five as one", *[""] * 4, together, *[""] * 4])
    return table(header, rows, "What a reader sees. All five as one: an attribute without a map predicts nothing.")


def methods_tables(methods: dict[str, Any]) -> list[Block | str]:
    """Each method's figures, and ours less them, paired."""
    rows = [[COMPARED[m].title, row["n"], *(with_interval(row[k]) for k in TITLES)] for m, row in methods.items()]
    gaps = [
        [COMPARED[m].title, *(with_interval(row[k]["evidence_less_this"], sign=True) for k in TITLES)]
        for m, row in methods.items()
        if m != OWN
    ]
    return [
        table(["method", "photos", *TITLES.values()], rows),
        "Evidence regions less the other method, paired:",
        table(["method", *TITLES.values()], gaps),
    ]
