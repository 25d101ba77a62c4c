"""Published weights on this computer: `store` finds them, `fetch` brings them, `layout` says what a folder holds."""

from skinclip.hub.layout import (
    BaseIdentity,
    IncompleteWeights,
    MissingWeights,
    WrongRevision,
    base_identity,
    check_complete,
)
from skinclip.hub.store import (
    check_preset,
    checkpoint_folder,
    find_base,
    find_clip,
    no_checkpoint,
    output_folder,
    store_dir,
)

__all__ = [
    "BaseIdentity",
    "IncompleteWeights",
    "MissingWeights",
    "WrongRevision",
    "base_identity",
    "check_complete",
    "check_preset",
    "checkpoint_folder",
    "find_base",
    "find_clip",
    "no_checkpoint",
    "output_folder",
    "store_dir",
]
