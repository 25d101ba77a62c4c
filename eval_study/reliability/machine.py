"""The machine that a measurement ran on, for its result file."""

from __future__ import annotations

import datetime
import os
import platform
from typing import Any

import psutil

from skinclip import __version__


def machine() -> dict[str, Any]:
    """Processors, memory, load by others at the start, date and version; nothing that names the computer."""
    return {
        "date": datetime.date.today().isoformat(),
        "version": __version__,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }
