"""Index of the photos that a checkpoint was trained on: no photo, only what tells one again.

    index = build_index(cases)            # `skinclip duplicates --index`: training photos
    index.write(path)                     # ships with the checkpoint, 0.2 kB a photo
    index.find(pixels)                    # the training photo that this one is, or shows the same lesion; None

Two signs, since each misses what the other finds. A perceptual hash (the signs of the lowest frequencies of a cosine
transform, Zauner 2010) knows the whole photo again after scaling, another compression, turning or mirroring. A few
local features (SIFT, Lowe 2004, 32 bits each) with their places know a part of it, at another magnification or
cropped, where its structures are sharp: enough of them must agree on one change of view. A crop of a small or soft
photo mostly passes, as does a second photo of a lesion from another occasion; `duplicates.find_duplicates`, with the
photos at hand, finds those.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from skinclip.data.cases import Case
from skinclip.data.duplicates import LocalFeatures, describe
from skinclip.imaging.photo import PhotoError, load_photo

INDEX = "training_photos.npz"  # in a checkpoint's folder
FORM = "skinclip-photo-index-1"
HASH_SIDE = 16  # lowest frequencies in each direction: 256 bits
KEPT_FEATURES = 32  # of each photo, the strongest
_HASHED_SIDE = 64  # pixels
NEAR_HASH = 36  # bits of 256 that may differ; 26 at most after compression, 40 by chance among 23 thousand photos
NEAR_FEATURE = 5  # bits of 32 that may differ
MIN_AGREEING = 10  # of KEPT_FEATURES; chance gave up to 9 among 23 thousand photos
_REACH = 5.0  # pixels of a thumbnail between a feature and where the change of view puts it
_MAX_ZOOM = 4.0


@dataclass(frozen=True)
class PhotoIndex:
    """Signs of n photos.

    Attributes:
        names: `source/image_id` of each.
        hashes: uint8 [n, 32], the perceptual hash.
        features: uint8 [n, KEPT_FEATURES, 4], local features of 32 bits; zeros where there are fewer.
        places: uint8 [n, KEPT_FEATURES, 2], their places on a thumbnail of 256 pixels.
    """

    names: tuple[str, ...]
    hashes: np.ndarray
    features: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def find(self, pixels: np.ndarray) -> str | None:
        """The name of a photo in the index that `pixels` (uint8 [H, W, 3]) repeats, None where there is none."""
        if not len(self):
            return None
        near = [(int(distances.min()), int(distances.argmin())) for distances in self._hash_distances(pixels)]
        distance, place = min(near)
        if distance <= NEAR_HASH:
            return self.names[place]
        for view in (pixels, np.ascontiguousarray(pixels[:, ::-1])):
            found = self._by_features(describe(view))
            if found is not None:
                return self.names[found]
        return None

    def _hash_distances(self, pixels: np.ndarray) -> Iterable[np.ndarray]:
        """Bits that differ from each photo, [n], for the eight ways to turn and mirror `pixels`."""
        for mirrored in (pixels, pixels[:, ::-1]):
            for turns in range(4):
                differing = self.hashes ^ perceptual_hash(np.rot90(mirrored, turns))[None]
                yield np.bitwise_count(differing).sum(1)

    def _by_features(self, seen: LocalFeatures) -> int | None:
        """The photo with which the most local features agree on one change of view, where they are enough."""
        if len(seen.places) < MIN_AGREEING:
            return None
        known = self.features.reshape(-1, 4).view(np.uint32).ravel()  # [n * k]
        best: np.ndarray = np.full(len(known), 255, np.uint8)
        nearest: np.ndarray = np.zeros(len(known), np.int32)
        for i, bits in enumerate(binary(seen.descriptors).view(np.uint32).ravel()):
            distance = np.bitwise_count(known ^ bits)
            closer = distance < best
            best[closer], nearest[closer] = distance[closer], i
        there = (best <= NEAR_FEATURE).reshape(len(self), -1) & self.features.any(2)
        match = nearest.reshape(len(self), -1)
        for photo in np.argsort(-there.sum(1))[:20]:
            if there[photo].sum() < MIN_AGREEING:
                return None
            rows = there[photo]
            if _agree(self.places[photo][rows], seen.places[match[photo][rows]]) >= MIN_AGREEING:
                return int(photo)
        return None

    def write(self, path: Path) -> None:
        """Writes the index as one compressed file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"form": FORM, "names": self.names})
        np.savez_compressed(
            path,
            about=np.frombuffer(about.encode(), np.uint8),
            hashes=self.hashes,
            features=self.features,
            places=self.places,
        )

    @classmethod
    def read(cls, path: Path) -> PhotoIndex:
        """The index in a file. Raises ValueError where it is none of this version."""
        with np.load(path, allow_pickle=False) as data:
            about = json.loads(data["about"].tobytes())
            if about.get("form") != FORM:
                raise ValueError(f"{path} is no index of photos of this version; make it anew")
            return cls(tuple(about["names"]), data["hashes"], data["features"], data["places"])


def build_index(cases: Sequence[Case], on_progress: Callable[[int], None] = lambda done: None) -> PhotoIndex:
    """The index of the photos of `cases`; those that cannot be read are left out."""
    names, hashes, features, places = [], [], [], []
    for done, case in enumerate(cases, start=1):
        try:
            pixels = load_photo(case.image).pixels
        except PhotoError:
            continue
        kept, at = _strongest(describe(pixels))
        names.append(f"{case.source}/{case.image_id}")
        hashes.append(perceptual_hash(pixels))
        features.append(kept)
        places.append(at)
        on_progress(done)
    shape = (len(names), KEPT_FEATURES)
    return PhotoIndex(
        tuple(names),
        np.array(hashes, np.uint8).reshape(len(names), HASH_SIDE**2 // 8),
        np.array(features, np.uint8).reshape(*shape, 4),
        np.array(places, np.uint8).reshape(*shape, 2),
    )


def perceptual_hash(pixels: np.ndarray) -> np.ndarray:
    """256 bits as uint8 [32]: which of the lowest frequencies of the grey photo lie above their median."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_HASHED_SIDE, _HASHED_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:HASH_SIDE, :HASH_SIDE].ravel()
    return np.packbits(low > np.median(low[1:]))


def binary(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors uint8 [n, 128] as 32 bits, uint8 [n, 4]: the sides of 32 random planes through their own mean on
    which they lie (Charikar 2002), so that the bits that differ tell the angle between two."""
    centred = descriptors.astype(np.float32) - descriptors.mean(1, keepdims=True) if len(descriptors) else descriptors
    return np.packbits(centred @ _planes() > 0, axis=1).reshape(-1, 4)


@cache
def _planes() -> np.ndarray:
    """Random directions [128, 32], the same on every machine; each sums to zero."""
    drawn = np.random.default_rng(20261127).standard_normal((128, 32)).astype(np.float32)
    return drawn - drawn.mean(0)


def _strongest(seen: LocalFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Bits [KEPT_FEATURES, 4] and places [KEPT_FEATURES, 2] of the strongest features, spread over the photo."""
    bits, at = np.zeros((KEPT_FEATURES, 4), np.uint8), np.zeros((KEPT_FEATURES, 2), np.uint8)
    chosen: list[int] = []
    for i, place in enumerate(seen.places):
        if all(np.abs(place - seen.places[j]).max() > 4 for j in chosen):
            chosen.append(i)
        if len(chosen) == KEPT_FEATURES:
            break
    if chosen:
        bits[: len(chosen)] = binary(seen.descriptors[chosen])
        at[: len(chosen)] = np.clip(seen.places[chosen], 0, 255).astype(np.uint8)
    return bits, at


def _agree(known: np.ndarray, seen: np.ndarray) -> int:
    """Pairs of places that agree on one turn, zoom and shift."""
    view, agree = cv2.estimateAffinePartial2D(
        known.astype(np.float32), seen.astype(np.float32), method=cv2.RANSAC, ransacReprojThreshold=_REACH
    )
    if view is None or agree is None:
        return 0
    zoom = float(np.hypot(view[0, 0], view[1, 0]))
    spread = np.unique(known[agree.ravel() > 0], axis=0)
    return len(spread) if 1 / _MAX_ZOOM <= zoom <= _MAX_ZOOM else 0
