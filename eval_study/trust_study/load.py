"""Load test of a study at full size: are acknowledged answers kept, and how long does a reader wait.

    python -m eval_study.trust_study.load --sessions --out DIR     whole sessions by Study.submit: 50 readers, 20 cases
    python -m eval_study.trust_study.load --served --out DIR       the same over HTTP, against app.py --study
    python -m eval_study.trust_study.load --out DIR                the store alone, two events per case
    python -m eval_study.trust_study.load --kills 200 --out DIR    a writing process killed at random moments

All readers begin at once and never pause (the worst there can be), or with `--think 2` pause 0 to 4 s before each
submit, where a real reader takes half a minute. Each command writes a JSON file. The database is a fresh SQLite file,
or an empty PostgreSQL database by `--url`. The readers are threads that send made-up answers; nothing is from people.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval_study.trust_study import sessions as study_sessions
from eval_study.trust_study.timing import times
from skinclip.study.store.audit_log import Event
from skinclip.study.store.store import URL_VARIABLE, Store

STUDY = "load"
TWICE = 0.1  # share of submits that are sent again, as by a double click
KEY = bytes(range(32))  # of databases that hold nothing but what is made up here
WRITERS = 4  # threads of the process that is killed


@dataclass(frozen=True)
class Sent:
    """One acknowledged submit."""

    reader: str
    step: str
    value: str
    sequence: int
    seconds: float


def load(where: str | Path, *, readers: int, cases: int, think: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """All readers at once answer `cases` cases, unaided and aided, pausing 0 to 2 `think` seconds between submits.

    Returns counts of answers lost, doubled or put to another reader, problems of the log, and submit times in ms.
    """
    with Store.open(where, KEY) as store:
        store.create(STUDY, {"simulated": True})
        names = [
            store.enrol(STUDY, lambda number, site, others: {"number": number}, "simulated").reader
            for _ in range(readers)
        ]
        start_line = threading.Barrier(readers)

        def session(name: str) -> list[Sent]:
            rng = random.Random(f"{seed}/{name}")
            start_line.wait()
            return [_submit(store, name, step, rng, think) for step in _steps(cases)]

        began = time.perf_counter()
        with ThreadPoolExecutor(readers) as pool:
            sent = list(itertools.chain.from_iterable(pool.map(session, names)))
        wall = time.perf_counter() - began
        stored = store.events(STUDY, kinds=["before", "after"])
        problems = store.verify(STUDY)
    return {
        "readers": readers,
        "cases": cases,
        "mean_pause_s": think,
        **times([one.seconds for one in sent], wall),
        **compare(sent, stored),
        "problems": [str(problem) for problem in problems],
    }


def _nothing_allocated(number: int, *_: object) -> dict[str, int]:
    return {"number": number}


def _steps(cases: int) -> list[str]:
    return [f"{kind}/C{case:03d}" for case in range(1, cases + 1) for kind in ("before", "after")]


def _submit(store: Store, reader: str, step: str, rng: random.Random, think: float) -> Sent:
    """One answer, timed; sometimes sent twice under the same request id."""
    time.sleep(rng.uniform(0, 2 * think))
    value = f"{reader}/{step}/{rng.random()}"
    request_id = secrets.token_hex(8)
    start = time.perf_counter()
    event = store.append(STUDY, reader, step.partition("/")[0], step, {"answers": value}, request_id)
    seconds = time.perf_counter() - start
    if rng.random() < TWICE:
        store.append(STUDY, reader, step.partition("/")[0], step, {"answers": value}, request_id)
    return Sent(reader, step, value, event.sequence, seconds)


def compare(sent: Sequence[Sent], stored: Sequence[Event]) -> dict[str, int]:
    """Fate of acknowledged answers: counts of those lost, doubled, or stored for another reader or step."""
    places = {event.sequence: event for event in stored}
    values = Counter(str((event.payload or {}).get("answers")) for event in stored)
    matched = [(one, places.get(one.sequence)) for one in sent]
    return {
        "lost": sum(values[one.value] == 0 for one in sent),
        "doubled": sum(values[one.value] > 1 for one in sent),
        "misplaced": sum(
            event is None or (event.reader, event.step) != (one.reader, one.step) for one, event in matched
        ),
    }


def kills(where: str | Path, *, runs: int, seed: int = 0) -> dict[str, Any]:
    """Kill a writing process (SIGKILL) `runs` times, at any moment from its start to a second of writing.

    After each kill every answer that it had acknowledged must be in the store, once, and the log must verify.
    """
    rng = random.Random(seed)
    acknowledged: list[Sent] = []
    counts = Counter[str]()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs):
            answer_file = Path(folder) / f"{run}.txt"
            _write_until_killed(where, answer_file, rng)
            lines = (
                answer_file.read_text().split("\n")[:-1] if answer_file.exists() else []
            )  # the last one may be cut short
            acknowledged += [Sent(*json.loads(line)) for line in lines]
            counts["killed_while_writing" if lines else "killed_while_opening"] += 1
            with Store.open(where, KEY) as store:
                if STUDY in store.studies():
                    problems += [f"run {run}: {problem}" for problem in store.verify(STUDY)]
                    outcome = compare(acknowledged, store.events(STUDY, kinds=["before"]))
                    problems += [f"run {run}: {count} {name}" for name, count in outcome.items() if count]
    return {"runs": runs, **counts, "acknowledged": len(acknowledged), "problems": problems}


def _write_until_killed(where: str | Path, answer_file: Path, rng: random.Random) -> None:
    """Start a writer and kill it: one time in four while it may still be opening, else after its first answer."""
    child = start_writer(where, answer_file)
    try:
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0, 1.5))
        else:
            _await_first_answer(child, answer_file)
            time.sleep(rng.uniform(0, 0.5))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(30)


def _await_first_answer(child: subprocess.Popen[bytes], answer_file: Path) -> None:
    deadline = time.monotonic() + 60
    while not (answer_file.exists() and answer_file.stat().st_size):
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the writing process stored nothing within 60 s; run it by hand with --write")
        time.sleep(0.005)


def start_writer(where: str | Path, answer_file: Path, answers: int = 0) -> subprocess.Popen[bytes]:
    """A process that stores `answers` answers a thread (0: without end) and tells each one after it was stored."""
    call = [sys.executable, "-m", "eval_study.trust_study.load", "--url", str(where), "--write", str(answer_file)]
    return subprocess.Popen([*call, "--answers", str(answers)])


def write(where: str | Path, answer_file: Path, answers: int) -> None:
    """The process that is killed: a few readers at once, each acknowledged answer a line in `answer_file`."""
    file = os.open(answer_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with Store.open(where, KEY) as store:
        store.create(STUDY, {"simulated": True})

        def session(_: int) -> None:
            reader = store.enrol(STUDY, _nothing_allocated, "simulated").reader
            for number in itertools.count(1) if answers == 0 else range(1, answers + 1):
                value, step = secrets.token_hex(8), f"before/{number}"
                start = time.perf_counter()
                event = store.append(STUDY, reader, "before", step, {"answers": value}, value)
                line = json.dumps([reader, step, value, event.sequence, time.perf_counter() - start])
                os.write(file, f"{line}\n".encode())

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(session, range(WRITERS)))


def main() -> None:
    """Runs the load test, or one of its writing processes, and prints its result."""
    args = _parser().parse_args()
    if args.write:
        write(args.url, args.write, args.answers)
        return
    about = _conditions(args)
    with tempfile.TemporaryDirectory() as folder:
        name, result = _measured(args, Path(folder))
    text = json.dumps({**about, **result}, indent=2)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{name}_{about['database']}.json").write_text(text + "\n")


def _conditions(args: argparse.Namespace) -> dict[str, Any]:
    """The conditions of a test, taken before it."""
    return {
        "command": _command(),
        "database": "postgresql" if str(args.url).startswith("postgres") else "sqlite",
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),  # what else kept the machine busy
        "python": platform.python_version(),
        "seed": args.seed,
        "simulated": True,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", action="store_true", help="whole sessions by Study.submit")
    parser.add_argument("--served", action="store_true", help="whole sessions over HTTP")
    parser.add_argument("--kills", type=int, default=0, help="kill a writing process so often instead")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--think", type=float, default=0.0, help="mean pause before each submit, seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="an empty PostgreSQL database, or a path; default: a fresh SQLite file")
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _command() -> str:
    """What was typed, without the address of a database and the folder of the result."""
    hidden = {"--url": "URL", "--out": "DIR"}
    arguments = [hidden.get(before, word) for before, word in itertools.pairwise(("", *sys.argv[1:]))]
    return " ".join(("python -m eval_study.trust_study.load", *arguments))


def _measured(args: argparse.Namespace, folder: Path) -> tuple[str, dict[str, Any]]:
    """The name of the result's file, and the result."""
    paused = "_with_pauses" if args.think else ""
    if args.sessions or args.served:
        if args.url:
            os.environ[URL_VARIABLE] = args.url
        study = study_sessions.made_up_study(folder, args.cases)
        name, run = ("served", study_sessions.served) if args.served else ("submit", study_sessions.sessions)
        return f"study_{name}{paused}", run(study, readers=args.readers, think=args.think, seed=args.seed)
    where = args.url or folder / "load.sqlite"
    if args.kills:
        return "study_kills", kills(where, runs=args.kills, seed=args.seed)
    result = load(where, readers=args.readers, cases=args.cases, think=args.think, seed=args.seed)
    return f"study_load{paused}", result


if __name__ == "__main__":
    main()
