"""Published weights on this computer: `store` finds them, `fetch` brings them, `layout` says what a folder holds."""

from skinclip.hub.layout import (
    BaseIdentity,
    IncompleteWeights,
    MissingWeights,
    WrongRevision,
    base_identity,
    check_complete,
)
from skinclip.hub.store import ASSETS, check_preset, checkpoint_folder, find_base, find_clip, no_checkpoint, store_dir

__all__ = [
    "ASSETS",
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
    "store_dir",
]
