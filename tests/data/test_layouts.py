"""Published sets in the folders and tables that people really have."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

import pytest

from skinclip.core import vocabulary
from skinclip.core.assessment import Context
from skinclip.data.cases import CriteriaReading, DataError
from skinclip.data.dermatologist_criteria import CRITERIA, SEVEN_POINT
from skinclip.data.layouts.diagnosis_names import code_of
from skinclip.data.layouts.registry import LAYOUTS
from skinclip.data.readers import detect_layout, discover, read_cases
from tests.helpers.folders import touch, write

ONE_HOT = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
TEST = "ISIC2018_Task3_Test"


# --- ISIC 2018 Task 3 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "truth",
    [
        f"{TEST}_GroundTruth/{TEST}_GroundTruth.csv",
        f"{TEST}_GroundTruth.csv",
        f"{TEST}_GroundTruth/{TEST}_GroundTruth/{TEST}_GroundTruth.csv",
        f"{TEST}_GroundTruth/truth.csv",
    ],
)
@pytest.mark.parametrize("photos", [f"{TEST}_Input", f"{TEST}_Input/{TEST}_Input", f"{TEST}_Images"])
def test_isic2018_ground_truth_beside_its_folder_or_deeper(tmp_path: Path, truth: str, photos: str) -> None:
    touch(tmp_path, f"{photos}/ISIC_0000001.jpg")
    write(tmp_path / truth, ONE_HOT, "ISIC_0000001,1.0,0,0,0,0,0,0")
    assert detect_layout(tmp_path) == "isic2018"
    (case,) = read_cases(tmp_path, strict=True).cases
    assert (case.diagnosis, case.split, case.kind) == ("mel", "test", "dermoscopy")


@pytest.mark.parametrize("ending", ["tab", "csv"])
def test_isic2018_test_as_dataverse_publishes_it(tmp_path: Path, ending: str) -> None:
    separator = "\t" if ending == "tab" else ","
    header = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]
    quote = '"' if ending == "tab" else ""
    rows = [
        ["HAMTEST_0000000", "ISIC_0034524", "nv", "follow_up", "40.0", "female", "back", "vidir_molemax"],
        ["HAMTEST_0000001", "ISIC_0034525", "akiec", "histo", "", "male", "scalp", "rosendahl"],
    ]
    lines = [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in (header, *rows)]
    touch(tmp_path, f"{TEST}_Images/ISIC_0034524.jpg", f"{TEST}_Images/ISIC_0034525.jpg")
    write(tmp_path / f"{TEST}_GroundTruth.{ending}", *lines)
    first, second = read_cases(tmp_path, strict=True).cases
    assert (first.diagnosis, first.lesion_id, first.split) == ("nv", "HAMTEST_0000000", "test")
    assert first.context == Context(40.0, "female", "back")
    assert (second.malignant, second.context.age) == (True, None)


def test_ham10000_with_isic2018s_test_photos_beside_it(tmp_path: Path) -> None:
    """Dataverse offers both in one place: neither set is lost."""
    touch(tmp_path, "HAM10000_images_part_1/ISIC_0000001.jpg", f"{TEST}_Images/ISIC_0034524.jpg")
    write(tmp_path / "HAM10000_metadata.tab", "lesion_id\timage_id\tdx", "HAM_1\tISIC_0000001\tnv")
    write(tmp_path / f"{TEST}_GroundTruth.tab", "lesion_id\timage_id\tdx", "HT_1\tISIC_0034524\tmel")
    table = read_cases(tmp_path, strict=True)
    assert [(case.image_id, case.split) for case in table.cases] == [("ISIC_0000001", None), ("ISIC_0034524", "test")]


# --- ISIC 2018 Task 2 ---------------------------------------------------------------------------------------------


def test_isic2018_task2_as_published(tmp_path: Path) -> None:
    name = "ISIC_0000001"
    attributes = ("globules", "milia_like_cyst", "negative_network", "pigment_network", "streaks")
    touch(
        tmp_path,
        f"ISIC2018_Task1-2_Training_Input/{name}.jpg",
        "ISIC2018_Task1-2_Training_Input/ISIC_0000002.jpg",
        "ISIC2018_Task1-2_Training_Input/ATTRIBUTION.txt",
        *(f"ISIC2018_Task2_Training_GroundTruth_v3/{name}_attribute_{a}.png" for a in attributes),
        f"ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png",
    )
    assert detect_layout(tmp_path) == "isic2018_task2"
    table = read_cases(tmp_path)
    (case,) = table.cases
    assert set(case.attribute_masks) == set(attributes)
    assert case.attribute_masks["streaks"] == (
        tmp_path / f"ISIC2018_Task2_Training_GroundTruth_v3/{name}_attribute_streaks.png"
    )
    assert (case.split, case.mask and case.mask.name) == ("train", f"{name}_segmentation.png")
    assert table.problems == ("ISIC2018_Task1-2_Training_Input/ISIC_0000002.jpg: no mask of an attribute",)


def test_isic2018_task2_flat(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"images/ISIC_000000{i}.webp" for i in (1, 2, 3)),
        "attribute_masks/ISIC_0000001_attribute_streaks.png",
        "lesion_masks/ISIC_0000001.png",
    )
    write(
        tmp_path / "labels.csv",
        "image_id,globules,milia_like_cyst,negative_network,pigment_network,streaks,diagnosis_isic2017,split",
        "ISIC_0000001,0,0,0,0,1,mel,train",
        "ISIC_0000002,0,,0,0,0,,valid",
        "ISIC_0000003,1,0,0,0,0,nv,train",
    )
    table = read_cases(tmp_path)
    first, second = table.cases
    assert first.attribute_masks["streaks"] and first.attribute_masks["globules"] is None
    assert (first.diagnosis, first.mask and first.mask.name) == ("mel", "ISIC_0000001.png")
    assert "milia_like_cyst" not in second.attribute_masks  # not looked for
    assert "globules was drawn, but its mask is not in attribute_masks/" in table.problems[0]


# --- ISIC 2019, 2020, archive -------------------------------------------------------------------------------------


def test_isic2019(tmp_path: Path) -> None:
    classes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    photos = [f"ISIC_000000{i}" for i in range(9)]
    photos[1] += "_downsampled"
    touch(tmp_path, *(f"ISIC_2019_Training_Input/ISIC_2019_Training_Input/{photo}.jpg" for photo in photos))
    rows = [f"{photo}," + ",".join("1.0" if i == j else "0.0" for j in range(9)) for i, photo in enumerate(photos)]
    write(tmp_path / "ISIC_2019_Training_GroundTruth.csv", f"image,{','.join(classes)}", *rows)
    write(
        tmp_path / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,anatom_site_general,lesion_id,sex",
        "ISIC_0000000,55.0,anterior torso,MSK4_0011169,female",
    )
    assert detect_layout(tmp_path) == "isic2019"
    cases = read_cases(tmp_path, strict=True).cases
    assert [c.diagnosis for c in cases] == ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc", "scc", "other"]
    assert [c.malignant for c in cases] == [True, False, True, True, False, False, False, True, None]
    assert cases[0].context == Context(55.0, "female", "chest")
    assert (cases[0].lesion_id, cases[1].image_id, cases[1].lesion_id) == (
        "MSK4_0011169",
        "ISIC_0000001",
        "ISIC_0000001",
    )
    assert {case.split for case in cases} == {"train"}


@pytest.mark.parametrize(
    ("table", "folder"), [("train.csv", "train"), ("ISIC_2020_Training_GroundTruth.csv", "ISIC_2020_Training_Input")]
)
def test_isic2020(tmp_path: Path, table: str, folder: str) -> None:
    touch(tmp_path, *(f"{folder}/ISIC_000000{i}.jpg" for i in range(5)))
    write(
        tmp_path / table,
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target",
        "ISIC_0000000,IP_1,male,45.0,head/neck,unknown,benign,0",
        "ISIC_0000001,IP_1,female,,upper extremity,melanoma,malignant,1",
        "ISIC_0000002,IP_2,,50,palms/soles,lentigo NOS,benign,0",
        "ISIC_0000003,IP_3,,50,torso,cafe-au-lait macule,benign,0",
        "ISIC_0000004,IP_3,,50,torso,nevus,benign,1",
    )
    assert detect_layout(tmp_path) == "isic2020"
    found = read_cases(tmp_path)
    assert [(c.diagnosis, c.malignant) for c in found.cases] == [
        *((None, False), ("mel", True), (None, False), ("other", False))
    ]
    assert (found.cases[0].lesion_id, found.cases[0].patient_id, found.cases[0].split) == ("IP_1", "IP_1", "train")
    assert "'benign' and target '1' disagree" in found.problems[0]


def test_isic_archive(tmp_path: Path) -> None:
    names = [f"ISIC_000000{i}" for i in range(6)]
    touch(tmp_path, *(f"{name}.jpg" for name in names))
    write(
        tmp_path / "metadata.csv",
        "isic_id,attribution,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,diagnosis_5,"
        "fitzpatrick_skin_type,image_type,lesion_id,patient_id,sex",
        f"{names[0]},x,50,posterior torso,Malignant,Malignant melanocytic proliferations,Melanoma in situ,,,II,"
        "dermoscopic,IL_1,IP_1,male",
        f'{names[1]},x,50,,Malignant,Malignant epidermal proliferations,"Squamous cell carcinoma, Invasive",,,,'
        "clinical: close-up,,IP_1,male",
        f'{names[2]},x,,,Benign,Benign melanocytic proliferations,Nevus,"Nevus, NOS, Compound",,,TBP tile: close-up,,,',
        f"{names[3]},x,,,Benign,,,,,,,,,",
        f"{names[4]},x,,,Indeterminate,Indeterminate epidermal proliferations,Solar or actinic keratosis,,,,,,,",
        f"{names[5]},x,,,Benign,Benign other,Chondrodermatitis,,,,,,,",
    )
    assert detect_layout(tmp_path) == "isic_archive"
    cases = read_cases(tmp_path, strict=True).cases
    assert [c.diagnosis for c in cases] == ["mel", "scc", "nv", None, "akiec", "other"]
    assert [c.malignant for c in cases] == [True, True, False, False, True, False]
    assert [c.kind for c in cases] == ["dermoscopy", "clinical", "clinical", None, None, None]
    assert (cases[0].fitzpatrick, cases[0].lesion_id, cases[1].lesion_id) == (2, "IL_1", "IP_1")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Squamous cell carcinoma in situ, Bowens disease", "akiec"),
        ("Keratoacanthoma", "scc"),
        ("Melanoma Invasive", "mel"),
        ("Blue nevus", "nv"),
        ("Nevus, Spitz", "nv"),
        ("Epidermal nevus", "other"),
        ("Nevus sebaceous", "other"),
        ("Flat melanotic pigmentations - not melanocytic nevus", "other"),
        ("Seborrheic keratosis", "bkl"),
        ("Lichen planus like keratosis", "bkl"),
        ("Solar lentigo", "bkl"),
        ("Lentigo NOS", None),
        ("Dermatofibroma", "df"),
        ("Hemangioma", "vasc"),
        ("Pyogenic granuloma", "vasc"),
        ("Molluscum", "other"),
        ("Benign", None),
        (None, None),
    ],
)
def test_names_of_diagnoses(name: str | None, code: str | None) -> None:
    assert code_of([name]) == code
    assert code_of(["Benign", None, name, None]) == code


# --- PAD-UFES-20 --------------------------------------------------------------------------------------------------


def test_pad_ufes(tmp_path: Path) -> None:
    names = {code: f"PAT_{i}_{i}0_{i}00.png" for i, code in enumerate(("ACK", "BCC", "MEL", "NEV", "SCC", "SEK"))}
    touch(tmp_path, *(f"imgs_part_{i % 3 + 1}/{name}" for i, name in enumerate(names.values())))
    header = "patient_id,lesion_id,smoke,age,gender,region,fitspatrick,diagnostic,itch,img_id,biopsed"
    rows = [
        f"PAT_{i},{i}0,True,{50 + i},{'FEMALE' if i % 2 else 'MALE'},FOREARM,{float(i + 1)},{code},UNK,{name},False"
        for i, (code, name) in enumerate(names.items())
    ]
    rows[3] = f"PAT_3,30,,53,,FACE,,NEV,False,{names['NEV']},True"
    write(tmp_path / "metadata.csv", header, *rows)
    assert detect_layout(tmp_path) == "pad_ufes"
    cases = read_cases(tmp_path, strict=True).cases
    assert [c.diagnosis for c in cases] == ["akiec", "bcc", "mel", "nv", "scc", "bkl"]
    assert [c.malignant for c in cases] == [False, True, True, False, True, False]
    assert cases[0].context == Context(50.0, "male", "upper extremity")
    assert (cases[1].group, cases[1].fitzpatrick, cases[3].group) == ("FST2", 2, None)
    assert {c.kind for c in cases} == {"clinical"}
    assert (cases[2].patient_id, cases[2].lesion_id, cases[2].split) == ("PAT_2", "20", None)


# --- MILK10k ------------------------------------------------------------------------------------------------------

MILK_CLASSES = ("AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC")
MILK_METADATA = "lesion_id,image_type,isic_id,age_approx,sex,skin_tone_class,site,MONET_hair"


def milk10k(folder: Path, *marked: str, part: str = "Training") -> Path:
    metadata, truth = [MILK_METADATA], [f"lesion_id,{','.join(MILK_CLASSES)}"]
    for i, name in enumerate(marked):
        lesion = f"IL_000000{i}"
        for kind, photo in (("clinical: close-up", f"ISIC_1{i}"), ("dermoscopic", f"ISIC_2{i}")):
            touch(folder, f"MILK10k_{part}_Input/{lesion}/{photo}.jpg")
            metadata.append(f"{lesion},{kind},{photo},70.0,male,{i % 6},head_neck_face,0.1")
        truth.append(f"{lesion}," + ",".join("1.0" if c == name else "0.0" for c in MILK_CLASSES))
    write(folder / f"MILK10k_{part}_Metadata.csv", *metadata)
    write(folder / f"MILK10k_{part}_GroundTruth.csv", *truth)
    return folder


def test_milk10k(tmp_path: Path) -> None:
    folder = milk10k(tmp_path / "milk", *MILK_CLASSES)
    assert detect_layout(folder) == "milk10k"
    cases = read_cases(folder, strict=True).cases
    assert [c.diagnosis for c in cases] == [
        *("akiec", "bcc", "other", "bkl", "df", "other", "other", "mel", "nv", "scc", "vasc")
    ]
    assert [c.malignant for c in cases] == [*(True, True, False, False, False, False, True, True, False, True, False)]
    first = cases[0]
    assert (first.image_id, first.lesion_id, first.kind) == ("ISIC_20", "IL_0000000", "dermoscopy")
    assert first.clinical_image == folder / "MILK10k_Training_Input/IL_0000000/ISIC_10.jpg"
    assert first.context == Context(70.0, "male", "head or neck")
    assert [c.skin_tone for c in cases[:7]] == [0, 1, 2, 3, 4, 5, 0]
    assert {c.split for c in cases} == {"train"}
    write(folder / "split.csv", "lesion_id,split", "IL_0000000,calib", "IL_0000001,valid")
    assert [c.split for c in read_cases(folder).cases[:3]] == ["calib", "valid", "train"]


def test_milk10k_lesions_without_both_photos(tmp_path: Path) -> None:
    folder = milk10k(tmp_path / "milk", "MEL", "NV", "BCC")
    kept = [
        MILK_METADATA,
        "IL_0000000,clinical: close-up,ISIC_10,70,male,1,trunk,0",
        "IL_0000001,dermoscopic,ISIC_21,70,,,,",
    ]
    write(folder / "MILK10k_Training_Metadata.csv", *kept, "IL_0000001,dermoscopic,ISIC_20,70,,,,")
    table = read_cases(folder)
    assert [(c.kind, c.image_id, c.clinical_image) for c in table.cases] == [
        *(("clinical", "ISIC_10", None), ("dermoscopy", "ISIC_21", None))
    ]
    assert "line 4: a second dermoscopy photo of lesion IL_0000001" in table.problems[0]
    assert "no photo of lesion IL_0000002" in table.problems[1]


def test_milk10k_test_part_without_ground_truth(tmp_path: Path) -> None:
    folder = milk10k(tmp_path / "milk", "MEL", "NV", part="Test")
    assert [(c.diagnosis, c.split) for c in read_cases(folder, strict=True).cases] == [("mel", "test"), ("nv", "test")]
    (folder / "MILK10k_Test_GroundTruth.csv").unlink()
    assert [(c.diagnosis, c.split) for c in read_cases(folder, strict=True).cases] == [(None, "test"), (None, "test")]


# --- criteria of dermatologists -----------------------------------------------------------------------------------


def test_criteria_of_dermatologists_are_joined_by_photo(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path / "manifest.csv", "image,image_id,diagnosis", "a.jpg,ISIC_0000001,mel", "b.jpg,ISIC_0000002,nv")
    write(
        tmp_path / "dermatologist_criteria.csv",
        "image_id,TRBL,ESA,PRL,none,annotator,split",
        "ISIC_0000001,1,0,,0,13,train",
    )
    write(tmp_path / "dermatologist_criteria_second_reading.csv", "image_id,TRBL,OPC", "ISIC_0000001,0,1")
    first, second = read_cases(tmp_path, strict=True).cases
    assert first.readings == (
        CriteriaReading(frozenset({"TRBL"}), frozenset({"ESA"}), "13"),
        CriteriaReading(frozenset({"OPC"}), frozenset({"TRBL"})),
    )
    assert first.criteria == {} and second.readings == ()  # not marked is not absent
    write(tmp_path / "dermatologist_criteria.csv", "image_id,TRBL", "ISIC_0000001,perhaps")
    with pytest.raises(DataError, match=r"dermatologist_criteria\.csv line 2: TRBL 'perhaps'"):
        read_cases(tmp_path)


def test_the_eighteen_criteria_are_mapped_with_reasons() -> None:
    assert len(CRITERIA) == len({c.code for c in CRITERIA}) == 18
    assert all(c.reason and c.meaning for c in CRITERIA)
    assert set(SEVEN_POINT.values()) <= {state.key for state in vocabulary.EVIDENCE_STATES}


# --- all of them --------------------------------------------------------------------------------------------------


def test_layouts_name_their_folders_and_find_nothing_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        detect_layout(tmp_path)
    assert all(layout.expected in str(caught.value) for layout in LAYOUTS.values())
    assert all(layout.name == name and not layout.matches(tmp_path) for name, layout in LAYOUTS.items())


def test_nothing_leaks_through_the_new_fields() -> None:
    from skinclip.data.cases import Case

    words = ("confirm", "thickness", "invasion", "biops", "monet")
    assert not [field.name for field in dataclasses.fields(Case) if any(word in field.name for word in words)]


@pytest.mark.skipif(not os.environ.get("SKINCLIP_DATA"), reason="needs real data sets")
def test_real_sets() -> None:
    tables = discover(os.environ["SKINCLIP_DATA"], strict=True)
    if not {"milk10k", "isic2018_task2", "ham10000"} <= set(tables):
        pytest.skip("other data sets than those counted here")
    milk, drawn = tables["milk10k"].cases, tables["isic2018_task2"].cases
    assert len(milk) == 4327 and all(case.clinical_image and case.kind == "dermoscopy" for case in milk)
    assert Counter(case.split for case in milk) == {"train": 3490, "calib": 375, "valid": 462}
    assert len(drawn) == 2065 and sum(m is not None for c in drawn for m in c.attribute_masks.values()) == 2496
    read = [case for case in tables["ham10000"].cases if case.readings]
    assert len(read) == 3221 and {case.split for case in read} == {"train", "calib", "valid"}
