"""How long the fuzz tests run: some seconds each in continuous integration, longer where SKINCLIP_FUZZ says so.

SKINCLIP_FUZZ=100000 python -m pytest tests/fuzz     so many examples a test
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("SKINCLIP_FUZZ") or 60)

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 60,  # the short run is the same everywhere; the long one looks elsewhere each time
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
