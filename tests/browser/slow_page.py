"""The page of a big preset on a tiny base, its words far enough apart to be seen: slow_page.py FOLDER PORT SECONDS."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skinclip.assess import Assessor
from skinclip.model import reasoner
from skinclip.ui import assess_tab
from skinclip.ui.interface import build_page
from skinclip.ui.theme import css, head
from tests.tiny_hub import tiny_base, tiny_checkpoint, tiny_clip, tiny_preset

FOLDER, PORT, SECONDS = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
at_once = reasoner.greedy


def slowly(*arguments: Any) -> Iterator[list[int]]:
    for run in at_once(*arguments):
        time.sleep(SECONDS)
        yield run


config = tiny_preset(tiny_base(FOLDER / "base"), tiny_clip(FOLDER / "clip"))
checkpoint = tiny_checkpoint(FOLDER / "checkpoint", config)
reasoner.greedy = slowly  # type: ignore[assignment]
page = build_page(Assessor.load(config.preset, checkpoint))
page.launch(server_name="127.0.0.1", server_port=PORT, css=css() + assess_tab.example_css(), head=head(), quiet=True)
