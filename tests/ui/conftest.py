from __future__ import annotations

import pytest

from skinclip.core import assessment as record
from tests.helpers import records


@pytest.fixture
def made_up() -> record.Assessment:
    return records.made_up()
