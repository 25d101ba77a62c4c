"""A hub on this computer: the few routes that huggingface_hub calls, and switches for what goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class FakeHub:
    """Serves repositories of files held in memory.

    Attributes:
        repositories: files by name, by hub id; those with a suffix in `LARGE` are kept as the hub keeps large files.
        requests: (path, headers) of every request.
        served: bytes of content sent, by file name.
        cut: by file name, after how many bytes the connection breaks; the hub is down from then on.
        damaged: names of files that come with a flipped byte.
        status: the answer to everything, when set.
        landing_page: every answer is an HTML page, as from a network that wants a sign-in.
    """

    LARGE = (".safetensors", ".bin")

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.served: Counter[str] = Counter()
        self.cut: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.status: int | None = None
        self.error_code = ""
        self.landing_page = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def downloads(self) -> list[str]:
        """Names of the files that were asked for, in order."""
        return [path.rsplit("/", 1)[1] for path, _ in self.requests if "/resolve/" in path]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append((path, {k.lower(): v for k, v in request.headers.items()}))
        if self.status is not None:
            return send(request, self.status, b"", {"X-Error-Code": self.error_code})
        if self.landing_page:
            return send(request, 200, b"<html>Welcome to our network</html>", {"Content-Type": "text/html"})
        if path.startswith("/api/models/"):
            hub_id, revision = path.removeprefix("/api/models/").split("/revision/")
            return self.listing(request, hub_id, revision)
        if path.startswith("/cdn/"):
            hub_id, name = path.removeprefix("/cdn/").split("//")
            return self.content(request, hub_id, name)
        hub_id, rest = path.removeprefix("/").split("/resolve/")
        name = rest.split("/", 1)[1]
        if name.endswith(self.LARGE):  # the hub sends large files from elsewhere
            return send(request, 302, b"", {"Location": f"{self.endpoint}/cdn/{hub_id}//{name}"})
        return self.content(request, hub_id, name)

    def listing(self, request: BaseHTTPRequestHandler, hub_id: str, revision: str) -> None:
        if hub_id not in self.repositories:
            return send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        if revision != self.revision:
            return send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        siblings = []
        for name, content in self.repositories[hub_id].items():
            entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_sha1(content)}
            if name.endswith(self.LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 135}
            siblings.append(entry)
        body = json.dumps({"id": hub_id, "sha": revision, "siblings": siblings}).encode()
        send(request, 200, body, {"Content-Type": "application/json"})

    def content(self, request: BaseHTTPRequestHandler, hub_id: str, name: str) -> None:
        content = self.repositories[hub_id][name]
        if name in self.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        begin = 0
        if wanted := request.headers.get("Range"):
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
        body, whole = content[begin:], len(content)
        request.send_response(206 if begin else 200)
        request.send_header("Content-Length", str(len(body)))
        if begin:
            request.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        request.end_headers()
        if name in self.cut:
            body = body[: self.cut.pop(name)]
            self.status, request.close_connection = 503, True
        request.wfile.write(body)
        self.served[name] += len(body)


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in (headers | {"Content-Length": str(len(body))}).items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
