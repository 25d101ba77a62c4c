"""Checkpoints of a training that survive a kill: weights, optimizer and all random generators, whole or not at all."""

from __future__ import annotations

import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skinclip.core.whole_files import whole_file
from skinclip.data.cases import DataError

# Numpy's arrays and numbers, which earlier versions kept among the states of generators and the rates of optimizers.
_FORMERLY_PICKLED: list[Any] = [
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.uint32, np.float64, np.int64)),
]


def seed_everything(seed: int) -> torch.Generator:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Returns the states of all random generators of this process."""
    kind, keys, *rest = np.random.get_state()
    numbers = (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest)  # plain types: no code is ever loaded
    state = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": numbers}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def set_rng_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.asarray(keys).astype(np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, so that a kill leaves the old one or the new one, never half.

    Under "rng" goes where this process's random generators stand, unless `state` has it of several.
    """
    with whole_file(path, alone=True) as part:
        torch.save({"rng": [rng_state()], **state}, part)


def load_checkpoint(path: Path, rank: int = 0) -> dict[str, Any] | None:
    """The state saved at `path`, random generators set back to it, or None where there is none.

    Only numbers and text are loaded, never code. Raises DataError for a file that is damaged, that holds anything else,
    or that another version saved.

    Args:
        rank: of this process; one that was not there at the time goes on with the generators it has.
    """
    if not path.exists():
        return None
    try:
        with torch.serialization.safe_globals(_FORMERLY_PICKLED):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is damaged, or holds more than numbers, which is not loaded: {error!r:.200}; "
            "give another --work or remove that folder"
        ) from error
    if not isinstance(state, dict) or "rng" not in state:
        raise DataError(f"{path} was saved by another version; give another --work or remove that folder")
    if rank < len(state["rng"]):
        set_rng_state(state["rng"][rank])
    return state
