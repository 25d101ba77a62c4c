"""Photo -> Assessment: the one path that every entry point takes.

    LesionImage -> perceive -> find_evidence -> reason -> trust -> regions -> rationale -> Assessment

`Assessor.assess` is the path for one photo, `Assessor.predict` the same path for many, without words.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from transformers.utils import logging as transformers_logging
from yaml import YAMLError

from skinclip import __version__
from skinclip.calibration.calibrator import CalibratedPrediction, Calibrator
from skinclip.core.assessment import (
    Assessment,
    Context,
    DiagnosisProbability,
    Finding,
    Lesion,
    Malignancy,
    ModelInfo,
    PhotoInfo,
    PredictionSet,
    Region,
    Shift,
)
from skinclip.core.config import ModelConfig, load_yaml
from skinclip.core.vocabulary import (
    CRITERIA,
    CRITERION_CODES,
    DIAGNOSES,
    DIAGNOSIS_CODES,
    EVIDENCE_STATES,
    STATE_BY_KEY,
)
from skinclip.explain.regions import lesion_region, region_from_map
from skinclip.hub import checkpoint_folder
from skinclip.imaging.abcd_features import measure_lesion, measured_findings
from skinclip.imaging.photo import LesionImage, combine_quality, lesion_quality, photo_quality
from skinclip.imaging.transform import PhotoTransform, Window
from skinclip.language.constrained_decoding import Prefix
from skinclip.language.prompt import MAX_FINDINGS
from skinclip.language.rationale import tidy
from skinclip.model.adapters.card import write_card
from skinclip.model.criteria import criterion_log_probs
from skinclip.model.evidence import Evidence
from skinclip.model.perception import VisualTokens
from skinclip.model.skinclip_vl import (
    CARRIED,
    CheckpointError,
    SkinClipVL,
    create_model,
    default_device,
    read_config,
    refuse,
    weights_sha256,
)

Progress = Callable[[float, str], None]
MEASURE_SIDE = 224  # pixels at which shape, border and colour are measured


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one photo, as arrays.

    Attributes:
        probabilities: [C] calibrated, at natural prevalence, order of `vocabulary.DIAGNOSIS_CODES`.
        balanced: [C] p / prior, renormalised: what balanced accuracy decides by.
        criteria: criterion -> state -> probability, "absent" included.
        lesion_mask: bool [H, W] in the photo's own pixels.
    """

    probabilities: np.ndarray
    balanced: np.ndarray
    criteria: dict[str, dict[str, float]]
    lesion_mask: np.ndarray
    malignancy: float
    refer: bool
    set_codes: tuple[str, ...]
    shift_score: float
    in_domain: bool


@dataclass(frozen=True)
class ForwardOutput:
    """A batch on its way through the path, as far as the model alone takes it; its tensors lie on the CPU.

    `prefix` is what the language model has read, of a single photo: its rationale goes on from there.
    """

    windows: list[Window]
    tokens: VisualTokens
    evidence: Evidence
    logits: Tensor
    prefix: Prefix | None


@dataclass(frozen=True)
class CalibratedOutput(ForwardOutput):
    """The same with what trust makes of it."""

    calibrated: CalibratedPrediction


def check_room(folder: Path) -> None:
    """Raises TooLittleMemory, before anything is loaded, where a checkpoint on a base of its own would not fit, with
    Grad-CAM, which is made on request."""
    if not (folder / "config.yaml").exists():
        return
    config: ModelConfig = load_yaml(ModelConfig, folder / "config.yaml")
    if config.reasoner.base is None:
        return
    from skinclip.model.memory import check_memory  # which builds the presets to count them, without their weights

    if config.reasoner.base == CARRIED:
        config = replace(config, reasoner=replace(config.reasoner, base=str(folder / CARRIED)))
    for purpose in ("load", "assess", "explain"):
        check_memory(config.preset, default_device(config), purpose, config)


@torch.inference_mode()
def locate(model: SkinClipVL, transform: PhotoTransform, images: Sequence[LesionImage]) -> list[Window]:
    """The square window of each photo that holds its lesion; a square photo is its own window."""
    windows = [transform.centred(image.height, image.width) for image in images]
    oblong = [i for i, image in enumerate(images) if max(image.width, image.height) > 1.05 * windows[i].side]
    if not oblong:
        return windows
    squashed = torch.stack([transform.squash(images[i].pixels) for i in oblong])
    masks = model.evidence.segment(model.perceive(squashed, own_too=False).levels).sigmoid() > 0.5
    for i, mask in zip(oblong, masks.cpu().numpy(), strict=True):
        if mask.mean() < 0.002:
            continue
        rows, columns = np.nonzero(mask)
        x = (columns.mean() + 0.5) / mask.shape[1] * images[i].width
        y = (rows.mean() + 0.5) / mask.shape[0] * images[i].height
        windows[i] = transform.centred(images[i].height, images[i].width, (x, y))
    return windows


@torch.inference_mode()
def forward_batch(
    model: SkinClipVL, transform: PhotoTransform, images: Sequence[LesionImage], contexts: Sequence[Context]
) -> ForwardOutput:
    """Perception, evidence and diagnosis logits of a batch; what trust is fitted on and applied to."""
    windows = locate(model, transform, images)
    photos = torch.stack([transform(i.pixels, w) for i, w in zip(images, windows, strict=True)])
    tokens = model.perceive(photos, model.config.perception.flips)
    evidence = model.find_evidence(tokens)
    prompts = model.reasoner.writer.write(list(contexts))
    said = model.reason(prompts, tokens, evidence, keep=len(images) == 1)
    return ForwardOutput(windows, tokens.to("cpu"), evidence.to("cpu"), said.logits.cpu(), said.prefix)


class Assessor:
    """A loaded model with what was fitted on top of it."""

    def __init__(
        self,
        model: SkinClipVL,
        transform: PhotoTransform,
        calibrator: Calibrator,
        thresholds: dict[str, float],
        info: ModelInfo,
    ) -> None:
        self.lock = threading.RLock()  # held while the model answers, and while another adapter is put in its place
        self.checkpoints: dict[str, Path] = {}  # by weights_sha256, those that `using` may put in force
        self._put_in_force(model.eval(), transform, calibrator, thresholds, info)

    def _put_in_force(
        self,
        model: SkinClipVL,
        transform: PhotoTransform,
        calibrator: Calibrator,
        thresholds: dict[str, float],
        info: ModelInfo,
    ) -> None:
        self.model = model
        self.config = model.config
        self.transform = transform
        self.calibrator = calibrator
        self.thresholds = thresholds  # criterion -> probability of its being there from which it is cited
        self.model_info = info
        # ten photos more a photo: not for billions of parameters on a CPU
        self.weighs = self.config.reasoner.base is None or model.device.type != "cpu"

    @classmethod
    def load(cls, preset: str = "mini", weights: Path | None = None) -> Assessor:
        """The assessor of a preset.

        Raises ValueError, CheckpointError or MissingWeights saying what is missing, TooLittleMemory where it would not
        fit.
        """
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        folder = Path(weights) if weights else checkpoint_folder(preset)
        check_room(folder)
        model, transform = create_model(preset, weights)
        assessor = cls(model, transform, *_fitted(folder), ModelInfo(preset, __version__, weights_sha256(folder)))
        assessor.checkpoints[assessor.model_info.weights_sha256] = folder
        return assessor

    def save_calibration(self, folder: Path) -> None:
        """Completes the checkpoint that the model was saved to, with the card of an adapter."""
        save_file(self.calibrator.to_arrays(), folder / "trust.safetensors")
        (folder / "findings.json").write_text(json.dumps(self.thresholds, indent=2) + "\n")
        if self.model.foundation is not None:
            write_card(folder)

    # ---- adapters ----------------------------------------------------------------------------------------------------

    def switch(self, folder: Path) -> None:
        """Puts the adapter in `folder` in force, whole: LoRA, heads, calibrator, thresholds, name. The base stays.

        Waits for an assessment that is running. Raises CheckpointError where the adapter is not whole, or was made for
        another base; the one before then stays in force.
        """
        with self.lock:
            try:
                fitted, weights = _fitted(folder), weights_sha256(folder)
                model = self.model.with_adapter(folder)
            except CheckpointError:
                raise
            except (ValueError, RuntimeError, OSError, SafetensorError, YAMLError) as problem:
                raise CheckpointError(f"{folder} cannot be put in force: {problem}") from problem
            info = ModelInfo(model.config.preset, __version__, weights)
            self.model.replaced_by(model)
            self._put_in_force(model, PhotoTransform(model.config.photo_side), *fitted, info)

    def offer(self, folder: Path) -> None:
        """Makes a checkpoint available to `using`. Raises CheckpointError where it cannot stand on this base."""
        refuse(folder, read_config(folder), self.model)
        self.checkpoints[weights_sha256(folder)] = folder

    @contextmanager
    def using(self, weights: str | None) -> Iterator[None]:
        """The checkpoint with this `weights_sha256` is in force, for this thread alone; None takes what there is.

        Raises CheckpointError where it is not one of `checkpoints`, or does not fit.
        """
        with self.lock:
            if weights not in (None, self.model_info.weights_sha256):
                if weights not in self.checkpoints:
                    raise CheckpointError(f"the model with the weights {weights[:12]} is no longer here; assess again")
                self.switch(self.checkpoints[weights])
            yield

    # ---- the steps ---------------------------------------------------------------------------------------------------

    def locate(self, images: Sequence[LesionImage]) -> list[Window]:
        """The square window of each photo that the model reads."""
        return locate(self.model, self.transform, images)

    @torch.inference_mode()
    def forward(self, images: Sequence[LesionImage], contexts: Sequence[Context]) -> CalibratedOutput:
        """Perception, evidence, diagnosis and trust for a batch."""
        with self.lock:
            output = forward_batch(self.model, self.transform, images, contexts)
            calibrated = self.calibrator.apply(output.logits.double().numpy(), output.tokens.style.double().numpy())
        return CalibratedOutput(**{f.name: getattr(output, f.name) for f in fields(output)}, calibrated=calibrated)

    def predict(self, images: Sequence[LesionImage], contexts: Sequence[Context]) -> list[Prediction]:
        """The predictions of a batch, in its order."""
        seen = self.forward(images, contexts)
        t = seen.calibrated
        return [
            Prediction(
                probabilities=t.probabilities[i],
                balanced=t.balanced[i],
                criteria=criterion_probabilities(seen.evidence.scores[i]),
                lesion_mask=photo_mask(seen.evidence.mask_logits[i], seen.windows[i], image.height, image.width),
                malignancy=float(t.malignancy[i]),
                refer=bool(t.refer[i]),
                set_codes=tuple(t.sets[i]),
                shift_score=float(t.shift_score[i]),
                in_domain=bool(t.in_domain[i]),
            )
            for i, image in enumerate(images)
        ]

    def assess(
        self,
        image: LesionImage,
        context: Context | None = None,
        progress: Progress | None = None,
        on_partial: Callable[[Assessment], None] | None = None,
    ) -> Assessment:
        """The whole path for one photo.

        Args:
            progress: called with a share done (0-1) and what is being done, for a page to show.
            on_partial: called with the Assessment while its rationale is written: at first without, then with all of
                the text that there is, each time there is more of it. Not called where the model abstains.
        """
        tell = progress or (lambda share, what: None)
        show = on_partial or (lambda partial: None)
        context = context or Context()
        with self.lock:
            tell(0.1, "Looking at the photo")
            seen = self.forward([image], [context])
            assessment = self._without_words(image, context, seen, tell)
            if not assessment.abstained:
                tell(0.6, "Writing the rationale")
                show(assessment)
                keys = [f"{f.criterion}:{f.state}" for f in assessment.findings]
                order = np.argsort(-seen.calibrated.probabilities[0], kind="stable")
                text = self.rationale(
                    context, seen, keys, order, lambda written: show(replace(assessment, rationale=written))
                )
                assessment = replace(assessment, rationale=text)
        tell(1.0, "Done")
        return assessment

    def _without_words(
        self, image: LesionImage, context: Context, seen: CalibratedOutput, tell: Progress
    ) -> Assessment:
        """All of the Assessment of `image`, the first photo of `seen`, but its rationale."""
        window = seen.windows[0]
        mask = seen.evidence.mask_logits[0].sigmoid().numpy()
        quality = combine_quality(photo_quality(image), lesion_quality(mask > 0.5))
        tell(0.4, "Locating the findings")
        lesion = lesion_of(image, window, mask)
        findings = self._findings(image, window, seen.evidence, mask, lesion)
        abstained = not quality.usable or not bool(seen.calibrated.in_domain[0])
        if self.weighs and not abstained:
            tell(0.5, "Weighing the findings")
            findings = self._weighed(image, context, seen, findings)
        order = np.argsort(-seen.calibrated.probabilities[0], kind="stable")
        return Assessment(
            model=self.model_info,
            photo=PhotoInfo(image.width, image.height, image.sha256, quality),
            context=context,
            diagnosis=tuple(
                DiagnosisProbability(DIAGNOSES[c].code, DIAGNOSES[c].name, float(seen.calibrated.probabilities[0, c]))
                for c in order
            ),
            prediction_set=PredictionSet(self.calibrator.conformal.coverage, tuple(seen.calibrated.sets[0])),
            malignancy=Malignancy(
                float(seen.calibrated.malignancy[0]), self.calibrator.referral.threshold, bool(seen.calibrated.refer[0])
            ),
            shift=Shift(float(seen.calibrated.shift_score[0]), bool(seen.calibrated.in_domain[0])),
            lesion=lesion,
            criteria=criterion_probabilities(seen.evidence.scores[0]),
            findings=tuple(findings),
            rationale="",
            abstained=abstained,
        )

    @torch.inference_mode()
    def rationale(
        self,
        context: Context,
        seen: CalibratedOutput,
        findings: list[str],
        order: np.ndarray,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        """Display text for the first photo of `seen`, about the first two diagnoses of `order`.

        Args:
            on_text: called with the text as far as it is written; see `Reasoner.explain`.
        """
        leading, runner_up = DIAGNOSIS_CODES[order[0]], DIAGNOSIS_CODES[order[1]]
        tell = None if on_text is None else lambda raw: on_text(tidy(raw))
        raw = self.model.reasoner.explain(
            context, seen.tokens, seen.evidence, findings, leading, runner_up, seen.prefix, tell
        )
        return tidy(raw)

    def _weighed(
        self, image: LesionImage, context: Context, seen: CalibratedOutput, findings: list[Finding]
    ) -> list[Finding]:
        """The findings with what the leading diagnosis owes to the region of each."""
        from skinclip.explain.methods import Subject, cited_effects  # which take their photos from here

        subject = Subject(self, image, context, seen, int(seen.calibrated.probabilities[0].argmax()))
        owed = cited_effects(subject)
        return [replace(f, effect=owed.get(f.ref)) for f in findings]

    def findings(self, image: LesionImage, seen: CalibratedOutput) -> list[Finding]:
        """What an Assessment cites of the first photo of `seen`, which is `image`; none where no lesion was found."""
        window = seen.windows[0]
        mask = seen.evidence.mask_logits[0].sigmoid().numpy()
        return self._findings(image, window, seen.evidence, mask, lesion_of(image, window, mask))

    def _findings(
        self, image: LesionImage, window: Window, evidence: Evidence, mask: np.ndarray, lesion: Lesion
    ) -> list[Finding]:
        """Criteria that pass their threshold, in their most probable state, then what was measured on the mask."""
        if lesion.box is None:
            return []
        size, offset = (window.side, window.side), (window.x, window.y)
        found: list[tuple[str, float, Region]] = []
        rows = criterion_log_probs(evidence.scores[:1])
        for criterion, row in zip(CRITERIA, rows, strict=True):
            p = row[0].exp().numpy()
            number = int(cited_state(p, self.thresholds[criterion.code]))
            if number:
                state = criterion.states[number - 1]
                region = region_from_map(evidence.maps[0, EVIDENCE_STATES.index(state)].numpy(), mask, size, offset)
                if region is not None:
                    found.append((state.key, float(p[number]), region))
        found.sort(key=lambda f: -f[1])
        found += self._measured(image, window, mask, Region(lesion.box, lesion.polygons))
        return [
            Finding(f"r{i + 1}", STATE_BY_KEY[key].criterion, STATE_BY_KEY[key].code, float(score), region)
            for i, (key, score, region) in enumerate(found[:MAX_FINDINGS])
        ]

    def _measured(
        self, image: LesionImage, window: Window, mask: np.ndarray, region: Region
    ) -> list[tuple[str, float, Region]]:
        """Shape, border and colour, measured on the mask; their region is the lesion itself."""
        cut = image.pixels[window.y : window.y + window.side, window.x : window.x + window.side]
        small = cv2.resize(cut, (MEASURE_SIDE, MEASURE_SIDE), interpolation=cv2.INTER_AREA)
        binary = cv2.resize(mask.astype(np.float32), (MEASURE_SIDE, MEASURE_SIDE)) > 0.5
        return [(key, score, region) for key, score in measured_findings(measure_lesion(small, binary))]


def _fitted(folder: Path) -> tuple[Calibrator, dict[str, float]]:
    """What was fitted on top of the model in `folder`. Raises CheckpointError naming what is missing."""
    for name in ("trust.safetensors", "findings.json"):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} is no whole checkpoint: {name} is missing")
    calibrator = Calibrator.from_arrays(load_file(folder / "trust.safetensors"))
    thresholds = json.loads((folder / "findings.json").read_text())
    if set(thresholds) != set(CRITERION_CODES):
        raise CheckpointError(f"{folder / 'findings.json'} does not hold a threshold for each criterion")
    return calibrator, thresholds


def lesion_of(image: LesionImage, window: Window, mask: np.ndarray) -> Lesion:
    """The outlines of a mask [m, m] of the window, on the photo."""
    return lesion_region(mask, (window.side, window.side), (window.x, window.y), (image.height, image.width))


def criterion_probabilities(scores: Tensor) -> dict[str, dict[str, float]]:
    """criterion -> state -> probability, from the evidence scores [K] of a photo."""
    log_p = criterion_log_probs(scores.unsqueeze(0))
    return {
        criterion.code: dict(zip(criterion.labels, row[0].exp().tolist(), strict=True))
        for criterion, row in zip(CRITERIA, log_p, strict=True)
    }


def cited_state(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Number of the state of a criterion that is cited, 0 for none.

    Whether the criterion is there and of which type are two questions: it is cited where all states together reach the
    threshold, as the most probable of them.

    Args:
        probabilities: [..., 1 + states], "absent" first.
    """
    return np.where(1 - probabilities[..., 0] >= threshold, probabilities[..., 1:].argmax(-1) + 1, 0)


def photo_mask(mask_logits: Tensor, window: Window, height: int, width: int) -> np.ndarray:
    """The lesion mask [m, m] of a window as bool [height, width] of the whole photo."""
    soft = cv2.resize(mask_logits.sigmoid().numpy(), (window.side, window.side), interpolation=cv2.INTER_LINEAR)
    whole = np.zeros((height, width), bool)
    whole[window.y : window.y + window.side, window.x : window.x + window.side] = soft > 0.5
    return whole
