"""A visitor of the model's page without a browser: the calls of the page's own script, over HTTP.

visitor = Visitor("127.0.0.1", 7860)
text = visitor.assess(photo)      # what the page would show; the photo's hash stands in it
"""

from __future__ import annotations

import http.client
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

_CONFIG = re.compile(r"window\.gradio_config = (\{.*?\});</script>", re.DOTALL)
TIMEOUT = 120  # seconds without a byte
API = "/gradio_api"


class PageBusy(RuntimeError):
    """The page said that it is full; the visitor may try again."""


class PageFault(RuntimeError):
    """The page answered as it should not."""


class Visitor:
    """A browser with the page open: one cookie, one session.

    Args:
        headers: sent with every request, such as the name of a host.
    """

    def __init__(self, host: str, port: int, headers: dict[str, str] | None = None) -> None:
        self.host, self.port = host, port
        self.headers = dict(headers or {})
        self.session = secrets.token_hex(6)
        self.answered_by: list[str | None] = []  # X-Served-By of each answer, where a proxy names it
        page = self._request("GET", "/")
        found = _CONFIG.search(page.decode())
        if found is None:
            raise PageFault("the page holds no configuration")
        config = json.loads(found[1])
        self._elements = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
        self._values = {c["id"]: c["props"].get("value") for c in config["components"]}  # an untouched form
        self._events: list[dict[str, Any]] = config["dependencies"]

    def assess(self, photo: bytes) -> str:
        """Adds a photo and presses Assess; returns what the page then shows. Raises PageBusy or PageFault."""
        name = json.loads(self._request("POST", "/upload", photo, "application/octet-stream"))["upload"]
        chosen, field = self._event("uploaded", "change"), self._elements["uploaded"]
        self._run(
            chosen, [name if component == field else self._values.get(component) for component in chosen["inputs"]]
        )
        pressed = self._event("assess", "click")
        self._run(pressed, [self._values.get(component) for component in pressed["inputs"]])
        following = [event for event in self._events if event.get("trigger_after") == pressed["id"]]
        ran = max(following, key=lambda event: len(event["outputs"]))  # beside it, the place in the queue
        return self._queued(ran, self._elements["assess"])

    def _event(self, element: str, trigger: str) -> dict[str, Any]:
        wanted = [self._elements[element], trigger]
        return next(event for event in self._events if wanted in [list(target) for target in event["targets"]])

    def _run(self, event: dict[str, Any], data: list[Any]) -> dict[str, Any]:
        body = self._call(event, data, event["targets"][0][0])
        return dict(json.loads(self._request("POST", f"{API}/run/predict", body)))

    def _call(self, event: dict[str, Any], data: list[Any], trigger: int) -> bytes:
        call = {"data": data, "fn_index": event["id"], "session_hash": self.session, "trigger_id": trigger}
        return json.dumps(call).encode()

    def _queued(self, event: dict[str, Any], trigger: int) -> str:
        self._request("POST", f"{API}/queue/join", self._call(event, [None] * len(event["inputs"]), trigger))
        shown: list[str] = []
        for message in self._messages():
            if message["msg"] in ("process_generating", "process_completed"):
                shown.append(json.dumps(message.get("output")))
            if message["msg"] == "process_completed":
                if not message.get("success"):
                    raise PageFault(f"the assessment failed: {shown[-1][:300]}")
                return "\n".join(shown)
        raise PageFault("the answer broke off")

    def _messages(self) -> Iterator[dict[str, Any]]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            connection.request("GET", f"{API}/queue/data?session_hash={self.session}", headers=self.headers)
            response = connection.getresponse()
            self.answered_by.append(response.getheader("X-Served-By"))
            if response.status != 200:
                raise PageFault(f"the stream of answers: {response.status}")
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        finally:
            connection.close()

    def _request(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, {**self.headers, "Content-Type": kind})
            response = connection.getresponse()
            data = response.read()
            self.answered_by.append(response.getheader("X-Served-By"))
            if cookie := response.getheader("Set-Cookie"):
                self.headers["Cookie"] = cookie.partition(";")[0]
        finally:
            connection.close()
        if response.status == 503:
            raise PageBusy(path)
        if response.status != 200:
            raise PageFault(f"{method} {path}: {response.status} {data[:200]!r}")
        return data
