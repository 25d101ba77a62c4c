"""The page behind nginx and Caddy as their examples have it: https, a path of its own, streaming, cookies, headers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from eval_study.trust_study.serving import free_port
from tests.browser.visits import FLAGS, add_photo, assess
from tests.helpers.served import ROOT, await_status, serving

pytestmark = pytest.mark.browser
EXAMPLE = ROOT / "assets/examples/synthetic_nevus.jpg"
PASSWORD = "a long enough password"


def example_of(name: str, changed: dict[str, str]) -> str:
    """The example in `docs/deploy`, with what must differ on this machine replaced."""
    example = (ROOT / "docs/deploy" / name).read_text()
    for old, new in changed.items():
        assert old in example
        example = example.replace(old, new)
    return example


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """nginx with the example, on a free port, with a certificate made on the spot."""
    port = free_port()
    certificate, key = folder / "c.pem", folder / "k.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=skin.example.org"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    changed = {
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "127.0.0.1:7860": f"127.0.0.1:{upstream}",
        "/etc/ssl/certs/skin.example.org.pem": str(certificate),
        "/etc/ssl/private/skin.example.org.key": str(key),
        "/var/log/nginx/skinclip.log": str(folder / "access.log"),
    }
    example = example_of("nginx.conf", changed)
    paths = "".join(f"{k}_temp_path {folder}/{k};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\n{paths}{example}\n}}\n"
    )
    process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    try:
        for _ in range(100):
            assert process.poll() is None, (folder / "error.log").read_text()
            if (folder / "pid").exists():
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def caddy(folder: Path, upstream: int) -> Iterator[int]:
    """Caddy with the example, on a free port, with a certificate of its own authority."""
    port = free_port()
    changed = {
        "skin.example.org {": f"https://skin.example.org:{port} {{\n\ttls internal\n\tbind 127.0.0.1",
        "127.0.0.1:7860": f"127.0.0.1:{upstream}",
    }
    example = example_of("Caddyfile", changed)
    alone = f"admin off\nskip_install_trust\nauto_https disable_redirects\nstorage file_system {folder}/caddy\n"
    (folder / "Caddyfile").write_text(f"{{\n{alone}}}\n{example}")
    with (folder / "error.log").open("w") as log:
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
        process = subprocess.Popen(command, stderr=log, env={**os.environ, "HOME": str(folder)})
        try:
            for _ in range(200):
                assert process.poll() is None, (folder / "error.log").read_text()
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def installed(name: str, package: str) -> pytest.MarkDecorator:
    reason = f"{name} is not installed (Debian, Ubuntu: {package})"
    return pytest.mark.skipif(not shutil.which(name), reason=reason)


@pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(nginx, marks=installed("nginx", "nginx-light"), id="nginx"),
        pytest.param(caddy, marks=installed("caddy", "caddy"), id="caddy"),
    ],
)
def test_a_clinician_signs_in_and_assesses_behind_a_proxy(
    tmp_path: Path, proxy: Callable[[Path, int], AbstractContextManager[int]]
) -> None:
    from playwright.sync_api import sync_playwright

    from skinclip.ui.guard.accounts import Accounts

    home = tmp_path / "home"
    Accounts(home / "accounts.json").add("clara", "clinician", PASSWORD)
    environment = {"SKINCLIP_HOME": str(home), "SKINCLIP_TRUSTED_PROXIES": "127.0.0.1"}
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with serving("--name", "skin.example.org", environment=environment) as page:
        await_status(page.url, page.process)
        with proxy(tmp_path, int(page.url.rpartition(":")[2])) as port, sync_playwright() as driver:
            rule = "--host-resolver-rules=MAP skin.example.org 127.0.0.1"
            browser = driver.chromium.launch(executable_path=chromium, args=[*FLAGS, rule])
            visit = browser.new_page(ignore_https_errors=True)
            visit.set_default_timeout(120_000)
            blocked: list[str] = []
            visit.on("console", lambda m: blocked.append(m.text) if "Content Security Policy" in m.text else None)
            reply = visit.goto(f"https://skin.example.org:{port}/skinclip/")
            assert reply and reply.status == 401
            visit.fill("#name", "clara")
            visit.fill("#password", PASSWORD)
            visit.click("button")
            visit.wait_for_selector("#assess")
            assert all(cookie["secure"] and cookie["httpOnly"] for cookie in visit.context.cookies())
            page_reply = visit.reload()
            assert page_reply and "max-age" in page_reply.headers["strict-transport-security"]
            visit.wait_for_selector("#assess")
            add_photo(visit, EXAMPLE)
            assert "no photo" not in assess(visit)
            assert blocked == []
            browser.close()
    if proxy is nginx:  # whose example says what is logged; Caddy logs no request
        log = (tmp_path / "access.log").read_text()
        assert "session_hash" not in log and re.search(r"POST 200", log)
