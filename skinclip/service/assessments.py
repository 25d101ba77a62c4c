"""Assessments for many callers: one after the other before one model, each lesion once.

The same photos with the same entries are the same request, however often it is sent: it is answered from memory, or
waits for the assessment that already runs. Photos are not kept; answers are, for a while, up to a number of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from skinclip.core.assessment import Assessment, Context
from skinclip.imaging.bounded import AT_ONCE, end_decoding, load_photo_bounded
from skinclip.imaging.photo import LesionImage, PhotoError
from skinclip.pipeline.assessor import Assessor
from skinclip.service.metrics import METRICS, Metrics

Request = tuple[tuple[str, ...], Context, str]  # hashes of the photos' bytes, entries, hash of the weights


@dataclass(frozen=True)
class LesionFiles:
    """Photo files of one lesion, and the entries, as a caller sends them.

    Attributes:
        photo: a photo file, dermoscopy where there is one.
        context: the entries.
        clinical: the file of a clinical close-up of the same lesion, or None.
    """

    photo: bytes
    context: Context = Context()  # noqa: RUF009  frozen
    clinical: bytes | None = None

    @property
    def photos(self) -> tuple[bytes, ...]:
        """The files, the clinical close-up last."""
        return (self.photo,) if self.clinical is None else (self.photo, self.clinical)

    def request(self, weights: str) -> Request:
        """The name under which it is answered once: whoever sends the same asks for the same."""
        return tuple(hashlib.sha256(photo).hexdigest() for photo in self.photos), self.context, weights


class QueueFull(RuntimeError):
    """As many assessments wait as may."""


class Stopping(RuntimeError):
    """The server is being stopped and takes no more photos."""


@dataclass(frozen=True)
class Answered:
    """An Assessment, and whether it was made for an earlier request."""

    assessment: Assessment
    replayed: bool


class AssessmentQueue:
    """Assesses photos one by one in a thread; they are read before in others.

    Args:
        most: assessments that may wait or run.
        kept: answers kept in memory for requests that are repeated.
        kept_seconds: how long.
        read: opens a photo from its bytes; raises PhotoError.
    """

    def __init__(
        self,
        assessor: Assessor,
        most: int = 32,
        kept: int = 256,
        kept_seconds: float = 900,
        read: Callable[[bytes], LesionImage] = load_photo_bounded,
        metrics: Metrics = METRICS,
    ) -> None:
        self.assessor = assessor
        self.most, self.kept, self.kept_seconds = most, kept, kept_seconds
        self.metrics = metrics
        self._read = read
        self._running: dict[Request, asyncio.Future[Assessment]] = {}
        self._answers: OrderedDict[Request, tuple[float, Assessment]] = OrderedDict()
        self._readers = ThreadPoolExecutor(AT_ONCE, "photos")  # a photo that takes long to read holds up no other
        self._thread = ThreadPoolExecutor(1, "assessments")
        self._closed = False
        metrics.watch_queue(lambda: len(self._running))

    @property
    def waiting(self) -> int:
        """Assessments that wait or run."""
        return len(self._running)

    async def assess(self, lesion: LesionFiles) -> Answered:
        """The Assessment of one or two photos. Raises PhotoError, QueueFull or Stopping."""
        request = lesion.request(self.assessor.model_info.weights_sha256)
        kept = self._kept(request)
        if kept is not None:
            return Answered(kept, True)
        running = self._running.get(request)
        if running is not None:
            return Answered(await asyncio.shield(running), True)
        if self._closed:
            raise Stopping
        if len(self._running) >= self.most:
            raise QueueFull
        job = asyncio.ensure_future(self._job(lesion))
        self._running[request] = job
        job.add_done_callback(lambda done: self._settle(request, done))
        return Answered(await asyncio.shield(job), False)  # a caller who leaves does not take it from the others

    async def close(self) -> None:
        """Takes no more photos, and returns when those that wait are assessed."""
        self._closed = True
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._readers.shutdown()
        self._thread.shutdown()
        end_decoding()

    async def _job(self, lesion: LesionFiles) -> Assessment:
        loop = asyncio.get_running_loop()
        read = [loop.run_in_executor(self._readers, self._read, photo) for photo in lesion.photos]
        image, *beside = await asyncio.gather(*read, return_exceptions=True)
        if isinstance(image, BaseException):
            raise image
        clinical = beside[0] if beside else None
        if isinstance(clinical, PhotoError):
            raise PhotoError(f"The clinical photo: {clinical}") from clinical
        if isinstance(clinical, BaseException):
            raise clinical
        return await loop.run_in_executor(self._thread, self._assess, image, lesion.context, clinical)

    def _assess(self, image: LesionImage, context: Context, clinical: LesionImage | None) -> Assessment:
        start = time.monotonic()
        beside = None if clinical is None else replace(clinical, kind="clinical")  # as `assess --clinical`
        assessment = self.assessor.assess(image, context, clinical=beside)
        self.metrics.observe_assessment(assessment, time.monotonic() - start)
        return assessment

    def _kept(self, request: Request) -> Assessment | None:
        now = time.monotonic()
        while self._answers and next(iter(self._answers.values()))[0] < now - self.kept_seconds:
            self._answers.popitem(last=False)
        found = self._answers.get(request)
        return None if found is None else found[1]

    def _settle(self, request: Request, done: asyncio.Future[Assessment]) -> None:
        self._running.pop(request, None)
        if not done.cancelled() and done.exception() is None:
            self._answers[request] = (time.monotonic(), done.result())
            while len(self._answers) > self.kept:
                self._answers.popitem(last=False)
