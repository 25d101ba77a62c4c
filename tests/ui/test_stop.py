"""SIGTERM ends the server at once and in order, whatever its threads and decoders do."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from eval_study.trust_study.serving import free_port
from tests.helpers.served import ROOT

PROGRAM = """
import atexit, contextlib, signal, sys
from pathlib import Path
from fastapi import FastAPI
from skinclip.imaging import bounded
from skinclip.ui import server

def load(report):
    report("computing")
    if "{what}" == "compute":
        import torch
        print("computing", flush=True)
        matrix = torch.rand(1500, 1500)
        while True:
            matrix = (matrix @ matrix).clamp(0, 1)
    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/decode", decode)
    return app

@contextlib.asynccontextmanager
async def lifespan(app):  # as `serving.mount_page` gives the page
    yield
    bounded.end_decoding()

def decode():
    real = bounded.subprocess.Popen
    code = "import time; time.sleep(600)"
    bounded.subprocess.Popen = lambda command, **more: real([command[0], "-c", code], **more)
    print("decoding", flush=True)
    bounded.load_photo_bounded(b"a photo" * 1_000_000)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as `skinclip run` does
atexit.register(lambda: Path("{mark}").write_text("left in order"))
page = server.LoadingServer(load, "A page")
server.serve(page, server.listen("127.0.0.1", {port}))
"""


@pytest.mark.parametrize("what", ["compute", "decode"])
def test_sigterm_ends_the_server_in_the_middle_of_work(tmp_path: Path, what: str) -> None:
    port, mark = free_port(), tmp_path / "mark"
    program = PROGRAM.format(what=what, mark=mark, port=port)
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        asked = None
        for line in process.stdout:
            if "is ready" in line:
                ask = f"from urllib.request import urlopen; urlopen('http://127.0.0.1:{port}/decode')"
                asked = subprocess.Popen([sys.executable, "-c", ask], stderr=subprocess.DEVNULL)
            if line.strip() in ("computing", "decoding"):
                break
        time.sleep(1)  # in the middle
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, process.stderr.read()
        assert time.monotonic() - start < 30
        assert mark.read_text() == "left in order"
        assert "Traceback" not in process.stderr.read()
    if asked is not None:
        asked.wait(10)


PAGE = """
import signal, sys, time
import gradio as gr
from skinclip.ui import server, serving

def slow(word):
    print("computing", flush=True)
    time.sleep(5)  # longer than open connections get
    return word + " answered"

def load(report):
    with gr.Blocks(analytics_enabled=False) as page:
        asked, answer = gr.Textbox(), gr.Textbox()
        asked.submit(slow, asked, answer, api_name="slow")
    return serving.mount_page(page, "", "")

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
page = server.LoadingServer(load, "A page")
server.serve(page, server.listen("127.0.0.1", {port}))
"""


def test_sigterm_lets_what_runs_reach_its_visitor(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", PAGE.format(port=port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        answers: list[str] = []
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as visitor:
            next(line for line in process.stdout if "is ready" in line)
            visitor.get("/")
            session = "visitor00001"
            call = {"fn_index": 0, "data": ["a photo"], "session_hash": session}
            assert visitor.post("/gradio_api/queue/join", json=call).status_code == 200
            stream = threading.Thread(target=_listen, args=(visitor, session, answers))
            stream.start()
            next(line for line in process.stdout if line.strip() == "computing")
            process.send_signal(signal.SIGTERM)
            next(line for line in process.stdout if "finishes what is running" in line)
            ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10)
            stream.join(40)
        assert process.wait(40) == 0, process.stderr.read()
    assert ready.status_code == 503 and ready.json()["reason"] == "stopping"
    assert any("process_completed" in line and "a photo answered" in line for line in answers), answers


def _listen(visitor: httpx.Client, session: str, answers: list[str]) -> None:
    """Keeps the lines of a visitor's stream of events until its end."""
    with visitor.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        answers += [line for line in stream.iter_lines() if line]
