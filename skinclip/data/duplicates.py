"""Near-duplicates between data sets: the same lesion at another magnification, cropped, squashed or turned.

    found = find_duplicates(cases)      # cases of several data sets
    write_duplicates(path, found)       # `splits.read_duplicates` reads it; training keeps each pair in one part

Every photo becomes local features (SIFT, Lowe 2004, as RootSIFT) of its thumbnail. A vocabulary of visual words with
inverse document frequencies (Sivic and Zisserman 2003) picks the few most similar photos of other sets, and an affine
map fitted to their features by RANSAC decides: enough features agree, the map is a plausible change of view, and the
photos, laid over each other, look alike. About 20 ms per photo and 0.5 ms per pair on one core, and 100 kB of memory
per photo.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans
from tqdm import tqdm

from skinclip.core.safe_text import safe_name
from skinclip.data.cases import Case
from skinclip.imaging.photo import PhotoError, fit, load_photo

SIDE = 256  # pixels of a thumbnail's longer side
MAX_FEATURES = 250
WORDS = 2048
CANDIDATES = 40  # photos of other sets that each photo is compared with
_SAMPLE = 200_000  # descriptors that the vocabulary is made from
_BLOCK = 500  # photos whose similarities are held at a time
_RATIO = 0.85  # of the best to the second best distance of a match
MIN_INLIERS = 12
MIN_SHARE = 0.25  # of the matches that the map must explain
MIN_OVERLAP = 0.12  # of the smaller photo's area, as mapped
MIN_CORRELATION = 0.55  # of grey levels where the photos overlap
_MAX_ZOOM, _MAX_STRETCH = 5.0, 2.0
_ERROR = 4.0  # pixels between a feature and where the map puts it


@dataclass(frozen=True)
class LocalFeatures:
    """Thumbnail uint8 [h, w] grey, feature places float32 [n, 2], descriptors uint8 [n, 128]."""

    grey: np.ndarray
    places: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True)
class Overlay:
    """Fit of one photo over another: features that agree, zoom, share of overlap, correlation of grey levels."""

    inliers: int
    zoom: float
    overlap: float
    correlation: float


@dataclass(frozen=True)
class Duplicate:
    """Two photos of different data sets that show the same lesion."""

    first: Case
    second: Case
    overlay: Overlay


def find_duplicates(
    cases: Sequence[Case], progress: bool = False, note: Callable[[str], None] = lambda _: None
) -> list[Duplicate]:
    """The pairs among photos of different sources, in the order of `cases`.

    Args:
        note: gets a line for each photo that cannot be read and is left out.
    """
    described = list(_described(cases, progress, note))
    kept = [(case, features) for case, features in described if len(features.places) >= MIN_INLIERS]
    if len(kept) < 2:
        return []
    sources = np.array([case.source for case, _ in kept])
    pairs = candidate_pairs([features.descriptors for _, features in kept], sources)
    duplicates = []
    for i, j in tqdm(pairs, desc="comparing", disable=not progress, mininterval=5):
        if overlay := compare(kept[i][1], kept[j][1]):
            duplicates.append(Duplicate(kept[i][0], kept[j][0], overlay))
    return duplicates


def _described(
    cases: Sequence[Case], progress: bool, note: Callable[[str], None]
) -> Iterator[tuple[Case, LocalFeatures]]:
    def one(case: Case) -> LocalFeatures | PhotoError:
        try:
            return describe(load_photo(case.image).pixels)
        except PhotoError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        described = tqdm(pool.map(one, cases), total=len(cases), desc="describing", disable=not progress, mininterval=5)
        for case, features in zip(cases, described, strict=True):
            if isinstance(features, PhotoError):
                note(f"{case.source}/{case.image_id}: {features}")
            else:
                yield case, features


def describe(pixels: np.ndarray) -> LocalFeatures:
    """The local features of RGB pixels, uint8 [H, W, 3]: at most MAX_FEATURES, the strongest ones."""
    grey = cv2.cvtColor(fit(pixels, SIDE, SIDE), cv2.COLOR_RGB2GRAY)
    even = cv2.createCLAHE(2.0, (4, 4)).apply(grey)
    sift = cv2.SIFT.create(nfeatures=MAX_FEATURES, contrastThreshold=0.015, edgeThreshold=12)
    points, descriptors = sift.detectAndCompute(even, None)
    if descriptors is None:
        return LocalFeatures(grey, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    points, descriptors = points[:MAX_FEATURES], descriptors[:MAX_FEATURES]
    rooted = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))
    places = np.array([point.pt for point in points], np.float32)
    return LocalFeatures(grey, places, np.clip(rooted * 512, 0, 255).astype(np.uint8))


# --- candidates ---------------------------------------------------------------------------------------------------


def candidate_pairs(descriptors: Sequence[np.ndarray], sources: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of photos (i < j) of different sources of which one is among the CANDIDATES most similar to the other."""
    weights = _weights(descriptors)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, weights.shape[0], _BLOCK):
        similar = (weights[start : start + _BLOCK] @ weights.T).toarray()  # [block, n]
        for row, values in enumerate(similar, start=start):
            values[sources == sources[row]] = 0
            most = min(CANDIDATES, len(values) - 1)
            for other in np.argpartition(-values, most)[:most]:
                if values[other] > 0:
                    pairs.add((min(row, int(other)), max(row, int(other))))
    return sorted(pairs)


def _weights(descriptors: Sequence[np.ndarray]) -> sparse.csr_matrix:
    """Rows [n, WORDS] of unit length: how often each visual word occurs in a photo, rare words weighing more."""
    words = _words(np.concatenate(list(descriptors)))
    rows = np.repeat(np.arange(len(descriptors)), [len(d) for d in descriptors])
    n_words = int(words.max()) + 1
    counts = sparse.csr_matrix((np.ones(len(words), np.float32), (rows, words)), (len(descriptors), n_words))
    counts.sum_duplicates()
    frequency = np.bincount(counts.indices, minlength=n_words)
    weighted = counts.sqrt() @ sparse.diags(np.log(len(descriptors) / np.maximum(frequency, 1) + 1e-3).clip(0))
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(length, 1e-9)) @ weighted, dtype=np.float32)


def _words(descriptors: np.ndarray) -> np.ndarray:
    """The visual word of each descriptor, [n]."""
    rng = np.random.default_rng(0)
    sample = descriptors[rng.permutation(len(descriptors))[:_SAMPLE]].astype(np.float32)
    n_words = max(2, min(WORDS, len(sample) // 10))
    means = MiniBatchKMeans(n_words, batch_size=8192, max_iter=8, n_init=1, random_state=0).fit(sample)
    parts = np.array_split(descriptors, max(1, len(descriptors) // 100_000))
    return np.concatenate([means.predict(part.astype(np.float32)) for part in parts])


# --- verification -------------------------------------------------------------------------------------------------


def compare(first: LocalFeatures, second: LocalFeatures) -> Overlay | None:
    """The fit of `first` over `second`, or None for photos of different lesions."""
    places = _matched(first, second)
    if len(places) < MIN_INLIERS:
        return None
    before, after = (np.ascontiguousarray(places[:, side]) for side in (0, 1))
    affine, agree = cv2.estimateAffine2D(
        before, after, method=cv2.RANSAC, ransacReprojThreshold=_ERROR, maxIters=1000, confidence=0.99
    )
    if affine is None or agree is None:
        return None
    inliers = int(agree.sum())
    zoom, stretch = _change_of_view(affine)
    plausible = 1 / _MAX_ZOOM <= zoom <= _MAX_ZOOM and stretch <= _MAX_STRETCH
    if inliers < MIN_INLIERS or inliers < MIN_SHARE * len(places) or not plausible:
        return None
    overlap, correlation = _laid_over(first.grey, second.grey, affine)
    if overlap < MIN_OVERLAP or correlation < MIN_CORRELATION:
        return None
    return Overlay(inliers, zoom, overlap, correlation)


def _matched(first: LocalFeatures, second: LocalFeatures) -> np.ndarray:
    """Places of features that are each other's best match and clearly better than the second best, [n, 2, 2]."""
    a, b = first.descriptors.astype(np.float32), second.descriptors.astype(np.float32)
    if min(len(a), len(b)) < 2:
        return np.zeros((0, 2, 2), np.float32)
    distances = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T  # squared, [n, m]
    best = distances.argmin(1)
    nearest, second_nearest = np.partition(distances, 1, axis=1)[:, :2].T
    mutual = distances.argmin(0)[best] == np.arange(len(a))
    chosen = mutual & (nearest < _RATIO**2 * second_nearest)
    return np.stack([first.places[chosen], second.places[best[chosen]]], 1)


def _change_of_view(affine: np.ndarray) -> tuple[float, float]:
    """(zoom, ratio of the longer to the shorter axis) of an affine map, (0, inf) for one that folds the plane up."""
    long, short = np.linalg.svd(affine[:, :2])[1]
    return (float(np.sqrt(long * short)), float(long / short)) if short > 1e-3 else (0.0, float("inf"))


def _laid_over(first: np.ndarray, second: np.ndarray, affine: np.ndarray) -> tuple[float, float]:
    """(share of the smaller photo that overlaps, correlation of slightly smoothed grey levels there)."""
    height, width = second.shape
    inside = cv2.warpAffine(np.full(first.shape, 255, np.uint8), affine, (width, height), flags=cv2.INTER_NEAREST) > 0
    mapped = first.size * abs(np.linalg.det(affine[:, :2]))
    overlap = float(inside.sum() / min(second.size, mapped))
    if inside.sum() < 200:
        return 0.0, 0.0
    laid = cv2.GaussianBlur(cv2.warpAffine(first, affine, (width, height), flags=cv2.INTER_LINEAR), (0, 0), 1.5)
    a = laid[inside].astype(np.float64)
    b = cv2.GaussianBlur(second, (0, 0), 1.5)[inside].astype(np.float64)
    if a.std() < 1e-6 or b.std() < 1e-6:
        return overlap, 0.0
    return overlap, float(np.corrcoef(a, b)[0, 1])


# --- the list -----------------------------------------------------------------------------------------------------


def write_duplicates(path: Path, duplicates: Iterable[Duplicate]) -> None:
    """The pairs as a CSV table, photos named `source/image_id`, with their splits and how well they agree."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["first", "second", "first_split", "second_split", "inliers", "zoom", "overlap", "correlation"])
        for pair in duplicates:
            cases = (pair.first, pair.second)
            words = [*(f"{case.source}/{case.image_id}" for case in cases), *(case.split or "" for case in cases)]
            o = pair.overlay
            figures = (f"{o.zoom:.2f}", f"{o.overlap:.2f}", f"{o.correlation:.2f}")
            writer.writerow([*map(safe_name, words), o.inliers, *figures])
