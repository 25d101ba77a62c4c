"""Makes the README's picture of the page anew: `python -m eval_study.screenshot`.

Serves the page with the embedded model, assesses a synthetic example in Chromium, and keeps the whole page as a PNG of
256 colours.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Error, sync_playwright

from eval_study.trust_study.serving import free_port

ROOT = Path(__file__).resolve().parents[1]
OUT, EXAMPLE, WIDTH = ROOT / "assets" / "screenshot.png", "melanoma", 1280
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
SECONDS = 120  # for the model to load, and for the answer


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m eval_study.screenshot", description=__doc__)
    parser.add_argument("--example", default=EXAMPLE, help=f"a synthetic example (default: {EXAMPLE})")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(arguments)
    port = free_port()
    server = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT)
    try:
        picture = quantised(assessed_page(f"http://127.0.0.1:{port}", asked.example))
    finally:
        server.terminate()
        server.wait(30)
    asked.out.write_bytes(picture)
    print(f"{asked.out}: {len(picture) / 1000:.0f} kB")


def assessed_page(url: str, example: str) -> bytes:
    """PNG of the whole page with the answer to a synthetic example."""
    browser_file = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_file is None:
        raise SystemExit("no Chromium: install it (Debian, Ubuntu: apt-get install chromium)")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_file, args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.set_default_timeout(1000 * SECONDS)
        for _ in range(SECONDS):
            try:
                page.goto(url)
                break
            except Error:  # nobody listens yet
                page.wait_for_timeout(1000)
        page.click(f"#synthetic_{example}")
        page.wait_for_selector("#preview figure img")
        page.click("#assess")
        page.wait_for_selector("#figures img")
        page.wait_for_selector("#assess:not([disabled])")
        page.wait_for_timeout(1000)  # transitions
        # as tall as the page, so that what is sticky stays at its place
        height = int(page.evaluate("document.documentElement.scrollHeight"))
        page.set_viewport_size({"width": WIDTH, "height": height})
        picture = page.screenshot()
        browser.close()
    return picture


def quantised(png: bytes) -> bytes:
    """The picture as a PNG of 256 colours."""
    with Image.open(io.BytesIO(png)) as picture:
        full = picture.convert("RGB")
        colours = full.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=3)
        few = full.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG)
    held = io.BytesIO()
    few.save(held, "PNG", optimize=True)
    return held.getvalue()


if __name__ == "__main__":
    main()
