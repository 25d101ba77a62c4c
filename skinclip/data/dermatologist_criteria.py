"""Criteria that dermatologists marked on HAM10000 photos (Chanda et al. 2024), joined to the photos by their id.

They are kept apart from `Case.criteria`: who read a photo ticked what was seen in a list of 18, so a criterion that
was not ticked is "not marked", weaker than "absent"; `skinclip.data.possible_states` says what follows. `CRITERIA` says
which of the 18 stand for a state of the seven-point checklist, and why the others do not.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from skinclip.data import cells
from skinclip.data.cases import CriteriaReading, DataError
from skinclip.data.files import table_named
from skinclip.data.layouts.base import photo_id
from skinclip.data.tables import BadRow, LabelRow, read_labels

FILES = ("dermatologist_criteria", "dermatologist_criteria_second_reading")


@dataclass(frozen=True)
class MarkedCriterion:
    """One of the 18 criteria: what it means, the state key it stands for (or None), and the reason.

    `offered_for` is the diagnosis whose photos it was offered on, where it stands for a state: that it is not marked on
    others says nothing.
    """

    code: str
    meaning: str
    state: str | None
    reason: str
    offered_for: str | None = None


CRITERIA: tuple[MarkedCriterion, ...] = (
    MarkedCriterion(
        *("TRBL", "thick reticular or branched lines", "pigment_network:atypical"),
        "thick, dark, irregular lines are what defines an atypical network",
        "mel",
    ),
    MarkedCriterion(
        *("ESA", "eccentric structureless area", "pigmentation:irregular"),
        "a structureless blotch off the centre is irregular pigmentation where it is pigmented, which it mostly is",
        "mel",
    ),
    MarkedCriterion(
        *("BDG", "black dots or globules at the periphery", "dots_and_globules:irregular"),
        "dark dots and globules unevenly placed at the edge are irregular ones",
        "mel",
    ),
    MarkedCriterion(
        *("GP", "grey patterns", "regression_structures:present"),
        "grey granules and lines are the peppering of regression",
        "mel",
    ),
    MarkedCriterion(
        *("PV", "polymorphous vessels", "vascular_structures:irregular"),
        "vessels of several shapes, dotted and linear irregular among them",
        "mel",
    ),
    MarkedCriterion(
        *("PRL", "pseudopods or radial lines at the margin, not all around", "streaks:irregular"),
        "streaks at part of the edge are irregular ones",
        "mel",
    ),
    MarkedCriterion(
        *("WLSA", "white lines or white structureless area", "regression_structures:present"),
        "white scar-like areas are regression; shiny white lines are not, so the label is a noisy one",
        "mel",
    ),
    MarkedCriterion("PLR", "parallel lines on ridges", None, "of acral skin, which the checklist leaves out"),
    MarkedCriterion("PES", "pigment beyond the scar", None, "of recurrent lesions, which the checklist leaves out"),
    MarkedCriterion("PIF", "pigment invades follicle openings", None, "of facial skin, which the checklist leaves out"),
    MarkedCriterion("OPC", "one pattern, one colour", None, "says nothing about which pattern it is"),
    MarkedCriterion("SPC", "symmetrical combination of patterns or colours", None, "says nothing about which they are"),
    MarkedCriterion(
        *("MVP", "monomorphic vessels", "vascular_structures:regular"),
        "vessels of one shape; a few of them are dotted, which the checklist counts as irregular",
        "nv",
    ),
    MarkedCriterion(
        *("PRLC", "pseudopods or radial lines all around", "streaks:regular"),
        "even radial lines around the whole edge are regular streaks",
        "nv",
    ),
    MarkedCriterion("PLF", "parallel lines in furrows", None, "of acral skin, which the checklist leaves out"),
    MarkedCriterion("PDES", "pigment within the scar", None, "of recurrent lesions, which the checklist leaves out"),
    MarkedCriterion(
        *("APC", "asymmetric combination of patterns or colours", None),
        "asymmetry of structure is no criterion of the checklist",
    ),
    MarkedCriterion("MS", "melanoma simulator", None, "a judgement, not a structure"),
)
OFFERED: dict[str, dict[str, str]] = {  # diagnosis -> the criteria offered on its photos and the states they stand for
    diagnosis: {c.code: c.state for c in CRITERIA if c.state is not None and c.offered_for == diagnosis}
    for diagnosis in ("mel", "nv")
}
SEVEN_POINT: dict[str, str] = {c.code: c.state for c in CRITERIA if c.state is not None}
_BY_COLUMN = {c.code.lower(): c.code for c in CRITERIA}


def read_readings(folder: Path) -> dict[str, tuple[CriteriaReading, ...]]:
    """Photo id -> its readings, from the tables of criteria in a data set's folder; none where there are none.

    Raises DataError for a table that cannot be read or a cell that is not 0 or 1.
    """
    readings_of: dict[str, list[CriteriaReading]] = defaultdict(list)
    for name in FILES:
        if (path := table_named([folder], name)) is None:
            continue
        for row in read_labels(path, ("image_id",)).rows:
            try:
                readings_of[photo_id(row, "image_id")].append(_reading(row))
            except BadRow as error:
                raise DataError(f"{path.name} line {row.line}: {error}") from error
    return {image: tuple(readings) for image, readings in readings_of.items()}


def _reading(row: LabelRow) -> CriteriaReading:
    if row.problem:
        raise BadRow(row.problem)
    answers = {code: cells.parse_yes_no(row.word(column), code) for column, code in _BY_COLUMN.items()}
    return CriteriaReading(
        marked=frozenset(code for code, answer in answers.items() if answer),
        not_marked=frozenset(code for code, answer in answers.items() if answer is False),
        annotator=row.get("annotator"),
    )
