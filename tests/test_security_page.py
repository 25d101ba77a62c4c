"""The promises of docs/SECURITY.md: each names a test, and each of these tests exists."""

from __future__ import annotations

import ast
import re

from tests.helpers.served import ROOT

PAGE = (ROOT / "docs" / "SECURITY.md").read_text()
PROMISES = PAGE.partition("## Promises")[2].partition("## Not promised")[0]


def test_every_promise_names_a_test_that_exists() -> None:
    lines = [line for line in PROMISES.splitlines() if line.startswith("- ")]
    assert len(lines) > 25
    for line in lines:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", line)
        assert named, f"no test is named: {line}"
        for file, function in named:
            tree = ast.parse((ROOT / file).read_text())
            tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert not function or function in tests, f"{file} has no {function}"


def test_it_is_linked_from_the_readme_and_says_how_to_report() -> None:
    assert "docs/SECURITY.md" in (ROOT / "README.md").read_text()
    for part in ("## Who, what, where", "## Not promised", "## Data protection", "## Reporting"):
        assert part in PAGE
