"""Which versions of SGLang the plugin can hook: `python -m nprdsl.runtime.sglang.compat VERSION`.

A version is installed alone, without its dependencies, into a folder that is thrown away; the
functions that the plugin wraps are looked up in its source, which is never imported. What each of
them was when it was tested stands in `tested_hooks.json`, written by `--record` where SGLang itself
is installed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from nprdsl.runtime.sglang.plugin import TESTED

TABLE: Final = Path(__file__).with_name("tested_hooks.json")
PACKAGE: Final = "sglang"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class HookState(StrEnum):
    """What a wrapped function is in a version, against the tested one."""

    SAME = "same"
    CHANGED = "other source"
    SIGNATURE = "other signature"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class HookedFunction:
    """A function of SGLang: its parameters as written, and the SHA-256 of its source."""

    signature: str
    source: str


@dataclass(frozen=True, slots=True)
class Compatibility:
    """What became of each wrapped function in one version."""

    version: str
    states: Mapping[str, HookState]

    def having(self, *states: HookState) -> list[str]:
        return sorted(name for name, state in self.states.items() if state in states)

    @property
    def row(self) -> str:
        """Its line of the table in docs/serving.md."""
        missing = len(self.having(HookState.MISSING))
        signature = len(self.having(HookState.SAME, HookState.CHANGED))
        same, count = len(self.having(HookState.SAME)), len(self.states)
        tested = "yes" if self.version in TESTED else "no"
        exist = f"{count - missing} of {count}"
        return f"| {self.version} | {exist} | {signature} | {same} | {tested} |"


class SourceTree:
    """The modules below a folder that has the package."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parsed = cache(self._parse)

    def function(self, target: str) -> HookedFunction | None:
        """What a dotted name says; None where there is no such function."""
        module, names = self._split(target)
        if not module:
            return None
        found = self._find(module, names)
        if found is None:
            return None
        node, source = found
        kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        lines = source.splitlines()[_first_line(node) - 1 : node.end_lineno]
        text = "\n".join(line.rstrip() for line in lines)
        return HookedFunction(
            f"{kind}({ast.unparse(node.args)})", hashlib.sha256(text.encode()).hexdigest()
        )

    def _split(self, target: str) -> tuple[str, list[str]]:
        """The longest beginning that is a module, and the names inside it."""
        parts = target.split(".")
        for count in range(len(parts) - 1, 0, -1):
            module = ".".join(parts[:count])
            if self._file(module) is not None:
                return module, parts[count:]
        return "", parts

    def _file(self, module: str) -> Path | None:
        path = self._folder.joinpath(*module.split("."))
        return next(
            (f for f in (path.with_suffix(".py"), path / "__init__.py") if f.exists()), None
        )

    def _parse(self, module: str) -> tuple[ast.Module, str]:
        file = self._file(module)
        source = "" if file is None else file.read_text(encoding="utf-8")
        return ast.parse(source), source

    def _find(self, module: str, names: Sequence[str]) -> tuple[Function, str] | None:
        tree, source = self._parsed(module)
        first, *rest = names
        node = _defined(tree.body, first)
        if node is None:
            origin = _imported(tree, first)
            return None if origin is None else self._find(origin[0], [origin[1], *rest])
        if isinstance(node, ast.ClassDef):
            return self._method(module, node, rest[0]) if len(rest) == 1 else None
        return None if rest else (node, source)

    def _method(self, module: str, node: ast.ClassDef, name: str) -> tuple[Function, str] | None:
        """A method of the class or of what it inherits from."""
        found = _defined(node.body, name)
        if found is not None:
            return None if isinstance(found, ast.ClassDef) else (found, self._parsed(module)[1])
        for base in node.bases:
            if isinstance(base, ast.Name):
                inherited = self._find(module, [base.id, name])
                if inherited is not None:
                    return inherited
        return None


def _first_line(node: Function) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, what stands under conditions included."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])


def _defined(body: Sequence[ast.stmt], name: str) -> Function | ast.ClassDef | None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = [n for n in _statements(body) if isinstance(n, kinds) and n.name == name]
    return found[-1] if found else None


def _imported(tree: ast.Module, name: str) -> tuple[str, str] | None:
    """The module that a name comes from, and its name there."""
    for node in _statements(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module.startswith(PACKAGE):
                    return node.module, alias.name
    return None


def tested_hooks() -> dict[str, HookedFunction]:
    """What each wrapped function was when it was tested, by its dotted name."""
    read = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: HookedFunction(**entry) for name, entry in read.items()}


def compared(version: str, folder: Path) -> Compatibility:
    """The version whose package stands in the folder, against the tested one."""
    tree = SourceTree(folder)
    states = {name: _state(was, tree.function(name)) for name, was in tested_hooks().items()}
    return Compatibility(version, states)


def _state(tested: HookedFunction, found: HookedFunction | None) -> HookState:
    if found is None:
        return HookState.MISSING
    if found.signature != tested.signature:
        return HookState.SIGNATURE
    return HookState.SAME if found.source == tested.source else HookState.CHANGED


def installed(version: str, folder: Path) -> None:
    """Installs the version into the folder, alone. Raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:"]
    subprocess.run(
        [*command, "--target", str(folder), f"{PACKAGE}=={version}"], check=True, timeout=600
    )


def record(folder: Path) -> None:
    """Writes down what the functions that the plugin wraps are in the SGLang of this environment;
    needs it, with all its dependencies."""
    from nprdsl.runtime.sglang.plugin import import_hooks

    tree = SourceTree(folder)
    found = {name: tree.function(name) for name in sorted(import_hooks())}
    entries = {name: asdict(entry) for name, entry in found.items() if entry is not None}
    TABLE.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what differs, and the version's line of the table. 1 if a function is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m nprdsl.runtime.sglang.compat", description=__doc__
    )
    parser.add_argument("version", nargs="?", help="a version of SGLang, such as 0.5.23")
    parser.add_argument("--folder", type=Path, help="a folder that has it, in place of installing")
    parser.add_argument("--record", action="store_true", help="write tested_hooks.json")
    asked = parser.parse_args(arguments)
    if asked.record:
        import sglang

        record(Path(sglang.__file__).parents[1])
        return 0
    if asked.version is None:
        parser.error("which version?")
    with TemporaryDirectory() as throw_away:
        folder = asked.folder or Path(throw_away)
        if asked.folder is None:
            installed(asked.version, folder)
        report = compared(asked.version, folder)
    for state in (HookState.MISSING, HookState.SIGNATURE, HookState.CHANGED):
        for name in report.having(state):
            print(f"{state.value}: {name}")
    print(report.row)
    return 1 if report.having(HookState.MISSING) else 0


if __name__ == "__main__":
    raise SystemExit(main())
