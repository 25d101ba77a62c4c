"""SkinCLIP-VL: a skin-lesion photo in, a diagnosis that can be checked out.

Research use only: not a medical device.

Letters used for tensor shapes everywhere in the package:

    B  photos in a batch
    N  patch tokens of a photo, row by row; N = h * w
    h, w  rows and columns of the token grid
    D  width of a patch token of the perception tower
    E  width of the joint image-text embedding
    K  criterion states that can be present and have an evidence map
    C  diagnoses
    H  hidden width of the language model
    L  tokens of a text
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

# Before huggingface_hub, which several libraries bring along, is imported: it reads this once.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# It warns at import that an optional kernel for decoding in NF4 is missing; here NF4 is dequantized at load.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.2.0"

RESEARCH_USE_ONLY = "Research use only - not a medical device"


def __getattr__(name: str) -> Any:
    """Gives `load` when it is asked for: the commands of the program start without torch."""
    if name == "load":
        return importlib.import_module("skinclip.pipeline.loaded_model").load
    raise AttributeError(f"module 'skinclip' has no attribute {name!r}")
