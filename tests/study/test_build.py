"""Cases are drawn as the protocol counts them, frozen without a trace of their source, and checked when opened."""

from __future__ import annotations

import dataclasses
import json
import stat
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from skinclip.core.assessment import Assessment, ModelInfo
from skinclip.data.cases import Case
from skinclip.data.photo_index import build_index
from skinclip.imaging.overlay import hex_colour
from skinclip.imaging.photo import LesionImage, PhotoError, from_array
from skinclip.study import build as study_build
from skinclip.study.build import Candidate
from skinclip.study.errors import KeyFileError, ProtocolError, StudyRequestError
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session import bundle, keys
from skinclip.study.session.bundle import StudyBundle
from skinclip.study.session.session_service import Study
from skinclip.study.session.view_models import Fragment
from skinclip.study.store.codes import read_key
from tests.study import tiny


@pytest.fixture(scope="module")
def plan() -> Protocol:
    return Protocol.from_dict(tiny.protocol())


@pytest.fixture(scope="module")
def assessment(built_study: Path) -> Assessment:
    """One of a nevus, with a rationale."""
    found = [Assessment.from_json(p.read_text()) for p in sorted(built_study.glob("cases/*/assessment.json"))]
    return next(a for a in found if a.rationale and a.diagnosis[0].code == "nv")


def candidates(assessment: Assessment, **counts: int) -> list[Candidate]:
    made = []
    for stratum, n in counts.items():
        for i in range(n):
            name = f"{stratum}{i}"
            made.append(Candidate(Case(Path(name), name, "photos", name, "nv"), stratum, assessment))
    return made


def test_each_stratum_is_drawn_as_often_as_the_protocol_says(plan: Protocol, assessment: Assessment) -> None:
    drawn = study_build.draw(plan, candidates(assessment, right=30, wrong=10, ood=3))
    assert [c.stratum for c in drawn.cases.values()].count("right") == 3
    assert [c.stratum for c in drawn.cases.values()].count("wrong") == 4
    assert [c.stratum for c in drawn.cases.values()].count("ood") == 1
    assert list(drawn.cases) == [f"C{i:03d}" for i in range(1, 9)]
    assert list(drawn.practice) == ["P01", "P02"]


def test_practice_cases_are_never_cases(plan: Protocol, assessment: Assessment) -> None:
    drawn = study_build.draw(plan, candidates(assessment, right=5, wrong=4, ood=1))
    used = [c.case.image_id for c in (*drawn.cases.values(), *drawn.practice.values())]
    assert len(set(used)) == len(used) == 10


def test_weights_bring_the_strata_back_to_their_shares(plan: Protocol, assessment: Assessment) -> None:
    weights = study_build.draw(plan, candidates(assessment, right=90, wrong=10, ood=1)).weights
    assert weights["right"] == pytest.approx(0.9 / (3 / 7))
    assert weights["wrong"] == pytest.approx(0.1 / (4 / 7))
    assert weights["ood"] == 1.0


def test_the_order_of_the_photos_does_not_matter_and_the_seed_does(plan: Protocol, assessment: Assessment) -> None:
    pool = candidates(assessment, right=20, wrong=20, ood=5)

    def names(protocol: Protocol, pool: list[Candidate]) -> list[str]:
        return [c.case.image_id for c in study_build.draw(protocol, pool).cases.values()]

    assert names(plan, pool) == names(plan, pool[::-1])
    assert names(plan, pool) != names(dataclasses.replace(plan, seed=8), pool)


def test_ids_tell_nothing_of_the_stratum(plan: Protocol, assessment: Assessment) -> None:
    pool, first = candidates(assessment, right=20, wrong=20, ood=5), []
    for seed in range(40):
        drawn = study_build.draw(dataclasses.replace(plan, seed=seed), pool)
        first.append(drawn.cases["C001"].stratum)
    assert {"right", "wrong"} <= set(first)


def test_cases_are_even_in_what_the_protocol_names(assessment: Assessment) -> None:
    balanced = Protocol.from_dict(tiny.protocol(cases={**tiny.protocol()["cases"], "balance": ["diagnosis", "kind"]}))
    pool = candidates(assessment, right=40, wrong=40, ood=3)
    of = {"right": ("nv", "bkl", "df"), "wrong": ("mel", "bcc", "scc", "vasc"), "ood": ("nv",)}
    pool = [
        dataclasses.replace(
            one, case=dataclasses.replace(one.case, diagnosis=of[one.stratum][min(i % 10, len(of[one.stratum]) - 1)])
        )
        for i, one in enumerate(pool)
    ]
    for seed in range(5):
        drawn = study_build.draw(dataclasses.replace(balanced, seed=seed), pool).cases.values()
        assert sorted(str(one.case.diagnosis) for one in drawn if one.stratum == "wrong") == sorted(of["wrong"])
        assert sorted(str(one.case.diagnosis) for one in drawn if one.stratum == "right") == sorted(of["right"])
    assert balanced.plan_sha256 != Protocol.from_dict(tiny.protocol()).plan_sha256
    with pytest.raises(ProtocolError, match="cases.balance"):
        Protocol.from_dict(tiny.protocol(cases={**tiny.protocol()["cases"], "balance": ["weather"]}))


@pytest.mark.parametrize(
    ("tone", "fitzpatrick", "group"), [(0, None, "dark"), (5, 1, "light"), (None, 6, "dark"), (None, 3, "medium")]
)
def test_skin_tones_of_both_scales_fall_into_three_groups(tone: int, fitzpatrick: int, group: str) -> None:
    case = Case(Path("x"), "x", "photos", "x", skin_tone=tone, fitzpatrick=fitzpatrick)
    assert study_build.BALANCED["skin_tone"](case) == group
    assert study_build.BALANCED["skin_tone"](Case(Path("x"), "x", "photos", "x")) == "unknown"


def test_a_photo_that_the_model_was_trained_on_is_refused_and_another_drawn(
    plan: Protocol, assessment: Assessment, tmp_path: Path
) -> None:
    rng, pool = np.random.default_rng(0), []
    for one in candidates(assessment, right=9, wrong=9, ood=2):
        path = tmp_path / f"{one.case.image_id}.png"
        Image.fromarray(cv2.resize(rng.integers(0, 255, (24, 32, 3), np.uint8), (320, 240))).save(path)
        pool.append(dataclasses.replace(one, case=dataclasses.replace(one.case, image=path)))
    first = study_build.draw(plan, pool)
    known = [first.cases["C001"].case, first.practice["P01"].case]
    drawn, refused = study_build.draw_unseen(plan, pool, [], build_index(known))
    assert {line.partition(":")[0] for line in refused} == {case.image.name for case in known}
    assert all("was trained on this lesion (photos/" in line for line in refused)
    used = {one.case.image for one in (*drawn.cases.values(), *drawn.practice.values())}
    assert len(used) == 10 and not used & {case.image for case in known}
    assert study_build.draw_unseen(plan, pool, [], None) == (first, ())
    with pytest.raises(StudyRequestError, match="was trained on this lesion"):
        study_build.draw_unseen(plan, pool, [], build_index([one.case for one in pool]))


def test_one_photo_of_a_lesion_is_kept(assessment: Assessment) -> None:
    pool = candidates(assessment, right=4)
    twins = [dataclasses.replace(c, case=dataclasses.replace(c.case, lesion_id="same")) for c in pool]
    assert len(study_build.one_a_lesion(0, twins)) == 1


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"right": 9, "wrong": 3, "ood": 1}, "3 on which the AI is wrong, 4 needed .or lower cases.wrong_share"),
        ({"right": 2, "wrong": 9, "ood": 1}, "2 on which the AI is right, 3 needed"),
        ({"right": 9, "wrong": 9, "ood": 0}, "0 marked as out of distribution .*cases.ood_share"),
        ({"right": 3, "wrong": 5, "ood": 1}, "1 left for practice, 2 needed"),
        ({"right": 3, "wrong": 5, "ood": 1}, "1 photos could not be used: a.jpg: the model abstains"),
    ],
)
def test_too_few_photos_are_told_with_the_remedy(
    plan: Protocol, assessment: Assessment, counts: dict[str, int], words: str
) -> None:
    with pytest.raises(StudyRequestError, match=words):
        study_build.draw(plan, candidates(assessment, **counts), left_out=("a.jpg: the model abstains on it",))


def test_abstentions_are_dropped_unless_out_of_distribution(assessment: Assessment) -> None:
    silent = dataclasses.replace(assessment, abstained=True)
    case = Case(Path("a"), "a", "photos", "a", "nv")
    with pytest.raises(PhotoError, match="abstains"):
        study_build.candidate(case, silent)
    assert study_build.candidate(dataclasses.replace(case, group="OOD", diagnosis=None), silent).stratum == "ood"
    with pytest.raises(PhotoError, match="not known"):
        study_build.candidate(dataclasses.replace(case, diagnosis=None), assessment)


def test_large_photos_are_bounded() -> None:
    image = from_array(np.zeros((1500, 3000, 3), np.uint8))
    assert study_build.bounded(image).pixels.shape == (512, 1024, 3)


def test_references_have_the_numbers_and_colours_of_the_picture(assessment: Assessment) -> None:
    text = dataclasses.replace(assessment, rationale="It shows [r2] dots and [r1] veil.")
    assert study_build.fragments(text) == (
        Fragment("It shows "),
        Fragment("", 2, hex_colour(1)),
        Fragment(" dots and "),
        Fragment("", 1, hex_colour(0)),
        Fragment(" veil."),
    )


# --- what is on disk ------------------------------------------------------------------------------------------------


def test_every_case_has_pictures_of_one_size(built_study: Path) -> None:
    for folder in (built_study / "cases").iterdir():
        opened = [Image.open(BytesIO(path.read_bytes())) for path in folder.glob("*.jpg")]
        assert {(photo.format, photo.size) for photo in opened} == {("JPEG", (640, 480))}
        assert len(list(folder.glob("*.jpg"))) == 3


def test_photos_have_lost_metadata_and_file_name(built_study: Path) -> None:
    shown = [path for path in built_study.rglob("*") if path.is_file() and path.name != "truth.sealed"]
    assert len(shown) == 10 * 5 + 2
    for path in shown:
        data = path.read_bytes()
        assert tiny.SECRET_NAME.encode() not in data
        assert tiny.SECRET_EXIF.encode() not in data
        if path.suffix == ".jpg":
            photo = Image.open(BytesIO(data))
            assert not [name for name in photo.info if not name.startswith("jfif")]
            assert not photo.getexif()


def test_truth_is_apart_and_private(built_study: Path) -> None:
    assert stat.S_IMODE((built_study / "truth.sealed").stat().st_mode) == 0o600
    assert not (built_study / "truth.json").exists()
    truths = StudyBundle.open(built_study).truths
    assert {t.stratum for t in truths.values()} == {"right", "wrong", "ood"}
    for truth in truths.values():
        assert truth.stratum == "ood" or truth.stratum == ("right" if truth.truth == truth.ai_leading else "wrong")
    record = (built_study / "frozen.json").read_text()
    assert not any(word in record for word in ("wrong_", "stratum", "diagnosis", tiny.SECRET_NAME))


def test_nothing_in_the_folder_opens_the_truth(
    built_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((built_study / "frozen.json").read_text())
    key = keys.key_path(built_study, record)
    assert key.exists() and built_study not in key.parents
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    words = [code.encode() for code in ('"mel"', '"wrong"', "stratum", tiny.SECRET_NAME)]
    assert not any(word in (built_study / "truth.sealed").read_bytes() for word in words)
    monkeypatch.setenv("SKINCLIP_STUDY_KEYS", str(tmp_path / "none"))
    with pytest.raises(KeyFileError, match="SKINCLIP_STUDY_KEY=FILE"):
        _ = StudyBundle.open(built_study).truths
    read_key(tmp_path / "another", create=True)
    monkeypatch.setenv("SKINCLIP_STUDY_KEY", str(tmp_path / "another"))
    with pytest.raises(KeyFileError, match="the key of another study"):
        Study.open(built_study)
    monkeypatch.setenv("SKINCLIP_STUDY_KEY", str(key))
    assert StudyBundle.open(built_study).truths


def test_the_record_names_model_prompts_and_files(built_study: Path) -> None:
    record = json.loads((built_study / "frozen.json").read_text())
    assert len(record["model"]["weights_sha256"]) == 64
    assert record["prompts_sha256"] == study_build.prompts_sha256()
    assert len(record["files"]) == 10 * 5 + 1


def test_arms_show_their_own_and_the_same_differential(built_study: Path) -> None:
    opened = StudyBundle.open(built_study)
    case = next(c for c in opened.cases if opened.aid(c, "regions").text[0].text != bundle.NO_RATIONALE)
    aids = {arm: opened.aid(case, arm) for arm in opened.protocol.arms}
    assert len({aid.differential for aid in aids.values()}) == 1
    assert sum(p for _, p in aids["none"].differential) == pytest.approx(1)
    assert aids["none"].picture is None
    assert not aids["none"].text
    assert not aids["grad_cam"].text
    assert aids["grad_cam"].picture == aids["grad_cam_text"].picture != aids["regions"].picture
    assert [f.ref for f in aids["grad_cam_text"].text] == [None]
    assert any(f.ref == 1 and f.colour == hex_colour(0) for f in aids["regions"].text)
    alone = aids["grad_cam_text"].text[0].text
    assert "[" not in alone
    assert "  " not in alone
    assert alone.split() == "".join(f.text for f in aids["regions"].text).split()


def test_where_the_aid_gave_no_rationale_it_says_so(built_study: Path) -> None:
    opened = StudyBundle.open(built_study)
    (case,) = (c for c, stratum in opened.strata.items() if stratum == "ood")
    assert opened.aid(case, "grad_cam_text").text == (Fragment(bundle.NO_RATIONALE),)
    assert opened.aid(case, "regions").text == (Fragment(bundle.NO_RATIONALE),)
    assert not opened.aid(case, "grad_cam").text


@pytest.mark.parametrize("name", ["cases/C003/photo.jpg", "cases/C003/aid.json", "truth.sealed"])
def test_a_frozen_file_that_changed_is_an_error(study_folder: Path, name: str) -> None:
    (study_folder / name).write_bytes((study_folder / name).read_bytes() + b" ")
    with pytest.raises(StudyRequestError, match="was changed after the study was built"):
        Study.open(study_folder)


def test_a_frozen_file_that_is_gone_is_an_error(study_folder: Path) -> None:
    (study_folder / "cases/C001/regions.jpg").unlink()
    with pytest.raises(StudyRequestError, match="cannot be read"):
        Study.open(study_folder)


def test_other_cases_than_drawn_are_an_error(study_folder: Path) -> None:
    tiny.write_protocol(study_folder / "protocol.yaml", seed=8)
    with pytest.raises(StudyRequestError, match="seed differ"):
        Study.open(study_folder)


def test_a_folder_without_a_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyRequestError, match="study build"):
        Study.open(tmp_path)


def test_build_refuses_a_study_with_readers_and_foreign_folders(study_folder: Path, tmp_path: Path) -> None:
    study_build.check_free(study_folder)
    with Study.open(study_folder) as study:
        study.enrol(1, "Here")
    with pytest.raises(StudyRequestError, match="has readers"):
        study_build.check_free(study_folder)
    (tmp_path / "other").mkdir()
    study_build.check_free(tmp_path / "other")
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(StudyRequestError, match="is no study"):
        study_build.check_free(tmp_path / "other")


def test_a_failed_build_leaves_nothing_behind(
    study_folder: Path, tmp_path: Path, tiny_photos: Path, monkeypatch: pytest.MonkeyPatch, assessment: Assessment
) -> None:
    assessor = SimpleNamespace(assess=lambda image: assessment, model_info=assessment.model)

    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(study_build, "write", fails)
    plan = tiny.write_protocol(tmp_path / "p.yaml")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(OSError, match="disk full"):
        study_build.build(plan, tiny_photos, assessor, out=study_folder)  # type: ignore[arg-type]
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != ".study-predictions")
    assert left == before
    Study.open(study_folder).close()


def test_a_build_goes_on_with_the_answers_that_an_earlier_one_kept(
    tmp_path: Path, tiny_photos: Path, assessment: Assessment
) -> None:
    """Refused for too few errors at first; then only the photos that were not assessed yet reach the model."""
    assessed: list[str] = []

    def assess(image: LesionImage) -> Assessment:
        assessed.append(image.sha256)
        return assessment

    assessor = SimpleNamespace(assess=assess, model_info=ModelInfo("mini", "0", "a" * 64))
    plan = tiny.write_protocol(
        tmp_path / "p.yaml", cases={**tiny.protocol()["cases"], "wrong_share": 0.875, "ood_share": 0}
    )
    with pytest.raises(StudyRequestError, match="build again: the AI's answers are kept"):
        study_build.build(plan, tiny_photos, assessor, out=tmp_path / "study")  # type: ignore[arg-type]
    first = len(assessed)
    assert first == len(list((tmp_path / ".study-predictions").glob("*.json"))) > 0
    next((tmp_path / ".study-predictions").glob("*.json")).write_text("{half")
    with pytest.raises(StudyRequestError):
        study_build.build(plan, tiny_photos, assessor, out=tmp_path / "study")  # type: ignore[arg-type]
    assert len(assessed) == first + 1
