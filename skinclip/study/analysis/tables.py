"""The tables of a reader study: what the store exports, the simulator makes and the statistics read.

Four tidy tables, each column described once in `COLUMNS`, from which values are checked, types are set and the data
dictionary is written. Whoever holds these tables needs nothing else of the study to repeat its analysis. An item that
does not apply to an arm (was the map grounded? where there was no map) is missing by design and stays missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.safe_text import safe_cell
from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_BY_CODE, MIXED_CODES
from skinclip.study.errors import TablesError
from skinclip.study.protocol.arms import explaining
from skinclip.study.protocol.protocol import CANNOT_TELL, STRATA, Protocol

SIMULATED = "SIMULATED DATA"
REHEARSAL = "REHEARSAL, NOT A STUDY"
SESSION, WASHOUT_DAYS = "session", "washout_days"  # columns of studies with a second session alone
ANSWERS = (*(d.code for d in DIAGNOSES), CANNOT_TELL)


class Column(NamedTuple):
    """One column: `dtype` text, number, integer or bool; `values` its unit or allowed values, for people."""

    dtype: str
    values: str
    meaning: str
    allowed: tuple[str, ...] | tuple[float, float] | None = None  # codes of a text, or bounds of a number
    missing: bool = True  # whether a row may lack it


def _likert(points: int, meaning: str) -> Column:
    return Column("number", f"1 (not at all) to {points}", meaning, (1.0, float(points)))


_YES = "true or false"
_CODES = ", ".join(ANSWERS)
_AID = "; missing by design in the arm without an aid"

COLUMNS: dict[str, Column] = {
    "reader": Column("text", "R001, ...", "reader, under an opaque name", missing=False),
    "site": Column("text", "as enrolled, or as the reader entered it", "site of the reader"),
    "role": Column("text", "as answered", "the reader's profession and grade"),
    "years": Column("text", "as answered: lt1, 1_3, 4_10, gt10", "the reader's years of experience with dermoscopy"),
    "language": Column(
        "text",
        "code of ISO 639-1: en, de, es",
        "language of the page: of a reader at the first answer, of a case at the last",
    ),
    "completed": Column("bool", _YES, "the reader reached the end of the session", missing=False),
    "withdrawn": Column("bool", _YES, "the reader withdrew; the answers are erased", missing=False),
    "case": Column("text", "C001, ...", "case, under an opaque name", missing=False),
    "patient": Column("text", "P001, ...", "patient, under an opaque name; one may have several cases"),
    "stratum": Column(
        "text", ", ".join(STRATA), "AI right, AI wrong (enriched), or out of distribution", STRATA, missing=False
    ),
    "weight": Column(
        "number", "greater than 0", "the stratum's share in practice over its share in the study", (1e-9, 1e9), False
    ),
    "arm": Column("text", "arm key", "the aid shown", missing=False),
    "block": Column("integer", "1, 2, ...; the last holds the repeats", "block of the session"),
    "position": Column("integer", "1, 2, ...", "place of the case in the session"),
    SESSION: Column("integer", "1 or 2", "session of the reader; each has every case, in another arm", (1, 2)),
    WASHOUT_DAYS: Column("number", "days", "from the end of the first session to the beginning of the second"),
    "repeat": Column("bool", _YES, "second showing of a case, with the same aid", missing=False),
    "truth": Column("text", "diagnosis code", "true diagnosis, where known", ANSWERS[:-1]),
    "ai_leading": Column("text", "diagnosis code", "the AI's leading diagnosis", ANSWERS[:-1]),
    "ai_correct": Column("bool", _YES, "the AI's leading diagnosis is the true one"),
    "diagnosis_before": Column("text", _CODES, "reader's diagnosis, unaided", ANSWERS),
    "diagnosis_after": Column("text", _CODES, "reader's diagnosis, with the aid", ANSWERS),
    "confidence_before": Column("number", "0 to 100", "confidence in the unaided diagnosis", (0.0, 100.0)),
    "confidence_after": Column("number", "0 to 100", "confidence in the aided diagnosis", (0.0, 100.0)),
    "act_before": Column("bool", _YES, "would biopsy or refer, unaided"),
    "act_after": Column("bool", _YES, "would biopsy or refer, with the aid"),
    "trust": _likert(7, "trust in this answer of the AI"),
    "correct": _likert(5, f"the explanation is correct{_AID}"),
    "grounded": _likert(5, f"the explanation points at what it says{_AID}"),
    "complete": _likert(5, f"the explanation is complete{_AID}"),
    "harmful": _likert(5, f"acting on the explanation could do harm{_AID}"),
    "seconds_before": Column("number", "seconds", "time on the unaided answer", (0.0, 1e7)),
    "seconds_after": Column("number", "seconds", "time on the aided answer", (0.0, 1e7)),
    "server_seconds_before": Column("number", "seconds", "the same by the server's clock, pauses included", (0.0, 1e9)),
    "server_seconds_after": Column("number", "seconds", "the same by the server's clock, pauses included", (0.0, 1e9)),
    "item": Column("text", "ess_1, trust_1, distrust_1, ...", "item of a scale asked after a block", missing=False),
    "value": Column("number", "points of the item's scale", "answer to the item"),
    "score": Column(
        "number", "points of the item's scale", "the answer, turned round on its scale where a high one speaks against"
    ),
    "side_a": Column("text", "arm key", "aid shown on side A (drawn at random)", missing=False),
    "side_b": Column("text", "arm key", "aid shown on side B", missing=False),
    "chosen": Column("text", "arm key", "the aid preferred"),
}
AID_ITEMS = ("correct", "grounded", "complete", "harmful")
TABLES: dict[str, tuple[str, ...]] = {
    "cases": (
        *("reader", "site", "case", "stratum", "weight", "arm", "block", "position", "repeat"),
        *("truth", "ai_leading", "ai_correct", "diagnosis_before", "diagnosis_after"),
        *("confidence_before", "confidence_after", "act_before", "act_after", "trust", *AID_ITEMS),
        *("seconds_before", "seconds_after"),
    ),
    "blocks": ("reader", "arm", "block", "item", "value", "score"),
    "preferences": ("reader", "case", "side_a", "side_b", "chosen"),
    "readers": ("reader", "site", "role", "years", "completed", "withdrawn"),
}
MRMC: dict[str, Column] = {
    "reader": COLUMNS["reader"],
    "case": COLUMNS["case"],
    "modality": Column("text", "arm key, or `unaided`", "which answer the score is of", missing=False),
    "malignant": Column("integer", "1 malignant, 0 benign", "true state of the case", missing=False),
    "score": Column(
        "number", "0 to 100", "50 + confidence / 2 for a malignant diagnosis, 50 - for a benign one", (0, 100)
    ),
}
REMARKS: dict[str, Column] = {
    "reader": COLUMNS["reader"],
    "step": Column("text", "s001, ...", "step of the reader's session", missing=False),
    "case": Column("text", "C001, ...", "case, where the step shows one"),
    "arm": Column("text", "arm key", "the aid shown, where the step shows one"),
    "question": Column("text", "key of the question", "question that was answered", missing=False),
    "remark": Column("text", "free text", "answer in the reader's words", missing=False),
}
_KEYS = {
    "cases": ["reader", "case", "repeat"],
    "blocks": ["reader", "arm", "item"],
    "preferences": ["reader", "case", "side_a", "side_b"],
    "readers": ["reader"],
}
_DTYPES = {"text": "str", "number": "float64", "integer": "Int64", "bool": "boolean"}


@dataclass(frozen=True)
class StudyTables:
    """A study's data, checked when made; columns that may be missing and are absent are added empty.

    Attributes:
        cases: one row for each case a reader saw (practice left out), with both answers.
        blocks: one row for each item of the scales asked after a block.
        preferences: one row for each pair of aids compared side by side.
        readers: one row for each reader enrolled, withdrawn ones included.
        mark: `SIMULATED` where the simulator made it, `REHEARSAL` where a study was only tried out: every table, page
            and figure then says so. Nothing for a real study.
        study: key of the study.
        plan_sha256: hash of the plan that was locked before the first enrolment.
        further: columns of the study's own questions, see `further_columns`; for the dictionary alone.

    Raises:
        TablesError: A column that must be there is not, or a value cannot be.
    """

    cases: pd.DataFrame
    blocks: pd.DataFrame
    preferences: pd.DataFrame
    readers: pd.DataFrame
    mark: str
    study: str
    plan_sha256: str = ""
    further: Mapping[str, Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in TABLES:
            object.__setattr__(self, table, _checked(table, getattr(self, table)))
        strangers = set(self.cases["reader"]) - set(self.readers["reader"])
        if strangers:
            raise TablesError(f"cases: reader {sorted(strangers)[0]} is not in the table of readers")

    def with_cases(self, rows: pd.DataFrame) -> StudyTables:
        return replace(self, cases=rows)

    def write(self, folder: Path) -> list[Path]:
        """CSV and Parquet of each table, their dictionary, scores for MRMC and `study.json`; returns the files.

        Where there is a mark every table has it in a column `data_kind`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = [path for table in TABLES for path in _write_table(self, table, folder)]
        dictionary = folder / "data_dictionary.csv"
        write_csv(data_dictionary(self), dictionary)
        about = folder / "study.json"
        about.write_text(json.dumps(_about(self), indent=2) + "\n")
        score, rows = folder / "scores.imrmc", folder / "mrmc.csv"
        score.write_text(imrmc(self))
        write_csv(mrmc_rows(self), rows, self.mark)
        return [*files, dictionary, about, score, rows]

    @classmethod
    def read(cls, folder: Path) -> StudyTables:
        """Reads the Parquet files that `write` wrote."""
        about = json.loads((folder / "study.json").read_text())
        frames = {table: pd.read_parquet(folder / f"{table}.parquet") for table in TABLES}
        frames = {table: frame.drop(columns="data_kind", errors="ignore") for table, frame in frames.items()}
        further = {name: Column(**column) for name, column in about.get("further", {}).items()}
        return cls(
            **frames, mark=about["mark"], study=about["study"], plan_sha256=about["plan_sha256"], further=further
        )


def data_dictionary(tables: StudyTables) -> pd.DataFrame:
    """One row a column: table, column, type, unit or values, meaning, and whether it may be missing."""
    rows = []
    for table in TABLES:
        for name in getattr(tables, table).columns:
            column = COLUMNS.get(name) or tables.further.get(name) or _further_column(getattr(tables, table)[name])
            rows.append((table, name, column.dtype, column.values, column.meaning, column.missing))
    for table, columns in (("mrmc", MRMC), ("remarks", REMARKS)):
        rows += [(table, name, c.dtype, c.values, c.meaning, c.missing) for name, c in columns.items()]
    frame = pd.DataFrame(rows, columns=["table", "column", "type", "values", "meaning", "may_be_missing"])
    return _marked(frame, tables)


def further_columns(protocol: Protocol) -> dict[str, Column]:
    """The columns of a study's own questions, by their types; items of scales after a block are rows and have none."""
    names: dict[str, Callable[[str], str]] = {
        "background": str,
        "before": lambda key: f"{key}_before",
        "after": answer_column,
        "preference": str,
    }
    columns = {}
    for phase, name_of in names.items():
        for question in protocol.questions[phase]:
            answer = question.scale.type.column(question.scale)
            columns[name_of(question.key)] = Column(answer.dtype, answer.values, question.text, answer.allowed)
    return {name: column for name, column in columns.items() if name not in COLUMNS}


def _further_column(answers: pd.Series) -> Column:
    """A further column of unknown question, by what was answered."""
    given = answers.dropna()
    if len(given) and given.map(lambda answer: isinstance(answer, bool)).all():
        kind = "bool"
    else:
        kind = "number" if len(given) and pd.api.types.is_numeric_dtype(given.infer_objects()) else "text"
    return Column(kind, "as in the protocol", "further question of this study")


def malignancy_scores(cases: pd.DataFrame, phase: str) -> pd.Series:
    """Rated malignancy of each case, 0-100, from the reader's diagnosis and the confidence in it.

    50 + confidence / 2 for a malignant diagnosis, 50 - confidence / 2 for a benign one, 50 for "cannot tell".
    """
    side = cases[f"diagnosis_{phase}"].map(
        {code: 1.0 if code in DIAGNOSIS_BY_CODE and DIAGNOSIS_BY_CODE[code].malignant else -1.0 for code in ANSWERS}
        | {CANNOT_TELL: 0.0}
    )
    return 50.0 + side.astype("float64") * cases[f"confidence_{phase}"] / 2


def mrmc_rows(tables: StudyTables) -> pd.DataFrame:
    """Scores for multi-reader multi-case software, with the columns of `MRMC`.

    Cases whose truth is known to be malignant or benign, without repeats and cases out of distribution. Modalities are
    the arms, by the aided answer, and `unaided`, by all answers before the aid, in the first session where there are
    two.
    """
    cases = primary_cases(tables.cases)
    cases = cases[cases["truth"].notna()]
    cases = cases[~cases["truth"].isin(MIXED_CODES)]  # which may be either
    malignant = cases["truth"].map({d.code: int(d.malignant) for d in DIAGNOSES})
    parts = []
    for phase, rows in (("before", first_session(cases)), ("after", cases)):
        score, modality = malignancy_scores(rows, phase), rows["arm"] if phase == "after" else "unaided"
        state = malignant.loc[rows.index]
        parts.append(rows[["reader", "case"]].assign(modality=modality, malignant=state, score=score))
    return pd.concat(parts, ignore_index=True).dropna(subset="score").reset_index(drop=True)


def imrmc(tables: StudyTables) -> str:
    """The input file of the iMRMC software: a header, a truth row for each case (reader -1), then the scores."""
    rows = mrmc_rows(tables)
    numbers = {case: i + 1 for i, case in enumerate(sorted(rows["case"].unique()))}
    truths = rows.drop_duplicates("case").sort_values("case")
    head = [
        f"{tables.mark} {RESEARCH_USE_ONLY}".strip(),
        f"Study {tables.study}. Score: 0-100, how malignant the reader holds the case. Case n is the n-th case id.",
        f"N0: {int((truths['malignant'] == 0).sum())}",
        f"N1: {int((truths['malignant'] == 1).sum())}",
        f"NR: {rows['reader'].nunique()}",
        f"NM: {rows['modality'].nunique()}",
        "BEGIN DATA:",
    ]
    truth_lines = [
        f"-1,{numbers[case]},0,{truth}" for case, truth in zip(truths["case"], truths["malignant"], strict=True)
    ]
    ordered = rows.sort_values(["modality", "reader", "case"])
    lines = [f"{r.reader},{numbers[r.case]},{r.modality},{r.score:g}" for r in ordered.itertuples()]
    return "\n".join([*head, *truth_lines, *lines]) + "\n"


def first_session(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first session; all where there is no second."""
    return cases[numbers(cases, SESSION) == 1] if SESSION in cases else cases


def primary_cases(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows of the main analysis: no repeats, nothing out of distribution."""
    return cases[~cases["repeat"] & (cases["stratum"] != "ood")]


def answer_column(key: str) -> str:
    """The column of an aided answer: its question's key, which says when it was given where it could be mistaken."""
    taken = (*TABLES["cases"][: TABLES["cases"].index("diagnosis_before")], "diagnosis", "confidence", "act")
    return f"{key}_after" if key in taken else key


# --- checks and files ---------------------------------------------------------------------------------------------


def _checked(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A copy with the dictionary's types and order; unknown columns are further questions and come last."""
    frame = frame.reset_index(drop=True)
    absent = [name for name in TABLES[table] if name not in frame and not COLUMNS[name].missing]
    if absent:
        raise TablesError(f"{table}: column {', '.join(absent)} is missing; see the data dictionary for what it holds")
    known = {name: _typed(table, name, frame.get(name)) for name in TABLES[table]}
    typed = pd.DataFrame({k: v if v is not None else _empty(k, len(frame)) for k, v in known.items()})
    further = frame[[name for name in frame.columns if name not in TABLES[table]]]
    typed = pd.concat([typed, further], axis=1)
    keys = [*_KEYS[table], *([SESSION] if table == "cases" and SESSION in typed else [])]
    doubled = typed.duplicated(keys)
    if doubled.any():
        raise TablesError(f"{table}: {dict(typed.loc[doubled.idxmax(), keys])} is there twice")
    if table == "cases":
        _check_aid_items(typed)
    return typed


def _empty(name: str, rows: int) -> pd.Series:
    return pd.Series([None] * rows, dtype=_DTYPES[COLUMNS[name].dtype])


def _typed(table: str, name: str, values: pd.Series | None) -> pd.Series | None:
    """The column with its type, its values checked; None where the table has no such column."""
    if values is None:
        return None
    column = COLUMNS[name]
    try:
        typed = values.astype(_DTYPES[column.dtype])
    except (TypeError, ValueError) as error:
        raise TablesError(f"{table}.{name}: {column.dtype} expected ({column.values}): {error}") from error
    if not column.missing and typed.isna().any():
        raise TablesError(f"{table}.{name}: missing in row {int(typed.isna().idxmax()) + 1}")
    wrong = _wrong(typed, column)
    if wrong.any():
        row = int(wrong.idxmax())
        raise TablesError(f"{table}.{name}: '{typed[row]}' in row {row + 1}; allowed is {column.values}")
    return typed


def _wrong(typed: pd.Series, column: Column) -> pd.Series:
    if column.allowed is None:
        return pd.Series(False, index=typed.index)
    if column.dtype == "text":
        return ~(typed.isna() | typed.isin(list(column.allowed)))
    low, high = column.allowed
    return typed.notna() & ~((typed >= low) & (typed <= high))


def _check_aid_items(cases: pd.DataFrame) -> None:
    aided = cases["arm"].isin(explaining(cases["arm"].unique()))
    answered = cases.loc[~aided, list(AID_ITEMS)].notna().any()
    if answered.any():
        raise TablesError(f"cases.{answered.idxmax()}: answered in the arm without an aid, where it was not asked")


def _write_table(tables: StudyTables, table: str, folder: Path) -> tuple[Path, Path]:
    frame = _marked(getattr(tables, table), tables)
    csv, parquet = folder / f"{table}.csv", folder / f"{table}.parquet"
    write_csv(frame, csv)
    columns = pa.Table.from_pandas(frame, preserve_index=False)
    about = {key: json.dumps(value) for key, value in _about(tables).items()}
    pq.write_table(columns.replace_schema_metadata({**(columns.schema.metadata or {}), **about}), parquet)
    return csv, parquet


def write_csv(frame: pd.DataFrame, path: Path, mark: str = "") -> None:
    """Writes a table that R, pandas and spreadsheets read alike; `mark` stands in a column `data_kind`.

    Texts have line feeds alone and no control characters; one that a spreadsheet would run as a formula gets a quote in
    front.
    """
    marked = frame.assign(data_kind=mark) if mark else frame
    marked.map(safe_cell).to_csv(path, index=False, encoding="utf-8", lineterminator="\n")


def _marked(frame: pd.DataFrame, tables: StudyTables) -> pd.DataFrame:
    return frame.assign(data_kind=tables.mark) if tables.mark else frame


def _about(tables: StudyTables) -> Mapping[str, object]:
    return {
        "study": tables.study,
        "mark": tables.mark,
        "data_kind": tables.mark or "answers of readers",
        "plan_sha256": tables.plan_sha256,
        "rows": {table: len(getattr(tables, table)) for table in TABLES},
        "further": {name: column._asdict() for name, column in tables.further.items()},
        "use": RESEARCH_USE_ONLY,
    }


def numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats [n], missing as NaN, true and false as 1 and 0."""
    return frame[name].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
