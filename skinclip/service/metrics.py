"""Metrics for Prometheus, served on an address of their own: never to visitors of the page.

The shift score is uniform on photos like those of the calibration, so its histogram over time shows drift: scores that
gather near 1 say that other photos arrive than the model knows. Nothing here tells one photo or visitor from another.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server

from skinclip.core.assessment import Assessment, ModelInfo

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics:
    """All metrics of one process, in `registry`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.requests = Counter(
            "skinclip_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "skinclip_request_seconds", "Seconds to an answer.", ["route"], buckets=SECONDS, registry=registry
        )
        self.assessments = Counter("skinclip_assessments", "Photos assessed.", ["outcome"], registry=registry)
        self.assessment_seconds = Histogram(
            "skinclip_assessment_seconds", "Seconds of an assessment.", buckets=SECONDS, registry=registry
        )
        self.refused = Counter("skinclip_refused", "Requests turned away.", ["reason"], registry=registry)
        self.shift = Histogram(
            "skinclip_shift_score",
            "Share of calibration photos that look more usual; uniform without drift.",
            buckets=SHARES,
            registry=registry,
        )
        self.out_of_domain = Counter(
            "skinclip_out_of_domain", "Photos unlike those the model was trained on.", registry=registry
        )
        self.queue = Gauge("skinclip_queue", "Assessments that wait or run.", registry=registry)
        self.model = Info("skinclip_model", "The model that answers.", registry=registry)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request; `route` is a template, never an address with an id in it."""
        self.requests.labels(route, method, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def observe_assessment(self, assessment: Assessment, seconds: float) -> None:
        """Counts an assessment by its outcome: abstained, referred or not referred."""
        outcome = "abstained" if assessment.abstained else "referred" if assessment.malignancy.refer else "not referred"
        self.assessments.labels(outcome).inc()
        self.assessment_seconds.observe(seconds)
        self.shift.observe(assessment.shift.score)
        if not assessment.shift.in_domain:
            self.out_of_domain.inc()

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Reads the length of the queue whenever the metrics are asked for."""
        self.queue.set_function(length)

    def name_model(self, info: ModelInfo) -> None:
        """States the model that answers."""
        self.model.info({"preset": info.preset, "version": info.version, "weights_sha256": info.weights_sha256})


METRICS = Metrics()  # of this process


def serve_metrics(address: str) -> int:
    """Serves the metrics on HOST:PORT in a thread of its own and returns the port; that of 0 is chosen by the system.

    Raises ValueError or OSError with the remedy.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError(f"{address!r} is no address for metrics; give HOST:PORT, as in 127.0.0.1:9100")
    try:
        server, _thread = start_http_server(int(port), host.strip("[]"))
    except OSError as problem:
        raise OSError(f"cannot serve metrics on {address}: {problem.strerror}; choose another port") from None
    return int(server.server_port)
