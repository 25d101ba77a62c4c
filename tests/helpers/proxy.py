"""nginx before several servers, with the configuration of docs/deploy: only addresses and certificates are replaced."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from eval_study.trust_study.serving import free_port
from tests.helpers.served import ROOT

CONFIGURATION = ROOT / "docs" / "deploy" / "nginx_replicas.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def configuration(folder: Path, port: int, pages: Sequence[int], studies: Sequence[int]) -> str:
    """The text of docs/deploy/nginx_replicas.conf for servers of this computer, without https."""
    text = CONFIGURATION.read_text()
    for name, ports in (("page", pages), ("study", studies)):
        for i, one in enumerate(ports, 1):
            text = text.replace(f"server {name}-{i}:7860", f"server 127.0.0.1:{one}")
    text = text.replace("server api:7860", f"server 127.0.0.1:{pages[0]}")
    text = re.sub(r"^\s*ssl_.*$", "", text, flags=re.M).replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    temporary = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", f"http {{\n{temporary}  add_header X-Served-By $upstream_addr always;\n")
    text = re.sub(r"^\s*add_header Strict-Transport-Security.*$", "", text, flags=re.M)
    return f"daemon off;\npid {folder}/nginx.pid;\n{text}"


@contextmanager
def proxied(folder: Path, pages: Sequence[int], studies: Sequence[int]) -> Iterator[int]:
    """A running proxy; gives its port."""
    assert NGINX is not None
    port = free_port()
    path = folder / "nginx.conf"
    path.write_text(configuration(folder, port, pages, studies))
    process = subprocess.Popen([NGINX, "-p", str(folder), "-e", "stderr", "-c", str(path)], stderr=subprocess.PIPE)
    try:
        _await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=20)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("nginx does not listen")
