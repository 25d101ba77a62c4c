"""The page with an assessor that answers at once from kept Assessments, for tests of what the page does with them.

quick_page.py PORT [SECONDS [VISITORS]]

The Assessments are the embedded model's own (`tests/browser/data`, made by `skinclip assess`). A blurred photo is
abstained on. SECONDS passes between the steps of an assessment, so that what is seen on the way can be looked at. At
most VISITORS are served at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from skinclip.calibration.prevalence import HAM10000
from skinclip.core.assessment import Assessment, Context, Kind, Revision
from skinclip.core.config import preset
from skinclip.core.vocabulary import CRITERION_BY_CODE, DIAGNOSES, STATE_BY_KEY
from skinclip.explain.methods import METHODS
from skinclip.imaging.photo import LesionImage, combine_quality, photo_quality
from skinclip.pipeline.photos import photo_info
from skinclip.pipeline.revision import Corrections
from skinclip.ui import serving
from skinclip.ui.app import build_page
from skinclip.ui.guard.uploads import UploadStore, upload_route
from skinclip.ui.server import LoadingServer, listen, serve
from skinclip.ui.tabs import compare_tab, revision
from skinclip.ui.tabs.photo_field import example_css
from skinclip.ui.theme import css, head

DATA = Path(__file__).with_name("data")
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
VISITORS = int(sys.argv[3]) if len(sys.argv) > 3 else 64


class QuickAssessor:
    """Answers with a kept Assessment: that of the nevus for photos that are mostly light, else of the melanoma."""

    def __init__(self) -> None:
        self.config = preset("mini")
        kept = {name: Assessment.from_json((DATA / f"{name}.json").read_text()) for name in ("melanoma", "nevus")}
        self.kept = kept
        self.model_info = kept["melanoma"].model
        self.checkpoints: dict[str, Path] = {}
        self.predictor = None
        self.calibrator = SimpleNamespace(natural_prior=HAM10000.vector(), known=np.arange(len(DIAGNOSES)), photos=None)
        self.lock = threading.RLock()

    @contextlib.contextmanager
    def using(self, weights: str | None) -> Iterator[None]:
        yield

    def assess(
        self,
        image: LesionImage,
        context: Context,
        progress: Callable[[float, str], None],
        on_partial: Callable[[Assessment], None] | None = None,
        clinical: LesionImage | None = None,
    ) -> Assessment:
        kept = self.kept["nevus" if image.sha256.startswith(self.kept["nevus"].photo.sha256[:8]) else "melanoma"]
        quality = combine_quality(photo_quality(image))
        photo = photo_info(image, quality, self.recognise([image])[0])
        whole = dataclasses.replace(kept, photo=photo, context=context)
        if clinical is not None:
            beside = photo_info(clinical, combine_quality(photo_quality(clinical)), self.recognise([clinical])[0])
            whole = dataclasses.replace(whole, photos=(photo, beside))
        if not whole.dermoscopic:
            measured = [f for f in kept.findings if CRITERION_BY_CODE[f.criterion].measured]
            findings = tuple(dataclasses.replace(f, ref=f"r{i + 1}") for i, f in enumerate(measured))
            cited = ", ".join(f"[{f.ref}] {STATE_BY_KEY[f.key].phrase}" for f in findings)
            whole = dataclasses.replace(
                whole, criteria={}, findings=findings, dependence=None, rationale=f"Melanoma leads, for {cited}."
            )
        progress(0.1, "Looking at the photo")
        time.sleep(SECONDS)
        if not quality.usable:
            return dataclasses.replace(whole, abstained=True, rationale="")
        show = on_partial or (lambda partial: None)
        words = whole.rationale.split(" ")
        for count in range(0, len(words), 4):
            show(dataclasses.replace(whole, rationale=" ".join(words[:count])))
            time.sleep(SECONDS / 4)
        return whole

    tells_kinds = True

    def recognise(self, images: Sequence[LesionImage]) -> list[Kind | None]:
        """Dermoscopy, but for what was cropped or is another example than the melanoma and the nevus."""
        known = [assessment.photo.sha256 for assessment in self.kept.values()]
        return ["dermoscopy" if image.sha256 in known else "clinical" for image in images]

    def heat_on_photo(
        self, image: LesionImage, context: Context, code: str, clinical: LesionImage | None = None
    ) -> np.ndarray:
        y, x = np.mgrid[0 : image.height, 0 : image.width]
        far = ((x - 0.4 * image.width) / image.width) ** 2 + ((y - 0.5 * image.height) / image.height) ** 2
        return np.exp(-20 * far).astype(np.float32)


def revised(assessor: Any, photos: Any, assessment: Assessment, corrections: Corrections) -> Revision:
    """A third less malignant, whatever was corrected."""
    corrections.edits(assessment)
    m = assessment.malignancy
    less = dataclasses.replace(m, probability=m.probability * 2 / 3, refer=m.probability * 2 / 3 >= m.threshold)
    added = dict(key.split(":") for key in corrections.added)
    kept = assessment.diagnosis, assessment.prediction_set
    return Revision(corrections.outline, corrections.struck_out, added, *kept, less)


def layers(assessor: Any, answer: Any, tell: Callable[[float, str], None]) -> dict[str, np.ndarray]:
    """A blob for each method."""
    tell(0.5, "Grad-CAM")
    time.sleep(SECONDS)
    blob = QuickAssessor.heat_on_photo(assessor, LesionImageSize(120, 160), Context(), "")  # type: ignore[arg-type]
    return {compare_tab.WHOLE if key == compare_tab.LEFT else key: blob for key in METHODS}


@dataclasses.dataclass(frozen=True)
class LesionImageSize:
    height: int
    width: int


def application(report: Callable[[str], None]) -> Any:
    """The page."""
    revision.revise = revised
    compare_tab.layers = layers
    uploads = UploadStore()
    page = build_page(QuickAssessor(), uploads)  # type: ignore[arg-type]
    return serving.mount_page(page, css() + example_css(), head(), VISITORS, routes=[upload_route(uploads)])


if __name__ == "__main__":
    serve(LoadingServer(application, "SkinCLIP-VL"), listen("127.0.0.1", int(sys.argv[1])))
