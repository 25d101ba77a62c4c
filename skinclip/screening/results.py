"""The results of a screening: one Parquet row a photo with its status, its numbers and the Assessment as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from skinclip.core.assessment import Assessment
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.screening.manifest import PhotoRow

ASSESSED = "assessed"
ABSTAINED = "abstained"  # assessed, but the photo is unusable or unlike what the model knows
UNREADABLE = "unreadable"  # the photo cannot be opened
BAD_ROW = "bad_row"  # the manifest's row cannot be used
FAILED = "failed"  # the model, or the process, failed on this photo
STATUSES = (ASSESSED, ABSTAINED, UNREADABLE, BAD_ROW, FAILED)

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # of the manifest, from 0
        ("image", pa.string()),  # as the manifest names it
        ("status", pa.string()),
        ("reason", pa.string()),  # why there is no answer, or why it is to be used with care
        ("photo_sha256", pa.string()),
        ("leading", pa.string()),
        *((f"p_{code}", pa.float64()) for code in DIAGNOSIS_CODES),
        ("malignancy", pa.float64()),
        ("refer", pa.bool_()),
        ("prediction_set", pa.list_(pa.string())),
        ("shift_score", pa.float64()),
        ("in_domain", pa.bool_()),
        ("findings", pa.list_(pa.string())),
        ("rationale", pa.string()),
        ("assessment", pa.string()),
    ]
)


def answer(row: PhotoRow, assessment: Assessment) -> dict[str, Any]:
    """The result row of an assessed photo."""
    return {
        "row": row.row,
        "image": row.image,
        "status": ABSTAINED if assessment.abstained else ASSESSED,
        "reason": _caution(assessment),
        "photo_sha256": assessment.photo.sha256,
        "leading": assessment.diagnosis[0].code,
        **{f"p_{d.code}": d.probability for d in assessment.diagnosis},
        "malignancy": assessment.malignancy.probability,
        "refer": assessment.malignancy.refer,
        "prediction_set": list(assessment.prediction_set.codes),
        "shift_score": assessment.shift.score,
        "in_domain": assessment.shift.in_domain,
        "findings": [finding.key for finding in assessment.findings],
        "rationale": assessment.rationale,
        "assessment": assessment.to_json(indent=None),
    }


def no_answer(row: PhotoRow, status: str, reason: str) -> dict[str, Any]:
    """The result row of a photo that was not assessed, with the reason in one line."""
    return {"row": row.row, "image": row.image, "status": status, "reason": " ".join(reason.split())}


def as_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Result rows as a table of SCHEMA; cells that a row lacks are null."""
    return pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)


def _caution(assessment: Assessment) -> str | None:
    words = [issue.message for issue in assessment.photo.quality.issues]
    if not assessment.shift.in_domain:
        words.append("The photo does not look like those the model was trained on.")
    return " ".join(words) or None
