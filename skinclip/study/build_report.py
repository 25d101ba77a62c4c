"""The outcome of `build` in words, for the command line and for the set-up page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skinclip.study.build import BuildResult

NOT_ENRICHED = (
    "the AI errs on as large a share of these photos as cases.wrong_share or a larger one: its errors are not "
    "enriched, though readers are told so; raise wrong_share and build again, or change texts.debrief"
)


def eligible(built: BuildResult) -> str:
    """The photos that the cases were drawn from, by stratum."""
    strata = ", ".join(f"{n} {stratum}" for stratum, n in sorted(built.eligible.items()))
    return f"built in {built.folder}; photos to draw from, one per lesion: {strata}"


def write_left_out(built: BuildResult) -> Path:
    """Writes the photos and rows that were left out, each with the reason, to a file beside the study."""
    listed = built.folder.with_name(f"{built.folder.name}-left-out.txt")
    listed.write_text("\n".join(built.left_out) + "\n", encoding="utf-8")
    return listed


def notes(built: BuildResult, missing_ethics: Sequence[str]) -> list[str]:
    """Sentences about what is still to be done or kept."""
    lines = [] if built.enriched else [NOT_ENRICHED]
    lines.append(
        f"the key that seals answers and truth is {built.key}, apart from the study: back it up, but not with it; "
        "without it nothing can be read or verified"
    )
    if missing_ethics:
        lines.append(f"before readers can be enrolled, fill in {', '.join(missing_ethics)}")
    return lines
