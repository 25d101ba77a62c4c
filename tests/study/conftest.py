"""The default study, and the same with its ethics fields filled in for tests alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from skinclip.study.protocol import Ethics, Protocol

TRUST_STUDY = Path(__file__).parents[2] / "eval_study" / "protocol" / "trust_study.yaml"


@pytest.fixture(scope="session")
def trust_study() -> Protocol:
    return Protocol.read(TRUST_STUDY)


@pytest.fixture(scope="session")
def filled_study(trust_study: Protocol) -> Protocol:
    """A study in which readers could be enrolled; every word of its ethics fields says that it is a test."""
    words = {f.name: f"for tests only: {f.name}" for f in dataclasses.fields(Ethics)}
    return dataclasses.replace(trust_study, ethics=Ethics(**words))
