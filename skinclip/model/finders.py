"""Evidence finders: one class a kind; `FINDERS` is the registry, `evidence.kind` of a config the key.

    adapter   reads patch tokens one by one, through a thin adapter (`skinclip.model.evidence`)
    pyramid   reads all levels of the tower, joined to one fine map (`skinclip.model.pyramid`)

Every kind has `directions`, `segment`, `find`, a `mask_head`, and the two classmethods used here.
"""

from __future__ import annotations

from skinclip.core.config import EvidenceConfig, PerceptionConfig
from skinclip.model.evidence import EvidenceFinder
from skinclip.model.perception import Perception
from skinclip.model.pyramid import PyramidEvidenceFinder

FINDERS: dict[str, type[EvidenceFinder] | type[PyramidEvidenceFinder]] = {
    "adapter": EvidenceFinder,
    "pyramid": PyramidEvidenceFinder,
}


def make_evidence_finder(
    config: EvidenceConfig, perception: Perception, n_states: int
) -> EvidenceFinder | PyramidEvidenceFinder:
    """The evidence finder that a config names, with fresh weights. Raises ValueError naming the kinds there are."""
    return _kind(config).over(config, perception, n_states)


def feature_width(config: EvidenceConfig, perception: PerceptionConfig) -> int:
    """The width A of `Evidence.features`. Raises ValueError naming the kinds there are."""
    return _kind(config).feature_width(config, perception)


def _kind(config: EvidenceConfig) -> type[EvidenceFinder] | type[PyramidEvidenceFinder]:
    if config.kind not in FINDERS:
        raise ValueError(f"evidence.kind: no kind of evidence {config.kind!r}; choose one of {', '.join(FINDERS)}")
    return FINDERS[config.kind]
