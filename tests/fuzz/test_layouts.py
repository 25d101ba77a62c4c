"""Data sets whose tables are broken: each layout reads its cases, or refuses the folder in one line."""

# ruff: noqa: E501  tables have the lines that they are published with

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skinclip.data.cases import CaseTable, DataError
from skinclip.data.layouts.registry import LAYOUTS
from skinclip.data.readers import detect_layout, read_cases
from tests.fuzz.effort import fuzzed
from tests.fuzz.mutations import Edit, edits, mutated
from tests.helpers.folders import touch
from tests.hostile_texts import TEXTS

ONE_HOT = "MEL,NV,BCC,AKIEC,BKL,DF,VASC"
SEVEN = "pigment_network,streaks,pigmentation,regression_structures,dots_and_globules,blue_whitish_veil"
# layout -> photos and other files that are looked for by name, tables with their text
FOLDERS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "manifest": (
        ("a.jpg", "b.jpg", "m.png"),
        {"manifest.csv": "image,diagnosis,age,sex,site,split,mask,lesion_id\na.jpg,mel,50,male,back,train,m.png,L1\nb.jpg,nv,,,,,,\n"},
    ),
    "derm7pt": (
        ("images/NEL/NEL001.jpg", "images/NEL/NEL002.jpg"),
        {
            "meta/meta.csv": f"case_num,diagnosis,{SEVEN},vascular_structures,location,sex,management,clinic,derm\n"
            "1,melanoma (in situ),atypical,absent,absent,absent,regular,absent,absent,back,male,excision,,NEL/NEL001.jpg\n"
            "2,clark nevus,typical,absent,absent,absent,regular,absent,absent,back,female,,,NEL/NEL002.jpg\n",
            "meta/train_indexes.csv": "indexes\n0\n",
            "meta/valid_indexes.csv": "indexes\n1\n",
            "meta/test_indexes.csv": "indexes\n",
        },
    ),
    "milk10k": (
        ("MILK10k_Training_Input/IL_0000000/ISIC_10.jpg", "MILK10k_Training_Input/IL_0000000/ISIC_20.jpg"),
        {
            "MILK10k_Training_Metadata.csv": "lesion_id,image_type,isic_id,age_approx,sex,skin_tone_class,site\n"
            "IL_0000000,clinical: close-up,ISIC_10,70.0,male,1,head_neck_face\n"
            "IL_0000000,dermoscopic,ISIC_20,70.0,male,1,head_neck_face\n",
            "MILK10k_Training_GroundTruth.csv": "lesion_id,AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC\n"
            "IL_0000000,0,0,0,0,0,0,0,1.0,0,0,0\n",
        },
    ),
    "isic2018_task2": (
        ("images/ISIC_0000001.webp", "attribute_masks/ISIC_0000001_attribute_streaks.png", "lesion_masks/ISIC_0000001.png"),
        {"labels.csv": "image_id,globules,milia_like_cyst,negative_network,pigment_network,streaks,diagnosis_isic2017,split\nISIC_0000001,0,0,0,0,1,mel,train\n"},
    ),
    "ham10000": (
        ("HAM10000_images_part_1/ISIC_0000001.jpg",),
        {"HAM10000_metadata.csv": "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\nHAM_1,ISIC_0000001,bkl,histo,80.0,male,scalp,x\n"},
    ),
    "isic2018": (
        ("ISIC2018_Task3_Test_Input/ISIC_0000001.jpg",),
        {
            "ISIC2018_Task3_Test_GroundTruth.csv": f"image,{ONE_HOT}\nISIC_0000001,1.0,0,0,0,0,0,0\n",
            "ISIC2018_Task3_Test_LesionGroupings.csv": "image,lesion_id,diagnosis_confirm_type\nISIC_0000001,HAM_1,x\n",
        },
    ),
    "isic2019": (
        ("ISIC_2019_Training_Input/ISIC_0000001.jpg",),
        {
            "ISIC_2019_Training_GroundTruth.csv": "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\nISIC_0000001,1,0,0,0,0,0,0,0,0\n",
            "ISIC_2019_Training_Metadata.csv": "image,age_approx,anatom_site_general,lesion_id,sex\nISIC_0000001,55,anterior torso,M,female\n",
        },
    ),
    "isic2020": (
        ("train/ISIC_0000001.jpg",),
        {"train.csv": "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\nISIC_0000001,IP,male,45,torso,nevus,benign,0\n"},
    ),
    "pad_ufes": (
        ("imgs_part_1/PAT_1_10_100.png",),
        {"metadata.csv": "patient_id,lesion_id,smoke,age,gender,region,fitspatrick,diagnostic,img_id,biopsed\nPAT_1,10,True,50,MALE,FOREARM,2.0,MEL,PAT_1_10_100.png,True\n"},
    ),
    "isic_archive": (
        ("ISIC_0000001.jpg",),
        {"metadata.csv": "isic_id,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,diagnosis_3,fitzpatrick_skin_type,image_type,lesion_id,patient_id,sex\nISIC_0000001,50,torso,Malignant,x,Melanoma in situ,II,dermoscopic,IL,IP,male\n"},
    ),
}  # fmt: skip


def taken(layout: str, tables: dict[str, bytes]) -> CaseTable | None:
    """The cases of a folder with these tables, None where it was refused, which must be in words."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = touch(Path(scratch), *FOLDERS[layout][0])
        for name, data in tables.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        try:
            detect_layout(folder)
            table = read_cases(folder, layout)
        except DataError as refusal:
            words = str(refusal)
            assert words and "Traceback" not in words
            return None
        # A manifest of one's own may name photos anywhere; a published set never leads out of its folder.
        inside = [case.image.is_relative_to(folder.resolve()) for case in table.cases]
        assert layout == "manifest" or all(inside)
        return table


def whole(layout: str) -> dict[str, bytes]:
    return {name: text.encode() for name, text in FOLDERS[layout][1].items()}


def test_every_layout_has_a_folder_here_that_is_read() -> None:
    assert set(FOLDERS) == set(LAYOUTS)
    for layout in LAYOUTS:
        table = taken(layout, whole(layout))
        assert table is not None and table.cases, layout


@pytest.mark.parametrize("layout", FOLDERS)
@fuzzed
@given(which=st.integers(0, 9), changes=edits)
def test_broken_tables_of_a_layout_are_read_or_refused(layout: str, which: int, changes: list[Edit]) -> None:
    tables = whole(layout)
    name = sorted(tables)[which % len(tables)]
    taken(layout, tables | {name: mutated(tables[name], changes)})


@pytest.mark.parametrize("layout", FOLDERS)
@fuzzed
@given(
    which=st.integers(0, 9),
    row=st.integers(0, 3),
    cell=st.integers(0, 12),
    text=st.text(max_size=30)
    | st.sampled_from([*TEXTS, "nan", "inf", "1e400", "-0", "١", "²", "/etc/passwd", ".", ""]),
)
@example(which=0, row=1, cell=0, text="../../etc/passwd")
@example(which=0, row=1, cell=0, text="\x00")
@example(which=0, row=1, cell=0, text="x" * 5000)
def test_hostile_cells_of_a_layout_are_read_or_refused(layout: str, which: int, row: int, cell: int, text: str) -> None:
    tables = whole(layout)
    name = sorted(tables)[which % len(tables)]
    rows = [line.split(",") for line in tables[name].decode().splitlines()]
    cells = rows[row % len(rows)]
    cells[cell % len(cells)] = text
    changed = "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")
    taken(layout, tables | {name: changed})
