"""Measured strengths and weaknesses of each method, in words, from the benchmark's own figures.

`assets/explanations.json` holds the figures (`python -m eval_study.fill_numbers` copies them from the result file of
`python -m eval_study.explanations`); nothing is stated about a method that was not measured.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from skinclip.core.formatting import per_cent
from skinclip.core.paths import ASSETS

FIGURES = ASSETS / "explanations.json"
GOOD_AT = {
    "energy": "most of it lies in the lesion",
    "deletion": "the diagnosis falls soonest when its places are taken out",
    "insertion": "the diagnosis comes back soonest when its places are put back",
    "beats_random": "its highest fifth of the lesion matters more than random places most often",
    "stable": "it changes least under small noise",
}
BAD_AT = {
    "energy": "least of it lies in the lesion",
    "deletion": "the diagnosis falls latest when its places are taken out",
    "insertion": "the diagnosis comes back latest when its places are put back",
    "beats_random": "its highest fifth of the lesion matters more than random places least often",
    "stable": "it changes most under small noise",
}
LESS_IS_BETTER = ("deletion",)
CONTROL = "rise"  # random regions, weighed by the answer as the evidence is


@cache
def figures() -> dict[str, Any]:
    """{"n", "data", "methods": method -> measure -> mean, ...}; empty where nothing was measured."""
    return json.loads(FIGURES.read_text()) if FIGURES.exists() else {}


def summary(key: str) -> str:
    """One or two sentences on a method; empty where it was not measured."""
    known = figures().get("methods", {})
    if key not in known:
        return ""
    own = known[key]
    places = {name: _place(known, key, name) for name in GOOD_AT}
    best = [GOOD_AT[name] for name, place in places.items() if place == 0]
    worst = [BAD_AT[name] for name, place in places.items() if place == len(known) - 1]
    sentences = [
        f"Measured on {figures()['n']} photos ({figures()['data']}): {per_cent(own['energy'])} of it lies in the "
        f"lesion; deletion {own['deletion']:.2f} (less is better), insertion {own['insertion']:.2f}; its highest "
        f"fifth matters more than random places of the lesion in {per_cent(own['beats_random'])} of the photos; rank "
        f"correlation under small noise {own['stable']:.2f}."
    ]
    among = f"of the {len(known)} compared"
    if best:
        sentences.append(f"Best {among}: {'; '.join(best)}.")
    if worst:
        sentences.append(f"Worst {among}: {'; '.join(worst)}.")
    if key in figures().get("made_by_measuring", ()):
        sentences.append(_made_by_measuring(key, known))
    return " ".join(sentences)


def _made_by_measuring(key: str, known: dict[str, dict[str, float]]) -> str:
    """Caveat of a map that was made from the same measurements of the answer that it is judged by."""
    caveat = "It is made by measuring the answer on the same photo, which deletion, insertion and random places credit"
    if key == CONTROL or CONTROL not in known:
        return f"{caveat}."
    control = known[CONTROL]
    return (
        f"{caveat}: random regions measured in the same way (RISE) reach deletion {control['deletion']:.2f}, insertion "
        f"{control['insertion']:.2f} and {per_cent(control['beats_random'])}."
    )


def experts(key: str) -> str:
    """The figure that matters to a clinician: how often the map's strongest place is where experts drew a structure.

    Empty where it was not measured (`python -m eval_study.explanations --only truth`).
    """
    known = figures().get("experts", {})
    if key not in known.get("pointing", {}):
        return ""
    return (
        f"On {known['n']} photos in which experts drew the {known['structure']}, its strongest place lies in what they "
        f"drew in {per_cent(known['pointing'][key])}; a place taken at random does in {per_cent(known['random'])}."
    )


def cited() -> str:
    """Effect on the diagnosis of taking the outlined regions out; empty where it was not measured."""
    measurements = figures().get("cited")
    if not measurements:
        return ""
    together, strongest = measurements["joined"], measurements["pivotal"]
    return (
        f"Without the outlined regions the probability of the diagnosis drops by {100 * together['drop']:.0f} points, "
        f"without random places of the lesion as large by {100 * together['random']:.0f}: more than without "
        f"{per_cent(together['beats_draws'])} of such places (chance: {per_cent(0.5)}). The region with the largest "
        f"effect: {100 * strongest['drop']:.0f} points, the strongest of as many random places "
        f"{100 * strongest['random']:.0f}: more than without {per_cent(strongest['beats_draws'])} of those. “What "
        "would change this answer?” measures it for each finding of a photo."
    )


def _place(known: dict[str, dict[str, float]], key: str, name: str) -> int:
    """0 for the best of all methods."""
    sign = 1 if name in LESS_IS_BETTER else -1
    return sorted(known, key=lambda other: sign * known[other][name]).index(key)
