"""The registry of towers: a made-up family goes the whole path, photo to Assessment, checkpoint and attribution."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skinclip.calibration.calibrator import Calibrator, StyleSample
from skinclip.calibration.outputs import DERMOSCOPY, LabelledOutputs
from skinclip.core.assessment import Context, ModelInfo
from skinclip.core.config import ModelConfig, PerceptionConfig
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSES
from skinclip.explain.saliency import Cam, DiagnosisPath, grad_cam, own_network
from skinclip.imaging.photo import LesionImage, load_photo
from skinclip.imaging.transform import PhotoTransform
from skinclip.model import towers
from skinclip.model.checkpoint import load_model, save_model
from skinclip.model.perception import Perception
from skinclip.model.skinclip_vl import SkinClipVL, new_model
from skinclip.model.towers import (
    AttributionStages,
    ImageTextTower,
    OpenClipTower,
    TowerFeatures,
    make_tower,
    register_tower,
)
from skinclip.pipeline.assessor import Assessor

ROOT = Path(__file__).parents[3]
WIDTHS, EMBEDDING = (8, 12, 16), 64


class PyramidTower(nn.Module):
    """A made-up family: three strided convolutions, and texts as counts of their letters."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        channels = (3, *WIDTHS)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU())
            for a, b in zip(channels, WIDTHS, strict=False)
        )
        self.to_joint = nn.Linear(WIDTHS[-1], EMBEDDING)
        self.letters = nn.Linear(128, EMBEDDING, bias=False)
        self.levels = config.levels

    def features(self, photos: Tensor) -> TowerFeatures:
        maps, x = [], photos
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return TowerFeatures([maps[i] for i in self.levels], self.to_joint(x.mean((2, 3))))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        counts = [np.bincount([ord(c) % 128 for c in text], minlength=128) for text in texts]
        return self.letters(torch.tensor(np.array(counts), dtype=torch.float32))

    def similarity_scale(self) -> Tensor:
        return torch.tensor(10.0)

    def weights(self) -> dict[str, Tensor]:
        return self.state_dict()

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        self.load_state_dict(state)

    def image_trunk(self) -> nn.Module:
        raise NotImplementedError("there are no weights to start from")

    def attribution_stages(self) -> AttributionStages:
        return AttributionStages(list(self.stages), tokens=False)


@pytest.fixture(scope="module")
def registered() -> Iterator[str]:
    register_tower("pyramid", PyramidTower)
    yield "pyramid"
    del towers.TOWERS["pyramid"]


@pytest.fixture(scope="module")
def config(registered: str, tiny_config: ModelConfig) -> ModelConfig:
    perception = PerceptionConfig(
        family=registered, model="three-stages", image_size=64, levels=(0, 1, 2), token_levels=(1, 2)
    )
    return dataclasses.replace(tiny_config, perception=perception)


@pytest.fixture(scope="module")
def model(config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> SkinClipVL:
    torch.manual_seed(3)
    return new_model(config, tmp_path_factory.mktemp("pyramid")).eval()


@pytest.fixture(scope="module")
def photo() -> LesionImage:
    return load_photo(ROOT / "assets" / "examples" / "synthetic_nevus.jpg")


def test_it_fulfils_the_protocol(config: ModelConfig) -> None:
    assert isinstance(make_tower(config.perception), ImageTextTower)
    assert isinstance(make_tower(PerceptionConfig()), ImageTextTower)


def test_perception_and_evidence_follow_its_shapes(model: SkinClipVL) -> None:
    photos = torch.rand(2, 3, 64, 64)
    seen = model.perceive(photos)
    assert seen.grid == (16, 16) and seen.tokens.shape == (2, 256, WIDTHS[1] + WIDTHS[2])
    assert seen.embedding.shape == (2, EMBEDDING)
    evidence = model.find_evidence(seen)
    assert evidence.maps.shape[2:] == (16, 16) and evidence.scores.isfinite().all()
    assert not any(p.requires_grad for p in model.perception.parameters())


def test_a_photo_is_assessed(model: SkinClipVL, config: ModelConfig, photo: LesionImage) -> None:
    rng, c = np.random.default_rng(0), len(DIAGNOSES)
    style = rng.normal(size=(8, sum(model.perception.level_widths)))
    photos = LabelledOutputs.of_diagnoses(rng.normal(size=(40, c)), np.arange(40) % c)
    trust = Calibrator.fit(photos, {DERMOSCOPY: StyleSample(style, style)}, np.full(c, 1 / c), np.zeros(c))
    usual = dataclasses.replace(trust.shift, calibration_distances=np.array([np.inf], np.float32))
    assessor = Assessor(
        model,
        PhotoTransform(config.photo_side),
        dataclasses.replace(trust, by_kind={DERMOSCOPY: dataclasses.replace(trust.first, shift=usual)}),
        dict.fromkeys(CRITERION_CODES, 0.2),
        ModelInfo(config.preset, "0", "0" * 64),
    )
    assessment = assessor.assess(photo, Context(age=50))
    assert abs(sum(d.probability for d in assessment.diagnosis) - 1) < 1e-6
    assert assessment.rationale or assessment.abstained


def test_its_checkpoint_gives_the_same_answer(model: SkinClipVL, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    again, photos = load_model(tmp_path), torch.rand(1, 3, 64, 64)
    prompts = model.reasoner.writer.write([Context()])
    one, other = (m.reason(prompts, s := m.perceive(photos), m.find_evidence(s)).logits for m in (model, again))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_grad_cam_reads_its_stages(model: SkinClipVL) -> None:
    network = own_network(DiagnosisPath(model, model.reasoner.writer.write([Context()])))
    heat = grad_cam(network, torch.rand(1, 3, 64, 64), 0, Cam(stage=1))
    assert heat.shape == (16, 16) and np.isfinite(heat).all()


def test_an_unknown_family_and_a_taken_name_are_refused(registered: str) -> None:
    with pytest.raises(ValueError, match=r"perception\.family.*'nothing'.*open_clip, ensemble, pyramid"):
        make_tower(PerceptionConfig(family="nothing"))
    with pytest.raises(ValueError, match="there is a tower family 'pyramid' already"):
        register_tower(registered, PyramidTower)


def test_a_tower_that_is_no_module_is_refused() -> None:
    towers.TOWERS["bare"] = lambda config: SimpleNamespace()  # type: ignore[assignment,return-value]
    try:
        with pytest.raises(TypeError, match=r"'bare' must be a torch\.nn\.Module"):
            Perception(PerceptionConfig(family="bare"))
    finally:
        del towers.TOWERS["bare"]


def test_attribution_refuses_a_tower_whose_maps_are_not_known() -> None:
    tower = OpenClipTower.__new__(OpenClipTower)
    nn.Module.__init__(tower)
    tower.levels = [0]
    tower.clip = SimpleNamespace(visual=SimpleNamespace(trunk=SimpleNamespace(blocks=[nn.Identity()])))  # no stem
    with pytest.raises(NotImplementedError, match="convolutional"):
        tower.attribution_stages()


def test_a_stage_0_checkpoint_of_an_earlier_version_resumes() -> None:
    perception = Perception(PerceptionConfig())
    old = {k.replace("tower.clip.", "clip."): torch.ones_like(v) for k, v in perception.state_dict().items()}
    perception.load_state_dict(old)
    assert all((v == 1).all() for v in perception.tower.weights().values())


def test_open_clip_is_known_to_one_class_alone() -> None:
    """Nothing but the tower's own file says an attribute of open_clip's models."""
    words = ("open_clip.create", ".visual.trunk", "encode_text", "forward_intermediates(", ".transformer.resblocks")
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("skinclip", "eval_study")
        for path in (ROOT / folder).rglob("*.py")
        if any(word in path.read_text() for word in words)
    ]
    assert found == ["skinclip/model/towers/open_clip.py"]
