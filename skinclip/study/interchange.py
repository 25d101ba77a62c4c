"""A closed study's tables for other programs: REDCap (data dictionary and CSV) and CDISC ODM-XML 1.3.2.

Both say the same as the tables and their dictionary. A reader is a record (REDCap) or a subject (ODM); cases, blocks
and preferences repeat within it. Withdrawn readers are records without answers.
"""

from __future__ import annotations

import csv
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from skinclip import RESEARCH_USE_ONLY, __version__
from skinclip.core.safe_text import plain_text, safe_cell
from skinclip.study.analysis.tables import COLUMNS, TABLES, Column, StudyTables

REDCAP_DICTIONARY, REDCAP_DATA, ODM_FILE = "redcap_data_dictionary.csv", "redcap_data.csv", "study.odm.xml"
ODM_NAMESPACE = "http://www.cdisc.org/ns/odm/v1.3"
_RECORD = "record_id"
_FORM = "readers"  # the one form that does not repeat
# Header of REDCap's data dictionary, in the order in which it is imported.
_DICTIONARY = (
    "Variable / Field Name", "Form Name", "Section Header", "Field Type", "Field Label",
    "Choices, Calculations, OR Slider Labels", "Field Note", "Text Validation Type OR Show Slider Number",
    "Text Validation Min", "Text Validation Max", "Identifier?", "Branching Logic (Show field only if...)",
    "Required Field?", "Custom Alignment", "Question Number (surveys only)", "Matrix Group Name", "Matrix Ranking?",
    "Field Annotation",
)  # fmt: skip
_ODM_TYPES = {"text": "text", "number": "float", "integer": "integer", "bool": "boolean"}
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Field:
    """A column of a table, under a name that no other table uses."""

    name: str
    table: str
    column: str
    about: Column

    @property
    def codes(self) -> tuple[str, ...]:
        """The values that a text may have; empty where any may be."""
        allowed = self.about.allowed
        return tuple(map(str, allowed)) if self.about.dtype == "text" and allowed else ()


def write(tables: StudyTables, folder: Path) -> list[Path]:
    """Writes all files of this module into `folder` and returns them."""
    fields = [field for table in TABLES for field in _fields(tables, table)]
    paths = [folder / REDCAP_DICTIONARY, folder / REDCAP_DATA, folder / ODM_FILE]
    _write_csv(paths[0], _DICTIONARY, _dictionary_rows(fields, tables.mark))
    _write_csv(paths[1], *_redcap_data(tables, fields))
    document = ET.ElementTree(odm(tables, fields))
    ET.indent(document)
    document.write(paths[2], encoding="utf-8", xml_declaration=True)
    return paths


def _fields(tables: StudyTables, table: str) -> Iterator[Field]:
    frame: pd.DataFrame = getattr(tables, table)
    for column in frame.columns:
        if column == "reader":
            continue  # the record itself
        about = (
            COLUMNS.get(column) or tables.further.get(column) or Column("text", "", "further question of this study")
        )
        yield Field(_variable(f"{table}_{column}"), table, column, about)


def _variable(name: str) -> str:
    """A name that REDCap and statistics programs take: lower-case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")


# --- REDCap -----------------------------------------------------------------------------------------------------------


def _dictionary_rows(fields: Sequence[Field], mark: str) -> Iterator[Sequence[str]]:
    note = f"{mark}. " if mark else ""
    yield _row({0: _RECORD, 1: _FORM, 3: "text", 4: f"{note}Reader, under an opaque name. {RESEARCH_USE_ONLY}"})
    for field in fields:
        kind, choices, validation, low, high = _redcap_type(field)
        values = {0: field.name, 1: field.table, 3: kind, 4: field.about.meaning, 5: choices, 6: field.about.values}
        yield _row(values | {7: validation, 8: low, 9: high, 12: "" if field.about.missing else "y"})


def _redcap_type(field: Field) -> tuple[str, str, str, str, str]:
    """Field type, choices, validation, and its bounds."""
    about = field.about
    if about.dtype == "bool":
        return "yesno", "", "", "", ""
    if field.codes:
        return "dropdown", " | ".join(f"{code}, {code}" for code in field.codes), "", "", ""
    if about.dtype in ("number", "integer"):
        low, high = about.allowed if about.allowed else ("", "")
        kind = "integer" if about.dtype == "integer" else "number"
        return "text", "", kind, _bound(low), _bound(high)
    return ("notes" if field.column not in COLUMNS else "text"), "", "", "", ""


def _bound(value: str | float) -> str:
    """A bound of a number; empty where there is none."""
    return "" if isinstance(value, str) or not math.isfinite(value) else f"{value:g}"


def _row(values: Mapping[int, str]) -> list[str]:
    return [values.get(i, "") for i in range(len(_DICTIONARY))]


def _redcap_data(tables: StudyTables, fields: Sequence[Field]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one a reader, then one for each repeated instance."""
    header = [_RECORD, "redcap_repeat_instrument", "redcap_repeat_instance", *(field.name for field in fields)]
    rows = []
    for table in (_FORM, *(name for name in TABLES if name != _FORM)):
        frame: pd.DataFrame = getattr(tables, table)
        counts: dict[str, int] = {}
        own = [field for field in fields if field.table == table]
        for _, values in frame.iterrows():
            reader = str(values["reader"])
            counts[reader] = counts.get(reader, 0) + 1
            repeat = ["", ""] if table == _FORM else [table, str(counts[reader])]
            cells = {field.name: _redcap_value(values[field.column]) for field in own}
            rows.append([reader, *repeat, *(cells.get(field.name, "") for field in fields)])
    return header, rows


def _redcap_value(value: Any) -> str:
    if _is_missing(value):
        return ""
    if isinstance(value, bool) or str(value) in ("True", "False"):
        return "1" if str(value) == "True" else "0"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _is_missing(value: Any) -> bool:
    return bool(pd.isna(value)) if not isinstance(value, (list, dict)) else False


def _write_csv(path: Path, header: Sequence[str], rows: Any) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([str(safe_cell(cell)) for cell in row] for row in rows)


# --- ODM --------------------------------------------------------------------------------------------------------------


def odm(tables: StudyTables, fields: Sequence[Field]) -> ET.Element:
    """The study as an ODM document: what was asked (metadata), then what was answered, by reader."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    root = ET.Element(
        "ODM",
        {
            "xmlns": ODM_NAMESPACE,
            "ODMVersion": "1.3.2",
            "FileType": "Snapshot",
            "FileOID": f"{tables.study}.{tables.plan_sha256[:12]}",
            "CreationDateTime": now,
            "SourceSystem": "Reader study",
            "SourceSystemVersion": __version__,
            "Description": f"{tables.mark} {RESEARCH_USE_ONLY}".strip(),
        },
    )
    study = ET.SubElement(root, "Study", OID=tables.study)
    names = ET.SubElement(study, "GlobalVariables")
    ET.SubElement(names, "StudyName").text = tables.study
    ET.SubElement(names, "StudyDescription").text = f"{tables.mark} Reader study".strip()
    ET.SubElement(names, "ProtocolName").text = tables.plan_sha256 or tables.study
    version = ET.SubElement(study, "MetaDataVersion", OID="MDV.1", Name=f"Plan {tables.plan_sha256[:12]}".strip())
    _metadata(version, fields)
    data = ET.SubElement(root, "ClinicalData", StudyOID=tables.study, MetaDataVersionOID="MDV.1")
    for reader in tables.readers["reader"]:
        _subject(data, tables, str(reader), fields)
    return root


def _metadata(version: ET.Element, fields: Sequence[Field]) -> None:
    """Event, forms, groups, items and code lists, in the order that the standard's schema asks for."""
    ET.SubElement(ET.SubElement(version, "Protocol"), "StudyEventRef", StudyEventOID="SE.SESSION", Mandatory="Yes")
    event = ET.SubElement(version, "StudyEventDef", OID="SE.SESSION", Name="Session", Repeating="No", Type="Scheduled")
    for table in TABLES:
        ET.SubElement(event, "FormRef", FormOID=f"F.{table}", Mandatory="No")
    for table in TABLES:
        form = ET.SubElement(version, "FormDef", OID=f"F.{table}", Name=table, Repeating="No")
        ET.SubElement(form, "ItemGroupRef", ItemGroupOID=f"IG.{table}", Mandatory="No")
    for table in TABLES:
        repeating = "No" if table == _FORM else "Yes"
        group = ET.SubElement(version, "ItemGroupDef", OID=f"IG.{table}", Name=table, Repeating=repeating)
        for field in (field for field in fields if field.table == table):
            mandatory = "No" if field.about.missing else "Yes"
            ET.SubElement(group, "ItemRef", ItemOID=f"I.{field.name}", Mandatory=mandatory)
    for field in fields:
        kind = _ODM_TYPES[field.about.dtype]
        item = ET.SubElement(version, "ItemDef", OID=f"I.{field.name}", Name=field.column, DataType=kind)
        if kind == "text":
            item.set("Length", "4000")
        if kind == "float":
            item.set("Length", "24")
            item.set("SignificantDigits", "10")
        ET.SubElement(ET.SubElement(item, "Description"), "TranslatedText").text = _xml(field.about.meaning)
        if field.codes:
            ET.SubElement(item, "CodeListRef", CodeListOID=f"CL.{field.name}")
    for field in (field for field in fields if field.codes):
        listed = ET.SubElement(version, "CodeList", OID=f"CL.{field.name}", Name=field.column, DataType="text")
        for code in field.codes:
            ET.SubElement(listed, "EnumeratedItem", CodedValue=_xml(code))


def _subject(data: ET.Element, tables: StudyTables, reader: str, fields: Sequence[Field]) -> None:
    subject = ET.SubElement(data, "SubjectData", SubjectKey=reader)
    event = ET.SubElement(subject, "StudyEventData", StudyEventOID="SE.SESSION")
    for table in TABLES:
        frame: pd.DataFrame = getattr(tables, table)
        rows = frame[frame["reader"] == reader]
        if rows.empty:
            continue
        form = ET.SubElement(event, "FormData", FormOID=f"F.{table}")
        own = [field for field in fields if field.table == table]
        for number, (_, values) in enumerate(rows.iterrows(), start=1):
            group = ET.SubElement(form, "ItemGroupData", ItemGroupOID=f"IG.{table}")
            if table != _FORM:
                group.set("ItemGroupRepeatKey", str(number))
            for field in own:
                if not _is_missing(values[field.column]):
                    text = _odm_value(values[field.column], field)
                    ET.SubElement(group, "ItemData", ItemOID=f"I.{field.name}", Value=text)


def _odm_value(value: Any, field: Field) -> str:
    if field.about.dtype == "bool":
        return "true" if bool(value) else "false"
    return f"{value:.10g}" if isinstance(value, float) else _xml(str(value))


def _xml(text: str) -> str:
    """The text without what XML 1.0 cannot hold."""
    return _NOT_XML.sub("", plain_text(text))
