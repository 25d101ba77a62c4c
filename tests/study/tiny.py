"""A tiny study for tests: 8 cases, 2 practice cases, drawn photos, the embedded model; and a reader who answers it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from skinclip.imaging import examples
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.session_service import Study
from skinclip.study.session.view_models import QuestionView, StepView

KEY = "tiny-study"
SECRET_NAME = "IMG_secret_patient_4711"
SECRET_EXIF = "Camera of Dr Secret"
OOD = ("angioma", 2), ("angioma", 8)  # drawings on which the embedded model abstains
NEVI = range(1, 14)  # seeds of drawings that it takes for nevi


def protocol(**changes: Any) -> dict[str, Any]:
    """The protocol's YAML as a dict: every word of its ethics fields says that it is a test."""
    ethics = ("approval", "controller", "contact", "consent_version", "consent_text", "photo_licence", "retention")
    return {
        "key": KEY,
        "title": "A study for tests",
        "version": 1,
        "seed": 7,
        "arms": ["none", "grad_cam", "grad_cam_text", "regions"],
        "cases": {
            "n": 8,
            "wrong_share": 0.5,
            "ood_share": 0.125,
            "practice": 2,
            "repeat_share": 0.125,
            "preference_pairs": 2,
        },
        "washout": {"presentations": 2, "hours": 0},
        "completion": {"min_cases_share": 0.9, "min_readers": 2},
        "plan": {
            "primary": {"endpoint": "trust", "arm": "regions", "reference": "grad_cam", "smallest_effect": 0.3},
            "safety": {"arm": "regions", "reference": "grad_cam", "margin": 0.05},
            "alpha": 0.05,
            "power": 0.8,
            "secondary": ["correct", "confidence", "seconds"],
            "time_outliers": {"min_seconds": 3, "max_seconds": 600},
        },
        "ethics": {name: f"for tests only: {name}" for name in ethics},
        **changes,
    }


def write_protocol(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(protocol(**changes)), encoding="utf-8")
    return path


def write_photos(folder: Path) -> Path:
    """Nevi, half of them labelled melanoma so that the model errs on them, and two photos out of distribution.

    File names and EXIF data hold words that must never be shown.
    """
    folder.mkdir(parents=True)
    rows = []
    for seed in NEVI:
        truth = "nv" if seed % 2 else "mel"
        rows.append((_write(folder, "nevus", seed), f"lesion{seed}", truth, ""))
    for kind, seed in OOD:
        rows.append((_write(folder, kind, seed), f"{kind}{seed}", "", "ood"))
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "lesion_id", "diagnosis", "group"), *rows])
    return folder


def _write(folder: Path, kind: str, seed: int) -> str:
    name = f"{SECRET_NAME}_{kind}_{seed}.jpg"
    photo = Image.fromarray(examples.draw(kind, seed, (320, 240)))
    exif = photo.getexif()
    exif[0x0110] = SECRET_EXIF
    exif[0x0112] = 6  # on its side
    stream = io.BytesIO()
    photo.rotate(90, expand=True).save(stream, format="JPEG", quality=95, exif=exif)
    (folder / name).write_bytes(stream.getvalue())
    return name


def answer(question: QuestionView) -> Any:
    """Some answer to a question, by its form field."""
    match question.field:
        case "choice":
            return question.options[0][0]
        case "likert":
            return 2
        case "percent":
            return 60
        case "yes_no":
            return True
    return "a remark"


def answers(view: StepView) -> dict[str, Any]:
    return {question.key: answer(question) for question in view.questions}


def session(
    study: Study, token: str, until: Callable[[StepView], bool] = lambda view: False
) -> Iterator[tuple[StepView, dict[str, Any]]]:
    """Answers one step after another; yields each view with what was answered, the last view with nothing."""
    view = study.view(token)
    while view.kind not in ("done", "pause") and not until(view):
        given = answers(view)
        yield view, given
        view = study.submit(token, view.step, given, f"request-{view.step}", 4.0)
    yield view, {}


def default_questions(phase: str) -> list[dict[str, Any]]:
    """The questions of a phase as a YAML file would list them, to be added to."""
    return [question.to_dict() for question in Protocol.from_dict(protocol()).questions[phase]]
