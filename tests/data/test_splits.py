"""Guards against leaks, and lesions kept out of stage 0."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skinclip.data.cases import Case, DataError
from skinclip.data.readers import discover
from skinclip.data.splits import (
    check_no_leak,
    guard_training,
    hold_out,
    keep_apart,
    known_duplicates,
    read_duplicates,
    without_shared,
)


def case(image_id: str, lesion_id: str, split: str | None, source: str = "ham") -> Case:
    return Case(Path(f"{image_id}.jpg"), image_id, source, lesion_id, split=split)


def test_a_lesion_in_two_splits_is_a_leak() -> None:
    check_no_leak([case("a", "L1", "train"), case("b", "L1", "train"), case("c", "L2", "test")])
    check_no_leak([case("a", "L1", "train"), case("b", "L1", "test", source="other")])  # L1 of another clinic
    with pytest.raises(DataError, match="L1 is in the splits 'train' of ham and 'test' of ham"):
        check_no_leak([case("a", "L1", "train"), case("b", "L1", "test")])
    with pytest.raises(DataError, match="None of ham"):
        check_no_leak([case("a", "L1", "train"), case("b", "L1", None)])


def test_published_ids_mean_the_same_photo_everywhere() -> None:
    photo = case("ISIC_0024306", "HAM_0000001", "test")
    check_no_leak([photo, case("ISIC_0024306", "HAM_0000001", None, source="ham_without_splits")])
    for other in (case("ISIC_0024306", "x", "train", "isic2018"), case("y", "HAM_0000001", "train", "isic2018")):
        with pytest.raises(DataError, match="'test' of ham and 'train' of isic2018"):
            check_no_leak([photo, other])


def test_what_another_set_keeps_from_training_is_left_out() -> None:
    """The same published photo or lesion in two sets stays where it is further from training."""
    cases = [
        case("ISIC_0000001", "x", "train", "task2"),
        case("ISIC_0000001", "y", "valid", "isic2017"),
        case("ISIC_0000002", "HAM_0000001", "calib", "ham"),
        case("ISIC_0000003", "HAM_0000001", "shift", "other"),
        case("ISIC_0000004", "z", "train", "task2"),
        case("ISIC_0000004", "z", None, "without_splits"),
    ]
    kept, left_out = keep_apart(cases)
    assert kept == [cases[1], *cases[3:]]
    assert left_out == (
        "ham: 1 photos of calib are kept further from training elsewhere",
        "task2: 1 photos of train are kept further from training elsewhere",
    )
    check_no_leak(kept)


def test_near_duplicates_are_kept_in_one_part(tmp_path: Path) -> None:
    path = tmp_path / "near_duplicates.csv"
    path.write_text("first,second,inliers\nham/a,milk/b,40\nmilk/c,ham/d,30\n")
    pairs = read_duplicates(path)
    assert pairs == [("ham/a", "milk/b"), ("milk/c", "ham/d")]
    assert read_duplicates(tmp_path / "gone.csv") == []
    cases = [
        case("a", "L1", "test", "ham"),
        case("a2", "L1", "test", "ham"),
        case("b", "L1", "train", "milk"),
        case("b2", "L1", "train", "milk"),  # the other photo of b's lesion goes with it
        case("c", "L2", "valid", "milk"),
        case("d", "L2", "valid", "ham"),
    ]
    assert keep_apart(cases, pairs)[0] == [*cases[:2], *cases[4:]]
    assert keep_apart(cases)[0] == cases


def test_known_duplicates_are_those_published_and_those_beside_the_data(tmp_path: Path) -> None:
    published = known_duplicates(tmp_path)
    assert len(published) == 1031 and len({second for _, second in published if second.startswith("milk10k/")}) == 720
    assert all(first.startswith("ham10000/ISIC_") for first, _ in published)
    (tmp_path / "near_duplicates.csv").write_text("first,second\nmine/a,ham10000/b\n")
    assert known_duplicates(tmp_path) == [*published, ("mine/a", "ham10000/b")]


@pytest.mark.parametrize("split", ["test", "shift", "valid", "calib", None])
def test_training_reads_train_only(split: str | None) -> None:
    guard_training([case("a", "L1", "train")])
    with pytest.raises(DataError, match=r"ham/b "):
        guard_training([case("a", "L1", "train"), case("b", "L2", split)])
    with pytest.raises(DataError, match="no photo to learn from"):
        guard_training([])


def test_hold_out_keeps_lesions_together() -> None:
    cases = [case(f"{lesion}-{i}", f"L{lesion}", "train") for lesion in range(2000) for i in range(2)]
    kept, held = hold_out(cases, 0.2, seed=0)
    assert len(kept) + len(held) == len(cases)
    assert not {c.lesion_id for c in kept} & {c.lesion_id for c in held}
    assert len(held) / len(cases) == pytest.approx(0.2, abs=0.03)
    assert hold_out(cases, 0.2, seed=0) == (kept, held)
    assert hold_out(cases, 0.2, seed=1)[1] != held
    assert hold_out(cases[:10], 0.2, seed=0)[1] == [c for c in cases[:10] if c in held]  # others do not matter
    assert hold_out(cases, 0.0, seed=0) == (cases, [])
    assert hold_out(cases, 1.0, seed=0) == ([], cases)


def test_real_sets_do_not_leak() -> None:
    root = os.environ.get("SKINCLIP_DATA")
    if not root:
        pytest.skip("set SKINCLIP_DATA to a folder with one subfolder a data set")
    tables = discover(root).values()
    for table in tables:
        check_no_leak(table.cases)
    check_no_leak(keep_apart([c for table in tables for c in table.cases])[0])


def test_lesions_of_two_sets_are_left_out_whole() -> None:
    def case(photo: str, lesion: str, clinical: str | None = None) -> Case:
        other = None if clinical is None else Path(f"{clinical}.jpg")
        return Case(Path(f"{photo}.jpg"), photo, "a", lesion, clinical_image=other, split="test")

    cases = [case("p1", "l1"), case("p2", "l1"), case("p3", "l3"), case("p4", "l4", "c4"), case("p5", "l5")]
    pairs = [("a/p1", "b/x"), ("b/y", "a/c4"), ("b/p5", "c/p3")]
    assert [c.image_id for c in without_shared(cases, pairs)] == ["p3", "p5"]
    assert without_shared(cases, []) == cases
