"""Nothing is loaded that could run code while it is read: the program works where pickle is barred."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.helpers.served import ROOT

BARRED = """
import importlib, io, pickle, pkgutil, sys

def barred(*_, **__):
    raise AssertionError("something was unpickled")

import torch
real = torch.load
def load(*args, **options):
    if options.get("weights_only") is not True:
        barred()
    return real(*args, **options)
torch.load = load
pickle.load = pickle.loads = barred
class Unpickler(pickle.Unpickler):
    def __init__(self, *args, **options):
        barred()
pickle.Unpickler = Unpickler

import skinclip
for module in pkgutil.walk_packages(skinclip.__path__, "skinclip."):
    if not module.name.endswith(("__main__", ".env")) and "migrations.versions" not in module.name:
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as missing:  # an optional library, such as Ray
            assert not missing.name.startswith("skinclip"), missing
"""
USE = """
from skinclip.core.assessment import Context
from skinclip.imaging.bounded import load_photo_bounded
from skinclip.core.paths import EXAMPLES
from skinclip.pipeline.assessor import Assessor
photo = load_photo_bounded(sorted(EXAMPLES.glob("*.jpg"))[0].read_bytes())
print(Assessor.load("mini").assess(photo, Context()).diagnosis[0].code)
"""


def test_everything_works_where_pickle_is_barred() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BARRED + USE], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("folder", ["skinclip", "eval_study"])
def test_no_code_loads_pickles(folder: str) -> None:
    """torch.load with weights_only=True reads tensors alone; numpy's and pandas' ways of unpickling are not used."""
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value)
            options = {key.arg: ast.unparse(key.value) for key in node.keywords}
            name = f"{owner}.{node.func.attr}"
            if name == "torch.load":
                assert options.get("weights_only") == "True", f"{file}:{node.lineno}"
            assert options.get("allow_pickle", "False") == "False", f"{file}:{node.lineno}"
            assert name not in ("pickle.load", "pickle.loads", "pd.read_pickle", "joblib.load", "dill.load"), file
