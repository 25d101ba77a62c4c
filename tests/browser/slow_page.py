"""The page of a big preset on a tiny base with two adapters, its words far enough apart to be seen.

slow_page.py FOLDER PORT SECONDS
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skinclip.model import reasoner
from skinclip.ui.app import build_page, load_assessor
from skinclip.ui.tabs.photo_field import example_css
from skinclip.ui.theme import css, head, theme
from tests.helpers.tiny_hub import tiny_base, tiny_checkpoint, tiny_clip, tiny_preset

FOLDER, PORT, SECONDS = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
at_once = reasoner.greedy


def slowly(*arguments: Any) -> Iterator[list[int]]:
    for run in at_once(*arguments):
        time.sleep(SECONDS if arguments[3] else 0)  # only where there are rules: in a rationale
        yield run


config = tiny_preset(tiny_base(FOLDER / "base"), tiny_clip(FOLDER / "clip"))
for seed, name in enumerate(("first", "second"), 2):
    tiny_checkpoint(FOLDER / "adapters" / name, config, seed)
reasoner.greedy = slowly  # type: ignore[assignment]
page = build_page(load_assessor(config.preset, None, FOLDER / "adapters"))
page.launch(
    server_name="127.0.0.1",
    server_port=PORT,
    css=css() + example_css(),
    head=head(),
    theme=theme(),
    quiet=True,
)
