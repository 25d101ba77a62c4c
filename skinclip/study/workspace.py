"""Studies in preparation: for each a draft of its protocol and the photos to draw from, beside the studies themselves.

STUDIES/.setup/KEY/protocol.yaml    the draft, which may have gaps
STUDIES/.setup/KEY/photos/          an archive that was uploaded, unpacked
STUDIES/.setup/KEY/folder.txt       or the folder of this computer that holds the photos
STUDIES/KEY                         the study once it is built, as `study build` makes it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinclip.core.whole_files import replace_text
from skinclip.data.cases import CaseTable
from skinclip.data.readers import read_cases
from skinclip.imaging.bounded import load_photo_bounded
from skinclip.imaging.photo import LesionImage, load_photo
from skinclip.study import supply as supplies
from skinclip.study.build import BuildResult, OnProgress, build
from skinclip.study.errors import ProtocolError, StudyRequestError
from skinclip.study.photo_archive import UnpackedPhotos, check_within, unpack_photos
from skinclip.study.protocol.field_types import SLUG
from skinclip.study.protocol.form import as_yaml, form_values, labelled, new_document, with_values
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.protocol.yaml_schema import parse_yaml_text, read_yaml
from skinclip.study.session.bundle import PROTOCOL, RECORD, default_folder
from skinclip.study.session.session_service import Study

SETUP, PHOTOS, FOLDER = ".setup", "photos", "folder.txt"
_LONGEST_KEY = 60
_LONGEST_TEXT = 200_000  # characters of a protocol


@dataclass(frozen=True)
class PhotoSource:
    """A folder of labelled photos; `uploaded` where a coordinator's archive was unpacked into it."""

    folder: Path
    uploaded: bool

    def table(self) -> CaseTable:
        """The cases of the folder. Raises DataError, or StudyRequestError for photos outside an uploaded archive."""
        table = read_cases(self.folder)
        if self.uploaded:
            check_within(table, self.folder)
        return table

    def load(self, path: Path) -> LesionImage:
        """A photo, decoded in a process of its own where it was uploaded. Raises PhotoError."""
        return load_photo_bounded(path.read_bytes()) if self.uploaded else load_photo(path)


class Workspace:
    """The folder of studies, with those in preparation."""

    def __init__(self, studies: Path) -> None:
        self.studies = studies

    def keys(self) -> list[str]:
        """The keys of the studies in preparation, sorted."""
        return sorted(path.parent.name for path in (self.studies / SETUP).glob(f"*/{PROTOCOL}"))

    def begin(self, key: str) -> StudyDraft:
        """A new draft, the default protocol. Raises StudyRequestError for a key that cannot be one, or is taken."""
        key = key.strip()
        if not SLUG.fullmatch(key) or len(key) > _LONGEST_KEY:
            raise StudyRequestError(
                f"a short name has lower-case letters, digits, _ and -, begins with a letter and has at most "
                f"{_LONGEST_KEY} characters, such as trust-study-bern"
            )
        if key in self.keys() or (self.studies / key).exists():
            raise StudyRequestError(f"there is a study {key} already; choose it above, or take another short name")
        draft = StudyDraft(self.studies, key)
        draft.folder.mkdir(mode=0o700, parents=True)
        draft._write(as_yaml(new_document(key)))
        return draft

    def draft(self, key: str) -> StudyDraft:
        """The draft of a key. Raises StudyRequestError where there is none."""
        if key not in self.keys():
            raise StudyRequestError("choose a study, or begin a new one")
        return StudyDraft(self.studies, key)


@dataclass(frozen=True)
class StudyDraft:
    """A study in preparation."""

    studies: Path
    key: str

    @property
    def folder(self) -> Path:
        return self.studies / SETUP / self.key

    @property
    def file(self) -> Path:
        """The protocol's file."""
        return self.folder / PROTOCOL

    # -- protocol ---------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The protocol as YAML."""
        return self.file.read_text(encoding="utf-8")

    def document(self) -> dict[str, Any]:
        """The protocol's values as they stand in the file."""
        values: dict[str, Any] = read_yaml(self.file)
        return values

    def values(self) -> dict[str, Any]:
        """The values of the form."""
        return form_values(self.document())

    def save(self, values: Mapping[str, Any]) -> list[str]:
        """Keeps the form's values; returns what is still wrong with the protocol, by the form's labels."""
        self._write(as_yaml(with_values(self.document(), values)))
        return self.problems()

    def save_text(self, text: str) -> list[str]:
        """Keeps a protocol that was edited as YAML; returns what is wrong with it.

        Raises StudyRequestError where it is no YAML, or another study's.
        """
        if len(text) > _LONGEST_TEXT:
            raise StudyRequestError(f"a protocol has at most {_LONGEST_TEXT:,} characters")
        try:
            values = parse_yaml_text(text)
        except ProtocolError as error:
            raise StudyRequestError(f"this is no YAML, and nothing was kept: {error.problems[0]}") from error
        if not isinstance(values, dict) or values.get("key") != self.key:
            raise StudyRequestError(f"the field key must say {self.key}; nothing was kept")
        self._write(text)
        return self.problems()

    def problems(self) -> list[str]:
        """Faults of the protocol, by the form's labels; none where a study can be built from it."""
        try:
            Protocol.read(self.file)
        except ProtocolError as error:
            return [labelled(problem) for problem in error.problems]
        return []

    def protocol(self) -> Protocol:
        """The checked protocol. Raises ProtocolError."""
        return Protocol.read(self.file)

    def _write(self, text: str) -> None:
        replace_text(self.file, text)

    # -- photos -----------------------------------------------------------------------------------------------------

    def photos(self) -> PhotoSource:
        """The photos to draw from. Raises StudyRequestError where none were given yet."""
        named = self.folder / FOLDER
        if named.is_file():
            return PhotoSource(Path(named.read_text(encoding="utf-8")), uploaded=False)
        if (self.folder / PHOTOS).is_dir():
            return PhotoSource(self.folder / PHOTOS, uploaded=True)
        raise StudyRequestError("there are no photos yet: give them in step 2")

    def name_folder(self, folder: str) -> PhotoSource:
        """Takes the photos from a folder of this computer. Raises StudyRequestError where there is none such.

        Whoever may call this can have every photo assessed that this program can read.
        """
        path = Path(folder.strip()).expanduser()
        if not folder.strip() or not path.is_dir():
            raise StudyRequestError(f"there is no folder {folder.strip() or 'of that name'} on this computer")
        (self.folder / FOLDER).write_text(str(path.resolve()), encoding="utf-8")
        return self.photos()

    def take_archive(self, archive: Path) -> UnpackedPhotos:
        """Unpacks an archive of photos in place of those given before. Raises StudyRequestError or DataError."""
        unpacked = unpack_photos(archive, self.folder / PHOTOS)
        (self.folder / FOLDER).unlink(missing_ok=True)
        PhotoSource(unpacked.folder, uploaded=True).table()
        return unpacked

    def supply(self) -> supplies.Supply:
        """The photos counted. Raises StudyRequestError or DataError."""
        table = self.photos().table()
        return supplies.count(table.cases, table.problems)

    # -- the study --------------------------------------------------------------------------------------------------

    @property
    def out(self) -> Path:
        """The folder of the study that is built. Raises ProtocolError."""
        return self.studies / default_folder(self.protocol()).name

    @property
    def is_built(self) -> bool:
        """True where the study of this protocol's version was built."""
        try:
            return (self.out / RECORD).is_file()
        except ProtocolError:
            return False

    def build(self, assessor: Any, on_progress: OnProgress) -> BuildResult:
        """Builds the study as `study build` does. Raises StudyError or DataError."""
        photos = self.photos()
        photos.table()
        return build(self.file, photos.folder, assessor, out=self.out, on_progress=on_progress, load=photos.load)

    def adopt(self) -> None:
        """Hands ethics fields that were filled in later to the study that was built. Raises StudyError."""
        with Study.open(self.out) as study:
            study.adopt(self.file)

    def coordinator_code(self) -> str:
        """A new code for the coordinator's tab of the study; the one before ends. Raises StudyError."""
        with Study.open(self.out) as study:
            return study.coordinator_code()
