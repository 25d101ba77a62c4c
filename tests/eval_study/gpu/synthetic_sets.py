"""Six synthetic photos in the layouts that `eval_study.gpu.pack` reads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

MARKS = ("none", "TRBL", "ESA", "BDG", "PRL", "PV", "GP", "WLSA", "PRLC", "MVP")
ATTRIBUTES = ("pigment_network", "negative_network", "streaks", "milia_like_cyst", "globules")


def make_sets(root: Path) -> Path:
    """HAM10000 (a melanoma with marks, a nevus), MILK10k (a lesion in both kinds), Task 2 and ISIC 2020 (one each)."""
    rng = np.random.default_rng(0)
    ham = root / "ham10000"
    rows = []
    for name, code in (("h1", "mel"), ("h2", "nv")):
        _photo(ham / f"{name}.png", rng)
        _mask(ham / f"{name}_mask.png")
        rows.append(["train", name, f"{name}-lesion", code, f"{name}.png", f"{name}_mask.png"])
    columns = ["split", "image_id", "lesion_id", "diagnosis", "image", "mask"]
    pd.DataFrame(rows, columns=columns).to_csv(ham / "manifest.csv", index=False)
    marked = {m: int(m in ("TRBL", "GP")) for m in MARKS}
    pd.DataFrame([{"image_id": "h1", **marked}]).to_csv(ham / "dermatologist_criteria.csv", index=False)
    milk = root / "milk10k"
    kinds = (("i1", "dermoscopic"), ("i2", "clinical: close-up"))
    for name, _ in kinds:
        _photo(milk / "MILK10k_Training_Input" / "l1" / f"{name}.webp", rng, (192, 256))
    pd.DataFrame([["l1", "train"]], columns=["lesion_id", "split"]).to_csv(milk / "split.csv", index=False)
    truth = pd.DataFrame([{"lesion_id": "l1", "BCC": 0.0, "SCCKA": 1.0}])
    truth.to_csv(milk / "MILK10k_Training_GroundTruth.csv", index=False)
    metadata = pd.DataFrame([["l1", *k] for k in kinds], columns=["lesion_id", "isic_id", "image_type"])
    metadata.to_csv(milk / "MILK10k_Training_Metadata.csv", index=False)
    task2 = root / "isic2018_task2"
    _photo(task2 / "images" / "t1.jpg", rng, (200, 256))
    _mask(task2 / "lesion_masks" / "t1.png")
    _mask(task2 / "attribute_masks" / "t1_attribute_globules.png", 20)
    row = {
        "image_id": "t1",
        "split": "train",
        "diagnosis_isic2017": "nv",
        **dict.fromkeys(ATTRIBUTES, 0),
        "globules": 1,
    }
    pd.DataFrame([row]).to_csv(task2 / "labels.csv", index=False)
    extra = root / "isic_extra"
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 2] = 200  # BGR: a red photo
    _write(extra / "e1.png", red)
    row = {"image_id": "e1", "patient_id": "p1", "diagnosis": "mel", "source": "ISIC 2020", "image": "e1.png"}
    pd.DataFrame([row]).to_csv(extra / "manifest.csv", index=False)
    return root


def _photo(path: Path, rng: np.random.Generator, size: tuple[int, int] = (128, 128)) -> None:
    skin = np.full((*size, 3), (150, 170, 210), np.uint8)
    cv2.circle(skin, (size[1] // 2, size[0] // 2), size[0] // 4, [int(x) for x in rng.integers(20, 120, 3)], -1)
    _write(path, skin)


def _mask(path: Path, radius: int = 32) -> None:
    mask = np.zeros((128, 128), np.uint8)
    cv2.circle(mask, (64, 64), radius, 255, -1)
    _write(path, mask)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
