"""Training over towers that are trained already and take a look each: what stage 2 learns, keeps and leaves alone."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from eval_study.gpu import assemble, pack
from skinclip.calibration.outputs import DERMOSCOPY, PAIR
from skinclip.core.assessment import Context
from skinclip.core.config import (
    LossConfig,
    ModelConfig,
    Stage0Config,
    Stage1Config,
    Stage2Config,
    TrainConfig,
    load_yaml,
    save_yaml,
)
from skinclip.data.cases import Case, DataError
from skinclip.explain.criterion import CriterionSubject
from skinclip.explain.methods import METHODS
from skinclip.imaging.photo import load_photo
from skinclip.model.checkpoint import load_model
from skinclip.model.perception import Perception
from skinclip.model.pyramid import PyramidEvidenceFinder
from skinclip.model.skinclip_vl import SkinClipVL, new_model
from skinclip.pipeline.assessor import Assessor
from skinclip.training import calibrate
from skinclip.training import views as kept
from skinclip.training.checkpoints import seed_everything
from skinclip.training.distributed import DistributedContext
from skinclip.training.joint import Stage2, freeze_earlier, views_for
from skinclip.training.losses import MISSING
from skinclip.training.photo_sets import PhotoSet, gather, held_out_keys, photo_set, unseen_keys, with_clinical
from skinclip.training.run import RECIPES, model_of, read_tower, recipe_of, train
from skinclip.training.sampling import source_priors
from skinclip.training.views import parts_of, see
from tests.eval_study.gpu.test_run import MODEL, members

RECIPE = TrainConfig(
    photo_size=72,
    stage0=Stage0Config(held_out=0.0),
    stage1=Stage1Config(steps=2, batch_size=4),
    stage2=Stage2Config(
        steps=3, batch_size=8, second_views=4, rationale_targets=3, paraphrases=8, cached_views=2, pair_share=1.0
    ),
    loss=LossConfig(by_source=True, w_cal=0.0, w_criteria=0.0, w_outside=0.0),
)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig) -> Path:
    """Two untrained towers put together, with a tiny reasoner."""
    folder = tmp_path_factory.mktemp("tower")
    assemble.assemble(members(folder, 2), folder, MODEL, 64)
    config = load_yaml(ModelConfig, folder / "config.yaml")
    save_yaml(dataclasses.replace(config, reasoner=tiny_config.reasoner), folder / "config.yaml")
    return folder


@pytest.fixture(scope="module")
def model(tower: Path, tmp_path_factory: pytest.TempPathFactory) -> SkinClipVL:
    _, config = model_of(None, None, tower)
    weights, evidence = read_tower(tower)
    perception = Perception(config.perception)
    perception.tower.load_weights(weights)
    made = new_model(config, tmp_path_factory.mktemp("made"), perception)
    made.evidence.load_state_dict(evidence)
    return made


@pytest.fixture(scope="module")
def pairs(made_up: Path) -> PhotoSet:
    """Eight lesions of which each has a second photo."""
    cases = gather(made_up)["train"][:9]
    first = [dataclasses.replace(c, clinical_image=cases[i + 1].image) for i, c in enumerate(cases[:8])]
    return photo_set(with_clinical(first), RECIPE.photo_size, None)


def test_a_training_ends_in_a_checkpoint_that_assesses(tower: Path, made_up: Path, tmp_path: Path) -> None:
    _, config = model_of(None, None, tower)
    live = train(config, RECIPE, made_up, tmp_path / "work", tmp_path / "out", tower=tower)
    assert live is not None
    again, photo = Assessor.load("mini", tmp_path / "out"), load_photo(gather(made_up)["valid"][0].image)
    one, two = (a.predict([photo], [Context()])[0] for a in (live, again))
    assert one.probabilities.tolist() == pytest.approx(two.probabilities.tolist(), abs=1e-5)  # `two` is folded
    saved = load_model(tmp_path / "out")
    weights, evidence = read_tower(tower)
    for name, value in saved.perception.tower.weights().items():
        assert torch.equal(value, weights[name]), f"{name} of the tower was changed"
    learnt = {k for k, v in saved.evidence.state_dict().items() if not torch.equal(v, evidence[k])}
    assert learnt == {"to_pooled.weight", "to_pooled.bias"}
    (heat,) = METHODS["grad_cam"].maps(CriterionSubject.of(again.subject(photo, Context()), "streaks"))[:1]
    assert np.isfinite(heat.heat).all()  # of a criterion, which the last look alone shows
    both = again.assess(photo, clinical=load_photo(gather(made_up)["valid"][1].image))
    assert both.photos[0].sha256 == both.photo.sha256 and len(both.photos) == 2


def test_a_tower_that_does_not_fit_is_refused_in_words(tower: Path, made_up: Path, tmp_path: Path) -> None:
    _, config = model_of(None, None, tower)
    with pytest.raises(DataError, match="give --tower DIR"):
        model_of(None, tower / "config.yaml")
    with pytest.raises(DataError, match="holds no weights of a tower"):
        read_tower(tmp_path)
    wider = dataclasses.replace(config, evidence=dataclasses.replace(config.evidence, fine_width=32))
    with pytest.raises(DataError, match="does not fit the model"):
        train(wider, RECIPE, made_up, tmp_path / "work", tmp_path / "out", tower=tower)


def test_a_step_on_kept_views_is_one_on_the_views_themselves(
    model: SkinClipVL, pairs: PhotoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_earlier(model)  # as stage 2 does before it keeps views
    parts = parts_of(see(model, pairs.batch(torch.tensor([0]))))
    monkeypatch.setattr(kept, "_KEPT_AS", dict.fromkeys(parts, torch.float32))  # half would be rounded
    views, store = views_for(model, RECIPE, pairs, tmp_path, "", DistributedContext())
    losses, gradients = [], []
    for found in (store, None):
        model.eval()  # without dropout, which would leave out other places
        stage = Stage2(model, RECIPE, pairs, seed_everything(3), views=(views, found))
        freeze_earlier(model)
        model.zero_grad()
        losses.append({name: value.item() for name, value in stage.step().items()})
        gradients.append({n for n, p in model.evidence.named_parameters() if p.grad is not None})
    for name, value in losses[1].items():
        assert losses[0][name] == pytest.approx(value, abs=1e-4, rel=1e-4), name
    assert gradients[0] == gradients[1] == {"to_pooled.weight", "to_pooled.bias"}


def test_views_outlive_what_stage_2_learns(model: SkinClipVL, pairs: PhotoSet, tmp_path: Path) -> None:
    """A trained checkpoint finds the views that its own training kept."""
    trained = copy.deepcopy(model)
    assert isinstance(trained.evidence, PyramidEvidenceFinder)
    _, of_training = views_for(model, RECIPE, pairs, tmp_path, "", DistributedContext())
    with torch.no_grad():
        trained.evidence.to_pooled.weight.add_(1.0)
    _, after = views_for(trained, RECIPE, pairs, tmp_path, "", DistributedContext())
    assert len(list(tmp_path.iterdir())) == 1 and of_training is not None and after is not None
    with torch.no_grad():
        trained.evidence.mask_head.to_mask.bias.add_(1.0)
    views_for(trained, RECIPE, pairs, tmp_path, "", DistributedContext())
    assert len(list(tmp_path.iterdir())) == 2


def test_only_lesions_with_two_photos_are_seen_in_both(model: SkinClipVL, pairs: PhotoSet) -> None:
    assert pairs.partners()[:8].tolist() == list(range(8, 16)) and pairs.partners()[8:].tolist() == list(range(8))
    alone = pairs.subset(torch.arange(8))
    assert alone.partners().tolist() == [MISSING] * 8
    stage = Stage2(model, RECIPE, pairs, seed_everything(3))
    drawn = stage.draw()
    assert drawn.beside is not None
    others, rows = drawn.beside
    assert rows.tolist() == list(range(12))
    assert others.photo.tolist() == pairs.partners()[drawn.views.photo].tolist()
    whole = stage.assemble(drawn, torch.arange(12))
    for row in (1, 10):
        alone_now = see(model, stage.views.pixels(drawn.views, torch.tensor([row]))).tokens.embedding
        beside = see(model, stage.views.pixels(others, torch.tensor([row]))).tokens.embedding
        expected = torch.nn.functional.normalize(alone_now + beside, dim=-1)
        torch.testing.assert_close(whole.features.tokens.embedding[row : row + 1], expected, atol=1e-4, rtol=0)
    never = dataclasses.replace(RECIPE, stage2=dataclasses.replace(RECIPE.stage2, pair_share=0.0))
    assert Stage2(model, never, pairs, seed_everything(3)).draw().beside is None


def test_the_second_look_is_cut_out_of_all_pixels_of_the_view(model: SkinClipVL, pairs: PhotoSet) -> None:
    stage = Stage2(model, RECIPE, pairs, seed_everything(3))
    assert stage.views.side == RECIPE.photo_size > model.config.photo_side
    kept = see(model, stage.views.pixels(stage.draw().views, torch.arange(2)))
    assert isinstance(model.evidence, PyramidEvidenceFinder) and kept.evidence is not None
    assert kept.tokens.grid == (model.config.reasoner.clip_grid,) * 2 and kept.evidence.mean is not None
    torch.testing.assert_close(model.evidence.in_text_space(kept.evidence.mean), kept.evidence.pooled)


def test_half_precision_sees_nearly_the_same(model: SkinClipVL, pairs: PhotoSet) -> None:
    stage = Stage2(model, RECIPE, pairs, seed_everything(3))
    views = stage.views.pixels(stage.draw().views, torch.arange(4))
    exact, rough = see(model, views), see(model, views, "bfloat16")
    assert rough.tokens.embedding.dtype == rough.mask_logits.dtype == torch.float32
    similar = (exact.tokens.embedding * rough.tokens.embedding).sum(-1)
    assert (similar > 0.99).all() and not torch.equal(exact.tokens.embedding, rough.tokens.embedding)


def test_priors_are_those_of_each_source() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, MISSING])
    drawn = torch.tensor([1.0, 1.0, 2.0, 1.0, 3.0, 9.0])
    prior = source_priors(labels, drawn, ["a", "a", "a", "b", "b", "b"])
    torch.testing.assert_close(prior[0, :2], torch.tensor([0.5, 0.5]), atol=0.01, rtol=0)
    torch.testing.assert_close(prior[5, :2], torch.tensor([0.0, 1.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(prior.sum(1), torch.ones(6))
    assert (prior > 0).all()


def test_tower_files_are_those_of_the_members(tower: Path) -> None:
    weights, _ = read_tower(tower)
    stored = load_file(tower / "perception.safetensors")
    assert all(v.dtype == torch.float32 for v in weights.values() if v.is_floating_point())
    assert {k.split(".")[0] for k in stored} == {"0", "1"}


def test_a_case_without_a_second_photo_stays_single(made_up: Path) -> None:
    case: Case = gather(made_up)["train"][0]
    assert with_clinical([case]) == [case]


def test_lesions_are_held_out_of_the_sources_named() -> None:
    cases = [Case(Path(), str(i), source, f"L{i}") for source in ("ham10000", "derm7pt") for i in range(200)]
    recipe = recipe_of("mini", RECIPES / "two_looks.yaml")
    unseen = unseen_keys(cases, recipe)
    assert unseen and {key.split("/")[0] for key in unseen} == {"ham10000"}
    assert unseen < held_out_keys(cases, recipe.stage0.held_out, recipe.seed)


def test_the_recipe_knows_what_was_not_packed() -> None:
    recipe = recipe_of("mini", RECIPES / "two_looks.yaml")
    assert (recipe.stage0.held_out, recipe.seed) == (pack.HELD_OUT, pack.SEED)
    assert set(recipe.stage0.held_out_sources or ()) == set(pack.SETS) - {"derm7pt", "isic2017"}


def test_lesions_with_two_photos_are_calibrated_as_pairs_too(
    model: SkinClipVL, pairs: PhotoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calib = [c for c in pairs.cases if c.clinical_image is not None]
    with_two = len(calib)
    assert with_two > 1
    for least, expected in ((with_two + 1, 0), (with_two, with_two)):
        monkeypatch.setattr(calibrate, "LEAST_PAIRS", least)
        found = calibrate.fit_data(model.eval(), pairs, calib, [])
        together = found.photos.where(found.photos.kinds == PAIR)
        assert len(together) == expected and (PAIR in found.styles) == bool(expected)
    alone = found.photos.where(found.photos.kinds == DERMOSCOPY)
    same = [alone.lesions.tolist().index(lesion) for lesion in together.lesions]
    assert (alone.labels[same] == together.labels).all() and not np.allclose(alone.logits[same], together.logits)
    assert np.allclose(alone.style[same], together.style, atol=1e-4)
