"""`study build`: labelled photos -> a study's bundle. The model runs here, once, and never again.

    photos -> bounded pixels -> Assessor -> right, wrong or out of distribution -> drawn by seed -> files and hashes

Errors of the AI are its real ones: enriched by drawing more of them, never by editing the AI's answers. The model sees
what a reader sees, the bounded photo alone, without age, sex or site. A study is written beside its place and moved
there whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import re
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from skinclip.core import vocabulary
from skinclip.core.assessment import Assessment, Context, ModelInfo
from skinclip.data.cases import Case
from skinclip.data.photo_index import INDEX, PhotoIndex
from skinclip.data.readers import read_cases
from skinclip.imaging.overlay import DRAWN_SIDE, heatmap_overlay, hex_colour, region_overlay
from skinclip.imaging.photo import LesionImage, PhotoError, encode_jpeg, fit, from_array, load_photo
from skinclip.language.prompt import context_text, differential_text, findings_text
from skinclip.study.errors import StudyRequestError
from skinclip.study.kept_predictions import KeptPredictions, predictions_folder
from skinclip.study.protocol.arms import GRAD_CAM_PICTURE, REGIONS_PICTURE, arm_named
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session import bundle, keys
from skinclip.study.session.bundle import Truth, default_folder
from skinclip.study.session.view_models import Fragment
from skinclip.study.store.store import Store, where_from_environment
from skinclip.study.store.study_key import StudyKey
from skinclip.study.supply import check_supply, count, is_out_of_distribution, named, opaque_patients

if TYPE_CHECKING:
    from skinclip.pipeline.assessor import Assessor

LONGEST_SIDE = 1024  # pixels of a photo in the bundle: structures stay visible, a page loads at once

_REFERENCE = re.compile(r"\[r(\d+)\]")
OnProgress = Callable[[int, int], None]  # photos done, photos in all
LoadPhoto = Callable[[Path], LesionImage]
Heat = Callable[[LesionImage, str], np.ndarray]  # photo and diagnosis code -> Grad-CAM map [H, W], 0 to 1
T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """A photo that could become a case."""

    case: Case
    stratum: str
    assessment: Assessment

    @property
    def leading(self) -> str:
        return self.assessment.diagnosis[0].code


@dataclass(frozen=True)
class CaseSelection:
    """Opaque id -> candidate, and the sampling weight of each stratum."""

    cases: dict[str, Candidate]
    practice: dict[str, Candidate]
    weights: dict[str, float]


@dataclass(frozen=True)
class BuildResult:
    """Result of a build: the folder, the number of eligible photos of each stratum, and why others were left out.

    `key` is the file of the key, apart from the folder. `enriched`: whether the AI's errors are a larger part of the
    cases than of the photos, as the debrief states.
    """

    folder: Path
    eligible: dict[str, int]
    left_out: tuple[str, ...]
    enriched: bool = True
    key: Path | None = None


def build(
    protocol_path: Path,
    photos: Path,
    assessor: Assessor,
    *,
    out: Path | None = None,
    key: Path | None = None,
    on_progress: OnProgress | None = None,
    load: LoadPhoto = load_photo,
) -> BuildResult:
    """Builds a study into `out`, by default `default_folder`.

    Photos are counted before the model runs. The model's answers are kept beside `out` (`predictions_folder`), so that
    a build that was interrupted or refused, or one for a later version, does not begin anew.

    `photos` is a folder of labelled photos that `data.readers` knows; in a manifest, `group` says `ood` for photos out
    of distribution. `key` is an existing key file to use, for several studies in one database. `load` reads each photo
    for the first time: those of strangers are to be decoded in a process of their own.

    Raises ProtocolError, DataError, or StudyRequestError where photos do not suffice or a study with readers is in the
    way.
    """
    protocol = Protocol.read(protocol_path)
    out = out or default_folder(protocol)
    check_free(out)
    table = read_cases(photos)
    check_supply(protocol, count(table.cases, table.problems))
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = KeptPredictions(predictions_folder(out), assessor)
    candidates, left_out = assess_photos(table.cases, kept.assess, on_progress or (lambda done, total: None), load)
    left_out = (*table.problems, *left_out)
    candidates, unoffered = offered(protocol, candidates)
    left_out += unoffered
    candidates = one_a_lesion(protocol.seed, candidates)
    drawn, trained_on = draw_unseen(protocol, candidates, left_out, training_index(assessor))
    left_out += trained_on
    key_file, raw, fresh = keys.store_key(key or _key_in(out))
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        write(draft, protocol_path, protocol, drawn, assessor.model_info, _grad_cam(assessor), StudyKey(raw))
        _move(draft, out)
    except BaseException:
        if fresh:
            key_file.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    enriched = drawn.weights["wrong"] < 1
    return BuildResult(out, dict(Counter(c.stratum for c in candidates)), left_out, enriched, key_file)


def _key_in(out: Path) -> Path | None:
    """The key of the study that is built anew in `out`, where there is one: its database may know it."""
    if not (out / bundle.RECORD).is_file():
        return None
    path = keys.key_path(out, bundle.read_record(out)[0])
    return path if path.exists() else None


def check_free(out: Path) -> None:
    """Checks that `out` is missing, empty, or a study without readers, which may be written over.

    Raises StudyRequestError where it is none of these.
    """
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / bundle.RECORD).is_file():
        raise StudyRequestError(f"{out} is there and is no study; give another folder as --out")
    protocol = Protocol.read(out / bundle.PROTOCOL)
    if not keys.key_path(out, bundle.read_record(out)[0]).exists():
        raise StudyRequestError(f"{out} holds a study whose key is not here; give another folder as --out")
    key = keys.read_study_key(out, bundle.read_record(out)[0])
    with Store.open(where_from_environment(out / bundle.DATABASE), key) as store:
        name = f"{protocol.key}-v{protocol.version}"
        if name in store.studies() and store.readers(name):
            raise StudyRequestError(
                f"{out} holds a study that has readers; raise the protocol's version, or give another folder as --out"
            )


# --- which photos ---------------------------------------------------------------------------------------------------


def assess_photos(
    cases: Sequence[Case],
    assess: Callable[[LesionImage], Assessment],
    on_progress: OnProgress,
    load: LoadPhoto = load_photo,
) -> tuple[list[Candidate], tuple[str, ...]]:
    """Candidates in the order of `cases`, and a line with its name for each photo that cannot be one."""
    candidates, left_out, known = [], [], dict[str, str]()
    for done, case in enumerate(cases, start=1):
        name = case.image.name
        try:
            image = bounded(load(case.image))
            if image.sha256 in known:
                raise PhotoError(f"{name} is the same picture as {known[image.sha256]}")
            known[image.sha256] = name
            candidates.append(candidate(case, assess(image)))
        except PhotoError as error:
            left_out.append(str(error) if name in str(error) else f"{name}: {error}")
        on_progress(done, len(cases))
    return candidates, tuple(left_out)


def candidate(case: Case, assessment: Assessment) -> Candidate:
    """Raises PhotoError where a photo cannot be a case: no truth, or the model abstained in distribution."""
    if is_out_of_distribution(case):
        return Candidate(case, "ood", assessment)
    if assessment.abstained:
        raise PhotoError(f"{case.image_id}: the model abstains on it")
    if case.diagnosis is None:
        raise PhotoError(f"{case.image_id}: its diagnosis is not known")
    if case.diagnosis not in vocabulary.DIAGNOSIS_CODES:
        raise PhotoError(f"{case.image_id}: the model does not know its diagnosis ({case.diagnosis})")
    right = case.diagnosis == assessment.diagnosis[0].code
    return Candidate(case, "right" if right else "wrong", assessment)


def offered(protocol: Protocol, candidates: Iterable[Candidate]) -> tuple[list[Candidate], tuple[str, ...]]:
    """The candidates whose diagnosis readers can choose, and a line for each other one."""
    (asked,) = (question for question in protocol.questions["before"] if question.key == "diagnosis")
    answers, kept, left_out = {option.value for option in asked.scale.options}, [], []
    for one in candidates:
        if one.stratum == "ood" or one.case.diagnosis in answers:
            kept.append(one)
        else:
            left_out.append(f"{one.case.image_id}: the protocol offers no such diagnosis ({one.case.diagnosis})")
    return kept, tuple(left_out)


def bounded(image: LesionImage) -> LesionImage:
    """The photo as it is assessed: at most `LONGEST_SIDE` pixels long, named by its pixels and not by its file."""
    return from_array(fit(image.pixels, LONGEST_SIDE))


def one_a_lesion(seed: int, candidates: Iterable[Candidate]) -> list[Candidate]:
    """One photo of each lesion, drawn: two of one lesion would be one case twice."""
    kept = {(c.case.source, c.case.lesion_id): c for c in _shuffled(seed, "lesions", candidates)}
    return list(kept.values())


def draw(protocol: Protocol, candidates: Sequence[Candidate], left_out: Sequence[str] = ()) -> CaseSelection:
    """Exactly the cases that the protocol counts, then practice cases from what is left. Raises StudyRequestError."""
    seed, counts = protocol.seed, protocol.cases.counts
    pool = {s: _shuffled(seed, s, (c for c in candidates if c.stratum == s)) for s in counts}
    pool = {s: _balanced(protocol.cases.balance, photos) for s, photos in pool.items()}
    rest = _shuffled(seed, "practice", [*pool["right"][counts["right"] :], *pool["wrong"][counts["wrong"] :]])
    _check_enough(protocol, {s: len(photos) for s, photos in pool.items()}, len(rest), left_out)
    chosen = _shuffled(seed, "ids", [c for s, n in counts.items() for c in pool[s][:n]])
    width = max(3, len(str(len(chosen))))
    return CaseSelection(
        {f"C{i:0{width}d}": c for i, c in enumerate(chosen, start=1)},
        {f"P{i:02d}": c for i, c in enumerate(rest[: protocol.cases.practice], start=1)},
        _weights(counts, {s: len(photos) for s, photos in pool.items()}),
    )


def training_index(assessor: Assessor) -> PhotoIndex | None:
    """The index of the photos that the model was trained on; None where its checkpoint has none."""
    folder = getattr(assessor, "checkpoints", {}).get(assessor.model_info.weights_sha256)
    return PhotoIndex.read(folder / INDEX) if folder is not None and (folder / INDEX).is_file() else None


def draw_unseen(
    protocol: Protocol, candidates: Sequence[Candidate], left_out: Sequence[str], index: PhotoIndex | None
) -> tuple[CaseSelection, tuple[str, ...]]:
    """The cases drawn, none of which the model was trained on, and a line for each photo that was refused for that.

    Only photos that are drawn are looked up, others drawn in their place until none is known.
    """
    looked_up: set[Path] = set()
    refused: dict[Path, str] = {}
    while True:
        pool = [c for c in candidates if c.case.image not in refused]
        drawn = draw(protocol, pool, (*left_out, *refused.values()))
        fresh = [c for c in (*drawn.cases.values(), *drawn.practice.values()) if c.case.image not in looked_up]
        if index is None or not fresh:
            return drawn, tuple(refused.values())
        for one in fresh:
            looked_up.add(one.case.image)
            known = index.find(bounded(load_photo(one.case.image)).pixels)
            if known is not None:
                refused[one.case.image] = f"{one.case.image.name}: the model was trained on this lesion ({known})"


_STRATUM_WORDS = {
    "right": "on which the AI is right",
    "wrong": "on which the AI is wrong",
    "ood": "marked as out of distribution (`ood` in the column group)",
}
_STRATUM_FIELDS = {"right": "cases.n", "wrong": "cases.wrong_share", "ood": "cases.ood_share"}


def _check_enough(protocol: Protocol, available: dict[str, int], rest: int, left_out: Sequence[str]) -> None:
    counts = protocol.cases.counts
    short = [
        f"{available[s]} {_STRATUM_WORDS[s]}, {n} needed (or lower {_STRATUM_FIELDS[s]})"
        for s, n in counts.items()
        if available[s] < n
    ]
    if not short and rest < protocol.cases.practice:
        short = [f"{rest} left for practice, {protocol.cases.practice} needed (or lower cases.practice)"]
    if short:
        there = ", ".join(f"{n} {s}" for s, n in available.items())
        raise StudyRequestError(
            f"too few photos: {'; '.join(short)}. Add photos, or change the protocol, and build again: the AI's "
            f"answers are kept. One photo per lesion was counted: {there}. {len(left_out)} photos could not be used"
            f"{': ' if left_out else ''}{named(left_out)}"
        )


def _balanced(by: Sequence[str], candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates in turn from each group that `by` tells apart: the first n are as even as the photos allow."""
    groups: dict[tuple[str, ...], list[Candidate]] = {}
    for one in candidates:
        groups.setdefault(tuple(BALANCED[name](one.case) for name in by), []).append(one)
    ranked = [(turn, i, one) for i, group in enumerate(groups.values()) for turn, one in enumerate(group)]
    return [one for _, _, one in sorted(ranked, key=lambda entry: entry[:2])]


def _skin_tone(case: Case) -> str:
    """Three groups of skin tone, by MILK10k's classes or Fitzpatrick's types: light, medium, dark, or not known."""
    if case.skin_tone is not None:
        return ("dark", "dark", "medium", "medium", "light", "light")[min(max(case.skin_tone, 0), 5)]
    if case.fitzpatrick is not None:
        return ("light", "light", "medium", "medium", "dark", "dark")[min(max(case.fitzpatrick, 1), 6) - 1]
    return "unknown"


# What `cases.balance` may name -> the group of a case.
BALANCED: dict[str, Callable[[Case], str]] = {
    "diagnosis": lambda case: str(case.diagnosis),
    "malignant": lambda case: str(
        vocabulary.is_malignant(case.diagnosis) if case.malignant is None else case.malignant
    ),
    "skin_tone": _skin_tone,
    "kind": lambda case: str(case.kind),
}


def _weights(counts: dict[str, int], available: dict[str, int]) -> dict[str, float]:
    """Stratum -> its share among eligible photos over its share in the study, within distribution."""
    drawn, eligible = (sum(n[s] for s in ("right", "wrong")) for n in (counts, available))
    weights = {s: (available[s] / eligible) / (counts[s] / drawn) for s in ("right", "wrong") if counts[s]}
    return {**weights, "ood": 1.0}


def _shuffled(seed: int, purpose: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    """In an order that is drawn for the purpose, whatever the order of the photos in their folder."""
    ordered = sorted(candidates, key=lambda c: (c.case.source, c.case.image_id))
    random.Random(f"{seed}:{purpose}").shuffle(ordered)
    return ordered


# --- files ----------------------------------------------------------------------------------------------------------


def write(
    folder: Path,
    protocol_path: Path,
    protocol: Protocol,
    drawn: CaseSelection,
    model: ModelInfo,
    heat: Heat,
    key: StudyKey | None = None,
) -> None:
    """All files of a study but its key and store. The truth is sealed with `key`; without one it lies open."""
    shutil.copyfile(protocol_path, folder / bundle.PROTOCOL)
    both = {**drawn.cases, **drawn.practice}
    for case, chosen in both.items():
        write_case(folder / "cases" / case, chosen, heat, protocol.arms)
    patients = opaque_patients(c.case for c in both.values())
    truths = {case: dataclasses.asdict(truth_of(c, drawn.weights, patients)) for case, c in both.items()}
    text = json.dumps(truths, indent=2)
    name = bundle.TRUTH if key is None else bundle.SEALED_TRUTH
    with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write((text if key is None else key.seal(text.encode(), bundle.SEALED_TRUTH)) + "\n")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != bundle.PROTOCOL)
    record = {
        "form": bundle.FORM,
        **({} if key is None else {keys.KEY_IDENTITY: key.identity}),
        "drawn_by": bundle.drawn_by(protocol),
        "plan_sha256_when_built": protocol.plan_sha256,
        "built": date.today().isoformat(),
        "model": dataclasses.asdict(model),
        "prompts_sha256": prompts_sha256(),
        "cases": list(drawn.cases),
        "practice": list(drawn.practice),
        "files": {path.relative_to(folder).as_posix(): _sha256(path.read_bytes()) for path in files},
    }
    (folder / bundle.RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _grad_cam(assessor: Assessor) -> Heat:
    """The model's own map. It raises StudyRequestError where the model has none."""

    def heat(image: LesionImage, code: str) -> np.ndarray:
        try:
            return assessor.heat_on_photo(image, Context(), code)
        except NotImplementedError as error:
            raise StudyRequestError(f"this model has no Grad-CAM, which the arms need: {error}") from error

    return heat


def _paint_grad_cam(pixels: np.ndarray, image: LesionImage, chosen: Candidate, heat: Heat) -> np.ndarray:
    return heatmap_overlay(pixels, heat(image, chosen.leading))


def _paint_regions(pixels: np.ndarray, image: LesionImage, chosen: Candidate, heat: Heat) -> np.ndarray:
    only = (
        "none" if chosen.assessment.abstained else None
    )  # as on the page: the lesion alone, where no finding is cited
    return region_overlay(pixels, chosen.assessment, only)


# File name of an arm's picture -> how it is drawn on the photo's pixels [H, W, 3].
PICTURES: dict[str, Callable[[np.ndarray, LesionImage, Candidate, Heat], np.ndarray]] = {
    GRAD_CAM_PICTURE: _paint_grad_cam,
    REGIONS_PICTURE: _paint_regions,
}


def write_case(folder: Path, chosen: Candidate, heat: Heat, arms: Sequence[str]) -> None:
    """Writes the photo, the pictures of `arms` in the photo's size, and the text beside them."""
    folder.mkdir(parents=True)
    image, assessment = bounded(load_photo(chosen.case.image)), chosen.assessment
    pixels = fit(image.pixels, LONGEST_SIDE, DRAWN_SIDE)
    (folder / bundle.PHOTO).write_bytes(encode_jpeg(pixels))
    for name in {arm_named(arm).picture for arm in arms} - {None}:
        (folder / str(name)).write_bytes(encode_jpeg(PICTURES[str(name)](pixels, image, chosen, heat)))
    (folder / bundle.ASSESSMENT).write_text(assessment.to_json() + "\n", encoding="utf-8")
    (folder / bundle.AID).write_text(json.dumps(aid_of(assessment), indent=2) + "\n", encoding="utf-8")


def aid_of(assessment: Assessment) -> dict[str, Any]:
    """The differential and the rationale as they are shown, the references with the colours of their regions."""
    return {
        "differential": [[d.name, d.probability] for d in assessment.diagnosis],
        "rationale": [dataclasses.asdict(fragment) for fragment in fragments(assessment)],
    }


def fragments(assessment: Assessment) -> tuple[Fragment, ...]:
    """The rationale cut at its references, "[r2]" becoming number 2 in the colour of the second finding."""
    pieces: list[Fragment] = []
    for i, part in enumerate(_REFERENCE.split(assessment.rationale)):
        if i % 2:
            pieces.append(Fragment("", int(part), hex_colour(int(part) - 1)))
        elif part:
            pieces.append(Fragment(part))
    return tuple(pieces)


def truth_of(chosen: Candidate, weights: dict[str, float], patients: Mapping[tuple[str, str | None], str]) -> Truth:
    case, source = chosen.case, f"{chosen.case.source}/{chosen.case.image_id}"
    patient = patients.get((case.source, case.patient_id))
    return Truth(case.diagnosis, chosen.stratum, source, weights[chosen.stratum], chosen.leading, patient)


def prompts_sha256() -> str:
    """Of every word that the model reads beside the photo: descriptions, names, phrases and the prompt around them."""
    states = [[s.key, s.phrase, s.descriptions] for s in vocabulary.STATE_BY_KEY.values()]
    diagnoses = [[d.code, d.name, d.descriptions] for d in vocabulary.DIAGNOSES]
    first, second = vocabulary.DIAGNOSIS_CODES[:2]
    prompt = [context_text(Context()), findings_text(list(vocabulary.STATE_BY_KEY)), differential_text(first, second)]
    return _sha256(json.dumps([diagnoses, states, prompt]).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _move(draft: Path, out: Path) -> None:
    """The finished draft to its place, and what was there out of the way."""
    old = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    if out.exists():
        out.rename(old)
    draft.rename(out)
    shutil.rmtree(old, ignore_errors=True)
