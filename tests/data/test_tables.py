"""Tables as they come from spreadsheets and archives: every line is read or named."""

from __future__ import annotations

import csv
import io
import random
import unicodedata
from pathlib import Path

import pytest

from skinclip.data import cells
from skinclip.data.cases import CaseTable, DataError
from skinclip.data.files import FileFinder
from skinclip.data.readers import read_cases
from skinclip.data.table_text import MAX_LINES_OF_A_CELL, decode, records
from skinclip.data.tables import columns_of, is_missing, read_labels

HEADER = "image,diagnosis,notes"
PHOTOS = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")


def folder_of(tmp_path: Path, data: str | bytes, files: tuple[str, ...] = PHOTOS) -> Path:
    tmp_path.mkdir(parents=True, exist_ok=True)
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "manifest.csv").write_bytes(data.encode() if isinstance(data, str) else data)
    return tmp_path


def ids(table: CaseTable) -> list[str]:
    return [case.image_id for case in table.cases]


# --- quotes and line ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "read", "bad_lines"),
    [
        (['a.jpg,mel,"unclosed', "b.jpg,nv,fine", "c.jpg,bcc,fine"], "bc", [2]),
        (['a.jpg,mel,"unclosed', "b.jpg,nv,fine", 'c.jpg,bcc,"quoted"'], "bc", [2]),
        (['a.jpg,mel,"unclosed', "b.jpg,nv,fine", 'c.jpg,bcc,""'], "bc", [2]),
        (['a.jpg,mel,"unclosed', "b.jpg,nv,fine", '"c.jpg",bcc,x'], "bc", [2]),
        (['a.jpg,mel,"open', 'b.jpg,nv,close"', "c.jpg,bcc,x"], "bc", [2]),
        (['a.jpg,mel,"one', "b.jpg,nv,x", 'c.jpg,bcc,"two', "d.jpg,nv,x"], "bd", [2, 4]),
        (['a.jpg,mel,"a"b"', "b.jpg,nv,x"], "b", [2]),
        (["a.jpg,mel,x", 'b.jpg,nv,"last'], "a", [3]),
        (['a.jpg,mel,"two', 'lines"', "b.jpg,nv,x"], "ab", []),
        (['a.jpg,mel,"two, with', 'a comma"', "b.jpg,nv,x"], "ab", []),
        (['a.jpg,mel,"said ""so"" twice"', 'b.jpg,nv,5" wide'], "ab", []),
    ],
)
def test_an_unclosed_quote_swallows_no_row(tmp_path: Path, rows: list[str], read: str, bad_lines: list[int]) -> None:
    table = read_cases(folder_of(tmp_path, "\n".join([HEADER, *rows]) + "\n"))
    assert ids(table) == list(read)
    assert [problem.split(":")[0] for problem in table.problems] == [f"manifest.csv line {line}" for line in bad_lines]
    assert all("quote" in problem for problem in table.problems)
    if bad_lines:
        with pytest.raises(DataError, match=f"line {bad_lines[0]}: .*quote"):
            read_cases(tmp_path, strict=True)


def test_no_line_is_lost_whatever_the_quotes(tmp_path: Path) -> None:
    """Each line that is not blank lies in a record that was read or in one that is named."""
    rng = random.Random(0)
    for _ in range(300):
        rows = [f"{i}.jpg,nv," + rng.choice(["x", '"', '"x"', 'x"', '"x', '""', '"a,b"', '"a""']) for i in range(8)]
        found = records("\n".join([HEADER, *rows]))
        starts = [record.line for record in found]
        assert starts == sorted(set(starts))
        for record, following in zip(found, [*starts[1:], 10], strict=True):
            covered = "\n".join([HEADER, *rows][record.line - 1 : following - 1])
            assert record.problem or following == record.line + 1 or "\n" in "".join(record.cells), covered


def test_a_quote_is_looked_for_in_few_lines() -> None:
    text = 'image\n"' + "x\n" * 50_000
    found = records(text)
    assert len(found) == 50_001
    assert found[1].problem and not any(record.problem for record in found[2:])
    assert MAX_LINES_OF_A_CELL < 1000


@pytest.mark.parametrize("mark", ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_only_line_ends_end_a_line(tmp_path: Path, mark: str) -> None:
    table = read_cases(folder_of(tmp_path, f"image,group,diagnosis\na.jpg,one{mark}two,mel\nb.jpg,x,nv\n"), strict=True)
    assert [(case.group, case.diagnosis) for case in table.cases] == [(f"one{mark}two", "mel"), ("x", "nv")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(tmp_path: Path, end: str) -> None:
    table = read_cases(folder_of(tmp_path, end.join([HEADER, "a.jpg,mel,x", "gone.jpg,nv,y", "b.jpg,nv,z"])))
    assert ids(table) == ["a", "b"]
    assert table.problems[0].startswith("manifest.csv line 3: ")


def test_what_the_csv_module_writes_is_read_back(tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = ["plain", "a,b", 'say "so"', "two\nlines", "tab\there", "", "ünï", "three\n\nlines, one blank"]
    for _ in range(100):
        rows = [[f"p{i}", rng.choice(texts), rng.choice(texts)] for i in range(5)]
        stream = io.StringIO()
        csv.writer(stream).writerows([["image", "one", "two"], *rows])
        assert [list(record.cells) for record in records(stream.getvalue())[1:]] == rows


def test_trailing_empty_cells_are_forgiven(tmp_path: Path) -> None:
    """Spreadsheets write them; a cell with something in it shifts labels and is not."""
    table = read_cases(folder_of(tmp_path, "image,diagnosis\na.jpg,mel,,\nb.jpg,nv,,x\n"))
    assert ids(table) == ["a"]
    assert table.problems == ("manifest.csv line 3: 4 cells where the header has 2",)


# --- encodings and separators -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_encodings_and_separators(tmp_path: Path, encoding: str, separator: str) -> None:
    text = "image,diagnosis,group\nLäsion.jpg,mel,Café\na.jpg,nv,x\n".replace(",", separator)
    table = read_cases(folder_of(tmp_path, text.encode(encoding), ("Läsion.jpg", "a.jpg")), strict=True)
    assert [(case.image_id, case.group) for case in table.cases] == [("Läsion", "Café"), ("a", "x")]


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "sep=;\r"])
def test_excels_sep_line(tmp_path: Path, first: str) -> None:
    table = read_cases(folder_of(tmp_path, f"{first}\nimage;diagnosis;group\na.jpg;mel;x,y\ngone.jpg;nv;\n"))
    assert [(case.diagnosis, case.group) for case in table.cases] == [("mel", "x,y")]
    assert table.problems[0].startswith("manifest.csv line 4: ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"image,diagnosis\nL\x81sion.jpg,mel\n", "is neither UTF-8, UTF-16 nor Windows-1252"),
        (b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(200), "is not a text table"),
        (b"\xff\xfei\0m", "is damaged UTF-16; save it as CSV UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_in_words(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_cases(folder_of(tmp_path, data))


def test_columns_are_seen_without_reading_the_table(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    path.write_text("Image ,Diagnosis\n" + "a.jpg,mel\n" * 100_000)
    assert columns_of(path) == ("image", "diagnosis")
    assert columns_of(tmp_path / "gone.csv") == ()


# --- words and numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        "None",
        "null",
        "NULL",
        "<NA>",
        "#N/A",
        "\\N",
        "-",
        "?",
        ".",
        "missing",
        "not available",
        "nan",
        "NaN",
        "N/A",
        "NA",
    ],
)
def test_missing_words(tmp_path: Path, word: str) -> None:
    text = f"image,diagnosis,age,sex,localization,malignant,streaks\na.jpg,mel,{word},{word},{word},{word},{word}\n"
    (case,) = read_cases(folder_of(tmp_path, text), strict=True).cases
    assert (case.context.age, case.context.sex, case.context.site, case.criteria) == (None, None, None, {})
    assert case.malignant is True  # of the diagnosis, as the label's own word is missing
    assert is_missing(word)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas(tmp_path: Path, separator: str) -> None:
    text = "image,diagnosis,age\na.jpg,mel,55X0\nb.jpg,nv,60.5\n".replace(",", separator).replace("X", ",")
    assert [case.context.age for case in read_cases(folder_of(tmp_path, text), strict=True).cases] == [55.0, 60.5]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("55", 55), ("55,0", 55), (".5", 0.5), ("1e-3", 0.001), ("-2", -2), ("1_0", None), ("inf", None)),
        *(("nan", None), ("1e999", None), ("1,234,567", None), ("12 3", None), ("", None), ("0x10", None)),
    ],
)
def test_numbers(text: str, number: float | None) -> None:
    assert cells.parse_number(text) == number


# --- rows and columns ---------------------------------------------------------------------------------------------


def test_every_row_bad_says_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of its 2 rows can be used; the first: manifest\.csv line 2: .*wart"):
        read_cases(folder_of(tmp_path, "image,diagnosis\na.jpg,wart\ngone.jpg,mel\n"))


@pytest.mark.parametrize("column", ["dx", "label", "Class", "target", "diagnoses", "diagnosis_1", "diagnossis"])
def test_a_diagnosis_under_another_name_is_not_passed_over(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError, match=f"no column 'diagnosis', but '{column.lower()}': rename it"):
        read_cases(folder_of(tmp_path, f"image,{column}\na.jpg,mel\n"))


def test_other_columns_are_left_alone(tmp_path: Path) -> None:
    text = "image,diagnosis,label,original_diagnosis\na.jpg,mel,x,MELANOMA\n"
    assert read_cases(folder_of(tmp_path, text), strict=True).cases[0].diagnosis == "mel"
    unlabelled = folder_of(tmp_path / "unlabelled", "image,group,malignant\na.jpg,x,1\n")
    assert read_cases(unlabelled, strict=True).cases[0].malignant is True


def test_photos_under_another_name_are_suggested(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column image; found filename, diagnosis; if 'filename' names the photos"):
        read_cases(folder_of(tmp_path, "filename,diagnosis\na.jpg,mel\n"))


@pytest.mark.parametrize("asked", ["val", "valid", "Validation", "VAL"])
def test_a_split_is_found_by_any_of_its_words(tmp_path: Path, asked: str) -> None:
    table = read_cases(folder_of(tmp_path, "image,split\na.jpg,val\nb.jpg,train\n"))
    assert [case.image_id for case in table.split(asked)] == ["a"]


# --- names of files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_unicode_forms_of_a_name_are_one(tmp_path: Path, on_disk: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[on_disk]
    name = unicodedata.normalize(on_disk, "Bücher/Läsion é.jpg")
    text = f"image,diagnosis\n{unicodedata.normalize(other, 'Bücher/Läsion é.jpg')},mel\n"
    (case,) = read_cases(folder_of(tmp_path, text, (name,)), strict=True).cases
    assert case.image.is_file()


def test_two_forms_side_by_side_are_told_apart(tmp_path: Path) -> None:
    first, second = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    folder = folder_of(tmp_path, f"image\n{first}\n{second}\n", (first, second))
    if len(list(tmp_path.glob("*.jpg"))) < 2:
        pytest.skip("this disk keeps one form")
    assert [case.image.name for case in read_cases(folder).cases][:1] == [first]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    folder_of(real, "", ("ISIC_0000001.jpg", "deep/ISIC_0000002.jpg"))
    ham = tmp_path / "ham"
    (ham / "HAM10000_images_part_1").mkdir(parents=True)
    (ham / "HAM10000_images_part_1" / "linked").symlink_to(real, target_is_directory=True)
    (real / "deep" / "circle").symlink_to(ham / "HAM10000_images_part_1", target_is_directory=True)
    (ham / "HAM10000_metadata.csv").write_text("image_id,dx\nISIC_0000001,nv\nISIC_0000002,mel\n")
    assert ids(read_cases(ham, strict=True)) == ["ISIC_0000001", "ISIC_0000002"]
    (tmp_path / "linked").symlink_to(real, target_is_directory=True)
    clinic = folder_of(tmp_path / "clinic", "image\nphotos/ISIC_0000001.jpg\n", ())
    (clinic / "photos").symlink_to(real, target_is_directory=True)
    assert ids(read_cases(clinic, strict=True)) == ["ISIC_0000001"]


def test_the_header_is_never_half_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('image,"diagnosis\na.jpg,mel\n')
    with pytest.raises(DataError, match="line 1, the header: a quote is not closed"):
        read_labels(path, ("image",))


@pytest.mark.parametrize("word", ["<null>", "[null]", "(blank)", "n/d", "N.D.", "nan.", "...", "*", "''", "not stated"])
def test_more_words_for_nothing(word: str) -> None:
    assert is_missing(word)


@pytest.mark.parametrize("word", ["+", "0", "no", "a-b", "(1)", "nevus"])
def test_words_that_say_something(word: str) -> None:
    assert not is_missing(word)


@pytest.mark.parametrize("column", ["diag", "Diagnose", "class name", "ground truth", "y", "Diagnosis-Code"])
def test_diagnoses_under_another_name_are_not_passed_over(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError, match=f"no column 'diagnosis', but '{column.lower()}'"):
        read_cases(folder_of(tmp_path, f"image,{column}\na.jpg,mel\n"))


def test_separators_at_the_end_of_the_header_alone(tmp_path: Path) -> None:
    (case,) = read_cases(folder_of(tmp_path, "image,diagnosis,,\na.jpg,mel\n"), strict=True).cases
    assert case.diagnosis == "mel"


def test_quotes_after_a_space_and_a_padded_sep_line(tmp_path: Path) -> None:
    (case,) = read_cases(folder_of(tmp_path, 'image, diagnosis\na.jpg, "mel"\n'), strict=True).cases
    assert case.diagnosis == "mel"
    (case,) = read_cases(folder_of(tmp_path / "sep", "sep=;;;\nimage;diagnosis\na.jpg;mel\n"), strict=True).cases
    assert case.diagnosis == "mel"


def test_lines_of_two_encodings_in_one_table() -> None:
    assert decode("ü\n".encode() + "é\n".encode("cp1252")) == "ü\né\n"


def test_a_cell_too_long_for_the_reader_is_named() -> None:
    _, record = records('image,note\na.jpg,"' + "x" * 200_000 + '"\n')
    assert record.problem == "a cell has more than 131,072 characters"


def test_names_with_spaces_at_their_ends(tmp_path: Path) -> None:
    (tmp_path / " a.jpg ").write_bytes(b"")
    (tmp_path / "straße.jpg").write_bytes(b"")
    finder = FileFinder(tmp_path)
    assert finder.find("a.jpg") == tmp_path / " a.jpg "
    assert finder.find("STRASSE.JPG") == tmp_path / "straße.jpg"
