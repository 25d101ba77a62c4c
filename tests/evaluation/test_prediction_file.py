import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

from skinclip.core.safe_text import plain_text, safe_name
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.evaluation.prediction_file import as_table, parse_prior, read_predictions
from skinclip.evaluation.scores import ISIC2018_CODES
from tests.hostile_texts import TEXTS

HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
CASES = tuple(
    Case(Path(f"photos/ISIC_{i}.jpg"), f"ISIC_{i}", "made", f"lesion_{i}", split="valid" if i < 3 else "train")
    for i in range(4)
)
TABLE = CaseTable(CASES)
VALID = CASES[:3]
ROWS = [f"ISIC_{i},0.1,0.6,0.1,0.05,0.05,0.04,0.06" for i in range(3)]


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "theirs.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def read(folder: Path, *rows: str, header: str = HEADER, **options):
    return read_predictions(write(folder, *rows, header=header), TABLE, VALID, **options)


def test_a_submission_is_read_in_our_order(tmp_path):
    found = read(tmp_path, *ROWS)
    assert set(found.probabilities) == {"ISIC_0", "ISIC_1", "ISIC_2"} and found.missing == ()
    wanted = {"mel": 0.1, "nv": 0.6, "bcc": 0.1, "akiec": 0.05, "bkl": 0.05, "df": 0.04, "vasc": 0.06}
    assert list(found.probabilities["ISIC_1"]) == pytest.approx([wanted[code] for code in ISIC2018_CODES])
    assert found.name == "theirs" and found.renormalised == 0 and found.sums == pytest.approx((1, 1))
    assert found.sha256 == hashlib.sha256((tmp_path / "theirs.csv").read_bytes()).hexdigest()


def test_columns_in_any_order_and_case_and_names_with_extension(tmp_path):
    rows = ["0.06,0.04,ISIC_0.jpg,0.1,0.6,0.1,0.05,0.05", "0.06,0.04,ISIC_2.JPG,0.1,0.6,0.1,0.05,0.05"]
    found = read(tmp_path, *rows, "0,0,ISIC_1,1,0,0,0,0", header="vasc,df,image,mel,nv,bcc,akiec,bkl")
    assert found.probabilities["ISIC_0"][DIAGNOSIS_CODES.index("nv")] == pytest.approx(0.6)
    assert found.probabilities["ISIC_1"][DIAGNOSIS_CODES.index("mel")] == 1
    assert set(found.probabilities) == {"ISIC_0", "ISIC_1", "ISIC_2"}


def test_a_photo_may_be_named_by_its_file_where_its_id_is_another(tmp_path):
    cases = (
        Case(Path("photos/a.jpg"), "7", "made", "7"),
        Case(Path("x/b.jpg"), "8", "made", "8"),
        Case(Path("y/b.jpg"), "9", "made", "9"),
    )
    path = write(tmp_path, *(row.replace("ISIC_0", "a").replace("ISIC_1", "8") for row in ROWS[:2]))
    assert set(read_predictions(path, CaseTable(cases), cases[:2]).probabilities) == {"7", "8"}
    shared = write(tmp_path, ROWS[0].replace("ISIC_0", "b"))  # a name of two photos names none
    with pytest.raises(DataError, match=r"does not have: 1 \(b\)"):
        read_predictions(shared, CaseTable(cases), cases)


def test_values_that_do_not_sum_to_1_are_scaled_and_counted(tmp_path):
    found = read(tmp_path, ROWS[0], "ISIC_1,20,60,10,5,5,0,0", "ISIC_2,0.4,0,0,0,0,0,0.1")
    assert found.renormalised == 2 and found.sums == pytest.approx((0.5, 100))
    assert found.probabilities["ISIC_1"][DIAGNOSIS_CODES.index("nv")] == pytest.approx(0.6)
    assert found.probabilities["ISIC_2"][DIAGNOSIS_CODES.index("mel")] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (ROWS[:2], r"photos without a prediction: 1 of 3 \(ISIC_2\).*--allow-missing"),
        ([*ROWS, ROWS[0].replace("ISIC_0", "ISIC_9")], r"does not have: 1 \(ISIC_9\).*remove these rows"),
        ([*ROWS, ROWS[0].replace("ISIC_0", "")], r"does not have: 1 \(line 5\)"),
        ([*ROWS, ROWS[1]], r"more than one row: 1 \(ISIC_1\)"),
        ([*ROWS, ROWS[1].replace("ISIC_1", "ISIC_1.jpg")], r"more than one row: 1 \(ISIC_1\)"),
        ([ROWS[0].replace("0.6", "much"), *ROWS[1:]], r"line 2 \(ISIC_0\): nv is 'much', not a number"),
        ([ROWS[0].replace("0.6", "-0.6"), *ROWS[1:]], "nv is '-0.6', not a number of at least 0"),
        ([ROWS[0].replace("0.6", "nan"), *ROWS[1:]], "nv is 'nan'"),
        ([ROWS[0].replace("0.6", ""), *ROWS[1:]], "nv is ''"),
        ([ROWS[0].replace("0.6", "inf"), *ROWS[1:]], "nv is 'inf'"),
        (["ISIC_0,0,0,0,0,0,0,0", *ROWS[1:]], "all seven values are 0"),
        ([ROWS[0] + ",0.1", *ROWS[1:]], "9 cells where the header has 8"),
        ([], "no rows below the header"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, *rows)


def test_bad_headers_and_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no column vasc"):
        read(tmp_path, header="image,MEL,NV,BCC,AKIEC,BKL,DF")
    with pytest.raises(DataError, match="column 'unk' is not known"):
        read(tmp_path, *(f"{row},0" for row in ROWS), header=f"{HEADER},UNK")
    with pytest.raises(DataError, match="column mel is there twice"):
        read(tmp_path, header=f"{HEADER},mel")
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "no.csv", TABLE, VALID)


def test_missing_photos_are_counted_where_that_is_allowed(tmp_path):
    found = read(tmp_path, ROWS[1], allow_missing=True)
    assert found.missing == ("ISIC_0", "ISIC_2") and set(found.probabilities) == {"ISIC_1"}
    with pytest.raises(DataError, match="none of the 3 photos asked for"):
        read(tmp_path, ROWS[0].replace("ISIC_0", "ISIC_3"), allow_missing=True)


def test_rows_of_other_splits_are_counted_and_left_out(tmp_path):
    found = read(tmp_path, *ROWS, ROWS[0].replace("ISIC_0", "ISIC_3"))
    assert found.other_splits == 1 and set(found.probabilities) == {"ISIC_0", "ISIC_1", "ISIC_2"}


def test_a_prior_turns_probabilities_into_what_balanced_accuracy_decides_by(tmp_path):
    prior = parse_prior("MEL=0.1, nv=0.6,bcc=0.1,akiec=0.05,bkl=0.05,df=0.04,vasc=0.06")
    found = read(tmp_path, *ROWS, prior=prior)
    assert found.balanced(found.probabilities["ISIC_0"]) == pytest.approx(np.full(7, 1 / 7))
    unknown = read(tmp_path, *ROWS)
    assert unknown.balanced(unknown.probabilities["ISIC_0"]) is unknown.probabilities["ISIC_0"]


def test_parse_prior_scales_and_says_what_is_wrong():
    counts = "akiec=1,bcc=2,bkl=3,df=4,mel=5,nv=6,vasc=7"
    assert parse_prior(counts) == pytest.approx(np.arange(1, 8) / 28)
    for text, words in (
        (counts.replace(",vasc=7", ""), "name each of"),
        (f"{counts},nv=1", "name each of"),
        ("0.1,0.2,0.3,0.1,0.1,0.1,0.1", "name each of"),
        (counts.replace("nv=6", "nv=0"), "share of nv"),
        (counts.replace("nv=6", "nv=lots"), "share of nv"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_prior(text)


def test_what_is_written_is_read_back_unchanged(tmp_path):
    p = np.random.default_rng(0).dirichlet(np.ones(len(DIAGNOSIS_CODES)), 3)
    as_table([case.image_id for case in VALID], p, DIAGNOSIS_CODES).to_csv(tmp_path / "ours.csv", index=False)
    found = read_predictions(tmp_path / "ours.csv", TABLE, VALID)
    assert found.renormalised == 0
    assert np.array([found.probabilities[case.image_id] for case in VALID]) == pytest.approx(p, abs=1e-15)


@pytest.mark.parametrize("value", ["1e-320", "1e308", "1e200"])
def test_values_that_no_probability_has_are_refused_with_their_line(tmp_path, value):
    row = f"ISIC_1,{','.join([value] * 7)}"
    with pytest.raises(DataError, match=r"line 3 \(ISIC_1\): the seven values sum to .*; give probabilities"):
        read(tmp_path, ROWS[0], row, ROWS[2])
    one = read(tmp_path, ROWS[0], f"ISIC_1,1,{','.join(['1e-320'] * 6)}", ROWS[2])  # beside a sound value it is 0
    assert one.probabilities["ISIC_1"].sum() == pytest.approx(1)


@pytest.mark.parametrize("share", ["1e-320", "1e-30"])
def test_a_prior_that_probabilities_cannot_be_divided_by_is_refused(share):
    with pytest.raises(ValueError, match="share of df is below"):
        parse_prior(f"mel=1,nv=4,bcc=1,akiec=1,bkl=1,df={share},vasc=1")
    assert parse_prior(",".join(f"{code}=1e308" for code in DIAGNOSIS_CODES)) == pytest.approx(np.full(9, 1 / 9))


@pytest.mark.parametrize("text", [t for t in TEXTS if not set("\n\ufeff") & set(t) and len(t) < 200])
def test_ids_that_a_spreadsheet_would_run_are_guarded_and_read_back(tmp_path, text):
    """What `evaluate` writes it reads again, whatever the photos are called."""
    case = Case(Path("photos/one.jpg"), " ".join(plain_text(text).split()), "made", "lesion", split="valid")
    path = tmp_path / "theirs.csv"
    as_table([case.image_id], [np.full(7, 1 / 7)], ISIC2018_CODES).map(safe_name).to_csv(path, index=False)
    with path.open(newline="") as file:
        (row,) = list(csv.DictReader(file))
    assert not row["image"].startswith(("=", "+", "-", "@"))
    assert set(read_predictions(path, CaseTable((case,)), (case,)).probabilities) == {case.image_id}
