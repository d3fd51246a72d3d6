"""torch's threads stay awake for a moment, unless others need the processors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nprdsl.cli import waiting_threads
from nprdsl.cli.waiting_threads import COUNT, POLICY, SPINS, processors_are_taken, settle_waiting


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (COUNT, POLICY):
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)


def load(folder: Path, runnable: int) -> Path:
    file = folder / "loadavg"
    file.write_text(f"1.83 1.92 1.74 {runnable}/223 23904\n", encoding="ascii")
    return file


@pytest.mark.parametrize(
    "processors, runnable, taken",
    [(2, 1, False), (2, 2, False), (2, 3, True), (16, 9, False), (16, 10, True), (1, 1, False)],
)
def test_half_of_the_processors_may_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int, runnable: int, taken: bool
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert processors_are_taken(load(tmp_path, runnable)) is taken


def test_where_the_kernel_says_nothing_they_are_free(tmp_path: Path) -> None:
    assert not processors_are_taken(tmp_path / "missing")


@pytest.mark.parametrize(
    "taken, expected", [(False, {COUNT: SPINS}), (True, {COUNT: "0", POLICY: "passive"})]
)
def test_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, taken: bool, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(waiting_threads, "processors_are_taken", lambda: taken)
    settle_waiting()
    assert {name: os.environ[name] for name in (COUNT, POLICY) if name in os.environ} == expected


@pytest.mark.parametrize("name, value", [(COUNT, "7"), (POLICY, "active")])
def test_what_the_environment_says_goes_before(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    settle_waiting()
    assert {n: os.environ[n] for n in (COUNT, POLICY) if n in os.environ} == {name: value}


def test_torch_is_not_there_before() -> None:
    """libgomp reads the environment when torch is imported: the commands must not have done so."""
    code = (
        "import sys, nprdsl.cli.generation, nprdsl.cli.train, nprdsl.cli.main; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
