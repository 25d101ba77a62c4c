"""The examples of docs/api.md, run as they stand there against an API of their own."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from skinclip.core.assessment import Assessment
from skinclip.service.keys import add_key
from tests.helpers.served import ROOT, Served, await_status, serving

PAGE = (ROOT / "docs" / "api.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)
CURL, CURL_PAIR = [line for line in PAGE.splitlines() if line.startswith("curl ")]


@pytest.fixture(scope="module")
def lesion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photos that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    for name, drawn in (("lesion", "melanoma"), ("dermoscopy", "melanoma"), ("close_up", "nevus")):
        shutil.copy(ROOT / f"assets/examples/synthetic_{drawn}.jpg", folder / f"{name}.jpg")
    (folder / "assets").symlink_to(ROOT / "assets")
    return folder


@pytest.fixture(scope="module")
def api() -> Iterator[Served]:
    with serving("--api") as served:
        await_status(served.url, served.process)
        yield served


def run_curl(line: str, api: Served, folder: Path) -> Assessment:
    words = shlex.split(line.replace("http://127.0.0.1:7860", api.url))
    done = subprocess.run([*words, "--silent", "--show-error"], cwd=folder, capture_output=True, text=True, check=True)
    return Assessment.from_json(done.stdout)


def run_python(code: str, folder: Path) -> str:
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_in_process(lesion: Path) -> None:
    first, _, rest = run_python(PYTHON[0], lesion).partition("\n")
    assert first == f"{Assessment.from_json(rest).diagnosis[0].name} {Assessment.from_json(rest).malignancy.refer}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing: sudo apt-get install curl")
def test_curl_and_python_over_http(api: Served, lesion: Path) -> None:
    answer = run_curl(CURL, api, lesion)
    assert answer.context.age == 55 and answer.context.site == "back"
    over_http = run_python(f"API = {api.url!r}\n{PYTHON[1]}", lesion)
    assert answer.diagnosis[0].code in over_http and f"{answer.diagnosis[0].probability}" in over_http
    assert len(run_curl(CURL_PAIR, api, lesion).photos) == 2


def test_keys_metrics_logs_and_the_end(lesion: Path, tmp_path: Path) -> None:
    """A server as docs/api.md starts it: keys are wanted, and SIGTERM is an ordinary end."""
    key = add_key(tmp_path / "keys.txt", "clinic-a", 1)
    with serving("--api", "--keys", str(tmp_path / "keys.txt"), "--json-logs") as served:
        await_status(served.url, served.process)
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{served.url}/v1/model")
        request = Request(f"{served.url}/v1/model", headers={"Authorization": f"Bearer {key}"})
        assert urlopen(request).status == 200
        for path in ("/livez", "/readyz", "/healthz"):
            assert urlopen(served.url + path).status == 200
        served.process.terminate()
        assert served.process.wait(30) == 0
