"""The wheel: it holds every module and data file of the tree, and works away from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from nprdsl.schema import shipped

ROOT = Path(__file__).parents[1]
FOLDERS = ("grammars", "runtime", "trainers")
LEAST_SETUPTOOLS = 80
SECONDS = 240


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> list[Path]:
    """The files that git knows, as far as they are there; links are files."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout and git, to know which files belong to the package")
    names = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return [Path(n) for n in names if n and os.path.lexists(ROOT / n)]


def can_build() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= LEAST_SETUPTOOLS
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files, where no earlier build can leak into a new one."""
    if not can_build():
        pytest.skip(f"needs setuptools {LEAST_SETUPTOOLS} or newer: pip install -e '.[dev]'")
    copy = tmp_path_factory.mktemp("tree")
    for path in tracked():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy / path, follow_symlinks=False)
    return copy


@pytest.fixture(scope="module")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tracked files."""
    out = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", out)
    run(sys.executable, "-m", "pip", "wheel", *options, ".", cwd=copy)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    options = ("--no-deps", "--no-index", "-q", "--target", target)
    run(sys.executable, "-m", "pip", "install", *options, wheel, cwd=target)
    return target


def in_wheel(path: Path) -> str | None:
    """Where a tracked file must stand in the wheel; None if it is no part of the package."""
    if path.parts[0] == "nprdsl":
        inside = path
    elif path.parts[0] in FOLDERS:
        inside = Path("nprdsl", path)
    else:
        return None
    data = path.suffix in {".py", ".lark", ".json", ".jsonl"} or path.name == "py.typed"
    data = data or bool({"models", "suites"} & set(path.parts))
    return inside.as_posix() if data else None


def test_wheel_holds_what_the_tree_holds(wheel: Path) -> None:
    wanted = {name for path in tracked() if (name := in_wheel(path)) is not None}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == wanted
    assert {"nprdsl/py.typed", "nprdsl/grammars/npr.lark"} <= packed
    assert {f"nprdsl/grammars/{name}.examples.jsonl" for name in shipped()} <= packed
    assert "nprdsl/runtime/models/arith/model.safetensors" in packed
    assert "nprdsl/trainers/suites/math500.json" in packed
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_source_distribution_holds_the_package_and_no_tests(copy: Path, tmp_path: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    run(sys.executable, "-c", code, cwd=copy)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    wanted = {name for path in tracked() if (name := in_wheel(path)) is not None}
    assert wanted <= names
    assert [name for name in names if name.startswith(("tests", "benchmarks"))] == []


USER_PROGRAM = """\
import nprdsl
from nprdsl.runtime import Result, Sampling

schema = nprdsl.load("npr")
violations = schema.check("")
trace = schema.parse("")
reveal_type(violations)
reveal_type(trace.graph.critical_path)
reveal_type(Sampling(temperature=0))

def longest(results: list[Result]) -> int:
    return max(result.usage.total for result in results)
"""


def test_types_reach_a_user(installed: Path, tmp_path: Path) -> None:
    """pyright reads py.typed of the wheel, and the types behind the public names."""
    pytest.importorskip("pyright", reason="pip install -e '.[dev]'")
    (tmp_path / "program.py").write_text(USER_PROGRAM, encoding="utf-8")
    venv.create(tmp_path / "env")
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    shutil.copytree(installed / "nprdsl", packages / "nprdsl")
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    interpreter = tmp_path / "env" / "bin"
    path = f"{interpreter}{os.pathsep}{os.environ['PATH']}"

    def pyright(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "pyright", "--outputjson", *arguments]
        environment = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(tmp_path / "env")}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        return json.loads(done.stdout)

    checked = pyright("--pythonpath", str(interpreter / "python"), "program.py")
    assert checked["summary"]["errorCount"] == 0, checked
    revealed = [entry["message"].rpartition(" is ")[2] for entry in checked["generalDiagnostics"]]
    assert revealed == ['"list[Violation]"', '"int"', '"Sampling"']
    typed = pyright("--verifytypes", "nprdsl", "--ignoreexternal")["typeCompleteness"]
    assert typed["pyTypedPath"] == str(packages / "nprdsl" / "py.typed")


def python(installed: Path, *arguments: str | Path, cwd: Path) -> str:
    """Python with the wheel and its requirements. `-S`: an editable install of this tree would
    stand in for what the wheel lacks."""
    paths = os.pathsep.join([str(installed), sysconfig.get_path("purelib")])
    return run(sys.executable, "-S", *arguments, cwd=cwd, PYTHONPATH=paths)


def test_wheel_works_away_from_the_tree(installed: Path, tmp_path: Path) -> None:
    code = "import nprdsl; print(nprdsl.__file__, *nprdsl.load('npr').tags)"
    file, *tags = python(installed, "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed)
    assert tags[0] == "<guideline>"


def test_command_of_the_wheel_runs(installed: Path, tmp_path: Path) -> None:
    assert "threadweaver" in python(installed, installed / "bin/nprdsl", "schemas", cwd=tmp_path)
