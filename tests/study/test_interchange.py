"""Files for REDCap and ODM: what they say is what the tables say."""

from __future__ import annotations

import csv
import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest

from skinclip.core.safe_text import plain_text
from skinclip.study import interchange
from skinclip.study.analysis.tables import TABLES, StudyTables, write_csv
from skinclip.study.checksums import CHECKSUMS, changed_since, write_checksums
from tests.study import studies

NAMESPACE = {"odm": interchange.ODM_NAMESPACE}


@pytest.fixture
def tables() -> StudyTables:
    made = studies.study()
    remarks = [None] * len(made.cases)
    remarks[0], remarks[1] = '=SUM(A1)\rsecond\x00 "line", <b>&amp;', "plain"
    return dataclasses.replace(made, cases=made.cases.assign(remark=remarks), mark="REHEARSAL, NOT A STUDY")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_redcap_s_dictionary_describes_every_column_of_its_data(tables: StudyTables, tmp_path: Path) -> None:
    interchange.write(tables, tmp_path)
    dictionary, data = rows(tmp_path / "redcap_data_dictionary.csv"), rows(tmp_path / "redcap_data.csv")
    assert len(dictionary[0]) == 18 and list(dictionary[0])[:4] == [
        "Variable / Field Name", "Form Name", "Section Header", "Field Type",
    ]  # fmt: skip
    names = [row["Variable / Field Name"] for row in dictionary]
    assert len(set(names)) == len(names) and all(re.fullmatch("[a-z][a-z0-9_]{0,99}", name) for name in names)
    assert set(data[0]) == {*names, "redcap_repeat_instrument", "redcap_repeat_instance"}
    assert {row["Form Name"] for row in dictionary} == set(TABLES)
    assert dictionary[0]["Field Label"].startswith("REHEARSAL, NOT A STUDY")
    choices = {row["Variable / Field Name"]: row["Choices, Calculations, OR Slider Labels"] for row in dictionary}
    assert choices["cases_stratum"] == "right, right | wrong, wrong | ood, ood"
    for row in data:
        for name, value in row.items():
            if value and choices.get(name):
                assert value in [choice.split(",")[0] for choice in choices[name].split(" | ")]


def test_redcap_s_data_is_that_of_the_tables(tables: StudyTables, tmp_path: Path) -> None:
    interchange.write(tables, tmp_path)
    assert b"\r" not in (tmp_path / "redcap_data.csv").read_bytes()
    data = pd.read_csv(tmp_path / "redcap_data.csv", keep_default_na=False, dtype=str)
    for table in TABLES:
        form = data[data["redcap_repeat_instrument"] == ("" if table == "readers" else table)]
        frame: pd.DataFrame = getattr(tables, table)
        assert len(form) == len(frame)
        assert list(form["record_id"]) == list(frame["reader"])
    cases = data[data["redcap_repeat_instrument"] == "cases"]
    trust = pd.to_numeric(cases["cases_trust"], errors="coerce").to_numpy()
    assert pd.Series(trust).equals(tables.cases["trust"].reset_index(drop=True))
    assert cases["cases_remark"].iloc[0] == '\'=SUM(A1)\nsecond "line", <b>&amp;'
    pairs = cases.groupby("record_id")["redcap_repeat_instance"]
    assert all(list(map(int, numbers)) == list(range(1, len(numbers) + 1)) for _, numbers in pairs)


def test_odm_is_well_formed_refers_to_what_it_defines_and_holds_every_answer(
    tables: StudyTables, tmp_path: Path
) -> None:
    interchange.write(tables, tmp_path)
    root = ET.parse(tmp_path / "study.odm.xml").getroot()
    assert root.tag == f"{{{interchange.ODM_NAMESPACE}}}ODM" and root.get("ODMVersion") == "1.3.2"
    assert "REHEARSAL" in str(root.get("Description"))

    def attributes(path: str, name: str) -> list[str]:
        return [str(element.get(name)) for element in root.iterfind(f".//odm:{path}", NAMESPACE)]

    for defined, reference, name in (
        ("ItemDef", "ItemRef", "ItemOID"), ("ItemDef", "ItemData", "ItemOID"), ("FormDef", "FormRef", "FormOID"),
        ("ItemGroupDef", "ItemGroupData", "ItemGroupOID"), ("CodeList", "CodeListRef", "CodeListOID"),
        ("StudyEventDef", "StudyEventData", "StudyEventOID"),
    ):  # fmt: skip
        known = attributes(defined, "OID")
        assert len(set(known)) == len(known) and set(attributes(reference, name)) <= set(known), reference
    assert attributes("SubjectData", "SubjectKey") == list(tables.readers["reader"])
    given = sum(int(getattr(tables, table).drop(columns="reader").notna().sum().sum()) for table in TABLES)
    assert len(attributes("ItemData", "Value")) == given
    assert '=SUM(A1)\nsecond "line", <b>&amp;' in attributes("ItemData", "Value")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\rb", "a\nb"), ("a\r\nb", "a\nb"), ("a\0b", "ab"), ("a\x85b", "ab"), ("a\x1bb", "ab"),
        ("=1+1", "'=1+1"), (" =1+1", "' =1+1"), ("\n=1+1", "'\n=1+1"), ("\ufeff=1", "'\ufeff=1"), ("＝1", "'＝1"),
        ("\t1", "'\t1"), ("-5", "'-5"), ("@x", "'@x"), ("+x", "'+x"), ("\u22121", "'\u22121"), ("1 = 1", "1 = 1"),
        ("café", "café"), ('say "no", or\nyes', 'say "no", or\nyes'),
    ],
)  # fmt: skip
def test_texts_keep_their_row_and_run_no_formula(text: str, kept: str, tmp_path: Path) -> None:
    write_csv(pd.DataFrame({"text": [text], "number": [-5]}), tmp_path / "x.csv")
    raw = (tmp_path / "x.csv").read_bytes()
    assert b"\r" not in raw and b"\0" not in raw
    back = pd.read_csv(tmp_path / "x.csv", lineterminator="\n")
    assert (back["text"][0], back["number"][0], len(back)) == (kept, -5, 1)


def test_half_a_character_is_left_out() -> None:
    assert plain_text("a\ud800b") == "ab"


def test_checksums_name_every_file_and_tell_a_change(tmp_path: Path) -> None:
    (tmp_path / "further").mkdir()
    (tmp_path / "a.csv").write_text("1\n")
    (tmp_path / "further" / "b.csv").write_text("2\n")
    listed = write_checksums(tmp_path)
    assert listed.name == CHECKSUMS and changed_since(tmp_path) == []
    assert [line.split("  ")[1] for line in listed.read_text().splitlines()] == ["a.csv", "further/b.csv"]
    (tmp_path / "a.csv").write_text("3\n")
    (tmp_path / "further" / "b.csv").unlink()
    assert changed_since(tmp_path) == ["a.csv", "further/b.csv"]
