"""The house: folders and links, imports that point one way, sizes, names, what is not caught."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import TypeVar

import pytest

Node = TypeVar("Node", bound=ast.AST)

ROOT = Path(__file__).parents[1]
FOLDERS = ("nprdsl", "grammars", "runtime", "trainers")
# `Path.rglob` does not follow the links, so that each file is here once.
FILES = [path.relative_to(ROOT) for f in FOLDERS for path in sorted((ROOT / f).rglob("*.py"))]

# A layer may import the layers to its left, never those to its right.
LAYERS = ("nprdsl", "nprdsl.runtime", "nprdsl.trainers")
HEAVY = ("torch", "transformers", "hypothesis", "xgrammar", "llguidance", "jsonschema")

MODULE_LINES = 600
FUNCTION_LINES = 60
LONG_MODULES: dict[str, str] = {}  # "path" -> why it is not split
LONG_FUNCTIONS: dict[str, str] = {}  # "path:name" -> why it is not cut
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
CATCH_ALL = {
    "runtime/errors.py": "a step that fails ends its requests, whatever the model raised",
    "trainers/grading/symbolic.py": "sympy raises what it likes: it is not equal",
    "nprdsl/testing/properties.py": "an exception of any kind is what it looks for",
}


@cache
def source(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(source(path))


def found(kind: type[Node]) -> list[tuple[Path, Node]]:
    """All nodes of that kind, with their files."""
    return [(p, node) for p in FILES for node in ast.walk(tree(p)) if isinstance(node, kind)]


def module_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    name = ".".join(parts if parts[0] == "nprdsl" else ("nprdsl", *parts))
    return name.removesuffix(".__init__")


def layer(module: str) -> int:
    return max(i for i, name in enumerate(LAYERS) if f"{module}.".startswith(f"{name}."))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below `node` that runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from run_at_import(child)


@pytest.mark.parametrize("name", ["grammars", "runtime", "trainers"])
def test_folder_is_linked_into_the_package(name: str) -> None:
    link = ROOT / "nprdsl" / name
    assert link.is_symlink(), f"{link} must be a symlink (git config core.symlinks true)"
    assert link.resolve() == ROOT / name


def test_imports_point_down() -> None:
    """The command line may import engines, but only where it runs them."""
    upward = []
    for path in FILES:
        here = module_of(path)
        is_cli = here.startswith("nprdsl.cli") or here == "nprdsl.__main__"
        nodes = run_at_import(tree(path)) if is_cli else ast.walk(tree(path))
        for name in (name for node in nodes for name in imported(node)):
            if not f"{name}.".startswith("nprdsl."):
                continue
            if layer(name) > layer(here) or (name.startswith("nprdsl.cli") and not is_cli):
                upward.append(f"{path} imports {name}")
    assert upward == []


ENGINES = tuple(f"nprdsl.runtime.{engine}" for engine in ("local", "sglang"))
SERVING = tuple(f"nprdsl.runtime.sglang.{part}" for part in ("client", "http", "plugin"))


@pytest.mark.parametrize("folders", [ENGINES, SERVING])
def test_folders_side_by_side_share_through_the_one_above_alone(folders: tuple[str, ...]) -> None:
    """What both engines need stands in `nprdsl.runtime` itself, or in its folder `drawing`; what a
    client and the processes of a server need, in `nprdsl.runtime.sglang`."""
    across = [
        f"{path} imports {name}"
        for path in FILES
        for here, other in permutations(folders, 2)
        if f"{module_of(path)}.".startswith(f"{here}.")
        for name in sorted(imports_of(path))
        if f"{name}.".startswith(f"{other}.")
    ]
    assert across == []


def imports_of(path: Path) -> set[str]:
    """The modules of ours that a file imports anywhere, for types alone too."""
    names = set()
    for node in ast.walk(tree(path)):
        names |= set(imported(node))
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names & {module_of(p) for p in FILES} - {module_of(path)}


def test_no_import_circle() -> None:
    """Modules go floor by floor once all that they import is gone; what is left is a circle."""
    waiting = {module_of(path): imports_of(path) for path in FILES}
    while placed := {name for name, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {name: needs for name, needs in waiting.items() if name not in placed}
    assert waiting == {}


def test_the_package_is_seen_at_a_glance() -> None:
    entries = {path.name for path in (ROOT / "nprdsl").iterdir()} - {"__pycache__"}
    assert len(entries) <= 21


@pytest.mark.parametrize(
    "module", ["nprdsl", "nprdsl.cli.main", "nprdsl.runtime", "nprdsl.trainers.curate"]
)
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_imports_are_absolute() -> None:
    assert [f"{path}: {ast.unparse(n)}" for path, n in found(ast.ImportFrom) if n.level] == []


def test_modules_say_what_they_are_for() -> None:
    assert [str(path) for path in FILES if not ast.get_docstring(tree(path))] == []


def test_modules_have_one_subject() -> None:
    assert [str(path) for path in FILES if path.stem in FORBIDDEN_NAMES] == []
    lines = {str(path): len(source(path).splitlines()) for path in FILES}
    long = [f"{path}: {n} lines" for path, n in lines.items() if n > MODULE_LINES]
    assert [entry for entry in long if entry.split(":")[0] not in LONG_MODULES] == []


def test_a_public_class_name_stands_once() -> None:
    """One word, one meaning: `docs/glossary.md`."""
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_functions_are_short() -> None:
    functions: list[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]] = []
    functions += [*found(ast.FunctionDef), *found(ast.AsyncFunctionDef)]
    lines = {f"{path}:{n.name}": (n.end_lineno or n.lineno) - n.lineno + 1 for path, n in functions}
    long = {name for name, count in lines.items() if count > FUNCTION_LINES}
    assert long - LONG_FUNCTIONS.keys() == set()


def test_nothing_is_caught_by_chance() -> None:
    wide = [
        f"{path}:{node.lineno}"
        for path, node in found(ast.ExceptHandler)
        if node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
    ]
    wide += [  # as `__exit__` does it
        f"{path}:{node.lineno}"
        for path, node in found(ast.Call)
        if ast.unparse(node.func) == "isinstance"
        if ast.unparse(node.args[1]) in {"Exception", "BaseException"}
    ]
    assert [place for place in wide if place.split(":")[0] not in CATCH_ALL] == []


def test_attributes_are_not_probed() -> None:
    probes = [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for path, node in found(ast.Call)
        if isinstance(node.func, ast.Name)
        if (node.func.id, len(node.args)) in {("hasattr", 2), ("getattr", 3)}
    ]
    assert probes == []


def test_exceptions_to_the_rules_exist() -> None:
    listed = {*LONG_MODULES, *CATCH_ALL, *(name.split(":")[0] for name in LONG_FUNCTIONS)}
    assert listed <= {str(path) for path in FILES}
