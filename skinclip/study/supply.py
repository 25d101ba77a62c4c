"""Supply of photos for a study, counted before any model runs: how many of which kind are needed, there, and missing.

The number of the AI's errors can only be estimated then: from its error rates by diagnosis on a public test set
(`protocol/error_rates.yaml`), or from its own answers where a build has already kept some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any

from skinclip.core.vocabulary import DIAGNOSES
from skinclip.data.cases import Case
from skinclip.study.errors import StudyRequestError
from skinclip.study.protocol.model import ProtocolModel
from skinclip.study.protocol.yaml_schema import read_yaml

OUT_OF_DISTRIBUTION = "ood"  # in the manifest's column `group`
NAMED = 10  # photos that a message names
_NINETY_PERCENT = 1.645
_MALIGNANT = frozenset(d.code for d in DIAGNOSES if d.malignant)
PHOTOS_HELP = (
    "`--photos` is a folder with the photos and a table `manifest.csv`: a column `image` (file name), `diagnosis` "
    f"({', '.join(d.code for d in DIAGNOSES)}), and, for photos of a kind that the AI was not made for, `group` with "
    "the word ood. `lesion_id` says which photos are of one lesion. Folders of HAM10000, Derm7pt and ISIC are read too."
)


@dataclass(frozen=True)
class Supply:
    """Photos that could become cases, one per lesion.

    Attributes:
        labelled: Lesions of known diagnosis, by diagnosis.
        out_of_distribution: Lesions marked so.
        unlabelled: Names of photos without a diagnosis.
        unread: One line for each row of the table that could not be read.
        tones: Labelled lesions by skin tone, in words; those of unknown tone are left out.
    """

    labelled: Mapping[str, int]
    out_of_distribution: int
    unlabelled: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    tones: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Yield:
    """Errors of the AI that photos are likely to yield: the mean, and the ends of a 90 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Outlook:
    """Photos needed and there, with the problems that no model run could solve.

    Attributes:
        needed: Kind of photo in words -> number.
        available: The same kinds -> number, or an estimate in words; empty where no folder was given.
        problems: Shortages that are certain.
        warnings: Shortages that are likely.
    """

    needed: dict[str, int]
    available: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def is_out_of_distribution(case: Case) -> bool:
    """True where the manifest marks the photo as one that the AI was not made for."""
    return case.group is not None and case.group.strip().lower() == OUT_OF_DISTRIBUTION


def count(cases: Iterable[Case], unread: Sequence[str] = ()) -> Supply:
    """The supply of a table of cases; two photos of one lesion count once."""
    lesions: dict[tuple[str, str], Case] = {}
    unlabelled = []
    for case in cases:
        if case.diagnosis is None and not is_out_of_distribution(case):
            unlabelled.append(case.image.name)
        else:
            lesions.setdefault((case.source, case.lesion_id), case)
    labelled = Counter(c.diagnosis for c in lesions.values() if not is_out_of_distribution(c))
    outside = sum(is_out_of_distribution(case) for case in lesions.values())
    tones = Counter(filter(None, (_tone(c) for c in lesions.values() if not is_out_of_distribution(c))))
    known = {str(code): n for code, n in labelled.items()}
    return Supply(known, outside, tuple(unlabelled), tuple(unread), dict(sorted(tones.items())))


def _tone(case: Case) -> str | None:
    """The photo's skin tone as its table gives it: Fitzpatrick's type, or the class of MILK10k."""
    if case.fitzpatrick is not None:
        return f"Fitzpatrick {case.fitzpatrick}"
    return None if case.skin_tone is None else f"tone class {case.skin_tone} of 5"


def opaque_patients(cases: Iterable[Case]) -> dict[tuple[str, str | None], str]:
    """(source, patient id) -> an opaque name, P001 and so on, of the patients that the photos' tables name."""
    known = dict.fromkeys((case.source, case.patient_id) for case in cases if case.patient_id)
    return {patient: f"P{i:03d}" for i, patient in enumerate(known, start=1)}


def outlook(protocol: ProtocolModel, supply: Supply | None = None) -> Outlook:
    """Photos that the protocol needs, held against those that there are."""
    counts, practice = protocol.cases.counts, protocol.cases.practice
    labelled = counts["right"] + counts["wrong"] + practice
    needed = {
        "photos of known diagnosis, one per lesion": labelled,
        "of these, errors of the AI": counts["wrong"],
        "of these, answered rightly by the AI": counts["right"],
        "photos out of distribution (`ood` in the column group)": counts["ood"],
    }
    if supply is None:
        return Outlook(needed)
    there, errors = sum(supply.labelled.values()), expected_errors(supply.labelled)
    likely = f"about {errors.mean:.0f} ({errors.low:.0f} to {errors.high:.0f})"
    right = f"about {there - errors.mean:.0f} ({there - errors.high:.0f} to {there - errors.low:.0f})"
    available = dict(zip(needed, (str(there), likely, right, str(supply.out_of_distribution)), strict=True))
    return Outlook(needed, available, _problems(needed, supply), _warnings(counts, there, errors))


def _problems(needed: Mapping[str, int], supply: Supply) -> tuple[str, ...]:
    labelled, _, _, outside = needed.values()
    there, problems = sum(supply.labelled.values()), []
    if there < labelled:
        problems.append(
            f"{there} photos of known diagnosis (one per lesion), {labelled} needed: add {labelled - there} at least, "
            "or lower cases.n or cases.practice"
        )
    if supply.out_of_distribution < outside:
        problems.append(
            f"{supply.out_of_distribution} photos marked as out of distribution (`ood` in the column group), {outside} "
            "needed: mark or add more, or lower cases.ood_share"
        )
    return tuple(problems)


def _warnings(counts: Mapping[str, int], there: int, errors: Yield) -> tuple[str, ...]:
    warnings = []
    if errors.low < counts["wrong"]:
        safe = safe_number(counts, rate=errors.mean / there if there else None)
        warnings.append(
            f"the AI may err on fewer than the {counts['wrong']} photos needed; about {safe} photos of known diagnosis "
            "would be safe"
        )
    if there - errors.high < counts["right"]:
        warnings.append(f"the AI may be right on fewer than the {counts['right']} photos needed: add photos")
    return tuple(warnings)


def safe_number(counts: Mapping[str, int], practice: int = 0, rate: float | None = None) -> int:
    """Photos of known diagnosis that yield enough errors and enough right answers in 95 % of draws.

    `rate` is the AI's error rate; by default that of all test photos.
    """
    tested, wrong = (sum(column) for column in zip(*error_rates().values(), strict=True))
    p = min(max(wrong / tested if rate is None else rate, 0.02), 0.98)
    n = counts["right"] + counts["wrong"] + practice
    while True:
        reach = _NINETY_PERCENT * sqrt(n * p * (1 - p))
        if n * p - reach >= counts["wrong"] and n * (1 - p) - reach >= counts["right"]:
            return n
        n += 1


def expected_errors(labelled: Mapping[str, int]) -> Yield:
    """Errors to expect on photos by diagnosis, at the rates of the embedded model on HAM10000's test photos."""
    rates = error_rates()
    every = [sum(column) for column in zip(*rates.values(), strict=True)]
    mean = variance = 0.0
    for code, photos in labelled.items():
        tested, wrong = rates.get(code, every)
        p = (wrong + 0.5) / (tested + 1)
        mean += photos * p
        variance += photos * p * (1 - p) + photos**2 * p * (1 - p) / (tested + 1)
    reach, total = _NINETY_PERCENT * sqrt(variance), sum(labelled.values())
    return Yield(mean, max(0.0, mean - reach), min(float(total), mean + reach))


@cache
def error_rates() -> dict[str, tuple[int, int]]:
    """Diagnosis -> test photos, and those on which the AI's leading diagnosis was another one."""
    values: dict[str, Any] = read_yaml(Path(__file__).parent / "protocol" / "error_rates.yaml")
    return {code: (tested, wrong) for code, (tested, wrong) in values.items()}


def check_supply(protocol: ProtocolModel, supply: Supply) -> None:
    """Raises StudyRequestError, before any model runs, where photos cannot suffice whatever the AI answers."""
    problems = outlook(protocol, supply).problems
    if problems:
        raise StudyRequestError(f"too few photos: {'; '.join(problems)}. {_not_counted(supply)}{PHOTOS_HELP}")


def _not_counted(supply: Supply) -> str:
    parts = []
    if supply.unlabelled:
        parts.append(f"{len(supply.unlabelled)} photos have no diagnosis: {named(supply.unlabelled)}")
    if supply.unread:
        parts.append(f"{len(supply.unread)} rows could not be read: {named(supply.unread)}")
    return "".join(f"{part}. " for part in parts)


def named(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _breakdown(protocol: ProtocolModel, supply: Supply) -> list[str]:
    """Photos there, expected errors, and those needed to keep the collection's mix, by diagnosis and malignancy; tones.

    The study's cases are drawn from right answers and errors apart, so a diagnosis' share differs between the two.
    """
    counts, rates = protocol.cases.counts, error_rates()
    every = [sum(column) for column in zip(*rates.values(), strict=True)]
    share = {code: (wrong + 0.5) / (n + 1) for code, (n, wrong) in rates.items()}
    rest = (every[1] + 0.5) / (every[0] + 1)
    errors = {code: n * share.get(code, rest) for code, n in supply.labelled.items()}
    rights = {code: n - errors[code] for code, n in supply.labelled.items()}
    lines = [f"{'there':>8}  {'AI errs on':>10}  {'in the study':>12}  of them errors  diagnosis"]
    groups = {code: [code] for code in sorted(supply.labelled)}
    for name, wanted in (("malignant", True), ("benign", False)):
        groups[name] = [code for code in supply.labelled if (code in _MALIGNANT) == wanted]
    for name, codes in groups.items():
        there, wrong = (sum(part[code] for code in codes) for part in (supply.labelled, errors))
        of_wrong = counts["wrong"] * wrong / max(sum(errors.values()), 1e-9)
        of_right = counts["right"] * sum(rights[code] for code in codes) / max(sum(rights.values()), 1e-9)
        lines.append(f"{there:>8}  {wrong:>10.1f}  {of_wrong + of_right:>12.1f}  {of_wrong:>14.1f}  {name}")
    tones = ", ".join(f"{n} {tone}" for tone, n in supply.tones.items())
    return [*lines, f"by skin tone: {tones or 'not in the table'}"]


def outlook_table(protocol: ProtocolModel, outlook: Outlook, supply: Supply | None) -> str:
    """The outlook as lines for a coordinator."""
    head = f"{protocol.title} ({protocol.key}, version {protocol.version})"
    lines = [head, "", f"{'needed':>8}  {'there':>22}  photos" if outlook.available else f"{'needed':>8}  photos"]
    for kind, n in outlook.needed.items():
        there = f"  {outlook.available[kind]:>22}" if outlook.available else ""
        lines.append(f"{n:>8}{there}  {kind}")
    if supply is None:
        tested, wrong = (sum(column) for column in zip(*error_rates().values(), strict=True))
        lines += [
            "",
            f"The AI errs on about {wrong / tested:.0%} of dermoscopic photos like HAM10000's, so about "
            f"{safe_number(protocol.cases.counts, protocol.cases.practice)} photos of known diagnosis would be safe. "
            "Give --photos DIR to count yours.",
            PHOTOS_HELP,
        ]
        return "\n".join(lines)
    lines += ["", *_breakdown(protocol, supply), *filter(None, [_not_counted(supply).strip()])]
    lines.append(
        "Errors of the AI are estimated from its rates on HAM10000's test photos, with a 90 % interval; photos from "
        "another camera or clinic may yield more. `study build` counts them and keeps its answers, so that photos can "
        "be added without starting over."
    )
    lines += [f"NOT ENOUGH: {problem}" for problem in outlook.problems]
    lines += [f"LIKELY NOT ENOUGH: {warning}" for warning in outlook.warnings]
    if not outlook.problems and not outlook.warnings:
        lines.append("These photos are likely to suffice.")
    return "\n".join(lines)
