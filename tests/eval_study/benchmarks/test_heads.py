"""The model without its language part over two looks, a frozen pyramid and a linear readout: same start, same views."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from eval_study.benchmarks import heads, losses
from eval_study.benchmarks.common import Bench
from eval_study.benchmarks.features import AssessedPhotos, Features, augmented, features_of, frozen_sha
from skinclip.core.config import (
    EvidenceConfig,
    LossConfig,
    ModelConfig,
    PerceptionConfig,
    Stage2Config,
    TrainConfig,
    save_yaml,
)
from skinclip.data.cases import DataError
from skinclip.data.readers import discover
from skinclip.imaging.photo import load_photo
from skinclip.imaging.transform import PhotoTransform
from skinclip.model.inference import forward_batch
from skinclip.model.pyramid import PyramidEvidenceFinder
from skinclip.model.skinclip_vl import SkinClipVL, new_model
from skinclip.training import views as kept
from skinclip.training.answering import evidence_of
from skinclip.training.distributed import DistributedContext
from skinclip.training.joint import Stage2, freeze_earlier, learn_readout, stage2_weights, views_for
from skinclip.training.losses.cfa import departure
from skinclip.training.photo_sets import photo_set
from skinclip.training.run import gather_calibrated, training_photos
from skinclip.training.sampling import class_counts

SIDE, SHARE = 64, 0.25
TWO = PerceptionConfig(
    "ensemble", "derm-clip-mini", None, 2, SIDE, levels=(1, 2, 3, 4), token_levels=(2, 3, 4), flips=False, looks=2
)
RECIPE = TrainConfig(
    photo_size=72,
    stage2=Stage2Config(batch_size=8, second_views=4, rationale_targets=3, paraphrases=8, cached_views=2, lr=5e-3),
    loss=LossConfig(by_source=True, w_criteria=0.0, w_outside=0.0, w_departure=0.5),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig) -> SkinClipVL:
    """Two untrained towers that take a look each, with a readout to be fitted."""
    torch.manual_seed(3)
    pyramid = EvidenceConfig(kind="pyramid", coarse_width=8, fine_width=8)
    reasoner = dataclasses.replace(tiny_config.reasoner, readout=True, language_share=SHARE)
    config = dataclasses.replace(tiny_config, perception=TWO, evidence=pyramid, reasoner=reasoner)
    return new_model(config, tmp_path_factory.mktemp("two")).eval()


@pytest.fixture(scope="module")
def work(model: SkinClipVL, made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a training that fitted the readout, and learnt what the others of its kind learn."""
    work = tmp_path_factory.mktemp("work")
    photos = training_photos(RECIPE, gather_calibrated(made_up, work / "cache")["train"], work / "cache")
    freeze_earlier(model)
    _, store = views_for(model, RECIPE, photos, work / "cache", "", DistributedContext())
    assert model.reasoner.readout is not None and isinstance(model.evidence, PyramidEvidenceFinder)
    learn_readout(model.reasoner.readout, RECIPE, photos, store)
    with torch.no_grad():
        model.evidence.to_pooled.weight.add_(0.1)
    model.requires_grad_(True)  # as a checkpoint is loaded
    return work


@pytest.fixture(scope="module")
def bench(model: SkinClipVL, made_up: Path, work: Path) -> Bench:
    made = Bench(made_up, work / "out", work, n_boot=10, command="a command")
    made.__dict__["assessor"] = type("A", (), {"model": model})()
    made.__dict__["sha"] = "ab" * 32
    made.__dict__["recipe"] = RECIPE
    return made


@pytest.fixture(scope="module")
def sets(bench: Bench) -> Iterator[dict[str, Features]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "DATA", "drawn")
        yield losses.feature_sets(bench, "calib", "valid")


def test_the_views_are_those_that_the_training_kept(
    bench: Bench, sets: dict[str, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, model = sets["train"], bench.assessor.model
    of_training = {path.name for path in (bench.work / "cache").glob("views-*")}
    looked: list[int] = []

    def counting(model, batch, *settings):  # type: ignore[no-untyped-def]
        looked.append(len(batch))
        return see(model, batch, *settings)

    see = kept.see
    monkeypatch.setattr(kept, "see", counting)
    again = augmented(model, train.photos, RECIPE, bench.work / "cache")
    assert looked == [1] and torch.equal(again.part("embedding"), train.part("embedding"))  # one tells the shapes
    assert {path.name for path in (bench.work / "cache").glob("views-*")} == of_training
    views, store = views_for(model, RECIPE, train.photos, bench.work / "cache", "", DistributedContext())
    assert store is not None and views.side == RECIPE.photo_size
    assert torch.equal(store.parts["embedding"], train.store.parts["embedding"])
    both = {"train", "calib", "valid", losses.TWO_VIEWS}
    assert set(sets) == both and sets[losses.TWO_VIEWS].part("style").shape[1] == 2
    assert len(sets[losses.TWO_VIEWS]) == len(sets["valid"])


def test_photos_are_measured_on_as_an_assessment_sees_them(bench: Bench, sets: dict[str, Features]) -> None:
    """Both looks in all pixels of the photo, not in those that training keeps."""
    valid, model = sets["valid"], bench.assessor.model
    cases = valid.photos.cases
    images = [load_photo(c.image) for c in cases]
    output = forward_batch(model, PhotoTransform(model.config.photo_side), images, [c.context for c in cases])
    torch.testing.assert_close(valid.part("embedding")[:, 0], output.tokens.embedding, atol=1e-5, rtol=0)
    index = torch.tensor([1, 0])
    found = evidence_of(model.evidence, valid.read(index, 0), model.state_embeddings)
    torch.testing.assert_close(found.scores, output.evidence.scores[index], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.pooled, output.evidence.pooled[index], atol=1e-2, rtol=0)  # kept in half
    readout = model.reasoner.readout
    assert readout is not None
    patient = heads.patients(c.context for c in cases)
    read = readout.read(valid.part("embedding")[:, 0], valid.part("style")[:, 0], patient)
    prompts = model.reasoner.writer.write([c.context for c in cases])
    with torch.inference_mode():
        own = model.reason(prompts, output.tokens, output.evidence).read
    assert own is not None
    torch.testing.assert_close(read, own, atol=1e-3, rtol=1e-3)


def test_the_answer_starts_from_the_readout_as_the_models_own_does(bench: Bench, sets: dict[str, Features]) -> None:
    model, valid = bench.assessor.model, sets["valid"]
    head, index = heads.WithoutLanguage(model).eval(), torch.arange(2)
    seen, readout = valid.read(index, 0), model.reasoner.readout
    assert readout is not None and head.readout is not readout
    evidence = evidence_of(head.evidence, seen, head.states)
    patient = heads.patients(c.context for c in valid.photos.cases[:2])
    answer, read = (seen.tokens, evidence, patient), readout(seen.tokens, patient)
    torch.nn.init.zeros_(head.read[-1].weight)
    shown = head.answer(*answer, torch.tensor([True, False]), head.descriptions)
    torch.testing.assert_close(shown[0], read[0])
    assert not shown[1].any()  # hidden: neither readout nor zero-shot answer
    # as `Reasoner.diagnose` has it: the readout, a share of what the layers move, all that an edited checklist moves
    torch.nn.init.normal_(head.read[-1].weight, std=0.1)
    both, scale = torch.tensor([True, True]), head.logit_scale.exp()
    layers = head.answer(*answer, both, head.descriptions)
    torch.nn.init.normal_(head.checklist.weight, std=0.1)
    moved = head.answer(*answer, both, head.descriptions)
    readout_of, head.readout = head.readout, None
    checked = head.answer(*answer, both, head.descriptions)
    torch.nn.init.zeros_(head.checklist.weight)
    unchecked = head.answer(*answer, both, head.descriptions)
    head.readout = readout_of
    zero_shot = seen.tokens.embedding @ head.descriptions.T * scale
    torch.testing.assert_close(layers, read + SHARE * (unchecked - zero_shot), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved, layers)  # what was found, the readout knows
    assert not torch.allclose(checked, unchecked, atol=1e-2)
    torch.nn.init.normal_(head.checklist.weight, std=0.1)
    turned = evidence.with_scores(-evidence.scores)
    assert not torch.allclose(head.answer(seen.tokens, turned, patient, both, head.descriptions), layers, atol=1e-2)


def test_a_head_trains_its_own_copy_and_leaves_the_model_alone(bench: Bench, sets: dict[str, Features]) -> None:
    model = bench.assessor.model
    before = {k: v.clone() for k, v in model.heads().items()}
    counts = class_counts(sets["train"].photos.diagnosis).tolist()
    loss = losses.losses(counts, RECIPE)["cfa"]
    trained = heads.train_head(model, sets["train"], RECIPE, loss, steps=3, batch_size=8, seed=0)
    assert all(torch.equal(v, before[k]) for k, v in model.heads().items())
    assert all(p.grad is None for p in model.parameters())
    finder, start = trained.model.evidence, heads.own_finder(model)
    changed = {k for k, v in finder.state_dict().items() if not torch.equal(v, start.state_dict()[k])}
    assert changed == {"to_pooled.weight", "to_pooled.bias"}
    assert isinstance(model.evidence, PyramidEvidenceFinder)
    assert not torch.equal(start.to_pooled.weight, model.evidence.to_pooled.weight)  # not as stage 2 left it
    own, theirs = trained.model.readout, model.reasoner.readout
    assert own is not None and theirs is not None
    assert all(torch.equal(v, own.state_dict()[k]) for k, v in theirs.state_dict().items())
    assert np.allclose(trained.prior, 1 / 9)
    again = heads.train_head(model, sets["train"], RECIPE, loss, steps=3, batch_size=8, seed=0)
    for split in ("valid", losses.TWO_VIEWS):
        one, two = (heads.head_logits(t.model, sets[split])[0] for t in (trained, again))
        assert np.isfinite(one).all() and np.array_equal(one, two)


def test_departure_is_measured_from_the_heads_own_start(bench: Bench, sets: dict[str, Features]) -> None:
    cfg = dataclasses.replace(RECIPE.stage2, rationale_targets=0)
    train, model = sets["train"], bench.assessor.model
    recipe, views = dataclasses.replace(RECIPE, stage2=cfg), (train.views, train.store)
    stage = Stage2(model, recipe, train.photos, torch.Generator().manual_seed(0), views=views)
    head, drawn = heads.WithoutLanguage(model).eval(), stage.draw()
    torch.nn.init.zeros_(head.read[-1].weight)
    x = stage.cfa_inputs(drawn, head(stage.assemble(drawn, torch.arange(stage.n))))
    assert x.read is not None and x.has_read is not None
    assert departure(x.logits, x.read, x.has_read).item() == pytest.approx(0, abs=1e-8)
    counts = class_counts(train.photos.diagnosis).tolist()
    whole, less = (losses.losses(counts, RECIPE)[name] for name in ("cfa", "cfa_less_departure"))
    torch.nn.init.normal_(head.read[-1].weight, std=0.1)
    x = stage.cfa_inputs(drawn, head(stage.assemble(drawn, torch.arange(stage.n))))
    assert x.read is not None
    distance = departure(x.logits, x.read, x.has_read)
    torch.testing.assert_close(whole.of(x, 0.0) - less.of(x, 0.0), 0.5 * distance, atol=1e-5, rtol=1e-4)


def test_a_loss_without_adjustment_starts_at_the_prior_that_it_trains_at(
    bench: Bench, sets: dict[str, Features]
) -> None:
    counts = class_counts(sets["train"].photos.diagnosis).tolist()
    loss = losses.losses(counts, RECIPE)["cross_entropy"]
    trained = heads.train_head(bench.assessor.model, sets["train"], RECIPE, loss, steps=1, batch_size=8, seed=0)
    photos = sets["train"].photos
    prior = loss.prior(photos.diagnosis, stage2_weights(photos, RECIPE.stage2))
    assert np.allclose(trained.prior, prior.numpy())
    expected = np.log(trained.prior) - np.log(1 / 9)
    assert np.allclose(trained.model.log_prior.numpy(), expected, atol=1e-5) and np.ptp(expected) > 0.1


def test_a_split_without_a_photo_is_said(bench: Bench, sets: dict[str, Features]) -> None:
    with pytest.raises(DataError, match="no cases of drawn, split nowhere"):
        losses.feature_sets(bench, "nowhere")


def test_the_shipped_recipe_is_the_checkpoints_own(model: SkinClipVL, tmp_path: Path) -> None:
    made = Bench(tmp_path, tmp_path, tmp_path, weights=tmp_path)
    save_yaml(RECIPE, tmp_path / "recipe.yaml")
    assert made.recipe == RECIPE
    assert frozen_sha(model) == frozen_sha(model)


def test_no_photo_of_another_set_is_taken_for_one_of_the_training(
    bench: Bench, sets: dict[str, Features], made_up: Path, tmp_path: Path
) -> None:
    """Photos as assessed and the same ones under augmentations are kept apart."""
    cases = list(discover(made_up)["drawn"].split("valid"))[:2]
    photos = photo_set(cases, RECIPE.photo_size, None)
    assessed = features_of(bench.assessor.model, AssessedPhotos(photos), tmp_path)
    under = augmented(bench.assessor.model, photos, RECIPE, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert assessed.part("embedding").shape[1] == 1 and under.part("embedding").shape[1] == 2
