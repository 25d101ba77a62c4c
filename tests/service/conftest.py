from __future__ import annotations

import pytest

from skinclip.core.assessment import Assessment
from skinclip.imaging.photo import load_photo
from skinclip.pipeline.loaded_model import LoadedModel, load
from tests.helpers.served import ROOT
from tests.service.callers import EXAMPLE, QuickAssessor


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    return load()


@pytest.fixture(scope="session")
def example(model: LoadedModel) -> Assessment:
    return model.assessor.assess(load_photo(ROOT / EXAMPLE))


@pytest.fixture
def quick(example: Assessment) -> QuickAssessor:
    return QuickAssessor(example)
