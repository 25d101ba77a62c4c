import pandas as pd
import pyarrow.parquet as pq
import pytest

from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.study.analysis import tables as tables_module
from skinclip.study.analysis.tables import (
    COLUMNS,
    MRMC,
    REMARKS,
    SIMULATED,
    TABLES,
    StudyTables,
    data_dictionary,
    imrmc,
    malignancy_scores,
)
from skinclip.study.errors import TablesError
from tests.study.studies import study


def changed(tables: StudyTables, row: int = 0, **cells) -> pd.DataFrame:
    cases = tables.cases.copy()
    for name, value in cells.items():
        cases[name] = cases[name].astype(object)
        cases.loc[row, name] = value
    return cases


def test_what_is_written_is_read_again(tmp_path):
    tables = study()
    tables.write(tmp_path)
    again = StudyTables.read(tmp_path)
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(tables, name))
    assert (again.mark, again.study) == (SIMULATED, "simulated")


def test_every_file_of_a_simulated_study_says_so(tmp_path):
    for path in study().write(tmp_path):
        if path.suffix == ".parquet":
            assert set(pq.read_table(path)["data_kind"].to_pylist()) <= {"SIMULATED DATA"}
            assert pq.read_schema(path).metadata[b"data_kind"] == b'"SIMULATED DATA"'
        else:
            assert "SIMULATED DATA" in path.read_text(), path.name


def test_a_real_study_is_not_marked(tmp_path):
    tables = study()
    real = StudyTables(tables.cases, tables.blocks, tables.preferences, tables.readers, "", "trust", "ab" * 32)
    texts = [path.read_text() for path in real.write(tmp_path) if path.suffix != ".parquet"]
    assert not any("SIMULATED" in text for text in texts)
    assert "ab" * 32 in (tmp_path / "study.json").read_text()


def test_every_column_is_in_the_dictionary():
    dictionary = data_dictionary(study())
    real = {
        "server_seconds_before",
        "server_seconds_after",
        "patient",
        "language",
        "session",
        "washout_days",
    }  # of which simulated studies have none
    assert set(dictionary["column"]) == {*COLUMNS, *MRMC, *REMARKS} - real
    assert not dictionary[["type", "values", "meaning"]].isna().any().any()


def test_a_further_question_is_kept_and_described(tmp_path):
    tables = study()
    cases = tables.cases.assign(remark_after="=1+1")
    more = tables.with_cases(cases)
    more.write(tmp_path)
    counted = tables.with_cases(cases.assign(dots=3.0, sure=True))
    described = data_dictionary(counted).set_index("column")["type"]
    assert (described["remark_after"], described["dots"], described["sure"]) == ("text", "number", "bool")
    assert (pd.read_csv(tmp_path / "cases.csv")["remark_after"] == "'=1+1").all()  # no formula for a spreadsheet
    assert (StudyTables.read(tmp_path).cases["remark_after"] == "=1+1").all()


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"trust": 8}, r"cases.trust: '8.0' in row 1; allowed is 1 .* to 7"),
        ({"confidence_before": -1}, "confidence_before"),
        ({"diagnosis_after": "melanoma"}, "diagnosis_after: 'melanoma'"),
        ({"stratum": "easy"}, "right, wrong, ood"),
        ({"weight": 0.0}, "greater than 0"),
        ({"weight": None}, "weight: missing in row 1"),
        ({"trust": "much"}, "number expected"),
        ({"reader": "R999"}, "R999 is not in the table of readers"),
    ],
)
def test_a_value_that_cannot_be_is_refused(cells, words):
    tables = study()
    with pytest.raises(TablesError, match=words):
        tables.with_cases(changed(tables, **cells))


def test_an_aid_item_answered_without_an_aid_is_refused():
    tables = study()
    row = int((tables.cases["arm"] == "none").idxmax())
    with pytest.raises(TablesError, match="grounded: answered in the arm without an aid"):
        tables.with_cases(changed(tables, row, grounded=3))


def test_a_doubled_row_and_a_missing_column_are_refused():
    tables = study()
    with pytest.raises(TablesError, match="there twice"):
        tables.with_cases(pd.concat([tables.cases, tables.cases[:1]]))
    with pytest.raises(TablesError, match="column arm is missing"):
        tables.with_cases(tables.cases.drop(columns="arm"))


def test_columns_that_may_be_missing_are_added_empty():
    tables = study()
    cases = tables.with_cases(tables.cases.drop(columns=["harmful", "act_after"])).cases
    assert cases["harmful"].isna().all() and cases["act_after"].isna().all()


def test_an_empty_study_is_a_study(tmp_path):
    frames = {name: pd.DataFrame(columns=list(columns)) for name, columns in TABLES.items()}
    StudyTables(**frames, mark="", study="empty").write(tmp_path)
    assert len(StudyTables.read(tmp_path).cases) == 0


def test_malignancy_score_equals_hand_computed():
    cases = pd.DataFrame({"diagnosis_after": ["mel", "nv", "cannot_tell", "bcc"], "confidence_after": [80, 60, 90, 0]})
    assert malignancy_scores(cases, "after").tolist() == [90.0, 20.0, 50.0, 50.0]


def test_imrmc_has_a_truth_for_every_case_and_a_header_that_counts():
    text = imrmc(study())
    head, body = text.split("BEGIN DATA:\n")
    rows = [line.split(",") for line in body.splitlines()]
    truths = {case: truth for reader, case, modality, truth in rows if reader == "-1" and modality == "0"}
    scored = {case for reader, case, _, _ in rows if reader != "-1"}
    assert set(truths) == scored and len(scored) == 16
    assert f"N1: {sum(t == '1' for t in truths.values())}" in head and "NR: 6" in head and "NM: 5" in head
    assert len({tuple(row[:3]) for row in rows}) == len(rows)


def test_allowed_answers_are_the_vocabulary():
    assert (*DIAGNOSIS_CODES, "cannot_tell") == tables_module.ANSWERS
