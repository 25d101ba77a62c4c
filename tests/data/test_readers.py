"""Readers on made-up folders of every layout, and on the real ones where `$SKINCLIP_DATA` names them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from skinclip.core import vocabulary
from skinclip.core.assessment import Context
from skinclip.data.cases import Case
from skinclip.data.readers import LAYOUTS, DataError, detect_layout, discover, read_cases
from tests.helpers.folders import touch, write

DERM7PT_HEADER = (
    "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,regression_structures,"
    "dots_and_globules,blue_whitish_veil,vascular_structures,level_of_diagnostic_difficulty,elevation,location,sex,"
    "management,clinic,derm,case_id,notes"
)
ISIC2018_HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
LEAKING = ("confirm", "pixel", "manag", "difficult", "score", "elevation", "dx_type")


def manifest(folder: Path, *lines: str, files: tuple[str, ...] = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")) -> Path:
    touch(folder, *files)
    write(folder / "manifest.csv", *lines)
    return folder


def derm7pt_row(number: int, derm: str, diagnosis: str = "clark nevus", **labels: str) -> str:
    cells = dict.fromkeys(DERM7PT_HEADER.split(","), "")
    cells |= dict.fromkeys(vocabulary.DERM7PT_STATES, "absent")
    cells |= {"case_num": str(number), "diagnosis": diagnosis, "derm": derm, "clinic": f"NEL/Nel{number:03}c.jpg"}
    return ",".join((cells | labels).values())


@pytest.fixture
def derm7pt(tmp_path: Path) -> Path:
    folder = touch(
        tmp_path / "derm7pt",
        "images/NEL/Nel001c.JPG",
        "images/NEL/NEL001.JPG",
        "images/Fbl/fbl002.jpg",
        "images/x3.jpg",
    )
    write(
        folder / "meta" / "meta.csv",
        DERM7PT_HEADER,
        derm7pt_row(
            1,
            "Nel/nel001.jpg",
            "melanoma (in situ)",
            pigment_network="atypical",
            pigmentation="localized irregular",
            regression_structures="white areas",
            vascular_structures="wreath",
            streaks="",
            location="head neck",
            sex="female",
            management="excision",
        ),
        derm7pt_row(2, "FBL/Fbl002.JPG", "lentigo", location="unknown"),
        derm7pt_row(3, "x3.jpg", "vascular lesion"),
    )
    return folder


def test_manifest_reads_every_column(tmp_path: Path) -> None:
    folder = manifest(
        tmp_path / "clinic",
        "image,mask,diagnosis,age,sex,localization,lesion_id,patient_id,split,group,malignant,pigment_network,"
        "vascular_structures,confirmation",
        "photos/a.jpg,a_mask.png,NV,45.0,Male,lower limbs,L1,P1,Training,FST2,1,typical,dotted,histo",
        "b.jpg,,,,unknown,unknown,,,val,,,,,",
        files=("photos/a.jpg", "a_mask.png", "b.jpg"),
    )
    first, second = read_cases(folder, strict=True).cases
    assert first == Case(
        image=folder / "photos" / "a.jpg",
        image_id="a",
        source="clinic",
        lesion_id="L1",
        diagnosis="nv",
        mask=folder / "a_mask.png",
        context=Context(45.0, "male", "lower extremity"),
        split="train",
        group="FST2",
        malignant=True,  # the label's own word wins over the diagnosis
        criteria={"pigment_network": "typical", "vascular_structures": "irregular"},
        patient_id="P1",
    )
    assert second == Case(folder / "b.jpg", "b", "clinic", "b", split="valid")


def test_manifest_needs_an_image_column_only(tmp_path: Path) -> None:
    table = read_cases(manifest(tmp_path, "image,diagnosis", "a.jpg,mel", "b.jpg,bkl", "c.jpg,"))
    assert [case.malignant for case in table.cases] == [True, False, None]
    assert [case.split for case in table.cases] == [None, None, None]
    assert [case.lesion_id for case in table.cases] == ["a", "b", "c"]


def test_lesion_falls_back_to_the_patient(tmp_path: Path) -> None:
    table = read_cases(manifest(tmp_path, "image,lesion_id,patient_id", "a.jpg,L1,P1", "b.jpg,,P1", "c.jpg,,"))
    assert [case.lesion_id for case in table.cases] == ["L1", "P1", "c"]


def test_other_splits_are_kept(tmp_path: Path) -> None:
    words = ("validation", "calib", "SHIFT", "test")
    lines = [f"{name}.jpg,{word}" for name, word in zip("abcd", words, strict=True)]
    table = read_cases(manifest(tmp_path, "image,split", *lines))
    assert [case.split for case in table.cases] == ["valid", "calib", "shift", "test"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("missing.jpg,,,,,,", "image missing.jpg not found"),
        (",,,,,,", "image"),
        ("b.jpg,wart,,,,,", "unknown diagnosis 'wart'"),
        ("b.jpg,,old,,,,", "age 'old' is not a number from 0 to 120"),
        ("b.jpg,,121,,,,", "age '121'"),
        ("b.jpg,,-1,,,,", "age '-1'"),
        ("b.jpg,,inf,,,,", "age 'inf'"),
        ("b.jpg,,,maybe,,,", "malignant 'maybe' is not 0 or 1"),
        ("b.jpg,,,,wavy,,", "unknown state 'wavy' of streaks"),
        ("b.jpg,,,,,no.png,", "mask no.png not found"),
        ("a.jpg,,,,,,", "duplicate image a"),
        ("A.JPG,,,,,,", "duplicate image"),
        ("b.jpg,,,,,,,nv", "8 cells where the header has 7"),
        ("b.jpg,nv", "2 cells where the header has 7"),
        ("photos,,,,,,", "image photos not found"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, row: str, reason: str) -> None:
    touch(tmp_path, "photos/c.jpg")
    if row == ",,,,,,":
        row = ",nv,,,,,"
    folder = manifest(
        tmp_path, "image,diagnosis,age,malignant,streaks,mask,site", "a.jpg,nv,0,,,,", row, "d.jpg,mel,120,,,,"
    )
    table = read_cases(folder)
    assert [case.image_id for case in table.cases] == ["a", "d"]
    assert len(table.problems) == 1
    assert table.problems[0].startswith("manifest.csv line 3: ")
    assert reason in table.problems[0]
    with pytest.raises(DataError, match=r"manifest\.csv line 3: ") as stopped:
        read_cases(folder, strict=True)
    assert str(stopped.value) == table.problems[0]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    """A blank line and a cell over two lines shift the rows, not the numbers."""
    folder = manifest(tmp_path, "image,group", "", 'a.jpg,"one', 'two"', "gone.jpg,", "b.jpg,", "gone2.jpg,")
    table = read_cases(folder)
    assert [case.image_id for case in table.cases] == ["a", "b"]
    assert [problem.split(":")[0] for problem in table.problems] == ["manifest.csv line 5", "manifest.csv line 7"]


def test_photos_of_one_name_in_two_folders_have_their_own_ids(tmp_path: Path) -> None:
    files = ("p1/1.jpg", "p2/1.jpg", "p2/2.jpg")
    table = read_cases(manifest(tmp_path, "image", *files, files=files), strict=True)
    assert [case.image_id for case in table.cases] == ["p1_1", "p2_1", "2"]


def test_spelling_of_files(tmp_path: Path) -> None:
    folder = manifest(
        tmp_path / "set",
        "\ufeffIMAGE ; Diagnosis",
        r"Photos\A.JPG;nv",
        "./photos/b.jpg;mel",
        "../beside/c.jpg;mel",
        files=("photos/a.jpg", "photos/B.jpg", "../beside/c.jpg"),
    )
    table = read_cases(folder, strict=True)
    assert [case.image.name for case in table.cases] == ["a.jpg", "B.jpg", "c.jpg"]
    assert [case.diagnosis for case in table.cases] == ["nv", "mel", "mel"]


def test_another_case_is_not_guessed_between_two(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "A.jpg")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this disk does not tell upper from lower case")
    table = read_cases(manifest(tmp_path, "image", "A.jpg", "A.JPG", files=()))
    assert [case.image.name for case in table.cases] == ["A.jpg"]
    assert table.problems == ("manifest.csv line 3: image A.JPG not found",)


def test_nothing_that_leaks_the_answer_has_a_place() -> None:
    names = {field.name for kind in (Case, Context) for field in dataclasses.fields(kind)}
    assert not [name for name in names if any(word in name for word in LEAKING)]


def test_derm7pt(derm7pt: Path) -> None:
    first, second, third = read_cases(derm7pt, strict=True).cases
    assert first.image.relative_to(derm7pt) == Path("images/NEL/NEL001.JPG")
    assert first.clinical_image == derm7pt / "images" / "NEL" / "Nel001c.JPG"
    assert (first.image_id, first.lesion_id) == ("1", "1")
    assert (first.diagnosis, first.diagnosis_group, first.malignant) == ("mel", "MEL", True)
    assert first.context == Context(None, "female", "head or neck")
    assert first.criteria == {
        "pigment_network": "atypical",
        "pigmentation": "irregular",
        "regression_structures": "present",
        "dots_and_globules": "absent",
        "blue_whitish_veil": "absent",
        "vascular_structures": "regular",
    }
    assert (second.diagnosis, second.diagnosis_group, second.malignant) == (None, "MISC", None)
    assert second.image.name == "fbl002.jpg"
    assert second.context == Context()
    assert second.clinical_image is None
    assert (third.diagnosis, third.diagnosis_group) == ("vasc", "MISC")
    assert {case.split for case in (first, second, third)} == {None}


def test_derm7pt_splits_by_index_files(derm7pt: Path) -> None:
    """Indexes count the rows of meta.csv from 0, a row that is left out included."""
    (derm7pt / "images" / "NEL" / "NEL001.JPG").unlink()
    for name, indexes in {"train": ("0",), "valid": ("2",), "test": ("1",)}.items():
        write(derm7pt / "meta" / f"{name}_indexes.csv", "indexes", *indexes)
    table = read_cases(derm7pt)
    assert {case.image_id: case.split for case in table.cases} == {"2": "test", "3": "valid"}
    assert table.problems == ("meta.csv line 2: derm Nel/nel001.jpg not found",)


def test_derm7pt_part_with_official_numbers(derm7pt: Path) -> None:
    """A part of the set keeps its official numbers: case_num is the published index plus one."""
    write(
        derm7pt / "meta" / "meta.csv",
        DERM7PT_HEADER,
        derm7pt_row(700, "Fbl/fbl002.jpg"),
        derm7pt_row(900, "x3.jpg"),
    )
    write(derm7pt / "meta" / "train_indexes.csv", "indexes", "0", "1", "899")
    write(derm7pt / "meta" / "test_indexes.csv", "indexes", "699")
    assert [case.split for case in read_cases(derm7pt, strict=True).cases] == ["test", "train"]


def test_derm7pt_splits_by_column(derm7pt: Path) -> None:
    write(
        derm7pt / "meta" / "meta.csv",
        f"{DERM7PT_HEADER},split",
        derm7pt_row(1, "Fbl/fbl002.jpg") + ",valid",
        derm7pt_row(2, "x3.jpg") + ",train",
    )
    assert [case.split for case in read_cases(derm7pt, strict=True).cases] == ["valid", "train"]


def test_derm7pt_index_in_two_splits(derm7pt: Path) -> None:
    write(derm7pt / "meta" / "train_indexes.csv", "indexes", "0", "1")
    write(derm7pt / "meta" / "test_indexes.csv", "indexes", "2", "1")
    with pytest.raises(DataError, match=r"test_indexes\.csv line 3: '1'"):
        read_cases(derm7pt)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (derm7pt_row(4, "x3.jpg", "mole"), "unknown diagnosis 'mole'"),
        (derm7pt_row(4, "x4.jpg"), "derm x4.jpg not found"),
        (derm7pt_row(4, "x3.jpg", streaks="some"), "unknown state 'some' of streaks"),
        (derm7pt_row(4, "NEL/NEL001.JPG"), "duplicate image 4"),
    ],
)
def test_derm7pt_bad_rows(derm7pt: Path, row: str, reason: str) -> None:
    write(derm7pt / "meta" / "meta.csv", DERM7PT_HEADER, derm7pt_row(1, "NEL/NEL001.JPG"), row)
    table = read_cases(derm7pt)
    assert len(table.cases) == 1
    assert table.problems[0].startswith("meta.csv line 3: ")
    assert reason in table.problems[0]
    with pytest.raises(DataError, match="line 3"):
        read_cases(derm7pt, strict=True)


def test_isic2018(tmp_path: Path) -> None:
    folder = tmp_path / "isic"
    for split, photo in (("Training", "ISIC_0000001"), ("Validation", "ISIC_0000002"), ("Test", "ISIC_0000003")):
        name = f"ISIC2018_Task3_{split}"
        touch(folder, f"{name}_Input/{photo}.jpg", f"{name}_Input/ATTRIBUTION.txt")
        write(folder / f"{name}_GroundTruth" / f"{name}_GroundTruth.csv", ISIC2018_HEADER, f"{photo},0.0,0,0,1.0,0,0,0")
    write(
        folder / "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type",
        "ISIC_0000001,HAM_0000042,histopathology",
    )
    cases = read_cases(folder, strict=True).cases
    assert [case.split for case in cases] == ["train", "valid", "test"]
    assert [case.lesion_id for case in cases] == ["HAM_0000042", "ISIC_0000002", "ISIC_0000003"]
    assert {(case.diagnosis, case.malignant, case.source) for case in cases} == {("akiec", True, "isic")}


def test_isic2018_columns_in_order(tmp_path: Path) -> None:
    photos = [f"ISIC_000000{i}" for i in range(7)]
    touch(tmp_path, *(f"ISIC2018_Task3_Test_Input/{photo}.jpg" for photo in photos))
    rows = [f"{photo}," + ",".join("1.0" if i == j else "0.0" for j in range(7)) for i, photo in enumerate(photos)]
    write(tmp_path / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv", ISIC2018_HEADER, *rows)
    table = read_cases(tmp_path, strict=True)
    assert [case.diagnosis for case in table.cases] == ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
    assert {case.split for case in table.cases} == {"test"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("ISIC_0000002,0,0,0,0,0,0,0", "exactly one of the 7 class columns must be 1"),
        ("ISIC_0000002,1,1,0,0,0,0,0", "exactly one of the 7 class columns must be 1"),
        ("ISIC_0000002,0.6,0.4,0,0,0,0,0", "exactly one of the 7 class columns must be 1"),
        ("ISIC_0000002,1,x,0,0,0,0,0", "exactly one of the 7 class columns must be 1"),
        ("ISIC_0000009,1,0,0,0,0,0,0", "image ISIC_0000009 not found"),
        ("ISIC_0000001,1,0,0,0,0,0,0", "duplicate image ISIC_0000001"),
    ],
)
def test_isic2018_bad_rows(tmp_path: Path, row: str, reason: str) -> None:
    touch(tmp_path, *(f"ISIC2018_Task3_Test_Input/ISIC_000000{i}.jpg" for i in (1, 2)))
    truth = tmp_path / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv"
    write(truth, ISIC2018_HEADER, "ISIC_0000001,0,1,0,0,0,0,0", row)
    table = read_cases(tmp_path)
    assert [case.image_id for case in table.cases] == ["ISIC_0000001"]
    assert table.problems[0].startswith("ISIC2018_Task3_Test_GroundTruth.csv line 3: ")
    assert reason in table.problems[0]
    with pytest.raises(DataError, match="line 3"):
        read_cases(tmp_path, strict=True)


def test_isic2018_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "ISIC2018_Task3_Test_Input/ISIC_0000001.jpg")
    with pytest.raises(DataError, match=r"no ISIC2018_Task3_Test_GroundTruth/ISIC2018_Task3_Test_GroundTruth\.csv"):
        read_cases(tmp_path)


@pytest.mark.parametrize("metadata", ["HAM10000_metadata", "HAM10000_metadata.csv"])
def test_ham10000(tmp_path: Path, metadata: str) -> None:
    folder = touch(
        tmp_path / "ham",
        "HAM10000_images_part_1/ISIC_0000001.jpg",
        "HAM10000_images_part_2/ISIC_0000002.jpg",
        "HAM10000_segmentations_lesion_tschandl/ISIC_0000001_segmentation.png",
    )
    write(
        folder / metadata,
        "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset",
        "HAM_0000001,ISIC_0000001,bkl,histo,80.0,male,scalp,vidir_modern",
        "HAM_0000001,ISIC_0000002,bkl,histo,,unknown,unknown,rosendahl",
        "HAM_0000003,ISIC_0000003,nv,follow_up,45.0,female,back,rosendahl",
        "HAM_0000004,ISIC_0000001,nv,follow_up,45.0,female,back,rosendahl",
        "HAM_0000004,ISIC_0000002,wart,follow_up,45.0,female,back,rosendahl",
    )
    table = read_cases(folder)
    first, second = table.cases
    assert first == Case(
        image=folder / "HAM10000_images_part_1" / "ISIC_0000001.jpg",
        image_id="ISIC_0000001",
        source="ham",
        lesion_id="HAM_0000001",
        diagnosis="bkl",
        mask=folder / "HAM10000_segmentations_lesion_tschandl" / "ISIC_0000001_segmentation.png",
        context=Context(80.0, "male", "scalp"),
        malignant=False,
        kind="dermoscopy",
    )
    assert (second.mask, second.context) == (None, Context())
    assert [problem.split(f"{metadata} ")[1] for problem in table.problems] == [
        "line 4: image ISIC_0000003 not found",
        "line 5: duplicate image ISIC_0000001",
        "line 6: unknown diagnosis 'wart'; expected one of akiec, bcc, bkl, df, mel, nv, vasc, scc, other",
    ]


def test_unknown_layouts_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no known layout; expected manifest\.csv .* meta/meta\.csv .* HAM10000_meta"):
        read_cases(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read_cases(tmp_path / "nowhere")
    with pytest.raises(DataError, match="unknown layout 'coco'; expected one of manifest, derm7pt, milk10k"):
        read_cases(tmp_path, "coco")
    for layout, expected in {
        "manifest": r"manifest\.csv",
        "derm7pt": r"meta\.csv",
        "ham10000": "HAM10000_metadata",
        "isic2018": "ISIC2018_Task3_Training_Input",
    }.items():
        with pytest.raises(DataError, match=expected):
            read_cases(tmp_path, layout)


def test_unreadable_tables(tmp_path: Path) -> None:
    for text, reason in {
        "": "no column image; found nothing",
        "photo,diagnosis\na.jpg,nv\n": "no column image; found photo, diagnosis",
        "image,split,Split\na.jpg,train,test\n": "column split is there twice",
    }.items():
        (tmp_path / "manifest.csv").write_text(text)
        with pytest.raises(DataError, match=reason):
            read_cases(tmp_path)


def test_detect_and_discover(tmp_path: Path, derm7pt: Path) -> None:
    """Every subfolder with a known layout; others are passed over."""
    root = derm7pt.parent
    manifest(root / "clinic", "image", "a.jpg", "gone.jpg")
    touch(root, "notes/readme.txt", "README.md")
    assert detect_layout(derm7pt) == "derm7pt"
    assert next(iter(LAYOUTS)) == "manifest"  # one's own labels win
    found = discover(root)
    assert {name: len(table.cases) for name, table in found.items()} == {"clinic": 1, "derm7pt": 3}
    assert list(discover(root / "clinic")) == ["clinic"]
    with pytest.raises(DataError, match="line 3"):
        discover(root, strict=True)
    with pytest.raises(DataError, match="neither it nor a subfolder is a data set"):
        discover(root / "notes")


REAL_COUNTS = {"ham10000": (10015, 7470), "isic2017": (2750, 2750), "derm7pt": (616, 616), "pad_ufes": (423, 367)}


@pytest.fixture(scope="module")
def real() -> Path:
    root = os.environ.get("SKINCLIP_DATA")
    if not root:
        pytest.skip("set SKINCLIP_DATA to a folder with one subfolder a data set")
    return Path(root)


@pytest.mark.parametrize("name", REAL_COUNTS)
def test_real_counts(real: Path, name: str) -> None:
    if not (real / name).is_dir():
        pytest.skip(f"no {name}/")
    cases = read_cases(real / name, strict=True).cases
    assert (len(cases), len({case.lesion_id for case in cases})) == REAL_COUNTS[name]
    assert len({case.image_id for case in cases}) == len(cases)


def test_real_labels(real: Path) -> None:
    tables = discover(real)
    if not set(REAL_COUNTS) <= set(tables):
        pytest.skip("other data sets than those counted here")
    assert all(case.mask for case in tables["ham10000"].cases)
    assert {split: len(tables["derm7pt"].split(split)) for split in ("train", "valid")} == {"train": 413, "valid": 203}
    assert all(len(case.criteria) == 7 and case.clinical_image for case in tables["derm7pt"].cases)
    assert {case.split for case in tables["pad_ufes"].cases} == {"shift"}
    assert sum(case.diagnosis is None for case in tables["pad_ufes"].cases) == 17  # squamous cell carcinoma
    assert sum(bool(case.malignant) for case in tables["pad_ufes"].cases) == 173
    assert sum(case.context.site is None for case in tables["ham10000"].cases) == 234
