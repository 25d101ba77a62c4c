"""The registry of arms: one entry each, from which protocol, page, allocation, tables and reports take what they need.

Every arm shows the same photo and the same differential; arms differ in the explanation beside them. `docs/extending`
says how to add one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# Forms of the rationale: left out, without its references to regions, or with them.
TextForm = Literal["none", "plain", "referenced"]


@dataclass(frozen=True)
class Arm:
    """One way to explain the AI's answer.

    Attributes:
        key: Name in protocols, tables and results.
        label: Name in reports and figures; readers never see it.
        description: What is shown, in words for checklists.
        colour: Of the arm in every figure (Okabe and Ito's, which stay apart under colour blindness).
        picture: File name of the picture shown beside the photo, drawn by `study.build`; None for none.
        text: Form of the rationale.
        points: The explanation ties what it says to places of the photo: a map that stands alone does, a map beside a
            text that does not refer to it does not.
    """

    key: str
    label: str
    description: str
    colour: str
    picture: str | None = None
    text: TextForm = "none"
    points: bool = False

    @property
    def explains(self) -> bool:
        """True where more than the differential is shown; items on the explanation are asked in such arms alone."""
        return self.picture is not None or self.text != "none"


GRAD_CAM_PICTURE, REGIONS_PICTURE = "grad_cam.jpg", "regions.jpg"
ARMS: dict[str, Arm] = {
    arm.key: arm
    for arm in (
        Arm("none", "No explanation", "no explanation", "#8a8a8a"),
        Arm("grad_cam", "Grad-CAM", "Grad-CAM map", "#e69f00", GRAD_CAM_PICTURE, points=True),
        Arm(
            *("grad_cam_text", "Grad-CAM + text", "Grad-CAM map and the rationale's text", "#56b4e9"),
            picture=GRAD_CAM_PICTURE,
            text="plain",
        ),
        Arm(
            *("regions", "Rationale + regions", "rationale whose findings are outlined in the photo", "#0072b2"),
            picture=REGIONS_PICTURE,
            text="referenced",
            points=True,
        ),
    )
}


def arm_named(key: str) -> Arm:
    """The arm of a key; for one that was registered elsewhere, a nameless arm with an explanation."""
    return ARMS.get(key) or Arm(key, key, key, ("#009e73", "#cc79a7")[len(key) % 2], text="plain")


def explaining(keys: Iterable[str]) -> tuple[str, ...]:
    """The arms among `keys` that show an explanation, in their order."""
    return tuple(key for key in keys if arm_named(key).explains)


def in_registry_order(keys: Iterable[str]) -> list[str]:
    """Distinct arms in the registry's order, unknown ones last."""
    known = set(keys)
    return [*(key for key in ARMS if key in known), *sorted(known - set(ARMS))]
