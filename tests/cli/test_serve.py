"""`nprdsl serve` up to where SGLang begins: what is chosen, what is refused, what is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints, PackageNotFoundError
from pathlib import Path

import pytest

from nprdsl.cli.failures import ExitCode
from nprdsl.cli.main import main
from nprdsl.runtime.bundled import model_folder
from nprdsl.runtime.http.listening import url_of
from nprdsl.runtime.sglang import cpu, launch
from nprdsl.runtime.sglang.launch import CannotServeError, ServerCommand, command
from tests.cli.commands import MAIN, ROOT, environment, invoke
from tests.forked import SECONDS, forked

POINT = EntryPoint("nprdsl", "nprdsl.runtime.sglang.plugin:register", launch.GROUP)

# Stands in for SGLang: it starts a child, writes both process ids, and waits.
STAND_IN = """
import os, pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}")
if "--fail" in sys.argv:
    sys.exit(3)
if "--slow-end" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: None)
time.sleep(600)
"""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """SGLang and the plugin seem to be installed."""
    monkeypatch.setattr(launch, "version", lambda name: "0.5.23")
    monkeypatch.setattr(launch, "entry_points", lambda group: EntryPoints([POINT]))
    monkeypatch.delenv("SGLANG_PLUGINS", raising=False)
    return monkeypatch


def words(made: ServerCommand) -> str:
    return " ".join(made.arguments)


# -- the command line ------------------------------------------------------------------------------


def test_without_a_model_the_bundled_one_is_served() -> None:
    made = command(None, [], cuda=True)
    assert f"--model-path {model_folder('arith')} --served-model-name arith" in words(made)
    assert "--disable-overlap-schedule" in made.arguments
    assert "--device" not in made.arguments
    assert made.url == "http://127.0.0.1:30000"


def test_an_adapter_is_refused_before_the_server_starts(tmp_path: Path) -> None:
    settings = tmp_path / "adapter_config.json"
    settings.write_text('{"base_model_name_or_path": "owner/base"}')
    with pytest.raises(CannotServeError, match=r"is a PEFT adapter of `owner/base`.*merge"):
        command(str(tmp_path), [], cuda=False)
    settings.write_text("{}")
    with pytest.raises(CannotServeError, match="has no `base_model_name_or_path`"):
        command(str(tmp_path), [], cuda=False)


def test_without_cuda_options_for_the_cpu_are_chosen_and_told() -> None:
    made = command("some/model", ["--dtype", "bfloat16"], cuda=False)
    assert "--device cpu --attention-backend torch_native" in words(made)
    assert words(made).startswith("--model-path some/model")
    assert words(made).endswith("--dtype bfloat16")
    assert "--sleep-on-idle" in made.chosen and "--device cpu" in made.chosen
    assert "--dtype bfloat16" not in made.chosen


def test_what_the_user_gives_goes_before() -> None:
    given = ["--model-path=own", "--attention-backend", "intel_amx", "--port=31000", "--host", "::"]
    made = command(None, given, cuda=False)
    assert "torch_native" not in made.arguments and "arith" not in words(made)
    assert (made.port, made.url) == (31000, "http://[::1]:31000")
    assert command(None, ["--host", "0.0.0.0"], cuda=True).url == "http://127.0.0.1:30000"
    assert command(None, ["--api-key", "secret"], cuda=True).api_key == "secret"


def test_our_own_options_are_settings_and_not_sglangs(tmp_path: Path) -> None:
    (tmp_path / "mine.lark").write_text('start: "<a>"\n')
    given = ["--schemas", "registered", "--tp-size", "2", f"--schema-folder={tmp_path}"]
    made = command(None, [*given, "--trace-share", "0.25", "--schema-timeout=2"], cuda=True)
    assert words(made).endswith("--tp-size 2") and "schema" not in words(made)
    settings = made.settings
    assert settings.schemas == "registered" and settings.schema_folder == str(tmp_path)
    assert (settings.trace_share, settings.schema_timeout) == (0.25, 2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--schemas", "all"], "--schemas is 'all'"),
        (["--schema-timeout", "0"], "--schema-timeout is '0'"),
        (["--trace-share"], "--trace-share is ''"),
        (["--schema-folder", "/nowhere/at/all"], "there is no folder of schemas `/nowhere"),
        (["--enable-overlap-schedule"], "the overlap scheduler chooses a step before it is known"),
        (["--page-size", "16"], "--page-size 16 cannot be used"),
        (["--page-size=16"], "--page-size 16 cannot be used"),
        (["--speculative-algorithm", "EAGLE"], "tokens that no schema has seen"),
        (["--pp-size", "2"], "pipeline parallelism"),
        (["--enable-dp-attention"], "on one rank"),
        (["--skip-tokenizer-init"], "bytes of the tokenizer's tokens"),
        (["--port", "http"], "--port is http, it must be a number"),
        (["--port", "70000"], "--port is 70000, it must be a number"),
    ],
)
def test_options_under_which_no_schema_runs_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(CannotServeError, match=message):
        command(None, options, cuda=True)


def test_harmless_values_of_these_are_taken() -> None:
    for options in (["--page-size", "1"], ["--disaggregation-mode", "null"], ["--tp-size", "2"]):
        assert command(None, options, cuda=True).arguments[-2:] == tuple(options)


# -- what is there ---------------------------------------------------------------------------------


def test_no_sglang_another_version_and_no_plugin_are_told(installed: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    assert launch.check_installed() == "0.5.23"
    installed.setenv("SGLANG_PLUGINS", "other, more")
    with pytest.raises(CannotServeError, match="allows other, more only: add nprdsl"):
        launch.check_installed()
    installed.setattr(launch, "entry_points", lambda group: EntryPoints([]))
    with pytest.raises(CannotServeError, match="SGLang does not find the plugin"):
        launch.check_installed()
    installed.setattr(launch, "version", lambda name: "0.4.0")
    with pytest.raises(CannotServeError, match=r"SGLang 0\.4\.0 .* tested with 0\.5\.23"):
        launch.check_installed()
    installed.setattr(launch, "version", missing)
    with pytest.raises(CannotServeError, match="not installed here: pip install sglang==0"):
        launch.check_installed()
    told = invoke("serve", "--engine", "sglang")
    assert told.exit_code == ExitCode.USAGE
    assert "error: SGLang is not installed here" in told.stderr


def test_a_port_in_use_is_told_before_anything_starts(installed: pytest.MonkeyPatch) -> None:
    installed.setattr(cpu, "has_cuda", lambda: True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = invoke("serve", "--port", port)
    assert told.exit_code == ExitCode.USAGE
    assert f"nothing can listen on 127.0.0.1:{port}" in told.stderr
    assert "give another --port" in told.stderr


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
    ],
)
def test_the_address_that_is_told_can_be_asked(host: str, reached: str) -> None:
    assert url_of(host, 80) == f"http://{reached}:80"


def test_the_environment_of_a_cpu_keeps_what_is_set() -> None:
    given = {"OMP_NUM_THREADS": "2", "PYTHONPATH": "/own"}
    cpu.extend(given)
    cpu.extend(given)
    assert given["OMP_NUM_THREADS"] == "2"
    assert given["PYTHONPATH"] == f"{cpu.FOLDER}{os.pathsep}/own"
    assert given["SGLANG_USE_CPU_ENGINE"] == "1"


# -- the engine of this process --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--engine", "other"), "'other' is not one of"),
        (("arith", "--engine=other"), "--engine is 'other', it must be sglang or local"),
        (("--engine", "local", "arith", "--tp-size", "2"), "--tp-size"),
        (("arith", "--port", "0", "--engine", "local"), "0 is not in the range"),
        (("--engine", "local", "--schemas", "all"), "'all' is not one of"),
        (("--engine", "local", "--schema-timeout", "0"), "--schema-timeout is 0.0"),
        (("--engine", "local", "--schema-folder", "/nowhere/at/all"), "no folder of schemas"),
        (("--restart", "--engine", "local"), "--restart is for SGLang"),
        (("--engine", "local", "arith", "--restart"), "--restart is for SGLang"),
    ],
    ids=str,
)
def test_wrong_options_of_the_local_engine_are_told(given: tuple[str, ...], message: str) -> None:
    told = invoke("serve", *given)
    assert told.exit_code == ExitCode.USAGE
    assert message in told.output


def test_options_of_the_local_engine_are_explained(
    golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    golden("cli/help_serve_local.txt", invoke("serve", "--engine", "local", "m", "--help").output)


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, 0)]
)
def test_without_sglang_this_process_serves(
    sent: signal.Signals, code: int, tmp_path: Path
) -> None:
    pytest.importorskip("uvicorn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    with forked(serve_here, port, cwd=tmp_path, env=environment({})) as running:
        until = time.monotonic() + SECONDS
        while not answers(f"{url}/v1/models"):
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            assert json.load(answer)["data"][0]["id"] == "arith"
        running.send_signal(sent)
        out, err = (said.decode() for said in running.communicate())
        assert running.returncode == code
    assert err.startswith("SGLang is not installed here: this process runs the model\n")
    assert out == f"ready: {url} (OpenAI: {url}/v1), the model is `arith`\n"


def serve_here(port: str) -> None:
    """The command where SGLang is not installed."""
    launch.is_installed = lambda: False
    main(["serve", "arith", "--port", port])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.URLError:
        return False


# -- processes -------------------------------------------------------------------------------------


def start(tmp_path: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, with a stand-in for SGLang."""
    package = tmp_path / "sglang"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "launch_server.py").write_text(STAND_IN)
    before = (
        "from importlib.metadata import EntryPoint, EntryPoints\n"
        "from nprdsl.runtime.sglang import launch, cpu\n"
        f"point = EntryPoint('nprdsl', 'nprdsl.x:y', {launch.GROUP!r})\n"
        "launch.version = lambda name: '0.5.23'\n"
        "launch.entry_points = lambda group: EntryPoints([point])\n"
        "cpu.has_cuda = lambda: True\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return subprocess.Popen(
        [sys.executable, "-c", before + MAIN, "serve", "--port", port, *options],
        env=environment({}) | {"PYTHONPATH": paths, "PIDS": str(tmp_path / "pids")},
        stderr=subprocess.PIPE,
    )


def pids(tmp_path: Path, running: subprocess.Popen[bytes]) -> list[int]:
    file = tmp_path / "pids"
    for _ in range(600):
        if file.exists() and len(file.read_text().split()) == 2:
            return [int(pid) for pid in file.read_text().split()]
        assert running.poll() is None or "pids" in os.listdir(tmp_path)
        time.sleep(0.05)
    raise AssertionError("the stand-in did not start")


def alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, 0)]
)
def test_a_signal_leaves_no_process(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    running = start(tmp_path)
    started = pids(tmp_path, running)
    assert all(alive(pid) for pid in started)
    running.send_signal(sent)
    assert running.wait(60) == code
    assert [pid for pid in started if alive(pid)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_signals_while_it_stops_leave_no_process(tmp_path: Path) -> None:
    running = start(tmp_path, "--slow-end")
    started = pids(tmp_path, running)
    for _ in range(4):
        running.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    assert running.wait(60) == 0
    assert [pid for pid in started if alive(pid)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_that_fails_is_told_and_leaves_no_process(tmp_path: Path) -> None:
    running = start(tmp_path, "--fail")
    _, said = running.communicate(timeout=60)
    assert running.returncode == ExitCode.BAD
    assert b"SGLang ended with exit code 3 before it was ready" in said
    assert [pid for pid in pids(tmp_path, running) if alive(pid)] == []
