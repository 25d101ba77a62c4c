"""Reporting checklists filled from a protocol, as Markdown: CLEAR Derm and DECIDE-AI.

Each item says where the protocol answers it, or that its authors must. `checklists.yaml` puts the items in few words of
our own; what they ask for in full is in the papers: Daneshjou et al., JAMA Dermatol 158:90-96 (2022), "Checklist for
Evaluation of Image-Based Artificial Intelligence Reports in Dermatology" (CLEAR Derm); Vasey et al., Nat Med 28:924-933
and BMJ 377:e070904 (2022) (DECIDE-AI). Their DOIs stand with the items.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skinclip import RESEARCH_USE_ONLY
from skinclip.study.protocol.arms import arm_named
from skinclip.study.protocol.protocol import CANNOT_TELL, Protocol
from skinclip.study.protocol.yaml_schema import read_yaml

TO_BE_STATED = "to be stated by the authors"
CHECKLISTS: tuple[str, ...] = ("clear_derm", "decide_ai")


def checklist(name: str, protocol: Protocol) -> str:
    """The checklist of that name as a Markdown page; items that the protocol does not answer say `TO_BE_STATED`.

    Raises ValueError naming the checklists there are.
    """
    if name not in CHECKLISTS:
        raise ValueError(f"no checklist {name!r}; choose one of {', '.join(CHECKLISTS)}")
    asked: dict[str, Any] = read_yaml(Path(__file__).with_name("checklists.yaml"))[name]
    known = facts(protocol)
    lines = [
        f"# {asked['name']} checklist: {_cell(protocol.title)}",
        "",
        f"Filled from the protocol `{protocol.key}`, version {protocol.version}, plan {protocol.plan_sha256}.",
        f"{asked['citation']} {asked['note']} Items are abbreviated: see the paper for what each asks in full.",
        f"{RESEARCH_USE_ONLY}.",
    ]
    for section, items in asked["sections"].items():
        lines += ["", f"## {section}", "", "| item | asks for | where it is answered |", "|---|---|---|"]
        for item in items:
            answer = item.get("answer", TO_BE_STATED).format_map(known)
            lines.append(f"| {item['item']} | {item['asks']} | {_cell(answer)} |")
    return "\n".join(lines) + "\n"


def write_checklists(protocol: Protocol, folder: Path) -> list[Path]:
    """Writes each checklist as NAME.md into `folder`, made where it does not exist, and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.md" for name in CHECKLISTS]
    for path in paths:
        path.write_text(checklist(path.stem, protocol), encoding="utf-8")
    return paths


def facts(protocol: Protocol) -> dict[str, str]:
    """Facts of a protocol that the checklists quote, in words; an empty ethics field says who must fill it."""
    plan, missing = protocol.plan, protocol.missing_ethics()
    primary = f"{plan.primary.endpoint} after each case, {plan.primary.arm} against {plan.primary.reference}"
    safety = (
        f"{plan.safety.endpoint} where the AI errs, {plan.safety.arm} not inferior to {plan.safety.reference} "
        f"by a margin of {plan.safety.margin:g}"
    )
    contrasts = [f"{plan.primary.endpoint}, {c.arm} against {c.reference}" for c in plan.contrasts]
    words = {
        "title": protocol.title,
        "key": protocol.key,
        "plan_sha256": protocol.plan_sha256,
        "research_use": RESEARCH_USE_ONLY,
        "arms": "; ".join(f"{arm} ({arm_named(arm).description})" for arm in protocol.arms),
        "diagnoses": ", ".join(_labels(protocol, "before", "diagnosis")),
        "roles": ", ".join(_labels(protocol, "background", "role")) or TO_BE_STATED,
        "primary": primary,
        "safety": safety,
        "endpoints": f"primary: {primary}; safety: {safety}; secondary: {', '.join((*plan.secondary, *contrasts))}",
    }
    ethics = {
        name: TO_BE_STATED if f"ethics.{name}" in missing else getattr(protocol.ethics, name)
        for name in ("approval", "consent_version", "photo_licence", "retention")
    }
    return words | _numbers(protocol) | ethics


def _numbers(protocol: Protocol) -> dict[str, str]:
    cases, plan, washout = protocol.cases, protocol.plan, protocol.washout
    counts, times = cases.counts, plan.time_outliers
    numbers = {
        "n": cases.n,
        **counts,
        "practice": cases.practice,
        "min_readers": protocol.completion.min_readers,
        "block_items": len(protocol.questions["block"]),
        "n_secondary": len(plan.secondary) + len(plan.contrasts),
        "alpha": plan.alpha,
        "power": plan.power,
        "smallest_effect": plan.primary.smallest_effect,
        "version": protocol.version,
    }
    return {name: f"{value:g}" for name, value in numbers.items()} | {
        "cases": f"{cases.n} photos, {counts['right']} right, {counts['wrong']} wrong and {counts['ood']} out of "
        f"distribution; {cases.repeats} repeated",
        "washout": f"{washout.presentations} other cases before a repeat, {washout.hours:g} hours between blocks"
        + (f", {protocol.second_session.days} days between two sessions" if protocol.second_session else ""),
        "outliers": f"below {times.min_seconds:g} or above {times.max_seconds:g} seconds (one sensitivity analysis)",
    }


def _labels(protocol: Protocol, phase: str, key: str) -> list[str]:
    options = [o for q in protocol.questions[phase] if q.key == key for o in q.scale.options]
    return [o.label.lower() for o in options if o.value != CANNOT_TELL]


def _cell(text: str) -> str:
    """Text that cannot break out of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
