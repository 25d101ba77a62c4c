"""Photo -> Assessment: the one path that every entry point takes.

    LesionImage -> perceive -> find_evidence -> reason -> trust -> regions -> rationale -> Assessment

`Assessor.assess` is the path for one photo, `Assessor.predict` the same path for many, without words.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from yaml import YAMLError

from skinclip import __version__
from skinclip.calibration.calibrated_model import CalibratedModel, CalibratedOutput
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
    Quality,
    Shift,
)
from skinclip.core.config import ModelConfig, load_yaml
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSES, DIAGNOSIS_CODES
from skinclip.explain.cited import cited_effects
from skinclip.explain.dependence import dependence
from skinclip.explain.methods import METHODS, USUAL
from skinclip.explain.subject import Subject, on_photo
from skinclip.hub import checkpoint_folder
from skinclip.imaging.photo import LesionImage, combine_quality, lesion_quality, photo_quality
from skinclip.imaging.transform import PhotoTransform, Window
from skinclip.language.rationale import tidy
from skinclip.model.adapters.card import write_card
from skinclip.model.checkpoint import CARRIED, create_model, load_adapter, read_config, refuse, weights_sha256
from skinclip.model.criteria import criterion_probabilities
from skinclip.model.errors import CheckpointError
from skinclip.model.inference import lesion_windows
from skinclip.model.memory import check_memory
from skinclip.model.quiet import silence_transformers
from skinclip.model.skinclip_vl import SkinClipVL, default_device
from skinclip.pipeline.findings import findings_of, lesion_of, outlined_places, photo_mask

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one photo, as arrays.

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


def check_room(folder: Path) -> None:
    """Raises TooLittleMemory, before anything is loaded, where a checkpoint on a base of its own would not fit, with
    Grad-CAM, which is made on request."""
    if not (folder / "config.yaml").exists():
        return
    config: ModelConfig = load_yaml(ModelConfig, folder / "config.yaml")
    if config.reasoner.base is None:
        return
    if config.reasoner.base == CARRIED:
        config = replace(config, reasoner=replace(config.reasoner, base=str(folder / CARRIED)))
    for purpose in ("load", "assess", "explain"):
        check_memory(config.preset, default_device(config), purpose, config)


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
        self.predictor = CalibratedModel(model, transform, calibrator)
        self.config = model.config
        self.thresholds = thresholds  # criterion -> probability of its being there from which it is cited
        self.model_info = info
        # about ten extra forward passes a photo: too many for billions of parameters on a CPU
        self.measures_effects = self.config.reasoner.base is None or model.device.type != "cpu"

    @property
    def model(self) -> SkinClipVL:
        """The model in force."""
        return self.predictor.model

    @property
    def transform(self) -> PhotoTransform:
        """From a photo to the input of the model in force."""
        return self.predictor.transform

    @property
    def calibrator(self) -> Calibrator:
        """The calibrator of the model in force."""
        return self.predictor.calibrator

    @classmethod
    def load(cls, preset: str = "mini", weights: Path | None = None) -> Assessor:
        """The assessor of a preset.

        Raises ValueError, CheckpointError or MissingWeights saying what is missing, TooLittleMemory where it would not
        fit.
        """
        silence_transformers()
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
                model = load_adapter(self.model, folder)
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
        return lesion_windows(self.model, self.transform, images)

    def forward(self, images: Sequence[LesionImage], contexts: Sequence[Context]) -> CalibratedOutput:
        """Perception, evidence, diagnosis and calibration of a batch."""
        with self.lock:
            return self.predictor.forward(images, contexts)

    def predict(self, images: Sequence[LesionImage], contexts: Sequence[Context]) -> list[Prediction]:
        """The predictions of a batch, in its order."""
        output = self.forward(images, contexts)
        c = output.calibrated
        return [
            Prediction(
                probabilities=c.probabilities[i],
                balanced=c.balanced[i],
                criteria=criterion_probabilities(output.evidence.scores[i]),
                lesion_mask=photo_mask(output.evidence.mask_logits[i], output.windows[i], image.height, image.width),
                malignancy=float(c.malignancy[i]),
                refer=bool(c.refer[i]),
                set_codes=tuple(c.sets[i]),
                shift_score=float(c.shift_score[i]),
                in_domain=bool(c.in_domain[i]),
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
        report = progress or (lambda share, what: None)
        show = on_partial or (lambda partial: None)
        context = context or Context()
        with self.lock:
            report(0.1, "Looking at the photo")
            output = self.forward([image], [context])
            report(0.4, "Locating the findings")
            assessment = self._without_rationale(image, context, output)
            if not assessment.abstained:
                if self.measures_effects:
                    report(0.5, "Weighing the findings")
                    assessment = self._with_effects(image, output, assessment)
                report(0.6, "Writing the rationale")
                show(assessment)
                shown = assessment
                text = self.rationale(output, shown, lambda written: show(replace(shown, rationale=written)))
                assessment = replace(assessment, rationale=text)
        report(1.0, "Done")
        return assessment

    def _without_rationale(self, image: LesionImage, context: Context, output: CalibratedOutput) -> Assessment:
        """The Assessment of `image`, the first photo of `output`, before effects are measured and text is written."""
        c = output.calibrated
        lesion, in_domain = lesion_of(image, output), bool(c.in_domain[0])
        quality = _quality(image, output, lesion, in_domain)
        return Assessment(
            model=self.model_info,
            photo=PhotoInfo(image.width, image.height, image.sha256, quality),
            context=context,
            diagnosis=tuple(
                DiagnosisProbability(DIAGNOSES[i].code, DIAGNOSES[i].name, float(c.probabilities[0, i]))
                for i in c.ranking[0]
            ),
            prediction_set=PredictionSet(self.calibrator.conformal.coverage, tuple(c.sets[0])),
            malignancy=self._malignancy(c),
            shift=Shift(float(c.shift_score[0]), in_domain),
            lesion=lesion,
            criteria=criterion_probabilities(output.evidence.scores[0]),
            findings=tuple(findings_of(image, output, lesion, self.thresholds)),
            rationale="",
            abstained=not (quality.usable and in_domain),
        )

    def _malignancy(self, calibrated: CalibratedPrediction) -> Malignancy:
        """The referral decision on the first photo, with what is known of its threshold."""
        referral = self.calibrator.referral
        known = referral.sensitivity if np.isfinite(referral.sensitivity) else None
        return Malignancy(float(calibrated.malignancy[0]), referral.threshold, bool(calibrated.refer[0]), known)

    def _with_effects(self, image: LesionImage, output: CalibratedOutput, assessment: Assessment) -> Assessment:
        """The Assessment with the effect of each finding's region, and how far the answer depends on one of them."""
        target = int(output.calibrated.ranking[0, 0])
        subject = Subject(self.predictor, image, assessment.context, output, assessment.findings, target)
        effects = cited_effects(subject)
        findings = tuple(replace(f, effect=effects.get(f.ref)) for f in assessment.findings)
        return replace(assessment, findings=findings, dependence=dependence(subject, effects))

    @torch.inference_mode()
    def rationale(
        self, output: CalibratedOutput, assessment: Assessment, on_text: Callable[[str], None] | None = None
    ) -> str:
        """Display text on an Assessment's first two diagnoses, which is of the first photo of `output`.

        Args:
            on_text: called with the text as far as it is written; see `Reasoner.explain`.
        """
        raw = self.model.reasoner.explain(
            assessment.context,
            output.tokens,
            output.evidence,
            [f.key for f in assessment.findings],
            assessment.differential,
            output.prefix,
            None if on_text is None else lambda raw: on_text(tidy(raw)),
        )
        return tidy(raw)

    # ---- what explanations need --------------------------------------------------------------------------------------

    def subject(self, image: LesionImage, context: Context | None = None, code: str | None = None) -> Subject:
        """The photo as explanation methods take it, for the diagnosis `code`, by default the leading one."""
        context = context or Context()
        output = self.forward([image], [context])
        target = DIAGNOSIS_CODES.index(code) if code else int(output.calibrated.ranking[0, 0])
        return Subject(self.predictor, image, context, output, self.findings(image, output), target)

    def findings(self, image: LesionImage, output: CalibratedOutput) -> list[Finding]:
        """The findings that an Assessment cites of the first photo of `output`, which is `image`."""
        return findings_of(image, output, lesion_of(image, output), self.thresholds)

    def heat_on_photo(
        self,
        image: LesionImage,
        context: Context | None = None,
        code: str | None = None,
        method: str = USUAL,
    ) -> np.ndarray:
        """The map of an explanation method for the diagnosis `code`, float32 [H, W] in 0..1; see `subject.on_photo`."""
        subject = self.subject(image, context, code)
        return on_photo(METHODS[method].maps(subject)[0].heat, subject)


def _quality(image: LesionImage, output: CalibratedOutput, lesion: Lesion, in_domain: bool) -> Quality:
    """The verdict on the photo. Of a picture that is not of the domain, nothing is said about a lesion's border."""
    issues = lesion_quality(output.evidence.mask[0].numpy() > 0.5, outlined_places(lesion, image))
    if not in_domain:
        issues = tuple(issue for issue in issues if issue.code != "cut_off")
    return combine_quality(photo_quality(image), issues)


def _fitted(folder: Path) -> tuple[Calibrator, dict[str, float]]:
    """Calibrator and thresholds of the checkpoint in `folder`. Raises CheckpointError naming what is missing."""
    for name in ("trust.safetensors", "findings.json"):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} is no whole checkpoint: {name} is missing")
    calibrator = Calibrator.from_arrays(load_file(folder / "trust.safetensors"))
    thresholds = json.loads((folder / "findings.json").read_text())
    if set(thresholds) != set(CRITERION_CODES):
        raise CheckpointError(f"{folder / 'findings.json'} does not hold a threshold for each criterion")
    return calibrator, thresholds
