"""Whole sessions of made-up readers against a study, and how long each submit takes them.

`python -m eval_study.trust_study.load --sessions` calls `Study.submit` in this process, `--served` sends the page's own
requests to `app.py --study` over HTTP: sign-in, every step from consent to debrief, and what the page gets back. The
study is frozen from drawn photos without a model. Nothing here is from people.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import re
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eval_study.trust_study.serving import await_ready, free_port
from eval_study.trust_study.timing import times
from skinclip.core import assessment as record
from skinclip.core.paths import TRUST_STUDY
from skinclip.core.vocabulary import CRITERIA, DIAGNOSES
from skinclip.data.cases import Case
from skinclip.imaging import examples
from skinclip.imaging.photo import encode_png, from_array
from skinclip.study import build as study_build
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.protocol.questions import Question
from skinclip.study.session.keys import KEY
from skinclip.study.session.presenter import questions_of
from skinclip.study.session.session_service import EnrolledReader, Study
from skinclip.study.session.steps import CONSENT, Step
from skinclip.study.store.codes import read_key
from skinclip.study.store.records import ANSWERING
from skinclip.study.store.study_key import StudyKey

ROOT = Path(__file__).resolve().parents[2]
PRACTICE, PREFERENCES = 4, 2
_SIZE = (640, 480)  # pixels of a photo
_GRAIN = 3.0  # grey levels of camera noise, without which a drawn photo is a tenth of a real one's bytes
_STEP = re.compile(rb'"step":"(\w+)"')


@dataclass(frozen=True)
class SubmittedStep:
    """One acknowledged submit and how long its reader waited for the next step."""

    reader: str
    step: str
    answers: dict[str, Any]
    seconds: float


Submit = Callable[[str, str, dict[str, Any], str], str]  # token, step, answers, request id -> the next step's name
SignIn = Callable[[str], str]  # code -> token


# --- a study ----------------------------------------------------------------------------------------------------------


def made_up_study(folder: Path, cases: int) -> Path:
    """A frozen study of `cases` drawn photos, practice, repeats and pairs on top, whose AI never saw them."""
    folder.mkdir(parents=True, exist_ok=True)
    path, out = folder / "load.yaml", folder / "study"
    path.write_text(yaml.safe_dump(_protocol(cases), sort_keys=False))
    protocol = Protocol.read(path)
    wrong = protocol.cases.counts["wrong"]
    candidates = [_candidate(number, folder, wrong=number <= wrong) for number in range(1, cases + PRACTICE + 1)]
    out.mkdir()
    model, drawn = record.ModelInfo("none", "0", "0" * 64), study_build.draw(protocol, candidates)
    read_key(out / KEY, create=True)
    study_build.write(out, path, protocol, drawn, model, _gradient, StudyKey(read_key(out / KEY)))
    return out


def _protocol(cases: int) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(TRUST_STUDY.read_text())
    values["key"], values["title"] = "load", "A measurement, no study"
    values["cases"] = {
        "n": cases,
        "wrong_share": 4 / cases,
        "ood_share": 0,
        "practice": PRACTICE,
        "repeat_share": 0.1,
        "preference_pairs": PREFERENCES,
    }
    values["washout"] = {"presentations": cases // 4, "hours": 0}
    values["ethics"] = {name: f"for a measurement only: {name}" for name in values["ethics"]}
    return values


def _gradient(image: Any, code: str) -> np.ndarray:
    """Stands for a map."""
    height, width = image.pixels.shape[:2]
    return np.linspace(0, 1, height * width).reshape(height, width)


def _candidate(number: int, folder: Path, wrong: bool) -> study_build.Candidate:
    rng, photo = np.random.default_rng(number), folder / f"{number}.png"
    drawn = examples.draw("nevus", number, _SIZE)
    pixels = np.clip(drawn + rng.normal(0, _GRAIN, drawn.shape), 0, 255).astype(np.uint8)
    photo.write_bytes(encode_png(pixels))
    case = Case(photo, f"drawn{number}", "drawn", f"lesion{number}", diagnosis="nv" if wrong else "mel")
    return study_build.Candidate(case, "wrong" if wrong else "right", _assessment(pixels))


def _assessment(pixels: np.ndarray) -> record.Assessment:
    """The same for every photo: melanoma leads, one finding."""
    height, width = pixels.shape[:2]
    box = (0.3 * width, 0.3 * height, 0.6 * width, 0.6 * height)
    square = ((box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3]))
    ranked = sorted(DIAGNOSES, key=lambda d: d.code != "mel")
    shares = (0.7, *[0.05] * (len(ranked) - 1))
    return record.Assessment(
        model=record.ModelInfo("none", "0", "0" * 64),
        photo=record.PhotoInfo(width, height, from_array(pixels).sha256, record.Quality(True)),
        context=record.Context(),
        diagnosis=tuple(record.DiagnosisProbability(d.code, d.name, p) for d, p in zip(ranked, shares, strict=True)),
        prediction_set=record.PredictionSet(0.9, ("mel", "nv")),
        malignancy=record.Malignancy(0.7, 0.2, True),
        shift=record.Shift(0.5, True),
        lesion=record.Lesion(box, (square,), 0.1),
        criteria={c.code: {label: 1 / len(c.labels) for label in c.labels} for c in CRITERIA},
        findings=(record.Finding("r1", "streaks", "irregular", 0.8, record.Region(box, (square,))),),
        rationale="Melanoma leads, supported by [r1] irregular streaks.",
        abstained=False,
    )


# --- readers ----------------------------------------------------------------------------------------------------------


def sessions(folder: Path, *, readers: int, think: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """All readers at once go through the study in `folder` by `Study.submit`, pausing 0 to 2 `think` s before each."""
    with Study.open(folder) as study:
        people = study.enrol(readers, "simulated")

        def submit(token: str, step: str, answers: dict[str, Any], request_id: str) -> str:
            return study.submit(token, step, answers, request_id, 1.0).step

        cpu = time.process_time
        return _measured(study, people, study.sign_in, submit, cpu, think, seed)


def served(folder: Path, *, readers: int, think: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """The same over HTTP: `app.py --study` in a process of its own, the readers' browsers threads of this one."""
    with Study.open(folder) as study, _serving(folder) as page:
        people = study.enrol(readers, "simulated")
        return {**_measured(study, people, page.sign_in, page.submit, page.cpu, think, seed), "reply_kb": page.kb()}


def _measured(
    study: Study,
    people: Sequence[EnrolledReader],
    sign_in: SignIn,
    submit: Submit,
    cpu: Callable[[], float],
    think: float,
    seed: int,
) -> dict[str, Any]:
    """Runs the sessions and compares what was acknowledged with what is stored."""
    tokens = {one.reader: sign_in(one.code) for one in people}
    steps = {one.reader: study.steps(one.reader) for one in people}
    start_line = threading.Barrier(len(people))

    def session(reader: str) -> list[SubmittedStep]:
        rng = random.Random(f"{seed}/{reader}")
        start_line.wait()
        return [_answer(study.protocol, reader, tokens[reader], step, submit, rng, think) for step in steps[reader]]

    began, cpu_began = time.perf_counter(), cpu()
    with ThreadPoolExecutor(len(people)) as pool:
        sent = list(itertools.chain.from_iterable(pool.map(session, tokens)))
    wall, used = time.perf_counter() - began, cpu() - cpu_began
    return {
        "readers": len(people),
        "cases": study.protocol.cases.n,
        "mean_pause_s": think,
        **times([one.seconds for one in sent], wall),
        "cpu_ms_a_submit": round(1000 * used / len(sent), 2),
        **_kept(study, sent),
        "problems": [str(problem) for problem in study.store.verify(study.name)],
    }


def _answer(
    protocol: Protocol, reader: str, token: str, step: Step, submit: Submit, rng: random.Random, think: float
) -> SubmittedStep:
    """One submit, timed from the click to the next step."""
    time.sleep(rng.uniform(0, 2 * think))
    answers = {question.key: _some_answer(question, rng) for question in questions_of(protocol, step)}
    request_id = secrets.token_hex(8)
    start = time.perf_counter()
    following = submit(token, step.name, answers, request_id)
    seconds = time.perf_counter() - start
    if following == step.name:
        raise RuntimeError(f"{reader} stands still at {step.name}")
    return SubmittedStep(reader, step.name, answers, seconds)


def _some_answer(question: Question, rng: random.Random) -> Any:
    if question.key == CONSENT:
        return True
    answer = question.scale.type.example(question.scale, rng.random())
    return f"{answer}, {rng.random()}" if question.scale.kind == "text" else answer


def _kept(study: Study, sent: Sequence[SubmittedStep]) -> dict[str, int]:
    """Acknowledged answers that are not stored, stored more than once, or not as they were sent."""
    events = study.store.events(study.name, kinds=ANSWERING)
    count = Counter((event.reader, event.step) for event in events)
    stored = {(event.reader, event.step): (event.payload or {}).get("answers") for event in events}
    places = [(one.reader, one.step) for one in sent]
    return {
        "lost": sum(place not in stored for place in places),
        "doubled": sum(n > 1 for n in count.values()),
        "misplaced": sum(stored.get((one.reader, one.step)) != one.answers for one in sent),
    }


# --- over HTTP --------------------------------------------------------------------------------------------------------


@dataclass
class _Page:
    """The served page as its own script calls it: functions of one component, by POST."""

    port: int
    process: subprocess.Popen[bytes]
    component: int = 0
    received: int = 0
    replies: int = 0

    def __post_init__(self) -> None:
        self.local = threading.local()  # a browser keeps its connection open: one a thread
        self.connections: list[http.client.HTTPConnection] = []

    def sign_in(self, code: str) -> str:
        return str(json.loads(self._call("sign_in", {"code": code}))["token"])

    def submit(self, token: str, step: str, answers: dict[str, Any], request_id: str) -> str:
        sent = {"token": token, "step": step, "answers": answers, "request_id": request_id, "seconds": 1.0}
        data = self._call("submit", sent)
        steps = _STEP.findall(data[-400:])  # after the page itself, a megabyte that need not be parsed for it
        if len(steps) != 1 or b'"notice":' in data[:20]:
            raise RuntimeError(f"submit of {step}: {data[:300]!r}")
        return str(steps[0], "ascii")

    def cpu(self) -> float:
        """Seconds of processor time that the server has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kb(self) -> int:
        """Mean size of a reply, in thousands of bytes."""
        return round(self.received / max(1, self.replies) / 1000)

    def _call(self, name: str, data: dict[str, Any]) -> bytes:
        return self._request("POST", f"/session/{name}", json.dumps(data))

    def _request(self, method: str, path: str, body: str | None) -> bytes:
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            self.connections.append(self.local.connection)
        try:
            response = self._sent(method, path, body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self.local.connection.close()  # the server ended a connection that was idle: as a browser, ask on another
            response = self._sent(method, path, body)
        data = bytes(response.read())
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {data[:200]!r}")
        self.received, self.replies = self.received + len(data), self.replies + 1
        return data

    def _sent(self, method: str, path: str, body: str | None) -> http.client.HTTPResponse:
        connection: http.client.HTTPConnection = self.local.connection
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse()


@contextmanager
def _serving(folder: Path) -> Iterator[_Page]:
    port = free_port()
    command = [sys.executable, "app.py", "--study", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        await_ready(port, process)
        page = _Page(port, process)
        yield page
        for connection in page.connections:
            connection.close()
    finally:
        process.terminate()
        process.wait(30)
