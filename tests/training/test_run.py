"""Training on made-up photos: a few steps of each stage, resumed after a kill, and what must not be read."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from skinclip.cli.calibrate import summary
from skinclip.core.assessment import Assessment, Context
from skinclip.core.config import LossConfig, Stage0Config, Stage1Config, Stage2Config, TrainConfig, save_yaml
from skinclip.data import photos
from skinclip.data.cases import Case, DataError
from skinclip.imaging.examples import draw_with_mask
from skinclip.imaging.photo import from_array, load_photo
from skinclip.model.criteria import STATE_COUNTS
from skinclip.model.errors import CheckpointError
from skinclip.model.evidence import CLEAR
from skinclip.model.plain import PlainClassifier, load_plain
from skinclip.pipeline.assessor import Assessor
from skinclip.training import calibrate, epochs, readable
from skinclip.training import joint as stage2
from skinclip.training import run as train_module
from skinclip.training.answering import teacher_forced_scores
from skinclip.training.calibrate import NEVER, RATE, presence_thresholds
from skinclip.training.checkpoints import load_checkpoint
from skinclip.training.losses import MISSING
from skinclip.training.photo_sets import gather, is_close_up, scarce, with_clinical
from skinclip.training.recalibrate import recalibrate
from skinclip.training.run import claim, train, train_baseline

KINDS = {"nevus": "nv", "melanoma": "mel", "keratosis": "bkl", "angioma": "vasc", "dermatofibroma": "df"}
RECIPE = TrainConfig(
    photo_size=72,
    stage0=Stage0Config(phases=((48, 1), (64, 1)), batch_size=8, held_out=0.3),
    stage1=Stage1Config(steps=3, batch_size=4),
    stage2=Stage2Config(steps=3, batch_size=6, second_views=2, rationale_targets=2, log_every=1, save_every=1),
)


def made_up_data(root: Path, side: int = 96) -> None:
    folder = root / "drawn"
    (folder / "images").mkdir(parents=True)
    rows = ["image,mask,diagnosis,age,sex,localization,lesion_id,split,confirmation,pixels,streaks,blue_whitish_veil"]
    number = 0
    for split, count in (("train", 6), ("valid", 2), ("calib", 3), ("test", 1)):
        for kind, code in KINDS.items():
            for _ in range(count):
                photo, mask = draw_with_mask(kind, number, (side, side))
                cv2.imwrite(str(folder / f"images/{number}.png"), photo)
                cv2.imwrite(str(folder / f"images/{number}_mask.png"), mask.astype(np.uint8) * 255)
                veil = "present" if kind == "melanoma" else "absent"
                rows.append(
                    f"images/{number}.png,images/{number}_mask.png,{code},50,male,back,L{number},{split},histo,224,absent,{veil}"
                )
                number += 1
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    shift = root / "elsewhere"
    shift.mkdir()
    cv2.imwrite(str(shift / "a.png"), photo)
    (shift / "manifest.csv").write_text("image,diagnosis,split\na.png,nv,shift\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_config) -> tuple[Path, Path, Path, Assessor]:
    root = tmp_path_factory.mktemp("train")
    made_up_data(root / "data")
    work, out = root / "work", root / "out"
    assessor = train(tiny_config, RECIPE, root / "data", work, out)
    return root / "data", work, out, assessor


def test_the_checkpoint_assesses_a_photo(trained, tiny_config) -> None:
    _, _, out, live = trained
    assessor = Assessor.load("mini", out)
    photo = from_array(draw_with_mask("melanoma", 99, (200, 160))[0])
    first, again = (
        assessor.assess(photo, Context(50, "male", "back")),
        assessor.assess(photo, Context(50, "male", "back")),
    )
    assert first == again
    assert Assessment.from_json(first.to_json()) == first
    assert abs(sum(d.probability for d in first.diagnosis) - 1) < 1e-6
    loaded, before = assessor.predict([photo], [Context()])[0], live.predict([photo], [Context()])[0]
    assert loaded.probabilities == pytest.approx(before.probabilities, abs=1e-6)  # the loaded one is folded


def test_frozen_tower_is_unchanged_by_stage_2(trained) -> None:
    _, work, _, assessor = trained
    state = load_checkpoint(work / "stage0.pt")["average"]
    for name, value in assessor.model.perception.tower.weights().items():
        expected = state[f"perception.tower.clip.{name}"]
        rounded = expected.half().float() if expected.ndim > 1 else expected
        assert torch.equal(value, rounded), name


def test_a_checkpoint_is_calibrated_anew_and_its_weights_stay(trained, tmp_path) -> None:
    data, _, out, live = trained
    folder = tmp_path / "checkpoint"
    shutil.copytree(out, folder)
    before = (folder / "heads.safetensors").read_bytes()
    again = recalibrate(folder, Assessor.load("mini", folder), data)
    assert (folder / "heads.safetensors").read_bytes() == before
    ours, theirs = live.calibrator, Assessor.load("mini", folder).calibrator
    assert theirs.to_arrays().keys() == again.calibrator.to_arrays().keys() == ours.to_arrays().keys()
    assert theirs.calibration.temperature == pytest.approx(ours.calibration.temperature, rel=0.3)
    assert theirs.natural_prior == pytest.approx(ours.natural_prior) and theirs.prevalence == "drawn"
    assert np.array_equal(theirs.photos.labels, ours.photos.labels)
    lines = summary(theirs)
    assert lines[0] == "probabilities at the prevalence drawn" and any("drawn dermoscopy" in line for line in lines)


def test_no_stage_reads_a_test_split_or_a_shift_set(
    trained, monkeypatch: pytest.MonkeyPatch, tmp_path, tiny_config
) -> None:
    data, _, _, _ = trained
    read: list[str] = []

    def spy(original):  # type: ignore[no-untyped-def]
        def reader(path, *args):  # type: ignore[no-untyped-def]
            read.append(str(path))
            return original(path, *args)

        return reader

    for module in (photos, readable):
        monkeypatch.setattr(module, "read_mask", spy(photos.read_mask))
    for module in (photos, calibrate, readable):
        monkeypatch.setattr(module, "load_photo", spy(load_photo))
    train(tiny_config, RECIPE, data, tmp_path / "work", tmp_path / "out")
    test_rows = [line.split(",") for line in (data / "drawn/manifest.csv").read_text().splitlines() if ",test," in line]
    forbidden = {Path(cell).name for row in test_rows for cell in row[:2]} | {"a.png"}
    assert len(forbidden) == 11 and read
    assert not forbidden & {Path(p).name for p in read}


def test_training_is_resumed_where_it_was_killed(
    trained, monkeypatch: pytest.MonkeyPatch, tmp_path, tiny_config
) -> None:
    """Killed after an epoch of stage 0, between stages 1 and 2, and within stage 2: all is as in one run."""
    data, work, _, whole = trained

    class Killed(Exception):
        pass

    def dying(does, after):  # type: ignore[no-untyped-def]
        calls = iter(range(100))

        def wrapped(*args):  # type: ignore[no-untyped-def]
            if next(calls) == after:
                raise Killed
            return does(*args)

        return wrapped

    moments = ((epochs, "save_checkpoint", 1), (train_module, "train_stage2", 0), (stage2, "save_checkpoint", 2))
    for module, name, after in moments:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, dying(getattr(module, name), after))
            with pytest.raises(Killed):
                train(tiny_config, RECIPE, data, tmp_path / "work", tmp_path / "out")
    resumed = train(tiny_config, RECIPE, data, tmp_path / "work", tmp_path / "out")
    assert (tmp_path / "work/log.csv").read_text() == (work / "log.csv").read_text()
    for (name, a), b in zip(whole.model.heads().items(), resumed.model.heads().values(), strict=True):
        assert torch.equal(a, b), name


def test_nothing_to_learn_from_is_an_error(tmp_path, tiny_config) -> None:
    with pytest.raises(DataError, match="no such folder"):
        gather(tmp_path / "nowhere")
    made_up_data(tmp_path / "data")
    manifest = tmp_path / "data/drawn/manifest.csv"
    manifest.write_text(manifest.read_text().replace(",train,", ",test,"))
    with pytest.raises(DataError, match="no photo to learn from"):
        gather(tmp_path / "data")


@pytest.mark.parametrize("changed", [{"evidence": {"kind": "pyramid"}}, {"perception": {"members": 2}}])
def test_what_other_commands_train_is_refused_before_anything_is_trained(tmp_path, tiny_config, changed) -> None:
    parts = {name: dataclasses.replace(getattr(tiny_config, name), **values) for name, values in changed.items()}
    save_yaml(dataclasses.replace(tiny_config, **parts), tmp_path / "config.yaml")
    with pytest.raises(DataError, match=r"config\.yaml: ensembles and evidence .* by eval_study\.gpu\.train"):
        train_module.model_of(None, tmp_path / "config.yaml")


def test_stages_of_another_recipe_are_not_resumed(tmp_path) -> None:
    claim(tmp_path / "work", RECIPE)
    claim(tmp_path / "work", RECIPE)  # the same again: a resumption
    with pytest.raises(DataError, match="another recipe; give another --work"):
        claim(tmp_path / "work", dataclasses.replace(RECIPE, seed=5))


def told(n: int = 2000, shares: tuple[float, ...] = (0.6, 0.3, 0.1)) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of presence [n, Q] and labels of criteria that as many photos have."""
    rng = np.random.default_rng(0)
    present = np.stack([rng.beta(s, 1 - s, n) for s in shares], 1)
    return present, (rng.uniform(size=present.shape) < present).astype(int)


def test_thresholds_reach_the_recall_with_the_fewest_false_citations() -> None:
    present, labels = told()

    def outcome(thresholds: np.ndarray) -> tuple[float, float]:
        said = present >= thresholds
        return (said & (labels == 0)).sum() / said.sum(), np.mean([said[labels[:, q] > 0, q].mean() for q in range(3)])

    found = presence_thresholds(present, labels, recall=0.6)
    rate, recall = outcome(found)
    assert recall == pytest.approx(0.6, abs=0.01)
    assert found[0] > found[1] > found[2]  # one of a rare criterion is a larger part of its recall
    alike = min((outcome(np.full(3, t)) for t in np.linspace(0.01, 0.99, 99)), key=lambda o: abs(o[1] - recall))
    assert rate < alike[0] + 0.005 and rate < RATE
    more = presence_thresholds(present, labels, recall=0.8)
    assert outcome(more)[1] == pytest.approx(0.8, abs=0.01) and (more < found).all()


def test_a_criterion_that_cannot_be_told_is_never_cited() -> None:
    present, labels = told()
    rng = np.random.default_rng(1)
    labels[:, 1] = rng.uniform(size=len(labels)) < 0.2  # whatever its probability is
    labels[:, 2] = 0
    found = presence_thresholds(present, labels)
    assert found[0] < 1 and found[1] == found[2] == NEVER
    labels[:, 0] = MISSING
    assert (presence_thresholds(present, labels) == NEVER).all()


def test_photos_without_a_label_do_not_move_thresholds() -> None:
    present, labels = told()
    more, none = np.concatenate([present, 1 - present]), np.full_like(labels, MISSING)
    assert presence_thresholds(more, np.concatenate([labels, none])) == pytest.approx(
        presence_thresholds(present, labels)
    )


def test_recipes_say_what_they_change() -> None:
    assert dataclasses.replace(RECIPE, seed=3).seed == 3


def test_close_ups_keep_the_diagnosis_and_nothing_that_dermoscopy_labels(tmp_path) -> None:
    case = Case(tmp_path / "d.jpg", "1", "derm7pt", "L1", diagnosis="mel", mask=tmp_path / "m.png")
    case = dataclasses.replace(case, criteria={"streaks": "absent"}, clinical_image=tmp_path / "c.jpg")
    both = with_clinical([case])
    assert both[0] is case and both[1].image == tmp_path / "c.jpg" and both[1].image_id != case.image_id
    assert [is_close_up(c) for c in both] == [False, True]
    assert (both[1].diagnosis, both[1].lesion_id, both[1].criteria, both[1].mask) == ("mel", "L1", {}, None)


def test_a_smaller_share_is_part_of_a_larger_one(tmp_path) -> None:
    cases = [Case(tmp_path / f"{i}.jpg", str(i), "drawn", f"L{i // 2}") for i in range(400)]
    small, large = scarce(cases, 0.12, 0), scarce(cases, 0.5, 0)
    assert 20 < len(small) < 80 and 150 < len(large) < 250 and scarce(cases, 1.0, 0) == cases
    assert {c.image_id for c in small} < {c.image_id for c in large}
    assert all(len([c for c in small if c.lesion_id == lesion]) == 2 for lesion in {c.lesion_id for c in small})


def test_plain_classifier_trains_resumes_and_loads_as_it_was(trained, tmp_path, monkeypatch) -> None:
    root, *_ = trained
    short = dataclasses.replace(RECIPE, stage0=dataclasses.replace(RECIPE.stage0, phases=((64, 1),)))
    live = train_baseline(short, root, tmp_path / "work", tmp_path / "plain")
    photos = torch.rand(3, 3, 64, 64)
    loaded = load_plain(tmp_path / "plain")
    with torch.inference_mode():
        # the trunk's weights are stored in half precision
        assert torch.allclose(loaded(photos), live(photos), atol=0.05)
        p = loaded.probabilities(loaded(photos))
    assert p.shape == (3, 9) and np.allclose(p.sum(1), 1)
    monkeypatch.setattr("skinclip.training.plain.plain_step", lambda *_: pytest.fail("a finished run trained again"))
    again = train_baseline(short, root, tmp_path / "work", tmp_path / "again")
    assert torch.equal(again.head[1].weight, live.head[1].weight)


def test_plain_classifier_says_what_is_missing(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="train it with"):
        load_plain(tmp_path)
    with pytest.raises(ValueError, match="not calibrated"):
        PlainClassifier().save(tmp_path)


def test_teacher_forcing_replaces_only_what_is_labelled() -> None:
    scores = torch.linspace(-1, 1, sum(STATE_COUNTS)).repeat(2, 1)
    labels = torch.full((2, len(STATE_COUNTS)), MISSING)
    labels[0, 0], labels[0, 1] = 2, 0  # atypical network; streaks absent; the second photo has no label
    told = teacher_forced_scores(scores, labels, torch.tensor([True, True]))
    a, b = STATE_COUNTS[:2]
    assert told[0, : a + b].tolist() == [-CLEAR, CLEAR, *[-CLEAR] * b]
    assert torch.equal(told[0, a + b :], scores[0, a + b :]) and torch.equal(told[1], scores[1])
    assert torch.equal(teacher_forced_scores(scores, labels, torch.tensor([False, True])), scores)


def test_prior_of_the_logits_undoes_balancing() -> None:
    labels, even = torch.tensor([0, 0, 0, 1, -1]), torch.full((5,), 0.2)
    none = stage2.balanced_prior(labels, even, LossConfig(beta=0.0, tau=0.0))
    assert none[0] / none[1] == pytest.approx(3)
    # logit adjustment takes out the shares of the training photos: drawn as they come, the logits' prior is even
    adjusted = stage2.balanced_prior(labels, even, LossConfig(beta=0.0, tau=1.0))
    assert adjusted[0] / adjusted[1] == pytest.approx(1, rel=1e-5)
    weighted = stage2.balanced_prior(labels, even, LossConfig(beta=0.5, tau=0.0))
    # effective numbers 1.75 and 1
    assert weighted[0] / weighted[1] == pytest.approx(3 / 1.75, rel=1e-5)
    assert adjusted.sum() == pytest.approx(1)
