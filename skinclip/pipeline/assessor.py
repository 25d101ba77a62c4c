"""Photo -> Assessment: the one path that every entry point takes.

    LesionImage -> perceive -> find_evidence -> reason -> calibrate -> regions -> rationale -> Assessment

`Assessor.assess` runs it for one photo, `Assessor.predict` for many without regions and rationale.
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
from torch import Tensor
from yaml import YAMLError

from skinclip import __version__
from skinclip.calibration.calibrated_model import CalibratedModel, CalibratedOutput
from skinclip.calibration.calibrator import MALIGNANT, CalibratedPrediction, Calibrator
from skinclip.calibration.outputs import PAIR
from skinclip.calibration.prevalence import Prevalence, prevalence_of
from skinclip.core.assessment import (
    Assessment,
    Context,
    DiagnosisProbability,
    Finding,
    Kind,
    Lesion,
    Malignancy,
    ModelInfo,
    PredictionSet,
    PrevalenceUsed,
    Quality,
    Shift,
    SkinTone,
)
from skinclip.core.config import ModelConfig, load_yaml
from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_CODES
from skinclip.explain.cited import cited_effects
from skinclip.explain.dependence import dependence
from skinclip.explain.methods import METHODS, USUAL
from skinclip.explain.subject import Subject, on_photo
from skinclip.hub import checkpoint_folder
from skinclip.imaging.photo import LesionImage, combine_quality, lesion_quality, photo_quality
from skinclip.imaging.skin_tone import individual_typology_angle
from skinclip.imaging.transform import PhotoTransform, Window
from skinclip.language.rationale import tidy
from skinclip.model.adapters.card import write_card
from skinclip.model.checkpoint import CARRIED, create_model, load_adapter, read_config, refuse, weights_sha256
from skinclip.model.criteria import criterion_probabilities
from skinclip.model.errors import CheckpointError
from skinclip.model.folding import fold_constants
from skinclip.model.inference import lesion_windows, look
from skinclip.model.memory import check_memory
from skinclip.model.quiet import silence_transformers
from skinclip.model.skinclip_vl import SkinClipVL, default_device
from skinclip.pipeline.findings import asserted, findings_of, lesion_of, outlined_places, photo_mask
from skinclip.pipeline.photos import KINDS, photo_info
from skinclip.pipeline.reweighting import shares_of

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one photo, as arrays.

    Attributes:
        probabilities: [C] calibrated, at natural prevalence, order of `vocabulary.DIAGNOSIS_CODES`.
        balanced: [C] p / prior, renormalised; its argmax is the diagnosis that balanced accuracy scores.
        criteria: criterion -> state -> probability, "absent" included, of the criteria that the model knows.
        lesion_mask: bool [H, W] in the photo's own pixels.
        confident: the evidence is enough for the model to answer a photo of this `kind`, as it was taken for.
        ita: individual typology angle of the skin around the lesion in degrees, NaN where too little is seen.
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
    confident: bool
    kind: str
    ita: float


def check_checkpoint_fits(folder: Path) -> None:
    """Raises TooLittleMemory, before loading, if memory is too small to load, assess with and explain a big checkpoint.

    A checkpoint with an embedded language model is small and is not checked.
    """
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
    """A loaded model with its calibrator and the thresholds for citing findings. Its adapter can be switched."""

    def __init__(
        self,
        model: SkinClipVL,
        transform: PhotoTransform,
        calibrator: Calibrator,
        thresholds: dict[str, float],
        info: ModelInfo,
    ) -> None:
        self.lock = threading.RLock()  # held during a forward pass, and while the adapter is switched
        self.checkpoints: dict[str, Path] = {}  # weights_sha256 -> folder of those that `using` may activate
        self._activate(model.eval(), transform, calibrator, thresholds, info)

    def _activate(
        self,
        model: SkinClipVL,
        transform: PhotoTransform,
        calibrator: Calibrator,
        thresholds: dict[str, float],
        info: ModelInfo,
    ) -> None:
        self.predictor = CalibratedModel(model, transform, calibrator)
        self.config = model.config
        self.thresholds = thresholds  # criterion -> probability of presence from which it is cited
        self.model_info = info
        # about ten extra forward passes per photo: too many for billions of parameters on a CPU
        self.measures_effects = self.config.reasoner.base is None or model.device.type != "cpu"

    @property
    def model(self) -> SkinClipVL:
        """The active model."""
        return self.predictor.model

    @property
    def transform(self) -> PhotoTransform:
        """The preprocessing of the active model: from a photo to its input."""
        return self.predictor.transform

    @property
    def calibrator(self) -> Calibrator:
        """The calibrator of the active model."""
        return self.predictor.calibrator

    @classmethod
    def load(cls, preset: str = "mini", weights: Path | None = None) -> Assessor:
        """Loads a preset, from its own checkpoint unless `weights` names another folder.

        Raises ValueError, CheckpointError or MissingWeights with what is missing, or TooLittleMemory.
        """
        silence_transformers()
        folder = Path(weights) if weights else checkpoint_folder(preset)
        check_checkpoint_fits(folder)
        model, transform = create_model(preset, weights)
        fold_constants(model)
        assessor = cls(model, transform, *_fitted(folder), ModelInfo(preset, __version__, weights_sha256(folder)))
        assessor.checkpoints[assessor.model_info.weights_sha256] = folder
        return assessor

    def save_calibration(self, folder: Path) -> None:
        """Adds calibrator and thresholds to the saved model in `folder`, and a model card if it is an adapter."""
        save_file(self.calibrator.to_arrays(), folder / "trust.safetensors")
        (folder / "findings.json").write_text(json.dumps(self.thresholds, indent=2) + "\n")
        if self.model.foundation is not None:
            write_card(folder)

    # ---- adapters ----------------------------------------------------------------------------------------------------

    def switch(self, folder: Path) -> None:
        """Activates the adapter in `folder` with its LoRA, heads, calibrator, thresholds and name. The base stays.

        Waits for an assessment that is running. Raises CheckpointError where the adapter is incomplete or made for
        another base; the previous one then stays active.
        """
        with self.lock:
            try:
                fitted, weights = _fitted(folder), weights_sha256(folder)
                model = load_adapter(self.model, folder)
            except CheckpointError:
                raise
            except (ValueError, RuntimeError, OSError, SafetensorError, YAMLError) as problem:
                raise CheckpointError(f"{folder} cannot be activated: {problem}") from problem
            info = ModelInfo(model.config.preset, __version__, weights)
            self.model.replaced_by(model)
            self._activate(model, PhotoTransform(model.config.photo_side), *fitted, info)

    def offer(self, folder: Path) -> None:
        """Makes a checkpoint available to `using`. Raises CheckpointError where it does not fit this base."""
        refuse(folder, read_config(folder), self.model)
        self.checkpoints[weights_sha256(folder)] = folder

    @contextmanager
    def using(self, weights: str | None) -> Iterator[None]:
        """Activates the checkpoint with this `weights_sha256`, and holds the lock so that no other thread switches it.

        None keeps the active one. Nothing is switched back on exit. Raises CheckpointError where it is not one of
        `checkpoints`, or does not fit.
        """
        with self.lock:
            if weights not in (None, self.model_info.weights_sha256):
                if weights not in self.checkpoints:
                    raise CheckpointError(f"the model with the weights {weights[:12]} is no longer here; assess again")
                self.switch(self.checkpoints[weights])
            yield

    @contextmanager
    def at_prevalence(self, prevalence: Prevalence | str | Path | None) -> Iterator[None]:
        """Makes every answer inside the block one at this prevalence, and holds the lock meanwhile.

        Args:
            prevalence: one of `prevalence.NAMED`, a YAML or JSON file, or None for the checkpoint's own.

        Raises ConfigError where it cannot be read, and ValueError where the checkpoint cannot change its prevalence.
        """
        with self.lock:
            usual = self.predictor
            if prevalence is not None:
                self.predictor = usual.at(prevalence_of(prevalence))
            try:
                yield
            finally:
                if self.predictor.model is usual.model:  # and not another one that was switched to meanwhile
                    self.predictor = usual

    # ---- the steps ---------------------------------------------------------------------------------------------------

    def locate(self, images: Sequence[LesionImage]) -> list[Window]:
        """The square of each photo that the model reads."""
        return lesion_windows(self.model, self.transform, images)

    def forward(
        self,
        images: Sequence[LesionImage],
        contexts: Sequence[Context],
        others: Sequence[LesionImage | None] | None = None,
    ) -> CalibratedOutput:
        """The calibrated model output for a batch: perception, evidence, diagnosis and calibration.

        Args:
            others: a second photo of each lesion, None where there is none.
        """
        with self.lock:
            return self.predictor.forward(images, contexts, [image.kind for image in images], others)

    @torch.inference_mode()
    def recognise(self, images: Sequence[LesionImage]) -> list[Kind | None]:
        """The kind that the model takes each photo for, whatever anybody says; None where it tells none apart."""
        if not self.tells_kinds or not images:
            return [None] * len(images)
        with self.lock:
            style = look(self.model, self.transform, images).tokens.style.cpu()
        return self._kinds(style)

    def predict(
        self,
        images: Sequence[LesionImage],
        contexts: Sequence[Context],
        others: Sequence[LesionImage | None] | None = None,
    ) -> list[Prediction]:
        """The predictions of a batch, in its order; `others` as in `forward`."""
        output = self.forward(images, contexts, others)
        c = output.calibrated
        masks = [_photo_mask(output, i, image) for i, image in enumerate(images)]
        return [
            Prediction(
                probabilities=c.probabilities[i],
                balanced=c.balanced[i],
                criteria=criterion_probabilities(output.criterion_scores[i], self._asserted(image, c.photo_kinds[i])),
                lesion_mask=masks[i],
                malignancy=float(c.malignancy[i]),
                refer=bool(c.refer[i]),
                set_codes=tuple(c.sets[i]),
                shift_score=float(c.shift_score[i]),
                in_domain=bool(c.in_domain[i]),
                confident=bool(c.confident[i]),
                kind=c.kinds[i],
                ita=individual_typology_angle(image.pixels, masks[i]),
            )
            for i, image in enumerate(images)
        ]

    def assess(
        self,
        image: LesionImage,
        context: Context | None = None,
        progress: Progress | None = None,
        on_partial: Callable[[Assessment], None] | None = None,
        clinical: LesionImage | None = None,
        prevalence: Prevalence | str | Path | None = None,
    ) -> Assessment:
        """The Assessment of one lesion; the rationale is left empty where the model abstains.

        Args:
            image: the photo in which regions are drawn; dermoscopy where there is one, see `photos.dermoscopy_first`.
            clinical: a clinical close-up of the same lesion beside it.
            progress: called with the share done (0-1) and the name of the current step, to be displayed.
            on_partial: called with the Assessment as soon as its figures are known, then while its rationale is
                generated: first with an empty one, then with the text so far whenever it grows. Not called where the
                model abstains.
            prevalence: how often each diagnosis is met where the photo was taken; see `at_prevalence`.
        """
        report = progress or (lambda share, step: None)
        show = on_partial or (lambda partial: None)
        context = context or Context()
        with self.at_prevalence(prevalence):
            report(0.1, "Looking at the photo")
            output = self.forward([image], [context], [clinical])
            report(0.4, "Locating the findings")
            assessment = self._without_rationale(image, context, output)
            if clinical is not None:
                beside = photo_info(clinical, combine_quality(photo_quality(clinical)), self.recognise([clinical])[0])
                assessment = replace(assessment, photos=(assessment.photo, beside))
            if not assessment.abstained:
                show(assessment)  # the figures; all that follows explains them
                if self.measures_effects:
                    report(0.5, "Weighing the findings")
                    assessment = self._with_effects(image, output, assessment)
                report(0.6, "Writing the rationale")
                show(assessment)
                partial = assessment
                text = self.rationale(output, partial, lambda written: show(replace(partial, rationale=written)))
                assessment = replace(assessment, rationale=text)
        report(1.0, "Done")
        return assessment

    def assess_quickly(self, image: LesionImage, context: Context | None = None) -> Assessment:
        """The Assessment of one photo without measured effects and rationale: one forward pass."""
        context = context or Context()
        return self._without_rationale(image, context, self.forward([image], [context]))

    def _without_rationale(self, image: LesionImage, context: Context, output: CalibratedOutput) -> Assessment:
        """The Assessment of `image`, the first photo of `output`, before effects are measured and text is written."""
        c = output.calibrated
        lesion, in_domain, kind = lesion_of(image, output), bool(c.in_domain[0]), self.calibrator.of(c.kinds[0])
        quality = _quality(image, output, lesion, in_domain)
        return Assessment(
            model=self.model_info,
            photo=photo_info(image, quality, self._kinds(output.style)[0]),
            context=context,
            diagnosis=tuple(
                DiagnosisProbability(DIAGNOSES[i].code, DIAGNOSES[i].name, float(c.probabilities[0, i]))
                for i in c.ranking[0]
                if DIAGNOSIS_CODES[i] in self.config.diagnoses
            ),
            prediction_set=PredictionSet(kind.conformal.coverage, tuple(c.sets[0])),
            malignancy=self._malignancy(c),
            shift=Shift(float(c.shift_score[0]), in_domain),
            lesion=lesion,
            criteria=criterion_probabilities(output.criterion_scores[0], self._asserted(image, c.photo_kinds[0])),
            findings=tuple(self.findings(image, output)),
            rationale="",
            abstained=not (quality.usable and in_domain and bool(c.confident[0])),
            prevalence=self._prevalence(),
            skin_tone=_skin_tone(image, output, kind.ita_range),
        )

    def _prevalence(self) -> PrevalenceUsed:
        """The prevalence of the probabilities, of the diagnoses that the model knows."""
        return PrevalenceUsed(self.calibrator.prevalence, shares_of(self.calibrator))

    @property
    def tells_kinds(self) -> bool:
        """The calibration tells dermoscopy from clinical photos."""
        return len(set(self.calibrator.by_kind) - {PAIR}) > 1

    def _kinds(self, style: Tensor) -> list[Kind | None]:
        """The kinds of photos by their `style` [n, S]; None where the calibration tells none apart."""
        names = self.calibrator.kinds_of(style.double().numpy()) if self.tells_kinds else ("",) * len(style)
        return [KINDS.get(name) for name in names]

    def _asserted(self, image: LesionImage, kind: str) -> tuple[str, ...]:
        """The criteria that may be asserted on a photo; what a person said counts more than what it was taken for."""
        return asserted(self.config.criteria, image.kind or kind)

    def _malignancy(self, calibrated: CalibratedPrediction) -> Malignancy:
        """The referral decision on the first photo, with the threshold and its sensitivity where that is known."""
        referral, prior = self.calibrator.of(calibrated.kinds[0]).referral, np.asarray(self.calibrator.natural_prior)
        sensitivity, specificity = (
            float(v) if np.isfinite(v) else None for v in (referral.sensitivity, referral.specificity)
        )
        return Malignancy(
            float(calibrated.malignancy[0]),
            referral.threshold,
            bool(calibrated.refer[0]),
            sensitivity,
            specificity,
            float(prior[MALIGNANT].sum()),
        )

    def _with_effects(self, image: LesionImage, output: CalibratedOutput, assessment: Assessment) -> Assessment:
        """The Assessment with the effect of each finding's region, and the dependence on one of them."""
        target = int(output.calibrated.ranking[0, 0])
        subject = Subject(self.predictor, image, assessment.context, output, assessment.findings, target)
        effects = cited_effects(subject)
        findings = tuple(replace(f, effect=effects.get(f.ref)) for f in assessment.findings)
        return replace(assessment, findings=findings, dependence=dependence(subject, effects))

    @torch.inference_mode()
    def rationale(
        self, output: CalibratedOutput, assessment: Assessment, on_text: Callable[[str], None] | None = None
    ) -> str:
        """The rationale as display text, for an Assessment of the first photo of `output`.

        Args:
            on_text: called with the text so far whenever it grows; see `Reasoner.explain`.
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

    # ---- explanations ------------------------------------------------------------------------------------------------

    def subject(
        self,
        image: LesionImage,
        context: Context | None = None,
        code: str | None = None,
        clinical: LesionImage | None = None,
    ) -> Subject:
        """The input of explanation methods: photo, outputs and findings, for `code` or else the leading diagnosis.

        `clinical` as in `assess`.
        """
        context = context or Context()
        output = self.forward([image], [context], [clinical])
        target = DIAGNOSIS_CODES.index(code) if code else int(output.calibrated.ranking[0, 0])
        return Subject(self.predictor, image, context, output, self.findings(image, output), target)

    def findings(self, image: LesionImage, output: CalibratedOutput) -> list[Finding]:
        """The findings that an Assessment of `image`, the first photo of `output`, cites."""
        kind = image.kind or output.calibrated.photo_kinds[0]
        return findings_of(image, output, lesion_of(image, output), self.thresholds, kind)

    def heat_on_photo(
        self,
        image: LesionImage,
        context: Context | None = None,
        code: str | None = None,
        method: str = USUAL,
        clinical: LesionImage | None = None,
    ) -> np.ndarray:
        """The heat map of `method` for `code` or else the leading diagnosis, float32 [H, W] in 0..1; see `on_photo`."""
        subject = self.subject(image, context, code, clinical)
        return on_photo(METHODS[method].maps(subject)[0].heat, subject)


def _photo_mask(output: CalibratedOutput, i: int, image: LesionImage) -> np.ndarray:
    """The lesion mask of the i-th photo of a batch, bool [H, W] of the whole photo."""
    return photo_mask(output.evidence.mask_logits[i], output.windows[i], image.height, image.width)


def _skin_tone(image: LesionImage, output: CalibratedOutput, usual: tuple[float, float] | None) -> SkinTone:
    """The record of the skin in `image`, the first photo of `output`, beside the range of those that were fitted on."""
    angle = individual_typology_angle(image.pixels, _photo_mask(output, 0, image))
    if not np.isfinite(angle):
        return SkinTone(None, None)
    return SkinTone(angle, None if usual is None else usual[0] <= angle <= usual[1])


def _quality(image: LesionImage, output: CalibratedOutput, lesion: Lesion, in_domain: bool) -> Quality:
    """The quality verdict on the photo. Outside the domain, no cut-off lesion is reported."""
    issues = lesion_quality(output.evidence.mask[0].numpy() > 0.5, outlined_places(lesion, image))
    if not in_domain:
        issues = tuple(issue for issue in issues if issue.code != "cut_off")
    return combine_quality(photo_quality(image), issues)


def _fitted(folder: Path) -> tuple[Calibrator, dict[str, float]]:
    """Calibrator and thresholds of the checkpoint in `folder`. Raises CheckpointError naming what is missing."""
    for name in ("trust.safetensors", "findings.json"):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} is not a complete checkpoint: {name} is missing")
    config = read_config(folder)
    calibrator = Calibrator.from_arrays(load_file(folder / "trust.safetensors"), config.diagnoses)
    thresholds = json.loads((folder / "findings.json").read_text())
    if set(thresholds) != set(config.criteria):
        raise CheckpointError(f"{folder / 'findings.json'} does not hold a threshold for each criterion")
    return calibrator, thresholds
