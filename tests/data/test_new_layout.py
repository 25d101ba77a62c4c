"""A layout of one's own, as `docs/extending/data_layout.md` shows it: one entry, and every command knows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinclip.cli.main import main
from skinclip.data.layouts import registry
from skinclip.data.readers import DataError, detect_layout, discover, read_cases
from tests.helpers.folders import write

PAGE = Path(__file__).parents[2] / "docs" / "extending" / "data_layout.md"


@pytest.fixture
def nowhere(tmp_path: Path) -> Iterator[Path]:
    """A folder of the documented layout, with the documented module registered."""
    names: dict[str, object] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0], names)
    registry.register(names["LAYOUT"])
    folder = tmp_path / "data" / "nowhere_set"
    (folder / "photos").mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(np.full((64, 64, 3), 120, np.uint8)).save(folder / "photos" / f"{name}.png")
    write(folder / "nowhere.csv", "photo,finding,age,split", "a,mole,50,val", "b.png,melanoma,None,val", "c,wart,,val")
    yield folder
    del registry.LAYOUTS["nowhere"]


def test_a_registered_layout_is_recognised_and_read(nowhere: Path) -> None:
    assert detect_layout(nowhere) == "nowhere"
    assert list(discover(nowhere.parent)) == ["nowhere_set"]
    table = read_cases(nowhere)
    assert [(case.image_id, case.diagnosis, case.context.age) for case in table.cases] == [
        ("a", "nv", 50),
        ("b", "mel", None),
    ]
    assert table.problems[0].startswith("nowhere.csv line 4: ")
    with pytest.raises(DataError, match=r"nowhere\.csv with photos/ \(Nowhere\)"):
        detect_layout(nowhere.parent)
    with pytest.raises(ValueError, match="'nowhere' is registered already"):
        registry.register(registry.LAYOUTS["nowhere"])


def test_evaluate_offers_and_measures_it(nowhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = tmp_path / "theirs.csv"
    write(predictions, "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC", "a,0,1,0,0,0,0,0", "b,1,0,0,0,0,0,0")
    out = tmp_path / "out" / "report.json"
    words = ["--data", str(nowhere), "--predictions", str(predictions), "--out", str(out), "--bootstrap", "5"]
    assert main(["evaluate", *words, "--layout", "nowhere"]) == 0, capsys.readouterr().err
    report = json.loads(out.read_text())
    assert (report["meta"]["layout"], report["accuracy"]["value"]) == ("nowhere", 1.0)
