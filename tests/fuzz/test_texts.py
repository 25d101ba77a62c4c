"""Tables, YAML, records and the model's words: whatever the text, an answer or a refusal of the expected kind."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from skinclip.core.assessment import Assessment
from skinclip.core.paths import TRUST_STUDY
from skinclip.data.cases import DataError
from skinclip.data.masks import read_mask
from skinclip.data.tables import read_labels
from skinclip.explain.grounding import parse
from skinclip.language.rationale_check import check_citations, check_rationale, read_rationale
from skinclip.study.errors import ProtocolError
from skinclip.study.protocol.protocol import Protocol
from tests.fuzz.effort import fuzzed
from tests.fuzz.mutations import Change, Edit, changed, changes, edits, mutated
from tests.helpers.records import made_up
from tests.hostile_texts import TEXTS

texts = st.text(max_size=400) | st.sampled_from(TEXTS)
lines = st.lists(st.text(alphabet='ab,";\t\r\n\x00\x0b\x1c\x85\u2028= é', max_size=40), max_size=8).map("\n".join)
boxes = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["bbox_2d", "label", "point_2d"]), inner)
    ),
    max_leaves=12,
)


@fuzzed
@given(header=st.sampled_from(["image,diagnosis", "diagnosis;image", "image\tdiagnosis", ""]), body=lines)
def test_a_table_is_read_or_refused(header: str, body: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        path.write_bytes(f"{header}\n{body}".encode("utf-8", "surrogatepass"))
        try:
            read_labels(path, ["image"])
        except DataError as refusal:
            assert str(refusal)


@fuzzed
@given(data=st.binary(max_size=300))
def test_any_bytes_as_a_table_or_mask_are_read_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.csv"
        path.write_bytes(data)
        for read in (lambda: read_labels(path, ["image"]), lambda: read_mask(path)):
            try:
                read()
            except (DataError, ValueError, OSError) as refusal:
                assert str(refusal)


@fuzzed
@given(text=texts)
@example("name: [\n")
@example("&a [*a]")
@example("? {a: b}: c")
def test_a_study_yaml_is_read_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            Protocol.read(path)
        except ProtocolError as refusal:
            assert str(refusal)


@fuzzed
@given(made=changes)
def test_a_changed_study_yaml_is_read_or_refused(made: list[Change]) -> None:
    plan = changed(yaml.safe_load(TRUST_STUDY.read_text(encoding="utf-8")), made)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump(plan, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
        try:
            Protocol.read(path)
        except ProtocolError as refusal:
            assert str(refusal)


def _mask(mode: str, kind: str) -> bytes:
    stream, drawn = io.BytesIO(), np.zeros((24, 32), np.uint8)
    drawn[6:18, 8:22] = 255
    Image.fromarray(drawn).convert(mode).save(stream, kind)
    return stream.getvalue()


RECORD = made_up().to_json()
MASKS = {f"{kind} {mode}": _mask(mode, kind) for mode in ("L", "RGB", "P", "1", "RGBA") for kind in ("PNG", "TIFF")}
MASKS |= {"jpeg": _mask("L", "JPEG"), "bmp": _mask("1", "BMP"), "gif": _mask("P", "GIF"), "webp": _mask("RGB", "WEBP")}


@pytest.mark.parametrize("kind", MASKS)
@fuzzed
@given(made=edits)
def test_a_broken_mask_is_read_or_refused(kind: str, made: list[Edit]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        path.write_bytes(mutated(MASKS[kind], made))
        try:
            mask = read_mask(path)
        except DataError as refusal:
            assert str(refusal).startswith(str(path))
        else:
            assert mask.dtype == bool and mask.ndim == 2


@fuzzed
@given(made=changes)
def test_a_changed_record_is_read_or_refused(made: list[Change]) -> None:
    """Where it is read it is whole: it can be written again."""
    try:
        record = Assessment.from_json(json.dumps(changed(json.loads(RECORD), made)))
    except ValueError as refusal:
        assert str(refusal).startswith("not an Assessment")
    else:
        assert Assessment.from_json(json.dumps(record.to_dict())) == record or "NaN" in json.dumps(record.to_dict())


@fuzzed
@given(text=texts | boxes.map(str))
def test_a_record_is_read_or_refused(text: str) -> None:
    try:
        Assessment.from_json(text)
    except ValueError as refusal:
        assert str(refusal)


@fuzzed
@given(
    text=texts
    | st.lists(st.sampled_from(["[r1]", "irregular streaks", "Melanoma", "is", ".", ",", "no"])).map(" ".join)
)
def test_words_of_a_model_are_checked_without_a_fault(text: str) -> None:
    read_rationale(text)
    assert isinstance(check_citations(text, ["streaks:irregular"]), list)
    assert isinstance(check_rationale(text, ["streaks:irregular"], ["mel", "nv"]), list)


@fuzzed
@given(answer=texts | boxes.map(str) | boxes.map(lambda value: f'```json\n[{{"bbox_2d": {value}}}]\n```'))
def test_boxes_of_a_model_lie_in_the_photo(answer: str) -> None:
    for left, top, right, bottom in parse(answer, 448).boxes:
        assert 0 <= left < right <= 448 and 0 <= top < bottom <= 448
