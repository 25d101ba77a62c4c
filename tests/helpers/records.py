"""Made-up Assessments."""

from __future__ import annotations

from skinclip.core import assessment as record
from skinclip.core.vocabulary import CRITERIA, DIAGNOSES


def made_up() -> record.Assessment:
    """A plausible Assessment of a 160 x 120 photo: one finding with its own region, one about the whole lesion."""
    square = ((40.0, 40.0), (80.0, 40.0), (80.0, 80.0), (40.0, 80.0))
    whole = ((20.0, 20.0), (100.0, 20.0), (100.0, 100.0), (20.0, 100.0))
    return record.Assessment(
        model=record.ModelInfo("mini", "0", "0" * 64),
        photo=record.PhotoInfo(160, 120, "0" * 64, record.Quality(True)),
        context=record.Context(),
        diagnosis=tuple(record.DiagnosisProbability(d.code, d.name, 1 / len(DIAGNOSES)) for d in DIAGNOSES),
        prediction_set=record.PredictionSet(0.9, ("mel", "nv")),
        malignancy=record.Malignancy(0.4, 0.2, True),
        shift=record.Shift(0.5, True),
        lesion=record.Lesion((20, 20, 100, 100), (whole,), 0.33),
        criteria={c.code: {label: 1 / len(c.labels) for label in c.labels} for c in CRITERIA},
        findings=(
            record.Finding("r1", "streaks", "irregular", 0.8, record.Region((40, 40, 80, 80), (square,))),
            record.Finding("r2", "border", "irregular", 0.7, record.Region((20, 20, 100, 100), (whole,))),
        ),
        rationale="Melanoma is the leading diagnosis, supported by [r1] irregular streaks and [r2] irregular border.",
        abstained=False,
    )
