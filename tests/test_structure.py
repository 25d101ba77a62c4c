"""The rules of the house, read from the source: layers, no circles, libraries in their place, sizes, types, docstrings.

`docs/architecture.md` explains the layers. Nothing is imported here: the files are parsed, so an import inside a
function or under TYPE_CHECKING counts like any other. The allow-lists hold what is still to be mended and only shrink.
"""

from __future__ import annotations

import ast
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEASURED = ("skinclip", "eval_study")

# Each package imports itself and packages named before it, never one named after it.
LAYERS = (
    *("core", "imaging", "language", "data", "hub", "model", "calibration", "explain", "pipeline"),
    *("reporting", "evaluation", "training", "study", "screening", "service", "ui", "cli", "__main__"),
)
# Each library and the only packages of skinclip that may import it.
LIBRARIES = {
    "gradio": ("ui",),
    "ray": ("screening.cluster",),
    "prometheus_client": ("service",),
    "sqlalchemy": ("study.store",),
    "alembic": ("study.store",),
    **dict.fromkeys(("transformers", "peft", "bitsandbytes", "open_clip"), ("model", "training", "hub")),
}
NOT_AN_OPENING = {"What", "Where", "Whether", "When", "Which", "Who", "How", "If", "That"}
LONGEST_MODULE, LONGEST_FUNCTION, MEDIAN_FUNCTION, MOST_PARAMETERS, DOCUMENTED = 500, 70, 8, 7, 0.85

# --- allow-lists: what the rooms have still to mend; an entry goes when it is no longer needed, none is added ---

ALLOWED_UPWARD: set[tuple[str, str]] = set()
ALLOWED_IN_A_CIRCLE: set[str] = set()
ALLOWED_LIBRARIES: set[tuple[str, str]] = set()
ALLOWED_LONG_MODULES: set[str] = set()
ALLOWED_PARAMETERS: set[str] = set()
ALLOWED_UNTYPED = 0
ALLOWED_OPENINGS: Counter[str] = Counter()  # by package: how many docstrings open with What, Where, Whether ...
ALLOWED_UNDOCUMENTED: dict[str, float] = {}
ALLOWED_SAME_NAME: set[str] = set()


# --- reading the source ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    module: str
    node: ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def lines(self) -> int:
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1

    @property
    def parameters(self) -> int:
        """The number of parameters that a caller may give: all but self and cls."""
        a = self.node.args
        names = [argument.arg for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
        return len([name for name in names if name not in ("self", "cls")]) + bool(a.vararg) + bool(a.kwarg)

    def __str__(self) -> str:
        return f"{self.module}:{self.node.lineno} {self.node.name}"


@cache
def sources() -> dict[str, tuple[Path, ast.Module]]:
    """Every module of the program by its dotted name, with its file and its syntax tree."""
    paths = [path for folder in MEASURED for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {}
    for path in [*paths, ROOT / "app.py"]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = (path, ast.parse(path.read_text()))
    return found


def imported(module: str) -> Iterator[tuple[str, int]]:
    """The modules and libraries that a module imports anywhere in its text, each with its line."""
    path, tree = sources()[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # a submodule, or a name out of the module itself
                submodule = f"{origin}.{alias.name}"
                yield (submodule if submodule in sources() else origin), node.lineno


@cache
def functions() -> list[Function]:
    return [
        Function(module, node)
        for module, (_, tree) in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public classes and functions, and the public methods of public classes."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name[0] != "_":
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def layer(module: str) -> str:
    return module.split(".")[1] if module.startswith("skinclip.") else ""


# --- imports ---------------------------------------------------------------------------------------------------


def test_every_package_has_its_layer() -> None:
    folders = {p.name for p in (ROOT / "skinclip").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == set(LAYERS) - {"__main__"}


def test_the_package_root_holds_packages_alone() -> None:
    files = {p.name for p in (ROOT / "skinclip").iterdir() if p.is_file()}
    assert files == {"__init__.py", "__main__.py"}


def test_imports_run_down_only() -> None:
    broken = []
    for module in sources():
        for target, line in imported(module):
            lower, upper = layer(module), layer(target)
            if lower and upper and LAYERS.index(upper) > LAYERS.index(lower) and (lower, upper) not in ALLOWED_UPWARD:
                broken.append(f"{module}:{line} imports {target}, which is above it")
    assert not broken, "\n".join(broken)


def test_the_package_imports_neither_tests_nor_the_project_around_it() -> None:
    outside = ("eval_study", "tests", "app")
    broken = [
        f"{module}:{line} imports {target}"
        for module in sources()
        for target, line in imported(module)
        if module.startswith("skinclip") and target.split(".")[0] in outside
    ]
    assert not broken, "\n".join(broken)


def test_no_circle_of_imports() -> None:
    """A function-level import counts: it only hides a circle."""
    graph = {
        module: {target for target, _ in imported(module) if target in sources()} - {module}
        for module in sources()
        if module not in ALLOWED_IN_A_CIRCLE
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_libraries_are_imported_only_where_they_belong() -> None:
    broken = []
    for module in sources():
        for target, line in imported(module):
            library = target.split(".")[0]
            inside = module.removeprefix("skinclip.")
            places = LIBRARIES.get(library)
            if not module.startswith("skinclip.") or places is None or (layer(module), library) in ALLOWED_LIBRARIES:
                continue
            if not any(inside == place or inside.startswith(f"{place}.") for place in places):
                broken.append(f"{module}:{line} imports {library}, which belongs to {', '.join(places)}")
    assert not broken, "\n".join(broken)


# --- sizes and types -------------------------------------------------------------------------------------------


def test_no_module_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path, _ in sources().values()}
    long = {f"{path.parent.relative_to(ROOT)}/{path.name}": n for path, n in lengths.items() if n > LONGEST_MODULE}
    allowed = tuple(ALLOWED_LONG_MODULES) or ("nothing at all",)
    assert {name: n for name, n in long.items() if not name.endswith(allowed)} == {}


@pytest.mark.parametrize("folder", MEASURED)
def test_functions_are_short(folder: str) -> None:
    ours = [function for function in functions() if function.module.split(".")[0] == folder]
    assert statistics.median(function.lines for function in ours) <= MEDIAN_FUNCTION
    assert [f"{function}: {function.lines} lines" for function in ours if function.lines > LONGEST_FUNCTION] == []


def test_no_function_has_too_many_parameters() -> None:
    many = [
        one
        for one in functions()
        if one.parameters > MOST_PARAMETERS and f"{one.module}.{one.node.name}" not in ALLOWED_PARAMETERS
    ]
    assert [f"{function}: {function.parameters} parameters" for function in many] == []


def test_every_function_says_what_it_returns() -> None:
    untyped = [str(function) for function in functions() if function.node.returns is None]
    assert len(untyped) <= ALLOWED_UNTYPED, "\n".join(untyped)


# --- language --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", MEASURED)
def test_what_is_public_is_documented(folder: str) -> None:
    ours = [(module, n) for module, (_, t) in sources().items() if module.split(".")[0] == folder for n in public(t)]
    missing = [f"{module}:{node.lineno} {node.name}" for module, node in ours if not ast.get_docstring(node)]
    share = 1 - len(missing) / len(ours)
    assert share >= ALLOWED_UNDOCUMENTED.get(folder, DOCUMENTED), "\n".join([f"only {share:.1%}", *missing])


def test_docstrings_open_with_a_verb_or_a_noun() -> None:
    bad = defaultdict(list)
    for module, (_, tree) in sources().items():
        for node in (tree, *public(tree)):
            words = (ast.get_docstring(node) or "-").split()
            if words[0].strip(",:") in NOT_AN_OPENING:
                room = layer(module) or module.split(".")[0]
                bad[room].append(f"{module}:{getattr(node, 'lineno', 1)} {' '.join(words[:8])}")
    over = {room: lines for room, lines in bad.items() if len(lines) > ALLOWED_OPENINGS[room]}
    assert not over, "\n".join(line for lines in over.values() for line in lines)


def test_no_two_classes_have_one_name() -> None:
    classes = defaultdict(list)
    for module, (_, tree) in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(module)
    twice = {name: modules for name, modules in classes.items() if len(modules) > 1}
    assert {name: modules for name, modules in twice.items() if name not in ALLOWED_SAME_NAME} == {}
