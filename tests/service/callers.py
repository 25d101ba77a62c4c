"""Callers of the HTTP API: a quick model, and clients around it."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi.testclient import TestClient

from skinclip.core.assessment import Assessment, Context
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import LesionImage, encode_jpeg
from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.photos import photo_info
from skinclip.service.admission import Admission
from skinclip.service.api import create_api
from skinclip.service.assessments import AssessmentQueue

EXAMPLE = Path("assets/examples/synthetic_melanoma.jpg")


class QuickAssessor:
    """Answers at once with one Assessment, in which the photo's own hash stands; waits for `go` where it is cleared."""

    def __init__(self, like: Assessment) -> None:
        self.like = like
        self.model_info = like.model
        self.assessed: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def assess(self, image: LesionImage, context: Context, clinical: LesionImage | None = None) -> Assessment:
        assert self.go.wait(30)
        self.assessed.append(image.sha256)
        data = self.like.to_dict()
        data["photo"] |= {"sha256": image.sha256, "width": image.width, "height": image.height}
        data["context"] = {"age": context.age, "sex": context.sex, "site": context.site}
        answer = Assessment.from_json(json.dumps(data))
        if clinical is None:
            return answer
        beside = photo_info(clinical, answer.photo.quality, "clinical")
        return dataclasses.replace(answer, photos=(answer.photo, beside))


def photo(seed: int = 0) -> bytes:
    """A small drawn photo."""
    return encode_jpeg(draw("nevus", seed, (160, 120)))


@contextmanager
def calling(assessor: Assessor | QuickAssessor, admission: Admission | None = None, **options) -> Iterator[TestClient]:
    """A client of an API of its own."""
    queue = AssessmentQueue(assessor, **options)
    app = create_api(queue, admission or Admission(None, "10000/minute"))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        client.queue = queue
        yield client
