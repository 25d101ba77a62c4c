"""Tables, YAML, records and the model's words: whatever the text, an answer or a refusal of the expected kind."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from skinclip.core.assessment import Assessment
from skinclip.data.cases import DataError
from skinclip.data.masks import read_mask
from skinclip.data.tables import read_labels
from skinclip.explain.grounding import parse
from skinclip.language.rationale_check import check_citations, check_rationale, read_rationale
from skinclip.study.errors import ProtocolError
from skinclip.study.protocol.protocol import Protocol
from tests.fuzz.effort import fuzzed
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
