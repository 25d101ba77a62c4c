"""The model's own explanation: the maps of the criteria, weighed by what each does to the answer."""

from __future__ import annotations

import numpy as np

from skinclip.core.vocabulary import EVIDENCE_STATES, STATE_BY_KEY
from skinclip.explain.criterion import CriterionSubject
from skinclip.explain.effects import weighed
from skinclip.explain.registry import Method
from skinclip.explain.subject import LabelledMap, Subject, enlarged

SMOOTH = 3.0  # places of `subject.GRID`: blur of a map that is made of regions; chosen on validation photos


def evidence_maps(subject: Subject) -> list[LabelledMap]:
    """The diagnosis as a whole, then the map of each cited criterion.

    The whole is made of all criteria's maps, each by what its highest places do to the answer (`effects.weighed`). Of a
    criterion it is the map that its score was pooled from.
    """
    if isinstance(subject, CriterionSubject):
        return subject.labelled(subject.evidence_map)
    maps_of_states = subject.output.evidence.maps[0].numpy()  # [K, h, w]
    maps = np.stack([enlarged(maps_of_states[k]) for k in subject.predictor.model.known.states])
    whole = weighed(subject.answer, subject.photo, maps, subject.lesion, SMOOTH)
    keys = [state.key for state in EVIDENCE_STATES]
    cited = [f.key for f in subject.findings]
    parts = [LabelledMap(STATE_BY_KEY[key].phrase, maps_of_states[keys.index(key)]) for key in cited if key in keys]
    return [*subject.labelled(whole), *parts]


METHOD = Method("evidence", "Evidence regions", evidence_maps, "Where the cited findings were seen, one region each.")
