"""The HTTP API against its own description: schemathesis makes up calls, valid and not, and looks at the answers."""

from __future__ import annotations

import warnings

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from skinclip.core.assessment import Assessment
from skinclip.service.admission import Admission
from skinclip.service.api import create_api
from skinclip.service.assessments import AssessmentQueue
from tests.service.callers import QuickAssessor

EXAMPLES = 100  # calls of each kind for each operation
# A made-up photo is no photo: 422 is the right answer to a call that is valid by the description.
EXCLUDED = [schemathesis.checks.positive_data_acceptance]
OPERATIONS = ["POST /v1/assess", "POST /v1/assess/batch", "GET /v1/model"]


class LastingQueue(AssessmentQueue):
    """A queue that outlives the application: schemathesis starts and stops that for each call."""

    async def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def operations(example: Assessment):
    """The operations of the description, by method and path."""
    admission = Admission(None, "1000000/minute", ("localhost", "testserver"))
    app = create_api(LastingQueue(QuickAssessor(example)), admission)
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    found = [result.ok() for result in described.get_all_operations()]
    return {operation.label: operation for operation in found}


def test_all_operations_are_tried(operations) -> None:
    assert sorted(operations) == sorted(OPERATIONS)


@pytest.mark.parametrize(
    ("label", "mode"),
    [*((label, GenerationMode.POSITIVE) for label in OPERATIONS), ("POST /v1/assess", GenerationMode.NEGATIVE)],
)
def test_made_up_calls_get_the_answers_that_are_described(operations, label: str, mode: GenerationMode) -> None:
    @given(case=operations[label].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    def call(case) -> None:
        case.call_and_validate(excluded_checks=EXCLUDED)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
