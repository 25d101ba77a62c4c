"""Downloads a big preset's weights before its page opens, where whoever runs the page agreed to that beforehand.

On a Hugging Face Space, and in many containers, there is nobody who could run `fetch` first. So where SKINCLIP_FETCH is
"yes", the page fetches what is missing and says how far it is. The commands are those of the command line, each in a
process of its own: this one never uses a network, whatever is asked of it later.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from skinclip.core.paths import FETCH, IMPORT_ROOT, PULL, data_directory
from skinclip.ui.server import ReportStep, StartupError


def download_agreed() -> bool:
    """True if weights may be downloaded at the start of the page.

    Raises ValueError for a word that is neither yes nor no: nobody's licence is agreed to by guessing.
    """
    word = os.environ.get(FETCH, "").strip().lower()
    if word not in ("", "yes", "no"):
        raise ValueError(f"{FETCH} must be yes (agree to the weights' licences and download them) or no, not {word!r}")
    return word == "yes"


def download_weights(preset: str, weights: Path | None, report: ReportStep) -> Path | None:
    """Fetches what `preset` is built on, and the adapter that SKINCLIP_PULL names, as far as they are not here.

    Does nothing for an embedded preset, or where nobody agreed.

    Args:
        weights: the checkpoint that was asked for; an adapter is pulled only where that is None.

    Returns:
        the checkpoint to load, None for the preset's own.

    Raises StartupError saying why something could not be downloaded.
    """
    if not download_agreed():
        return weights
    # not before: torch comes with them, and the port must answer at once
    from skinclip.core import config
    from skinclip.hub import checkpoint_folder

    if config.preset(preset).reasoner.base is None:
        return weights
    run_command(["fetch", "--preset", preset, "--yes"], report)
    source = os.environ.get(PULL, "").strip()
    if weights is not None or not source or (checkpoint_folder(preset) / "config.yaml").exists():
        return weights
    repository, _, revision = source.partition("@")
    folder = data_directory().kept / "adapters" / source.replace("/", "--")
    if not folder.exists():
        run_command(
            ["adapter", "pull", repository, str(folder), *(["--revision", revision] if revision else [])], report
        )
    return folder


def run_command(words: Sequence[str], report: ReportStep) -> None:
    """Runs a command of the command line and reports each line of its output.

    Raises StartupError with the last line where it fails.
    """
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "skinclip", *words],
        cwd=IMPORT_ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,  # a progress bar's carriage returns end lines too
        errors="replace",
    )
    last = ""
    atexit.register(process.terminate)  # it is waited for in a thread that does not outlive this process
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip():
                    last = line.strip()
                    report(last)
        except BaseException:
            process.terminate()
            raise
        finally:
            atexit.unregister(process.terminate)
    if process.returncode:
        raise StartupError(last.removeprefix("skinclip: ") or f"`{' '.join(words)}` ended with {process.returncode}")
