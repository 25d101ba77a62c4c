"""Logs hold nothing of a visitor; metrics count what happened, and the shift score shows drift."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
from urllib.request import urlopen

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from starlette.testclient import TestClient

from skinclip.core.assessment import Assessment
from skinclip.service import logs
from skinclip.service.metrics import Metrics, serve_metrics
from skinclip.service.observing import ObservedApplication
from tests.service.callers import QuickAssessor, calling, photo

SECRET = "Ann Other, born 1970"


@pytest.fixture
def written():
    """The lines of the log."""
    stream = io.StringIO()
    loggers = [logging.getLogger(name) for name in (logs.LOGGER.name, "uvicorn.error", "asyncio")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    logs.configure(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def observed(metrics: Metrics) -> TestClient:
    app = FastAPI()

    @app.get("/photos/{name}")
    def one(name: str) -> str:
        if name == "fault":
            raise ValueError(SECRET)
        return name

    return TestClient(ObservedApplication(app, metrics=metrics), raise_server_exceptions=False)


def test_a_request_is_a_line_without_what_was_sent(written) -> None:
    client = observed(Metrics(CollectorRegistry()))
    answer = client.get(f"/photos/{SECRET}?q={SECRET}", headers={"User-Agent": SECRET, "X-Forwarded-For": "10.1.2.3"})
    (line,) = written()
    assert line["route"] == "/photos/{name}" and line["status"] == 200 and line["method"] == "GET"
    assert line["request"] == answer.headers["x-request-id"]
    assert SECRET not in json.dumps(line) and "10.1.2.3" not in json.dumps(line)


def test_a_fault_is_logged_by_its_place_not_its_words(written) -> None:
    metrics = Metrics(CollectorRegistry())
    assert observed(metrics).get("/photos/fault").status_code == 500
    (line,) = written()
    assert line["error"] == "ValueError" and any("test_logs_and_metrics.py:" in place for place in line["at"])
    assert SECRET not in json.dumps(line) and line["level"] == "error"


def test_errors_of_the_server_lose_their_words(written) -> None:
    try:
        raise RuntimeError(SECRET)
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application: %s", SECRET)
    assert SECRET not in json.dumps(written())


@pytest.mark.parametrize("fields", [{"photo": "x"}, {"age": 55}, {"status": "200"}, {"route": b"/"}])
def test_fields_that_are_not_listed_are_refused(fields) -> None:
    with pytest.raises(ValueError, match="may not be logged"):
        logs.log("request", **fields)


def test_unknown_addresses_and_methods_make_no_new_series(written) -> None:
    metrics = Metrics(CollectorRegistry())
    client = observed(metrics)
    for i in range(5):
        client.request(f"INVENTED{i}", f"/unknown/{i}")
    text = generate_latest(metrics.registry).decode()
    assert 'skinclip_requests_total{method="other",route="other",status="404"} 5.0' in text
    assert "unknown" not in text and "INVENTED" not in text


def test_assessments_are_counted_with_their_shift(example: Assessment) -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.observe_assessment(example, 0.2)
    strange = dataclasses.replace(
        example, abstained=True, shift=dataclasses.replace(example.shift, score=1.0, in_domain=False)
    )
    metrics.observe_assessment(strange, 0.3)
    metrics.name_model(example.model)
    text = generate_latest(metrics.registry).decode()
    assert 'skinclip_assessments_total{outcome="abstained"} 1.0' in text
    assert "skinclip_out_of_domain_total 1.0" in text and "skinclip_shift_score_count 2.0" in text
    assert example.model.weights_sha256 in text


def test_the_api_counts_in_metrics(quick: QuickAssessor) -> None:
    metrics = Metrics(CollectorRegistry())
    with calling(quick, metrics=metrics) as client:
        assert client.post("/v1/assess", files={"photo": photo()}).status_code == 200
    text = generate_latest(metrics.registry).decode()
    assert "skinclip_assessment_seconds_count 1.0" in text and "skinclip_queue 0.0" in text


def test_metrics_have_an_address_of_their_own() -> None:
    port = serve_metrics("127.0.0.1:0")
    text = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert "process_resident_memory_bytes" in text and "skinclip_requests" in text


@pytest.mark.parametrize("address", ["9100", "127.0.0.1", "127.0.0.1:x", ":9100", "127.0.0.1:70000"])
def test_no_address_for_metrics(address: str) -> None:
    with pytest.raises(ValueError, match="give HOST:PORT"):
        serve_metrics(address)
