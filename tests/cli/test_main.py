"""The entry point: version, imports, interrupts, closed pipes, encodings."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nprdsl.cli.failures import ExitCode
from nprdsl.cli.main import cli, warned
from nprdsl.masks.bound_schema import SpelledTagsWarning
from tests.cli.commands import ROOT, environment, invoke, process
from tests.forked import SECONDS


def test_version() -> None:
    assert invoke("--version").output.startswith("nprdsl ")


def test_helps(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Options, their order, defaults and texts, of every command."""
    monkeypatch.setenv("COLUMNS", "80")
    golden("cli/help.txt", invoke("--help").output)
    for name in cli.commands:
        golden(f"cli/help_{name}.txt", invoke(name, "--help").output)


def test_only_run_loads_torch(tmp_path: Path) -> None:
    program = (
        "import sys, nprdsl.cli.main\n"
        "heavy = {'torch', 'transformers', 'hypothesis', 'nprdsl.runtime.local'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ran.stdout == "[]\n", ran.stderr


@pytest.mark.parametrize("command", [("run", "1+1?"), ("fuzz", "npr")])
def test_what_an_extra_installs_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    missing = "import sys; sys.modules['torch'] = sys.modules['hypothesis'] = None; "
    ran = process(*command, cwd=tmp_path, before=missing)
    assert ran.returncode == ExitCode.USAGE
    assert ran.stderr.startswith("error: ") and "pip install 'nprdsl[" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_an_interrupt_is_130_without_traceback(tmp_path: Path) -> None:
    interrupt = (
        "import os, signal, threading; import nprdsl.cli.main; "
        "threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start(); "
    )
    ran = process("fuzz", "npr", "--examples", 1_000_000, cwd=tmp_path, before=interrupt)
    assert (ran.returncode, ran.stdout, ran.stderr.strip()) == (130, "", "interrupted")


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    trace = tmp_path / "many.jsonl"
    trace.write_text('{"text": "<plan>"}\n' * 5000)
    with subprocess.Popen(
        [sys.executable, "-c", "from nprdsl.cli.main import main; main()", "check", str(trace)],
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        said = running.stderr.read()
        assert running.wait(SECONDS) not in (0, -signal.SIGPIPE)
    assert said == b""


SHELL = f"{sys.executable} -c 'from nprdsl.cli.main import main; main()'"


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("check - < trace.txt > /dev/full", 1, "error: cannot write the output: No space left on"),
        ("check - <&-", 2, "error: cannot read stdin: it is closed"),
        ("schemas >&-", 0, ""),
    ],
)
def test_streams_that_cannot_be_used(tmp_path: Path, command: str, code: int, told: str) -> None:
    (tmp_path / "trace.txt").write_text("no trace")
    ran = subprocess.run(
        ["sh", "-c", f"{SHELL} {command}"],
        cwd=tmp_path, env=environment({}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stderr
    assert ran.stderr.startswith(told) and len(ran.stderr.splitlines()) == bool(told)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_stdout_will_do(tmp_path: Path, encoding: str) -> None:
    ran = process("show", "npr", cwd=tmp_path, env={"PYTHONIOENCODING": encoding})
    assert ran.returncode == 0, ran.stderr
    assert "<guideline>" in ran.stdout


def test_arguments_that_are_no_text_are_refused(tmp_path: Path) -> None:
    ran = process("show", b"\xff.txt".decode("utf-8", "surrogateescape"), cwd=tmp_path)
    assert ran.returncode == ExitCode.USAGE
    assert "Traceback" not in ran.stderr


def test_the_root_is_the_package() -> None:
    assert (ROOT / "nprdsl" / "cli" / "main.py").is_file()


def test_a_warning_of_the_language_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    others: list[str] = []
    show = warned(lambda message, *_: others.append(str(message)))
    show(SpelledTagsWarning("`</v>` must be spelled"), SpelledTagsWarning, "run.py", 1)
    show(UserWarning("of a library"), UserWarning, "lib.py", 1)
    assert capsys.readouterr().err == "warning: `</v>` must be spelled\n"
    assert others == ["of a library"]
