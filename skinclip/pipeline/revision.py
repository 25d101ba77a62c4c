"""A clinician's corrections of an Assessment, and the model's answer to them. The Assessment itself stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

from skinclip.core.assessment import (
    Assessment,
    DiagnosisProbability,
    Malignancy,
    Polygon,
    PredictionSet,
    Revision,
)
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSES, STATE_BY_KEY
from skinclip.explain.counterfactual import what_if, within_outline
from skinclip.imaging.photo import LesionImage
from skinclip.pipeline.assessor import Assessor

ABSENT = "absent"


@dataclass(frozen=True)
class Corrections:
    """A clinician's corrections.

    Attributes:
        outline: the lesion's outline in pixels of the photo; empty where the model's stays.
        struck_out: references of findings that are not seen.
        added: keys of states that are seen and were not cited, "streaks:irregular".
    """

    outline: Polygon = ()
    struck_out: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def edits(self, assessment: Assessment) -> dict[str, str]:
        """Criterion -> state for the model. A finding measured on the outline is none of its criteria.

        Raises ValueError for a finding or a state that there is not.
        """
        findings = {f.ref: f for f in assessment.findings}
        unknown = [*set(self.struck_out) - set(findings), *set(self.added) - set(STATE_BY_KEY)]
        if unknown:
            raise ValueError(f"there is no finding {', '.join(sorted(unknown))}")
        edits = {findings[ref].criterion: ABSENT for ref in self.struck_out}
        edits |= {STATE_BY_KEY[key].criterion: STATE_BY_KEY[key].code for key in self.added}
        return {criterion: state for criterion, state in edits.items() if criterion in CRITERION_CODES}


def revise(
    assessor: Assessor,
    photos: tuple[LesionImage, LesionImage | None],
    assessment: Assessment,
    corrections: Corrections,
) -> Revision:
    """The model's answer with the corrections in the place of what it saw itself. Raises ValueError for unusable ones.

    The model's own threshold and prevalence hold.

    Args:
        photos: those of the Assessment, in its order.
    """
    edits = corrections.edits(assessment)
    with assessor.using(assessment.model.weights_sha256):
        output = assessor.forward([photos[0]], [assessment.context], [photos[1]])
        if corrections.outline:
            output = within_outline(assessor.predictor, output, corrections.outline)
        calibrated = what_if(assessor.predictor, output, assessment.context, edits)
    known = {d.code for d in assessment.diagnosis}
    own, p = assessment.malignancy, float(calibrated.malignancy[0])
    return Revision(
        outline=corrections.outline,
        struck_out=corrections.struck_out,
        added={STATE_BY_KEY[key].criterion: STATE_BY_KEY[key].code for key in corrections.added},
        diagnosis=tuple(
            DiagnosisProbability(DIAGNOSES[i].code, DIAGNOSES[i].name, float(calibrated.probabilities[0, i]))
            for i in calibrated.ranking[0]
            if DIAGNOSES[i].code in known
        ),
        prediction_set=PredictionSet(assessment.prediction_set.coverage, tuple(calibrated.sets[0])),
        malignancy=Malignancy(p, own.threshold, p >= own.threshold, own.sensitivity, own.specificity, own.prevalence),
    )
