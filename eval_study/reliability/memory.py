"""Memory of the page over many large photos: `python -m eval_study.reliability.memory --photos 200`.

Starts `app.py` and assesses drawn photos of 12 megapixels one after the other as a browser would: upload, hand over,
press Assess, read the answer's stream, each in a session of its own whose photo and answer are kept. The resident
memory of the server (without its decoders) is noted after each, and written to `eval_study/results/reliability/`.
"""

from __future__ import annotations

import argparse
import io
import json
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from eval_study.trust_study.serving import free_port
from skinclip.imaging.examples import LOOKS, draw

ROOT = Path(__file__).parents[2]
OUT = ROOT / "eval_study" / "results" / "reliability" / "memory.json"
SIDE = (4000, 3000)
LIMIT_GB = 2.0


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    port = free_port()
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT)
    try:
        resident = _run(f"http://127.0.0.1:{port}", process.pid, args.photos, args.seed)
    finally:
        process.terminate()
        process.wait(60)
    result = summary(resident, args.photos, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "resident_gb"}))


def summary(resident: list[float], photos: int, seed: int) -> dict[str, Any]:
    """The series and what it settles at: the median of its last tenth."""
    last = sorted(resident[-max(1, len(resident) // 10) :])
    settled = last[len(last) // 2]
    return {
        "command": f"python -m eval_study.reliability.memory --photos {photos} --seed {seed}",
        "megapixels": SIDE[0] * SIDE[1] / 1e6,
        "first_gb": resident[0],
        "peak_gb": max(resident),
        "settled_gb": settled,
        "within_limit": settled <= LIMIT_GB,
        "resident_gb": resident,
    }


def _run(url: str, pid: int, photos: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    with httpx.Client(base_url=url, timeout=300) as client:
        _await_ready(client)
        config = _config(client.get("/").text)
        resident = []
        for i in range(photos):
            _assess(client, config, photo(rng))
            resident.append(round(psutil.Process(pid).memory_info().rss / 1e9, 3))
            print(f"{i + 1} of {photos}: {resident[-1]:.2f} GB", flush=True)
    return resident


def photo(rng: np.random.Generator) -> bytes:
    """A drawn lesion of 12 megapixels with grain of its own, as JPEG."""
    kinds = sorted(LOOKS)
    drawn = draw(kinds[int(rng.integers(len(kinds)))], int(rng.integers(1_000_000)))
    small = Image.fromarray(drawn).resize(SIDE)
    grain = rng.normal(0, 4, (SIDE[1] // 4, SIDE[0] // 4, 1)).repeat(4, 0).repeat(4, 1)
    pixels = np.clip(np.asarray(small) + grain, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _await_ready(client: httpx.Client) -> None:
    for _ in range(600):
        try:
            if client.get("/healthz").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise RuntimeError("the page did not become ready")


def _config(page: str) -> dict[str, Any]:
    start = page.index("window.gradio_config = ") + len("window.gradio_config = ")
    return dict(json.JSONDecoder().raw_decode(page, start)[0])


def _assess(client: httpx.Client, config: dict[str, Any], data: bytes) -> None:
    """One visitor: a photo is handed over, assessed, and its answer read to the end."""
    session = secrets.token_hex(5)
    name = client.post("/upload", content=data).raise_for_status().json()["upload"]
    _follow(client, config, session, ("uploaded", "change"), name)
    _follow(client, config, session, ("assess", "click"), None)


def _follow(client: httpx.Client, config: dict[str, Any], session: str, trigger: tuple[str, str], value: Any) -> None:
    """Calls the event of a component by its id, then the events that follow it, as the front end does."""
    ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
    pending = [d for d in config["dependencies"] if [ids[trigger[0]], trigger[1]] in [list(t) for t in d["targets"]]]
    while pending:
        event = pending.pop(0)
        data = [value if i == ids[trigger[0]] else _initial(config, i) for i in event["inputs"]]
        _call(client, event, {"session_hash": session, "fn_index": event["id"], "data": data})
        pending += [d for d in config["dependencies"] if d.get("trigger_after") == event["id"]]


def _initial(config: dict[str, Any], component: int) -> Any:
    return next((c["props"].get("value") for c in config["components"] if c["id"] == component), None)


def _call(client: httpx.Client, event: dict[str, Any], body: dict[str, Any]) -> None:
    if event.get("backend_fn") is False:
        return
    if event["queue"] is False:
        client.post("/gradio_api/run/predict", json=body).raise_for_status()
        return
    client.post("/gradio_api/queue/join", json=body).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": body["session_hash"]}) as stream:
        for line in stream.iter_lines():
            if '"process_completed"' in line or '"close_stream"' in line:
                return


if __name__ == "__main__":
    main()
