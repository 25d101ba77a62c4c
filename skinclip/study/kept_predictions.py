"""The model's answers that a build keeps beside the study, so that none is computed twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skinclip.core.assessment import Assessment
from skinclip.core.whole_files import replace_text
from skinclip.imaging.photo import LesionImage

if TYPE_CHECKING:
    from skinclip.pipeline.assessor import Assessor


def predictions_folder(out: Path) -> Path:
    """The folder of the model's answers that a build of `out` keeps; it may be deleted at any time."""
    return out.with_name(f".{out.name}-predictions")


class KeptPredictions:
    """Assessments of bounded photos, kept as files named by photo and weights: no photo and no truth is in them."""

    def __init__(self, folder: Path, assessor: Assessor) -> None:
        self.folder, self._assessor = folder, assessor
        self._model = assessor.model_info.weights_sha256[:16]

    def assess(self, image: LesionImage) -> Assessment:
        """The kept assessment of the photo, or the model's, which is then kept."""
        path = self.folder / f"{image.sha256}-{self._model}.json"
        try:
            return Assessment.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError):  # none, or one that an interrupted build left half written
            assessment = self._assessor.assess(image)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_text(path, assessment.to_json())
        return assessment
