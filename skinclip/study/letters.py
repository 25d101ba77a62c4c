"""Letters to readers: invitations with a personal link, and reminders; in English, German or Spanish.

They are written as text files for the coordinator's own mail program: the study knows no reader's name or address, and
sends nothing. The catalogue has their words. An invitation holds the code, which is kept nowhere else; its link carries
it, and the language, behind the `#`, which browsers send to no server.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from skinclip.study.catalogue.catalogue import error_text, languages, section
from skinclip.study.coordinator import Coordinator
from skinclip.study.errors import StudyRequestError
from skinclip.study.session.session_service import EnrolledReader, Study

CODE_IN_LINK, LANGUAGE_IN_LINK = "code", "lang"  # `assets/study.js` reads them


def check_address(url: str) -> str:
    """The page's address without what follows its path. Raises StudyRequestError."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise StudyRequestError(error_text("no_address", given=url))
    return parts._replace(query="", fragment="").geturl().rstrip("/") + "/"


def write_invitations(
    study: Study, readers: Sequence[EnrolledReader], folder: Path, url: str, language: str = "en"
) -> list[Path]:
    """A letter for each new reader, for its owner alone to read. Raises StudyRequestError where one is there."""
    letters = invitations(study, readers, url, language)
    return [_write(folder / f"{reader}-invitation.txt", text) for reader, text in letters]


def invitations(
    study: Study, readers: Sequence[EnrolledReader], url: str, language: str = "en"
) -> list[tuple[str, str]]:
    """(reader, text) of the letter for each new reader, with the personal link. Raises StudyRequestError."""
    page = check_address(url)
    links = [f"{page}#{CODE_IN_LINK}={quote(one.code)}{_chosen(study, language)}" for one in readers]
    return [
        (one.reader, _letter(study, "invitation", language, one.reader, code=one.code, link=link))
        for one, link in zip(readers, links, strict=True)
    ]


def write_reminders(study: Study, folder: Path, url: str, language: str = "en", site: str | None = None) -> list[Path]:
    """A letter for each reader who has something to do: who has not finished, withdrawn or come to a pause.

    A later reminder replaces an earlier one. With `site` only readers of the site get one.
    """
    chosen = _chosen(study, language)
    page, written = check_address(url) + (f"#{chosen[1:]}" if chosen else ""), []
    for row in Coordinator(study, site).status():
        if row.state in ("enrolled", "in progress") and not row.opens_at:
            left = row.cases_total - row.cases
            text = _letter(study, "reminder", language, row.reader, link=page, left=left)
            path = folder / f"{row.reader}-reminder.txt"
            path.unlink(missing_ok=True)
            written.append(_write(path, text))
    return written


def _chosen(study: Study, language: str) -> str:
    """The part of a link that opens the page in the letter's language, where the study offers more than one."""
    offered = study.protocol.languages
    return f"&{LANGUAGE_IN_LINK}={language}" if len(offered) > 1 and language in offered else ""


def _letter(study: Study, kind: str, language: str, reader: str, **values: object) -> str:
    if language not in languages():
        raise StudyRequestError(f"there are no letters in {language!r}; choose one of {', '.join(languages())}")
    letter, protocol = section(language, "letters")[kind], study.protocol.in_language(language)
    contact = protocol.ethics.contact or protocol.ethics.controller
    cases = protocol.cases.n * protocol.sessions
    about = {"title": protocol.title, "reader": reader, "cases": cases, "contact": contact, **values}
    return f"{letter['subject']}\n\n{letter['body']}".format_map(about)


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise StudyRequestError(f"{path} is there already; give another folder for the letters") from error
    except OSError as error:
        raise StudyRequestError(f"{path} cannot be written ({error.strerror}); give another folder") from error
    return path
