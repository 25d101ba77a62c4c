"""The questions and texts of a study that has none of its own."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

from skinclip.study.protocol.model import ProtocolModel
from skinclip.study.protocol.yaml_schema import read_yaml


@cache
def default_questions() -> dict[str, Any]:
    """The questions and texts of a study that has none of its own, as `questions.yaml` lists them."""
    values: dict[str, Any] = read_yaml(Path(__file__).with_name("questions.yaml"))
    return values


def own_texts(protocol: ProtocolModel) -> dict[str, str]:
    """The texts of a protocol that are not the default ones, by name."""
    default = {name: text.strip() for name, text in default_questions()["texts"].items()}
    given = dataclasses.asdict(protocol.texts)
    return {name: text for name, text in given.items() if text != default[name]}
