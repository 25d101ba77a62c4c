"""Views of the training photos that are kept, as the frozen parts see them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from skinclip.cli import main as cli
from skinclip.core.config import ModelConfig
from skinclip.data.cases import DataError
from skinclip.language.prompt import Prompts
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.training import views as views_module
from skinclip.training.answering import MicroBatch
from skinclip.training.checkpoints import seed_everything
from skinclip.training.distributed import DistributedContext
from skinclip.training.joint import Stage2
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.run import gather_calibrated, on_published_weights, training_photos
from skinclip.training.views import KeptViews, keep_views, parts_of, see
from tests.model.test_devices import on_a_gpu
from tests.training.conftest import BIG_RECIPE

COUNT = 3


@pytest.fixture
def model(big: ModelConfig, hub: Path) -> SkinClipVL:
    return on_published_weights(big, BIG_RECIPE, hub / "base", DistributedContext())


@pytest.fixture
def photos(hub: Path) -> PhotoSet:
    cases = gather_calibrated(hub / "data", hub / "cache")["train"][:8]
    return training_photos(BIG_RECIPE, cases, hub / "cache", published=True)


def kept(photos: PhotoSet, model: SkinClipVL, seed: int = 0) -> KeptViews:
    return KeptViews(photos, model.config.photo_side, 0.7, COUNT, seed)


def test_what_is_kept_is_what_is_seen(model: SkinClipVL, photos: PhotoSet, tmp_path) -> None:
    views = kept(photos, model)
    store = keep_views(model, views, "base", tmp_path, 5, DistributedContext())
    photo, number = torch.tensor([0, 7, 3, 3]), torch.tensor([2, 0, 1, 2])
    drawn, rows = views.numbered(photo, number), torch.arange(4)
    live = see(model, views.pixels(drawn, rows))
    read = store.read(drawn, rows, model.perception.grid, "cpu")
    assert parts_of(read).keys() == parts_of(live).keys() and "own" in parts_of(live)
    for name, value in parts_of(live).items():
        again = parts_of(read)[name].float()
        # another batch of the towers gives the last bits otherwise; the rest is what half precision leaves
        exact = name in ("embedding", "style")
        torch.testing.assert_close(again, value, atol=2e-6 if exact else 2e-3, rtol=1e-5 if exact else 1e-2, msg=name)
    assert torch.equal(store.read(drawn, rows[2:], model.perception.grid, "cpu").lesion, read.lesion[2:])
    with pytest.raises(ValueError, match="only numbered ones are kept"):
        store.read(super(KeptViews, views).draw(photo, 0, torch.Generator()), rows, model.perception.grid, "cpu")


def test_a_step_on_kept_views_is_one_on_the_views_themselves(model: SkinClipVL, photos: PhotoSet, tmp_path) -> None:
    views, losses = kept(photos, model), []
    store = keep_views(model, views, "base", tmp_path, 16, DistributedContext())
    model.evidence.mask_head.requires_grad_(False)
    for found in (store, None):
        stage = Stage2(model, BIG_RECIPE, photos, seed_everything(3), views=(views, found))
        model.train().evidence.mask_head.eval()
        model.zero_grad()
        losses.append(stage.step())
    for name, value in losses[1].items():
        torch.testing.assert_close(losses[0][name], value, atol=5e-3, rtol=5e-3, msg=name)


def test_views_are_looked_at_once(model: SkinClipVL, photos: PhotoSet, tmp_path, monkeypatch) -> None:
    looked: list[int] = []

    def counting(model, batch, *settings):  # type: ignore[no-untyped-def]
        looked.append(len(batch))
        return see(model, batch, *settings)

    monkeypatch.setattr(views_module, "see", counting)
    store = keep_views(model, kept(photos, model), "base", tmp_path, 5, DistributedContext())
    example = 1  # looked at to learn the shapes
    assert sum(looked) == len(photos) * COUNT + example and max(looked) == 5
    looked.clear()
    keep_views(model, kept(photos, model), "base", tmp_path, 5, DistributedContext())
    assert sum(looked) == example
    looked.clear()
    store.written[[2, 11]] = 0  # as far as an interrupted run came
    keep_views(model, kept(photos, model), "base", tmp_path, 5, DistributedContext())
    assert sum(looked) == example + 2 and len(list(tmp_path.iterdir())) == 1

    mask, tower = model.evidence.mask_head.refine[2].weight, next(model.perception.parameters())
    for other in (
        lambda: keep_views(model, kept(photos, model, seed=1), "base", tmp_path, 5, DistributedContext()),
        lambda: keep_views(model, kept(photos, model), "another base", tmp_path, 5, DistributedContext()),
        lambda: keep_views(_with_another(model, mask), kept(photos, model), "base", tmp_path, 5, DistributedContext()),
        lambda: keep_views(_with_another(model, tower), kept(photos, model), "base", tmp_path, 5, DistributedContext()),
    ):
        looked.clear()
        other()
        assert sum(looked) == len(photos) * COUNT + example


def _with_another(model: SkinClipVL, part: torch.Tensor) -> SkinClipVL:
    with torch.no_grad():
        part.add_(0.1)
    return model


def test_a_second_view_is_another_view_and_a_view_is_always_the_same(model: SkinClipVL, photos: PhotoSet) -> None:
    views = kept(photos, model)
    photo = torch.arange(8)
    drawn = views.draw(photo, 6, torch.Generator().manual_seed(4))
    assert drawn.number is not None
    assert drawn.photo.tolist() == [*range(8), *range(6)]
    assert (drawn.number[8:] != drawn.number[:6]).all() and set(drawn.number.tolist()) == set(range(COUNT))
    again = views.numbered(drawn.photo.flip(0), drawn.number.flip(0))
    rows = torch.tensor([0, 5])
    assert torch.equal(views.pixels(again, 13 - rows), views.pixels(drawn, rows))


def test_a_full_disk_is_said_before_anything_is_written(
    model: SkinClipVL, photos: PhotoSet, tmp_path, monkeypatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="GB are free: give another --work, or a smaller `cached_views`"):
        keep_views(model, kept(photos, model), "base", tmp_path / "cache", 5, DistributedContext())
    assert not list((tmp_path / "cache").iterdir())


def test_a_recipe_asks_for_kept_views(big, hub: Path, command: Callable[..., list[str]], tmp_path: Path) -> None:
    assert cli.main(command("cached", cached_views=2)) == 0
    folder = next((tmp_path / "cached/cache").glob("views-*"))
    assert (folder / "written").read_bytes() == bytes([1]) * 30 * 2  # every view of every training photo
    assert "stage2,3,total" in (tmp_path / "cached/log.csv").read_text()


def test_seeing_and_answering_take_place_on_the_model(model: SkinClipVL, photos: PhotoSet, monkeypatch) -> None:
    """On a GPU that holds no data: views made there, answers that lie there, whatever is drawn on the CPU."""
    reasoner = model.reasoner
    tokens, hidden = (model.config.photo_side // 28) ** 2, reasoner.base.config.text_config.hidden_size
    monkeypatch.setattr(reasoner, "own_tokens", lambda given: given.new_empty(len(given), tokens, hidden))
    monkeypatch.setattr(
        reasoner.base.model,
        "compute_3d_position_ids",
        lambda input_ids, **_: torch.zeros(3, *input_ids.shape, dtype=torch.long, device=input_ids.device),
    )
    monkeypatch.setattr(reasoner, "spell", lambda *_: None)
    monkeypatch.setattr(reasoner, "language_loss", lambda *_: None)
    stage = Stage2(model, BIG_RECIPE, photos, seed_everything(3))
    drawn, rows = stage.draw(), torch.tensor([2, 3, 5])  # without a rationale: those look into their tensors' values
    prompts = reasoner.writer.write([drawn.contexts[i] for i in rows.tolist()])
    batch = photos.batch(drawn.views.photo[rows])
    with FakeTensorMode() as mode, torch.no_grad():
        on_a_gpu(model)
        fake = [mode.from_tensor(v) for v in (batch, *vars(prompts).values())]
        monkeypatch.setattr(reasoner.writer, "write", lambda *_: Prompts(*fake[1:]))
        seen = stage.forward_pass("see", fake[0].to(model.device), "float32")
        flags = torch.ones(3, dtype=torch.bool, device=model.device)
        labels = torch.zeros(3, photos.criteria.shape[1], dtype=torch.long, device=model.device)
        part = MicroBatch(rows, seen, labels, flags, flags, flags, [], model.descriptions)
        answers = stage.forward_pass("answer", part)
        assert {t.device.type for t in (*parts_of(seen).values(), *answers.values())} == {"cuda"}
