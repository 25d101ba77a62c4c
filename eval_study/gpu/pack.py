"""Packs the training photos, masks and labels into a few small files that travel to a machine with a GPU.

    python -m eval_study.gpu.pack --data $SKINCLIP_DATA --out PACKS --part-bytes 45000000

Writes `index.json` (one record a photo: where its bytes lie, its labels) and `part-0.bin`, `part-1.bin`, ... Photos are
stored as they are where they are small, else shrunk to 256 px on the long side. No calib or test photo is packed; ten
per cent of the training lesions are left out as well, so that later stages can learn confidence on photos that the
tower has not seen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from eval_study.gpu.vocabulary import CODES
from skinclip.core.vocabulary import DERM7PT_STATES, DERM7PT_TO_CODE, STATE_BY_KEY
from skinclip.data.dermatologist_criteria import OFFERED
from skinclip.data.layouts import milk10k
from skinclip.data.possible_states import ATTRIBUTE_CRITERIA, NOT_DRAWN, NOT_MARKED
from skinclip.data.splits import lesion_share

LONG_SIDE = 256  # pixels
HELD_OUT, SEED = 0.10, 0
MILK10K_CODES = {column: code if code in CODES else "other" for column, code in milk10k.COLUMNS.items()}
TASK2_ATTRIBUTES = ("pigment_network", "negative_network", "streaks", "milia_like_cyst", "globules")
TASK2_CRITERION = ATTRIBUTE_CRITERIA
# The marks of dermatologists (Chanda et al. 2024) -> criterion and the states that stay possible where it is marked and
# where it is offered but not marked. Marks of melanoma were offered on melanomas only, those of nevi on nevi only; what
# was not offered is missing, not absent.
REGRESSION_MARKS = ("GP", "WLSA")
MELANOMA_MARKS = {m: STATE_BY_KEY[key] for m, key in OFFERED["mel"].items() if m not in REGRESSION_MARKS}
NEVUS_MARKS = {m: STATE_BY_KEY[key] for m, key in OFFERED["nv"].items()}
UNMARKED_WEIGHT = NOT_MARKED


@dataclass
class PackedPhoto:
    """One photo. `labels` maps a criterion to (states that are possible, weight); a criterion left out is unknown."""

    source: str
    split: str
    image_id: str
    lesion_id: str
    kind: str  # "dermoscopy" or "clinical"
    diagnosis: str | None
    aspect: float  # width / height of the photo as taken
    labels: dict[str, tuple[list[str], float]] = field(default_factory=dict)
    attributes: list[str] | None = None  # of Task 2, those with a region; None where none were drawn
    files: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # name -> part, offset, length
    swapped: bool = False  # red and blue are exchanged in the file, and put right where it is packed


class Parts:
    """Bytes in numbered files of at most `limit` bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit, self.number, self.offset = folder, limit, 0, 0
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / "part-0.bin").open("wb")

    def add(self, data: bytes) -> tuple[int, int, int]:
        """Writes bytes; the number of their part, their place in it and their length."""
        if self.offset + len(data) > self.limit:
            self.file.close()
            self.number, self.offset = self.number + 1, 0
            self.file = (self.folder / f"part-{self.number}.bin").open("wb")
        self.file.write(data)
        self.offset += len(data)
        return self.number, self.offset - len(data), len(data)


def photo_bytes(path: Path, swapped: bool = False) -> tuple[bytes, float]:
    """The file as it is where it is small, else WebP with 256 px on the long side; and width / height.

    Args:
        swapped: red and blue were exchanged when the file was made, and are put right.
    """
    data = path.read_bytes()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"{path} is no image that can be read; fetch it anew")
    height, width = pixels.shape[:2]
    if max(height, width) > LONG_SIDE:
        scale = LONG_SIDE / max(height, width)
        size = (round(width * scale), round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 88])[1].tobytes()
    if swapped:
        data = cv2.imencode(".webp", pixels[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, 92])[1].tobytes()
    return data, width / height


def records(root: Path) -> Iterator[tuple[PackedPhoto, dict[str, Path]]]:
    """Every photo of the train and valid splits with the files that belong to it, of the sets that are there.

    Raises FileNotFoundError where none of them is.
    """
    missing = [name for name in SETS if not (root / name).is_dir()]
    if len(missing) == len(SETS):
        raise FileNotFoundError(f"{root} holds none of the sets {', '.join(SETS)}; see docs/gpu_training.md")
    if missing:
        print(f"not there, and not packed: {', '.join(missing)}")
    for name, read in SETS.items():
        if name not in missing:
            yield from read(root / name)


def _ham10000(folder: Path) -> Iterator[tuple[PackedPhoto, dict[str, Path]]]:
    table = pd.read_csv(folder / "manifest.csv")
    marks = pd.read_csv(folder / "dermatologist_criteria.csv").set_index("image_id")
    for row in table[table.split.isin(["train", "valid"])].itertuples():
        labels = mark_labels(marks.loc[row.image_id], row.diagnosis) if row.image_id in marks.index else {}
        record = PackedPhoto(
            "ham10000", row.split, row.image_id, row.lesion_id, "dermoscopy", row.diagnosis, 1.0, labels
        )
        yield record, {"image": folder / row.image, "lesion": folder / row.mask}


def mark_labels(marks: pd.Series, diagnosis: str) -> dict[str, tuple[list[str], float]]:
    """The labels of the seven criteria that the marks of one dermatologist give."""
    if marks["none"] == 1:
        return {}
    offered = MELANOMA_MARKS if diagnosis == "mel" else NEVUS_MARKS
    labels: dict[str, tuple[list[str], float]] = {}
    for mark, state in offered.items():
        others = [s for s in ("absent", "typical", "atypical", "regular", "irregular") if s != state.code]
        labels[state.criterion] = ([state.code], 1.0) if marks[mark] else (others, UNMARKED_WEIGHT)
    if diagnosis == "mel":
        marked = any(marks[m] for m in REGRESSION_MARKS)
        labels["regression_structures"] = (["present"], 1.0) if marked else (["absent"], UNMARKED_WEIGHT)
    return labels


def _milk10k(folder: Path) -> Iterator[tuple[PackedPhoto, dict[str, Path]]]:
    split = pd.read_csv(folder / "split.csv").set_index("lesion_id").split
    truth = pd.read_csv(folder / "MILK10k_Training_GroundTruth.csv").set_index("lesion_id").idxmax(axis=1)
    for row in pd.read_csv(folder / "MILK10k_Training_Metadata.csv").itertuples():
        if split[row.lesion_id] not in ("train", "valid"):
            continue
        kind = "dermoscopy" if row.image_type == "dermoscopic" else "clinical"
        image = folder / "MILK10k_Training_Input" / row.lesion_id / f"{row.isic_id}.webp"
        code = MILK10K_CODES[truth[row.lesion_id]]
        record = PackedPhoto("milk10k", split[row.lesion_id], row.isic_id, row.lesion_id, kind, code, 4 / 3)
        yield record, {"image": image}


def _task2(folder: Path) -> Iterator[tuple[PackedPhoto, dict[str, Path]]]:
    for row in pd.read_csv(folder / "labels.csv").itertuples():
        labels = {}
        present = [a for a in TASK2_ATTRIBUTES if getattr(row, a)]
        for attribute in TASK2_ATTRIBUTES:
            states = ["present", "typical", "atypical", "regular", "irregular"] if attribute in present else ["absent"]
            labels[TASK2_CRITERION[attribute]] = (states, 1.0 if attribute in present else NOT_DRAWN)
        code = row.diagnosis_isic2017 if isinstance(row.diagnosis_isic2017, str) else None
        split = "valid" if row.split == "valid" else "train"
        record = PackedPhoto(
            "isic2018_task2", split, row.image_id, row.image_id, "dermoscopy", code, 1.0, labels, present
        )
        files = {"image": folder / "images" / f"{row.image_id}.jpg"}
        files["lesion"] = folder / "lesion_masks" / f"{row.image_id}.png"
        masks = folder / "attribute_masks"
        files |= {a: masks / f"{row.image_id}_attribute_{a}.png" for a in present}
        yield record, files


def _manifest(folder: Path) -> Iterator[tuple[PackedPhoto, dict[str, Path]]]:
    for row in pd.read_csv(folder / "manifest.csv").itertuples():
        code = row.diagnosis if isinstance(row.diagnosis, str) else None
        lesion = row.patient_id if isinstance(row.patient_id, str) else row.image_id
        swapped = row.source == "ISIC 2020"  # all 69 of them; those of the ISIC archive are as they were taken
        record = PackedPhoto(folder.name, "train", row.image_id, lesion, "dermoscopy", code, 4 / 3, swapped=swapped)
        yield record, {"image": folder / row.image}


def _isic2017(folder: Path) -> Iterator[tuple[PackedPhoto, dict[str, Path]]]:
    """The photos of ISIC 2017 that are not in Task 2 beside it (squashed here, but the same)."""
    table, labels = pd.read_csv(folder / "manifest.csv"), folder.parent / "isic2018_task2" / "labels.csv"
    known = set(pd.read_csv(labels).image_id) if labels.exists() else set()
    for row in table[table.split.isin(["train", "valid"]) & ~table.image_id.isin(known)].itertuples():
        record = PackedPhoto("isic2017", row.split, row.image_id, row.image_id, "dermoscopy", row.diagnosis, 4 / 3)
        yield record, {"image": folder / row.image}


def _derm7pt(folder: Path) -> Iterator[tuple[PackedPhoto, dict[str, Path]]]:
    files = {p.relative_to(folder / "images").as_posix().lower(): p for p in (folder / "images").rglob("*.*")}
    for row in pd.read_csv(folder / "meta" / "meta.csv").itertuples():
        if row.split not in ("train", "valid"):
            continue
        labels = {c: ([DERM7PT_STATES[c][getattr(row, c)]], 1.0) for c in DERM7PT_STATES}
        code, lesion = DERM7PT_TO_CODE[row.diagnosis], f"d7-{row.case_num}"
        for kind, name in (("dermoscopy", row.derm), ("clinical", row.clinic)):
            if (path := find(files, name)) is not None:
                own = labels if kind == "dermoscopy" else {}
                record = PackedPhoto("derm7pt", row.split, f"{row.case_num}-{kind}", lesion, kind, code, 1.0, own)
                yield record, {"image": path}


def find(files: dict[str, Path], name: str) -> Path | None:
    """A published file by its name, whatever its case and suffix."""
    stem = name.lower().rsplit(".", 1)[0]
    return next((files[stem + s] for s in (".jpg", ".webp", ".jpeg", ".png") if stem + s in files), None)


SETS: dict[str, Callable[[Path], Iterator[tuple[PackedPhoto, dict[str, Path]]]]] = {  # folder -> its reader
    "ham10000": _ham10000,
    "milk10k": _milk10k,
    "isic2018_task2": _task2,
    "isic_extra": _manifest,
    "isic2017": _isic2017,
    "derm7pt": _derm7pt,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Packs by the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part-bytes", type=int, default=45_000_000)
    parser.add_argument("--share", type=float, default=1.0, help="of the lesions that is packed, to rehearse")
    args = parser.parse_args(argv)
    parts, index = Parts(args.out, args.part_bytes), []
    for record, files in records(args.data):
        held = record.split == "train" and lesion_share(record.source, record.lesion_id, SEED) < HELD_OUT
        if held or lesion_share("", record.lesion_id, 1) >= args.share:
            continue
        for name, path in files.items():
            data, aspect = photo_bytes(path, record.swapped) if name == "image" else (path.read_bytes(), 0.0)
            record.files[name] = parts.add(data)
            if name == "image" and record.source not in ("isic2017", "isic_extra"):  # those were squashed
                record.aspect = aspect
        index.append(asdict(record))
    parts.file.close()
    (args.out / "index.json").write_text(json.dumps(index))
    print(f"{len(index)} photos in {parts.number + 1} parts")


if __name__ == "__main__":
    main()
