"""The HTTP API as an application of the server: loads the model, tries it once, opens the routes."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from skinclip.core.assessment import Context
from skinclip.hub import MissingWeights
from skinclip.imaging.photo import load_photo
from skinclip.model.errors import CheckpointError
from skinclip.model.memory import TooLittleMemory
from skinclip.pipeline.assessor import Assessor
from skinclip.service.admission import Admission
from skinclip.service.api import create_api
from skinclip.service.assessments import AssessmentQueue
from skinclip.service.metrics import METRICS
from skinclip.ui.server import ReportStep, StartupError
from skinclip.ui.tabs.photo_field import example_files


def open_api(preset: str, weights: Path | None, admission: Admission, report: ReportStep) -> FastAPI:
    """Loads the API of a preset's model, ready for the first photo. Raises StartupError saying what is missing."""
    try:
        assessor = Assessor.load(preset, weights)
    except (ValueError, OSError, CheckpointError, MissingWeights, TooLittleMemory) as problem:
        raise StartupError(str(problem)) from problem
    report("Trying the model on a synthetic photo")
    assessor.assess(load_photo(example_files()[0]), Context())
    METRICS.name_model(assessor.model_info)
    return create_api(AssessmentQueue(assessor), admission)
