"""Guards against leaks between splits and data sets, and the lesions that stage 0 must not see."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from skinclip.data.cases import Case, DataError
from skinclip.data.tables import read_labels

DUPLICATES_FILE = "near_duplicates.csv"  # what `skinclip duplicates` found
# HAM10000 and MILK10k, by their usual folder names: 1,031 pairs of photos, 720 lesions of MILK10k, photographed at
# another magnification. Found with 60 candidates per photo; 165 of the 172 that MILK10k's split file names are here.
PUBLISHED_DUPLICATES = Path(__file__).parent / DUPLICATES_FILE
TRAINABLE_SPLITS = frozenset({"train"})
# Ids of the ISIC archive and of HAM10000 mean the same photo or lesion in whichever data set they turn up: ISIC 2018's
# training photos are those of HAM10000.
_PUBLISHED_ID = re.compile(r"(ISIC|HAM)_\d{7}")


def check_no_leak(cases: Sequence[Case]) -> None:
    """Raises DataError where one lesion is in more than one split of a data set, or a published photo or lesion is in
    different splits of two data sets.
    """
    split_of: dict[tuple[str, str], Case] = {}
    for case in cases:
        for scope, name in [(case.source, case.lesion_id), *_published(case)]:
            first = split_of.setdefault((scope, name), case)
            if first.split != case.split:
                raise DataError(
                    f"{name} is in the splits {first.split!r} of {first.source} and {case.split!r} of {case.source}; "
                    "give all photos of a lesion the same split"
                )


def _published(case: Case) -> list[tuple[str, str]]:
    if case.split is None:  # of a set without splits, from which nothing is learnt
        return []
    return [("", name) for name in (case.image_id, case.lesion_id) if _PUBLISHED_ID.fullmatch(name)]


def keep_apart(cases: Sequence[Case], same: Iterable[tuple[str, str]] = ()) -> tuple[list[Case], tuple[str, ...]]:
    """The cases less those that another data set keeps further from training, and a sentence a set that lost some.

    A published photo or lesion, and each pair of `same` (photos as `source/image_id`, such as near-duplicates), is one
    thing. Where its photos are of several splits, those of the split furthest from training stay.
    """
    groups = _Groups()
    for case in cases:
        names = [f"{case.source}/{case.image_id}", f"{case.source} lesion {case.lesion_id}"]
        groups.join([*names, *(f"published {name}" for _, name in _published(case))])
    for first, second in same:
        groups.join([first, second])
    furthest: dict[str, int] = {}
    for case in cases:
        if case.split is not None:
            group = groups.of(f"{case.source}/{case.image_id}")
            furthest[group] = max(furthest.get(group, 0), _distance(case.split))
    kept: list[Case] = []
    lost: Counter[tuple[str, str]] = Counter()
    for case in cases:
        group = groups.of(f"{case.source}/{case.image_id}")
        if case.split is None or _distance(case.split) == furthest[group]:
            kept.append(case)
        else:
            lost[case.source, case.split] += 1
    return kept, tuple(
        f"{source}: {count} photos of {split} are kept further from training elsewhere"
        for (source, split), count in sorted(lost.items())
    )


def _distance(split: str) -> int:
    """Distance of a split from training, 0 to 3; any split of another name is as far as test."""
    return {"train": 0, "calib": 1, "valid": 2}.get(split, 3)


class _Groups:
    """Names joined into groups (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The name that stands for the group of `name`."""
        root = name
        while self._parent.setdefault(root, root) != root:
            root = self._parent[root]
        while self._parent[name] != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, names: Sequence[str]) -> None:
        """Makes one group of the groups of `names`."""
        for name in names[1:]:
            self._parent[self.of(name)] = self.of(names[0])


def read_duplicates(path: Path) -> list[tuple[str, str]]:
    """The pairs of a list that `skinclip duplicates` wrote, each photo as `source/image_id`; none without a list.

    Raises DataError for a row that cannot be read.
    """
    if not path.is_file():
        return []
    pairs = []
    for row in read_labels(path, ("first", "second")).rows:
        if row.problem:
            raise DataError(f"{path} line {row.line}: {row.problem}")
        pairs.append((row.cells["first"], row.cells["second"]))
    return pairs


def known_duplicates(root: Path) -> list[tuple[str, str]]:
    """The pairs known of the published data sets, and those of a list beside the data sets in `root`.

    Raises DataError for a row that cannot be read.
    """
    return [*read_duplicates(PUBLISHED_DUPLICATES), *read_duplicates(root / DUPLICATES_FILE)]


def without_shared(cases: Sequence[Case], pairs: Iterable[tuple[str, str]]) -> list[Case]:
    """The cases less those of lesions that another data set holds too.

    A model that learnt from the other set may have met such a lesion there, whatever its split here; a figure on it
    would flatter.

    Args:
        pairs: see `known_duplicates`.
    """
    twice = {name for pair in pairs for name in pair}

    def lesion(case: Case) -> str:
        return f"{case.source} {case.lesion_id}"

    shared = {lesion(case) for case in cases if twice & _names(case)}
    return [case for case in cases if lesion(case) not in shared]


def _names(case: Case) -> set[str]:
    """Names (source/photo) of a case's photos, as a list of duplicates has them."""
    files = {photo.stem for photo in (case.image, case.clinical_image) if photo is not None}
    return {f"{case.source}/{name}" for name in (case.image_id, *files)}


def guard_training(cases: Sequence[Case]) -> None:
    """Raises DataError naming a photo that no training stage may read, or where there is none to read."""
    if not cases:
        raise DataError('no photo to learn from: no data set here has rows whose split is "train"')
    for case in cases:
        if case.split not in TRAINABLE_SPLITS:
            raise DataError(f"{case.source}/{case.image_id} is of split {case.split!r} and must not be learnt from")


def hold_out(cases: Sequence[Case], share: float, seed: int) -> tuple[list[Case], list[Case]]:
    """(kept, held): about `share` of the lesions held out, all photos of a lesion together.

    By a hash of the lesion's name, so that a lesion's side does not change when other photos are added.
    """
    kept: list[Case] = []
    held: list[Case] = []
    for case in cases:
        (held if lesion_share(case.source, case.lesion_id, seed) < share else kept).append(case)
    return kept, held


def lesion_share(source: str, lesion_id: str, seed: int) -> float:
    """A number in 0..1 that a lesion's name decides: lesions below `share` are those held out."""
    digest = hashlib.sha256(f"{seed}/{source}/{lesion_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
