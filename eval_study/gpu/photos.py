"""The packed photos on one device, and views of them: windows, light, loss of sharpness, all in batched operations.

Photos lie squashed to 256 x 256; their true aspect is part of the affine map that draws a view, so a view is never
distorted but on purpose. Places in a photo are physical: its height is 1, its width the aspect.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval_study.gpu.pack import TASK2_ATTRIBUTES
from eval_study.gpu.vocabulary import ALL_CRITERIA, CODES

SIDE = 256
MISSING = -1
MOST_STATES = 3  # absent and two others


@dataclass
class Photos:
    """n packed photos.

    Attributes:
        pixels: uint8 [n, 3, 256, 256].
        lesion: uint8 [n, 256, 256], 0 or 255, all 0 where there is none.
        regions: uint8 [r, 5, 256, 256] the drawn attributes, and `region_row` [n] which row is a photo's, or MISSING.
        diagnosis: long [n], MISSING where not labelled.
        allowed, weight: bool [n, Q, 3] states that a criterion may have, float [n, Q] 0 where nothing is known.
        box: float [n, 3] centre and longer side of the lesion, physical; side 0 where it is not known.
        group: long [n] number of the source and kind of photo.
        partner: long [n] the other photo of the same lesion, MISSING where there is none.
    """

    records: list[dict]
    pixels: Tensor
    lesion: Tensor
    has_lesion: Tensor
    regions: Tensor
    region_row: Tensor
    diagnosis: Tensor
    allowed: Tensor
    weight: Tensor
    aspect: Tensor
    box: Tensor
    group: Tensor
    partner: Tensor
    groups: list[str]

    def __len__(self) -> int:
        return len(self.records)

    def of(self, split: str, *groups: str) -> Tensor:
        """The numbers of the photos of a split, of all groups or those named."""
        wanted = [
            i for i, r in enumerate(self.records) if r["split"] == split and (not groups or group_of(r) in groups)
        ]
        return torch.tensor(wanted, device=self.pixels.device)


def group_of(record: dict) -> str:
    """The name of a photo's source and kind; Task 2 is made of ISIC 2017."""
    source = "isic2017" if record["source"] == "isic2018_task2" else record["source"]
    return f"{source}/{record['kind']}"


@dataclass(frozen=True)
class _PackedFiles:
    """The packed files, read whole."""

    parts: list[bytes]

    @classmethod
    def of(cls, folder: Path) -> _PackedFiles:
        paths = sorted(folder.glob("part-*.bin"), key=lambda p: int(p.stem[5:]))
        return cls([path.read_bytes() for path in paths])

    def image(self, place: list[int], flag: int) -> np.ndarray:
        """The image at (part, offset, length)."""
        part, offset, length = place
        return decoded(np.frombuffer(self.parts[part], np.uint8, length, offset), flag)

    def photo(self, place: list[int]) -> np.ndarray:
        """uint8 [SIDE, SIDE, 3] a photo as RGB."""
        photo = self.image(place, cv2.IMREAD_COLOR)
        interpolation = cv2.INTER_AREA if min(photo.shape[:2]) > SIDE else cv2.INTER_LINEAR
        return cv2.resize(photo, (SIDE, SIDE), interpolation=interpolation)[:, :, ::-1]

    def mask(self, place: list[int], interpolation: int) -> np.ndarray:
        """uint8 [SIDE, SIDE] a mask."""
        return cv2.resize(self.image(place, cv2.IMREAD_GRAYSCALE), (SIDE, SIDE), interpolation=interpolation)


def _decoded_parts(
    folder: Path, records: list[dict], row_of: dict[int, int], workers: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photos [n, SIDE, SIDE, 3], lesion masks [n, SIDE, SIDE] and the regions of the photos in `row_of`."""
    parts, n = _PackedFiles.of(folder), len(records)
    pixels, lesion = np.empty((n, SIDE, SIDE, 3), np.uint8), np.zeros((n, SIDE, SIDE), np.uint8)
    regions = np.zeros((len(row_of), len(TASK2_ATTRIBUTES), SIDE, SIDE), np.uint8)

    def decode(i: int) -> None:
        files = records[i]["files"]
        pixels[i] = parts.photo(files["image"])
        if "lesion" in files:
            lesion[i] = parts.mask(files["lesion"], cv2.INTER_LINEAR)
        for k, attribute in enumerate(TASK2_ATTRIBUTES):
            if attribute in files:
                regions[row_of[i], k] = parts.mask(files[attribute], cv2.INTER_AREA)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(decode, range(n)))
    return pixels, lesion, regions


def load(folder: Path, device: str, workers: int = 16) -> Photos:
    """Decodes what `pack` wrote and moves it to `device`."""
    cv2.setNumThreads(1)
    records = json.loads((folder / "index.json").read_text())
    row_of = {i: k for k, i in enumerate(i for i, r in enumerate(records) if r["attributes"] is not None)}
    pixels, lesion, regions = _decoded_parts(folder, records, row_of, workers)
    allowed, weight = criteria(records)
    groups = sorted({group_of(r) for r in records})
    aspect = torch.tensor([r["aspect"] for r in records], device=device)
    masks = torch.from_numpy(lesion).to(device)
    return Photos(
        records,
        torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2),
        masks,
        torch.tensor(["lesion" in r["files"] for r in records], device=device),
        torch.from_numpy(regions).to(device),
        torch.tensor([row_of.get(i, MISSING) for i in range(len(records))], device=device),
        torch.tensor([CODES.index(r["diagnosis"]) if r["diagnosis"] else MISSING for r in records], device=device),
        allowed.to(device),
        weight.to(device),
        aspect,
        boxes(masks, aspect),
        torch.tensor([groups.index(group_of(r)) for r in records], device=device),
        partners(records).to(device),
        groups,
    )


def criteria(records: list[dict]) -> tuple[Tensor, Tensor]:
    """(allowed [n, Q, 3], weight [n, Q]) from the states that each record leaves possible."""
    allowed = torch.zeros(len(records), len(ALL_CRITERIA), MOST_STATES, dtype=torch.bool)
    weight = torch.zeros(len(records), len(ALL_CRITERIA))
    for q, criterion in enumerate(ALL_CRITERIA):
        for i, record in enumerate(records):
            if criterion.code in record["labels"]:
                states, sure = record["labels"][criterion.code]
                allowed[i, q, : len(criterion.labels)] = torch.tensor([s in states for s in criterion.labels])
                weight[i, q] = sure
    return allowed, weight


def partners(records: list[dict]) -> Tensor:
    """[n] the other photo of the same lesion where one is dermoscopy and one clinical."""
    partner_of = torch.full((len(records),), MISSING)
    kinds: dict[tuple[str, str], dict[str, int]] = {}
    for i, r in enumerate(records):
        kinds.setdefault((r["source"], r["lesion_id"]), {})[r["kind"]] = i
    for pair in kinds.values():
        if len(pair) == 2:
            a, b = pair.values()
            partner_of[a], partner_of[b] = b, a
    return partner_of


def boxes(masks: Tensor, aspect: Tensor) -> Tensor:
    """[n, 3] centre (x, y) and longer side of the lesion, physical; side 0 for none or one that fills the photo."""
    out = torch.zeros(len(masks), 3, device=masks.device)
    for start in range(0, len(masks), 2048):
        on = masks[start : start + 2048] > 127
        place = torch.arange(SIDE, device=masks.device)
        edges = []
        for along in (1, 2):  # columns, then rows
            line = on.any(along)
            low = torch.where(line, place, SIDE).min(1).values
            high = torch.where(line, place + 1, 0).max(1).values
            edges.append((low.float() / SIDE, high.float() / SIDE))
        wide = aspect[start : start + 2048]
        (left, right), (top, bottom) = edges
        side = torch.maximum((right - left) * wide, bottom - top)
        area = on.float().mean((1, 2))
        known = (area > 0.005) & (area < 0.9)
        out[start : start + 2048, 0] = (left + right) / 2 * wide
        out[start : start + 2048, 1] = (top + bottom) / 2
        out[start : start + 2048, 2] = torch.where(known, side, torch.zeros_like(side))
    return out


def mask_boxes(mask: Tensor, window: Tensor, least: float = 0.005, most: float = 0.9) -> Tensor:
    """[b, 3] centre and longer side, physical, of predicted masks.

    Args:
        mask: [b, m, m] logits in the window [b, 3] of each photo.
        least, most: share of the window that a lesion covers; beyond them the side is 0.
    """
    on = mask > 0
    (x0, x1), (y0, y1) = _extent(on.any(1)), _extent(on.any(2))
    area, scale = on.float().mean((1, 2)), window[:, 2]
    side = torch.where((area > least) & (area < most), torch.maximum(x1 - x0, y1 - y0), torch.zeros_like(area))
    centre = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2], 1) * scale.unsqueeze(1) + window[:, :2]
    return torch.cat([centre, (side * scale).unsqueeze(1)], 1)


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First and last edge of what is on in bool [b, m], -0.5 to 0.5."""
    m = line.shape[1]
    cell = torch.arange(m, device=line.device)
    first, last = torch.where(line, cell, m).amin(1), torch.where(line, cell + 1, 0).amax(1)
    return first / m - 0.5, last / m - 0.5


def whole_window(photos: Photos, index: Tensor) -> Tensor:
    """[b, 3] centre and side of the largest centred square."""
    wide = photos.aspect[index]
    return torch.stack([wide / 2, torch.full_like(wide, 0.5), wide.clamp_max(1.0)], 1)


def lesion_window(photos: Photos, index: Tensor, box: Tensor, margin: float = 1.35) -> Tensor:
    """[b, 3] the lesion with a margin; the whole photo where no lesion is known."""
    whole = whole_window(photos, index)
    side = (box[:, 2] * margin).clamp(min=0.25).minimum(whole[:, 2])
    near = torch.stack([box[:, 0], box[:, 1], side], 1)
    return torch.where((box[:, 2] > 0).unsqueeze(1), near, whole)


def drawn_window(photos: Photos, index: Tensor, near: float = 0.55) -> Tensor:
    """[b, 3] a random window: the lesion with a margin with chance `near`, where it is known; else the whole photo."""
    b, device = len(index), index.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(b, device=device) * (high - low) + low

    whole = whole_window(photos, index)
    wide = photos.aspect[index]
    limit = torch.maximum(wide, torch.ones_like(wide)) * 1.1
    box, known = photos.box[index], photos.box[index, 2] > 0
    zoomed = whole[:, 2] * torch.exp(uniform(math.log(0.5), math.log(1.25)))
    close = (box[:, 2] * uniform(1.1, 1.9)).clamp(min=0.22)
    look = known & (torch.rand(b, device=device) < near)
    side = torch.where(look, close, torch.where(known, whole[:, 2] * uniform(0.75, 1.25), zoomed)).minimum(limit)
    centre = torch.where(look.unsqueeze(1), box[:, :2], whole[:, :2])
    jitter = torch.stack([uniform(-0.1, 0.1), uniform(-0.1, 0.1)], 1) * side.unsqueeze(1)
    return torch.cat([centre + jitter, side.unsqueeze(1)], 1)


def grid(photos: Photos, index: Tensor, window: Tensor, side: int, turn: bool) -> Tensor:
    """The sampling grid [b, side, side, 2] of windows, turned, mirrored and stretched at random where `turn`."""
    b, device = len(index), index.device
    wide = photos.aspect[index]
    angle = (torch.rand(b, device=device) * 2 - 1) * math.pi if turn else torch.zeros(b, device=device)
    stretch = ((torch.rand(b, device=device) * 2 - 1) * 0.15).exp() if turn else torch.ones(b, device=device)
    flip = torch.where(torch.rand(b, device=device) < 0.5, -1.0, 1.0) if turn else torch.ones(b, device=device)
    cos, sin, scale = angle.cos(), angle.sin(), window[:, 2]
    theta = torch.stack(
        [
            torch.stack([cos * stretch * flip, -sin / stretch], 1) * (scale / wide).unsqueeze(1),
            torch.stack([sin * stretch * flip, cos / stretch], 1) * scale.unsqueeze(1),
        ],
        1,
    )  # [b, 2, 2]
    shift = torch.stack([2 * window[:, 0] / wide - 1, 2 * window[:, 1] - 1], 1)
    return F.affine_grid(torch.cat([theta, shift.unsqueeze(2)], 2), [b, 3, side, side], align_corners=False)


def sample(planes: Tensor, where: Tensor) -> Tensor:
    """uint8 [b, c, 256, 256] -> float [b, c, side, side] in 0..1."""
    return F.grid_sample(planes.float() / 255, where, mode="bilinear", padding_mode="reflection", align_corners=False)


def shrunk(planes: Tensor, like: Tensor) -> Tensor:
    """[b, c, H, W] -> [b, c, h, w], the mean of each cell, h and w those of `like`."""
    return F.adaptive_avg_pool2d(planes, (like.shape[-2], like.shape[-1]))


def decoded(data: np.ndarray, flag: int) -> np.ndarray:
    """Pixels of an image file's bytes, uint8 [n], as OpenCV gives them. Raises ValueError for what is no image."""
    pixels = cv2.imdecode(data, flag)
    if pixels is None:
        raise ValueError("these bytes are no image that OpenCV can read")
    return pixels


def recoloured(rgb: Tensor) -> Tensor:
    """[b, 3, s, s] under another light, some of them less sharp."""
    b, device = len(rgb), rgb.device

    def factor(spread: float, channels: int = 1) -> Tensor:
        return ((torch.rand(b, channels, 1, 1, device=device) * 2 - 1) * spread).exp()

    rgb = rgb * factor(0.25) * factor(0.1, 3)
    mean = rgb.mean((1, 2, 3), keepdim=True)
    rgb = (rgb - mean) * factor(0.25) + mean
    grey = rgb.mean(1, keepdim=True)
    rgb = ((rgb - grey) * factor(0.3) + grey).clamp(0, 1)
    count = int(b * 0.35)
    side = rgb.shape[-1]
    small = int(side / (1 + 1.5 * torch.rand(1).item()))
    if count and small < side:
        chosen = torch.randperm(b, device=device)[:count]
        blurred = F.interpolate(rgb[chosen], (small, small), mode="bilinear", align_corners=False, antialias=True)
        rgb[chosen] = F.interpolate(blurred, (side, side), mode="bilinear", align_corners=False)
    return rgb
