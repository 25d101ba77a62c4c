"""Every way to explain a photo's diagnosis, behind one interface: a photo and the model in, maps with labels out.

Page, study and benchmarks all take their maps from here, so that what is rated is what was measured. Maps lie on the
model's window, whatever their grid; `on_photo` puts one on the photo's own pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from skinclip.core.assessment import Context, Finding
from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_CODES, EVIDENCE_STATES, STATE_BY_KEY
from skinclip.explain import saliency
from skinclip.explain.counterfactual import region_mask
from skinclip.explain.effects import SHARE, effects, weighed
from skinclip.explain.faithfulness import Answer, random_region
from skinclip.explain.saliency import Cam, DiagnosisPath, Network
from skinclip.imaging.photo import LesionImage
from skinclip.imaging.transform import Window
from skinclip.model.plain import load_plain

if TYPE_CHECKING:
    from skinclip.pipeline.assessor import Assessor, CalibratedOutput

GRID = 80  # side to which maps of different methods are brought before they are compared
CITED_SHARE = 0.4  # of the lesion, the most that cited regions are joined to
FADE = 0.06  # of the window, the breadth of a map's rim where it ends inside the photo
SMOOTH = 3.0  # places of that grid: blur of a map that is made of regions; chosen on validation photos
# The best of 16 settings on validation photos, for either network: `eval_study.explanations`, part "tuning"
OWN_CAM = Cam(stage=-2, relu=False, mirrors=True)
PLAIN_CAM = Cam(stage=-2, relu=False, mirrors=True)


@dataclass(frozen=True)
class Subject:
    """A photo and what the model makes of it: looked at once, explained by many methods.

    Attributes:
        target: number of the diagnosis to be explained.
    """

    assessor: Assessor
    image: LesionImage
    context: Context
    seen: CalibratedOutput
    target: int

    @classmethod
    def of(
        cls, assessor: Assessor, image: LesionImage, context: Context | None = None, code: str | None = None
    ) -> Subject:
        """Explains the diagnosis `code`, by default the leading one."""
        context = context or Context()
        seen = assessor.forward([image], [context])
        target = DIAGNOSIS_CODES.index(code) if code else int(seen.calibrated.probabilities[0].argmax())
        return cls(assessor, image, context, seen, target)

    @property
    def window(self) -> Window:
        return self.seen.windows[0]

    @cached_property
    def photo(self) -> Tensor:
        """[1, 3, side, side] in 0..1, as the tower reads it."""
        return self.assessor.transform(self.image.pixels, self.window).unsqueeze(0)

    @cached_property
    def mask(self) -> np.ndarray:
        """[m, m] in 0..1, the predicted lesion."""
        return self.seen.evidence.mask_logits[0].sigmoid().numpy()

    @cached_property
    def lesion(self) -> np.ndarray:
        """bool [GRID, GRID], the predicted lesion; the whole window where none was found."""
        found = cv2.resize(self.mask, (GRID, GRID), interpolation=cv2.INTER_AREA) > 0.5
        return found if found.any() else np.ones_like(found)

    @cached_property
    def path(self) -> DiagnosisPath:
        """Photos -> the model's own diagnosis logits, one view of each."""
        model = self.assessor.model
        return DiagnosisPath(model, model.reasoner.writer.write([self.context]))

    @cached_property
    def network(self) -> Network:
        """The model's own diagnosis, for saliency; see `saliency.own_network`."""
        return saliency.own_network(self.path)

    @cached_property
    def answer(self) -> Answer:
        """Photos [B, 3, side, side] -> the calibrated probability of the diagnosis that is explained, [B]."""
        path, calibration = self.path, self.assessor.calibrator.calibration

        def probability(photos: Tensor) -> np.ndarray:
            with torch.inference_mode():
                logits = torch.cat([path(part) for part in photos.split(min(16, path.model.config.batch))])
            return calibration.apply(logits.double().numpy())[:, self.target]

        return probability

    @cached_property
    def findings(self) -> list[Finding]:
        """What an Assessment of the photo cites."""
        return self.assessor.findings(self.image, self.seen)


@dataclass(frozen=True)
class LabelledMap:
    """`heat` [h, w] on the model's window, any scale, higher is more; `label` says what it shows."""

    label: str
    heat: np.ndarray


@dataclass(frozen=True)
class Method:
    """One way to explain.

    Attributes:
        maps: the explanation as a whole first, then its parts where it has any.
        reads: what a reader is to know of it, in a sentence.
        knows: whether it knows anything of the model; controls do not.
    """

    key: str
    title: str
    maps: Callable[[Subject], list[LabelledMap]]
    reads: str
    knows: bool = True


def evidence(subject: Subject) -> list[LabelledMap]:
    """What the diagnosis rests on, and the map of each cited criterion.

    The whole is made of all criteria's maps, each by what its highest places do to the answer (`effects.weighed`).
    """
    found = subject.seen.evidence
    maps = np.stack([_enlarged(m) for m in found.maps[0].numpy()])
    whole = weighed(subject.answer, subject.photo, maps, subject.lesion, SMOOTH)
    keys = [state.key for state in EVIDENCE_STATES]
    cited = [f"{f.criterion}:{f.state}" for f in subject.findings]
    parts = [
        LabelledMap(STATE_BY_KEY[key].phrase, found.maps[0, keys.index(key)].numpy()) for key in cited if key in keys
    ]
    return [LabelledMap(_diagnosis(subject), whole), *parts]


def cited_regions(subject: Subject) -> dict[str, np.ndarray]:
    """Reference -> bool [GRID, GRID]: where the cited criteria were seen, as a reader sees it, the most certain first.

    Findings that were measured on the mask have the lesion itself as their region and are left out.
    """
    window, located = subject.window, {state.key for state in EVIDENCE_STATES}
    found = {
        f.ref: region_mask(f.region, GRID, (window.x, window.y), GRID / window.side) & subject.lesion
        for f in subject.findings
        if f"{f.criterion}:{f.state}" in located
    }
    return {ref: region for ref, region in found.items() if region.any()}


def cited_effects(subject: Subject) -> dict[str, float]:
    """Reference -> `effects` of each of the `cited_regions`, by the same measure on every photo."""
    regions = cited_regions(subject)
    if not regions:
        return {}
    found = effects(subject.answer, subject.photo, np.stack(list(regions.values())), subject.lesion)
    return dict(zip(regions, found.tolist(), strict=True))


def joined(regions: list[np.ndarray], lesion: np.ndarray) -> np.ndarray:
    """bool [g, g]: at least one region, and of those after the first what fits into `CITED_SHARE` of the lesion."""
    room = CITED_SHARE * np.count_nonzero(lesion)
    whole = regions[0].copy()
    for region in regions[1:]:
        if np.count_nonzero(whole | region) <= room:
            whole |= region
    return whole


def grad_cam(subject: Subject) -> list[LabelledMap]:
    return _one(subject, saliency.grad_cam(subject.network, subject.photo, subject.target, OWN_CAM))


def usual_grad_cam(subject: Subject) -> list[LabelledMap]:
    """As it is mostly used: the last stage, ReLU, untuned."""
    return _one(subject, saliency.grad_cam(subject.network, subject.photo, subject.target, Cam()))


def layer_cam(subject: Subject) -> list[LabelledMap]:
    return _one(subject, saliency.layer_cam(subject.network, subject.photo, subject.target, OWN_CAM))


def integrated_gradients(subject: Subject) -> list[LabelledMap]:
    return _one(subject, saliency.integrated_gradients(subject.network, subject.photo, subject.target))


def occlusion(subject: Subject) -> list[LabelledMap]:
    return _one(subject, saliency.occlusion(subject.network, subject.photo, subject.target))


def rise(subject: Subject) -> list[LabelledMap]:
    """RISE (Petsiuk et al. 2018) inside the lesion: as `evidence`, with random regions in place of the criteria's."""
    rng = _rng(subject)
    area = round(SHARE * np.count_nonzero(subject.lesion))
    maps = np.stack([random_region(subject.lesion, area, rng) for _ in EVIDENCE_STATES]).astype(np.float32)
    return _one(subject, weighed(subject.answer, subject.photo, maps, subject.lesion, SMOOTH))


def plain_grad_cam(subject: Subject) -> list[LabelledMap]:
    """Of the plain classifier's logit for the same diagnosis. Raises CheckpointError where it was not trained."""
    return _one(subject, saliency.grad_cam(_plain(), subject.photo, subject.target, PLAIN_CAM))


def lesion_mask(subject: Subject) -> list[LabelledMap]:
    return _one(subject, subject.mask)


def centred_gaussian(subject: Subject) -> list[LabelledMap]:
    """A third of the window wide (two standard deviations to either side of the middle)."""
    x = (np.arange(GRID) + 0.5) / GRID - 0.5
    bell = np.exp(-(x**2) / (2 * (1 / 6) ** 2))
    return _one(subject, np.outer(bell, bell))


def random_regions(subject: Subject) -> list[LabelledMap]:
    """Smooth noise, the same at each call for the same photo."""
    coarse = _rng(subject).random((8, 8)).astype(np.float32)
    return _one(subject, cv2.resize(coarse, (GRID, GRID), interpolation=cv2.INTER_CUBIC))


METHODS: dict[str, Method] = {
    method.key: method
    for method in (
        Method("evidence", "Evidence regions", evidence, "Where the cited findings were seen, one region each."),
        Method(
            "grad_cam",
            "Grad-CAM",
            grad_cam,
            "Where the maps of the image tower raise the leading diagnosis; it says not what is seen there.",
        ),
        Method("usual_grad_cam", "Grad-CAM, untuned", usual_grad_cam, "The same at the last stage, as mostly used."),
        Method("plain_grad_cam", "Grad-CAM of a plain classifier", plain_grad_cam, "The same for a usual classifier."),
        Method("layer_cam", "LayerCAM", layer_cam, "As Grad-CAM, each place weighted by its own gradient."),
        Method(
            "integrated_gradients",
            "Integrated gradients",
            integrated_gradients,
            "Which pixels raise the diagnosis, on the way from a blurred photo to this one.",
        ),
        Method("occlusion", "Occlusion", occlusion, "How far the diagnosis drops when a square is blurred."),
        Method(
            "rise",
            "RISE",
            rise,
            "Random regions of the lesion, each by how far the diagnosis drops without it and holds by it alone.",
        ),
        Method("lesion_mask", "Lesion mask", lesion_mask, "The lesion as the model outlines it.", knows=False),
        Method("gaussian", "Centred Gaussian", centred_gaussian, "The middle of the photo.", knows=False),
        Method("random", "Random regions", random_regions, "Chance.", knows=False),
    )
}


def on_grid(heat: np.ndarray, side: int = GRID) -> np.ndarray:
    """float32 [side, side] in 0..1, whatever its scale was; a flat map gives zeros."""
    fine = cv2.resize(heat.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    low, high = float(fine.min()), float(fine.max())
    return (fine - low) / (high - low) if high > low else np.zeros_like(fine)


def on_photo(heat: np.ndarray, subject: Subject) -> np.ndarray:
    """float32 [H, W] in 0..1 on the photo's pixels: negative places are 0, the highest is 1, past the window 0.

    It fades towards an edge of the window that is not one of the photo: nothing is known beyond, and a map that ended
    there in a line would look as if the line were a finding.
    """
    window, image = subject.window, subject.image
    top = float(heat.max())
    scaled = (heat / top if top > 0 else np.zeros_like(heat)).astype(np.float32)
    whole = np.zeros((image.height, image.width), np.float32)
    fine = cv2.resize(scaled, (window.side, window.side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    rows, columns = _fade(window.y, window.side, image.height), _fade(window.x, window.side, image.width)
    whole[window.y : window.y + window.side, window.x : window.x + window.side] = fine * rows[:, None] * columns
    return whole


def _fade(start: int, side: int, length: int) -> np.ndarray:
    """float32 [side] in 0..1: 1, but for a ramp to each end of the window that lies inside the photo's `length`."""
    place = (np.arange(side, dtype=np.float32) + 0.5) / (FADE * side)
    before = place if start > 0 else np.ones_like(place)
    after = place[::-1] if start + side < length else np.ones_like(place)
    return np.minimum(before, after).clip(0, 1)


def heat_on_photo(
    assessor: Assessor,
    image: LesionImage,
    context: Context | None = None,
    code: str | None = None,
    key: str = "grad_cam",
) -> np.ndarray:
    """The map of method `key` for the diagnosis `code` (by default the leading one), as `on_photo` gives it."""
    subject = Subject.of(assessor, image, context, code)
    return on_photo(METHODS[key].maps(subject)[0].heat, subject)


def _enlarged(heat: np.ndarray) -> np.ndarray:
    return cv2.resize(heat.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_LINEAR)


def _rng(subject: Subject) -> np.random.Generator:
    """The same draws for the same photo."""
    return np.random.default_rng(zlib.crc32(subject.image.sha256.encode()))


def _one(subject: Subject, heat: np.ndarray) -> list[LabelledMap]:
    return [LabelledMap(_diagnosis(subject), heat)]


def _diagnosis(subject: Subject) -> str:
    return DIAGNOSES[subject.target].name


_kept: list[Network] = []


def _plain() -> Network:
    """The plain classifier, loaded at its first use."""
    if not _kept:
        _kept.append(saliency.plain_network(load_plain()))
    return _kept[0]
