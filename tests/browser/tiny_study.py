"""A study of eight made-up cases, frozen without a model. Each case's aid says a word that is said nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from skinclip.core import assessment as record
from skinclip.core.paths import TRUST_STUDY
from skinclip.core.vocabulary import CRITERIA, DIAGNOSES
from skinclip.data.cases import Case
from skinclip.imaging.photo import encode_png, from_array
from skinclip.study import build as study_build
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session import keys
from skinclip.study.session.bundle import StudyBundle
from skinclip.study.store.study_key import StudyKey

WEIGHTS = "5ec2e7" * 10 + "beef"
SOURCE = "hiddenhospital"
SIZE = (128, 96)
PHOTOS = 10


def marker(number: int) -> str:
    """A word of the aid's rationale about photo `number`."""
    return f"markword{number:02d}x"


@dataclass(frozen=True)
class TinyStudy:
    folder: Path
    photos: dict[int, bytes]  # number -> the JPEG of the case drawn from this photo


def build(folder: Path, pause_seconds: float = 0, **changes: object) -> TinyStudy:
    """Eight cases, on half of which the AI is wrong, one practice case, one repeat and one pair.

    `pause_seconds` is the pause that is forced between two parts; `changes` replace fields of the protocol.
    """
    protocol_file = folder / "tiny.yaml"
    protocol_file.write_text(yaml.safe_dump({**_protocol(pause_seconds), **changes}, sort_keys=False))
    protocol = Protocol.read(protocol_file)
    candidates = [_candidate(number, folder, wrong=number > 6) for number in range(1, PHOTOS + 1)]
    out = folder / "study"
    out.mkdir()
    model, drawn = record.ModelInfo("mini", "0", WEIGHTS), study_build.draw(protocol, candidates)
    _, key, _ = keys.store_key(None)
    study_build.write(out, protocol_file, protocol, drawn, model, lambda image, _: _heat(image.pixels), StudyKey(key))
    truths = StudyBundle.open(out).truths
    numbers = {case: int(truth.source.rpartition("_")[2]) - 9000 for case, truth in truths.items()}
    return TinyStudy(out, {n: (out / "cases" / case / "photo.jpg").read_bytes() for case, n in numbers.items()})


def _protocol(pause_seconds: float) -> dict[str, object]:
    values = yaml.safe_load(TRUST_STUDY.read_text())
    values["key"], values["title"] = "tiny", "A tiny study for tests"
    values["cases"] = {
        "n": 8, "wrong_share": 0.5, "ood_share": 0, "practice": 1, "repeat_share": 0.125, "preference_pairs": 1
    }  # fmt: skip
    values["washout"] = {"presentations": 1, "hours": pause_seconds / 3600}
    values["completion"] = {"min_cases_share": 0.9, "min_readers": 2}
    values["ethics"] = {name: f"for tests only: {name}" for name in values["ethics"]}
    return values


def _photo(number: int) -> np.ndarray:
    """Skin with a spot; no two alike, and full of detail, so that no two files have a stretch in common."""
    noise = np.random.default_rng(number).integers(0, 40, (SIZE[1], SIZE[0], 3))
    pixels = np.clip(np.array([196, 150, 120]) + noise, 0, 255).astype(np.uint8)
    return cv2.ellipse(pixels, (64, 48), (24 + 3 * number, 24), 20 * number, 0, 360, (90, 50, 40 + 8 * number), -1)


def _heat(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    return np.linspace(0, 1, height * width).reshape(height, width)


def _candidate(number: int, folder: Path, wrong: bool) -> study_build.Candidate:
    photo = folder / f"{SOURCE}_{number}.png"
    photo.write_bytes(encode_png(_photo(number)))
    case = Case(photo, f"ISIC_{9000 + number}", SOURCE, f"lesion{number}", diagnosis="nv" if wrong else "mel")
    return study_build.Candidate(case, "wrong" if wrong else "right", _assessment(number))


def _assessment(number: int) -> record.Assessment:
    square = ((40.0, 30.0), (80.0, 30.0), (80.0, 60.0), (40.0, 60.0))
    share = 0.6 + number / 1000
    probabilities = [share, *[(1 - share) / (len(DIAGNOSES) - 1)] * (len(DIAGNOSES) - 1)]
    ranked = sorted(DIAGNOSES, key=lambda d: d.code != "mel")
    return record.Assessment(
        model=record.ModelInfo("mini", "0", WEIGHTS),
        photo=record.PhotoInfo(*SIZE, from_array(_photo(number)).sha256, record.Quality(True)),
        context=record.Context(),
        diagnosis=tuple(
            record.DiagnosisProbability(d.code, d.name, p) for d, p in zip(ranked, probabilities, strict=True)
        ),
        prediction_set=record.PredictionSet(0.9, ("mel", "nv")),
        malignancy=record.Malignancy(0.6, 0.2, True),
        shift=record.Shift(0.5, True),
        lesion=record.Lesion((20, 20, 100, 80), (square,), 0.33),
        criteria={c.code: {label: 1 / len(c.labels) for label in c.labels} for c in CRITERIA},
        findings=(record.Finding("r1", "streaks", "irregular", 0.8, record.Region((40, 30, 80, 60), (square,))),),
        rationale=f"Melanoma leads, supported by [r1] irregular streaks, {marker(number)}.",
        abstained=False,
    )
