"""The bundle of a study on disk, made by `build`, read and checked here: what readers are shown and, apart, the truth.

    protocol.yaml      the protocol
    frozen.json        what the bundle holds, by which model, and the sha256 of every file; nothing about truth
    cases/C001/        photo.jpg, grad_cam.jpg, regions.jpg (of one size), aid.json, assessment.json
    truth.sealed       truth, stratum, source and sampling weight of every case, sealed with the key (`session.keys`)
    store.sqlite       the log of answers, sealed with the same key
    anchors.jsonl      how far the log has come, outside the database

No model is needed to show a study: all arms' pictures were drawn once, and files are kept in memory once read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from skinclip.core.vocabulary import DIAGNOSES
from skinclip.study.catalogue.catalogue import ENGLISH, Words, diagnosis_name
from skinclip.study.errors import StudyRequestError
from skinclip.study.protocol.arms import TextForm, arm_named
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.keys import read_study_key
from skinclip.study.session.view_models import AidView, Fragment
from skinclip.study.store.study_key import StudyKey

PROTOCOL, RECORD, DATABASE, ANCHORS = "protocol.yaml", "frozen.json", "store.sqlite", "anchors.jsonl"
SEALED_TRUTH = "truth.sealed"
DELETED_PHOTOS = "deleted_photos.json"  # the photos of a closed study whose time is over
TRUTH = "truth.json"  # of studies that were built before truth was sealed
PHOTO, AID, ASSESSMENT = "photo.jpg", "aid.json", "assessment.json"
STUDIES = Path("studies")
FORM = "skinclip-frozen-study-2"
NO_RATIONALE = Words(ENGLISH, "steps")("no_rationale")
_CODES = {diagnosis.name: diagnosis.code for diagnosis in DIAGNOSES}
_KEPT_FILES = 512  # pictures in memory: a study of 100 cases with room to spare


@dataclass(frozen=True)
class Truth:
    """Facts of a case that must stay hidden until the study is closed.

    Attributes:
        truth: diagnosis code, None where it is not known or outside the vocabulary.
        stratum: right, wrong or ood.
        source: data set and id of the photo.
        weight: the stratum's share among eligible photos over its share in the study; 1 out of distribution.
        ai_leading: the AI's leading diagnosis.
        patient: the patient under an opaque name, where the photos' table names one.
    """

    truth: str | None
    stratum: str
    source: str
    weight: float
    ai_leading: str
    patient: str | None = None


def no_words(rationale: tuple[Fragment, ...]) -> tuple[Fragment, ...]:
    """Nothing of the rationale."""
    return ()


def words_alone(rationale: tuple[Fragment, ...]) -> tuple[Fragment, ...]:
    """The rationale without its references: what they point at is not shown in this arm."""
    text = "".join(fragment.text for fragment in rationale if fragment.ref is None)
    return (Fragment(" ".join(text.split())),)


def words_with_references(rationale: tuple[Fragment, ...]) -> tuple[Fragment, ...]:
    """The rationale as it is."""
    return rationale


TEXT_FORMS: dict[TextForm, Callable[[tuple[Fragment, ...]], tuple[Fragment, ...]]] = {
    "none": no_words,
    "plain": words_alone,
    "referenced": words_with_references,
}


@dataclass(frozen=True)
class StudyBundle:
    """The bundle of a study, its files checked against their hashes.

    Attributes:
        record: `frozen.json`.
        sha256: of `frozen.json`, and so of the whole bundle.
    """

    folder: Path
    protocol: Protocol
    record: dict[str, Any]
    sha256: str

    @classmethod
    def open(cls, folder: Path) -> StudyBundle:
        """Opens and checks a bundle.

        Raises StudyRequestError where it is none or a file was changed since, ProtocolError for the YAML.
        """
        record, sha256 = read_record(folder)
        deleted = deleted_photos(folder).intersection(photo_files(record))
        for name, expected in record["files"].items():
            if name not in deleted or (folder / name).exists():
                _checked.__wrapped__(folder / name, expected)  # from the disk, whatever is in memory
        protocol = Protocol.read(folder / PROTOCOL)
        check_fits(protocol, record)
        return cls(folder, protocol, record, sha256)

    @property
    def name(self) -> str:
        """The study's name in the store: each version of a plan is a study of its own."""
        return f"{self.protocol.key}-v{self.protocol.version}"

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(self.record["cases"])

    @property
    def practice(self) -> tuple[str, ...]:
        return tuple(self.record["practice"])

    @cached_property
    def truths(self) -> dict[str, Truth]:
        """Case or practice case -> its truth. For allocation, practice feedback and the closed study alone."""
        if not (self.folder / SEALED_TRUTH).exists():
            text = (self.folder / TRUTH).read_bytes()
        else:
            text = self._unsealed((self.folder / SEALED_TRUTH).read_text(encoding="utf-8"))
        values = json.loads(text)
        return {case: Truth(**value) for case, value in values.items()}

    def _unsealed(self, sealed: str) -> bytes:
        text = StudyKey(read_study_key(self.folder, self.record)).unseal(sealed.strip(), SEALED_TRUTH)
        if text is None:
            raise StudyRequestError(f"{self.folder / SEALED_TRUTH}: the truth was not sealed with this study's key")
        return text

    @property
    def strata(self) -> dict[str, str]:
        """Case -> stratum, practice left out."""
        return {case: self.truths[case].stratum for case in self.cases}

    def photo(self, case: str) -> bytes:
        """The case's photo as a JPEG."""
        return self._file(case, PHOTO)

    def protocol_in(self, language: str) -> Protocol:
        """The protocol with the words that readers of a language see."""
        if language not in self._translated:
            self._translated[language] = self.protocol.in_language(language)
        return self._translated[language]

    @cached_property
    def _translated(self) -> dict[str, Protocol]:
        return {}

    def aid(self, case: str, arm: str, language: str = ENGLISH) -> AidView:
        """The aid's answer to a case as one arm shows it; the differential is the same in all.

        The names of diagnoses are put into `language`; the rationale stays as the model wrote it, in English.
        """
        values, aid = json.loads(self._file(case, AID)), arm_named(arm)
        rationale = tuple(Fragment(**fragment) for fragment in values["rationale"])
        written_in = ENGLISH if rationale else language
        rationale = rationale or (Fragment(Words(language, "steps")("no_rationale")),)
        picture = None if aid.picture is None else self._file(case, aid.picture)
        differential = tuple(
            (diagnosis_name(name, _CODES.get(name, ""), language), probability)
            for name, probability in values["differential"]
        )
        return AidView(differential, picture, TEXT_FORMS[aid.text](rationale), written_in)

    def _file(self, case: str, file: str) -> bytes:
        name = f"cases/{case}/{file}"
        return _checked(self.folder / name, self.record["files"][name])


def photo_files(record: dict[str, Any]) -> list[str]:
    """The files of a bundle that show a photo."""
    return [name for name in record["files"] if name.startswith("cases/") and name.endswith(".jpg")]


def deleted_photos(folder: Path) -> set[str]:
    """The photos that were deleted when their time was over (`study delete-photos`)."""
    path = folder / DELETED_PHOTOS
    return set(json.loads(path.read_text(encoding="utf-8"))["files"]) if path.exists() else set()


def read_record(folder: Path) -> tuple[dict[str, Any], str]:
    """`frozen.json` of a study's folder, and its SHA-256. Raises StudyRequestError where it holds no study."""
    path = folder / RECORD
    if not path.is_file():
        raise StudyRequestError(f"{folder} holds no study; make one with `python -m skinclip study build`")
    text = path.read_bytes()
    record: dict[str, Any] = json.loads(text)
    if record.get("form") != FORM:
        raise StudyRequestError(f"{path} was written by another version of this program; build the study again")
    return record, hashlib.sha256(text).hexdigest()


def default_folder(protocol: Protocol) -> Path:
    """`studies/KEY`, and `studies/KEY-vN` for a later version, so that the earlier one stays on record."""
    return STUDIES / (protocol.key if protocol.version == 1 else f"{protocol.key}-v{protocol.version}")


def drawn_by(protocol: Protocol) -> dict[str, Any]:
    """The parts of a protocol that the choice of cases rests on; they cannot change once the bundle is built."""
    counts, practice = protocol.cases.counts, protocol.cases.practice
    return {
        "key": protocol.key,
        "version": protocol.version,
        "seed": protocol.seed,
        "counts": counts,
        "practice": practice,
        **({"balance": list(protocol.cases.balance)} if protocol.cases.balance else {}),
    }


def check_fits(protocol: Protocol, record: dict[str, Any]) -> None:
    """Raises StudyRequestError where the bundle's cases were drawn for another protocol than this."""
    now, then = drawn_by(protocol), record["drawn_by"]
    changed = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    if changed:
        raise StudyRequestError(
            f"the protocol's {', '.join(changed)} differ from what the cases were drawn for; build the study again"
        )


@lru_cache(maxsize=_KEPT_FILES)
def _checked(path: Path, sha256: str) -> bytes:
    """The file's bytes, kept in memory. Raises StudyRequestError where they are not those of the build."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StudyRequestError(
            f"{path}: a file of the study cannot be read ({error.strerror}); restore it from a backup"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StudyRequestError(f"{path}: this file was changed after the study was built; restore it from a backup")
    return data
