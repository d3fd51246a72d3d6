"""`nprdsl curate`: files in and out, resuming after a kill, secrets, and what is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import nprdsl
from nprdsl.cli.failures import ExitCode
from tests.cli.commands import ROOT, environment, invoke, process, quick, started
from tests.curate.oracle import MATH, math_chains, math_oracle, step_of
from tests.curate.server import Asked, Failed, Response, Said, Scripted, Silent, scripted
from tests.forked import SECONDS, Forked

CHAINS = MATH / "chains.jsonl"
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def arguments(server: Scripted, *more: object, schema: str = "multiverse") -> list[object]:
    where = ("--endpoint", server.url, "--model", "oracle", "--out", "out.jsonl")
    return ["curate", CHAINS, "--schema", schema, *where, *more]


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]


def test_traces_and_the_rest_in_the_order_of_the_input() -> None:
    with scripted(math_oracle()) as server:
        result = invoke(*arguments(server))
    assert (result.exit_code, result.stderr) == (0, "")
    traces, rejected = rows("out.jsonl"), rows("out.rejected.jsonl")
    ids = [row["id"] for row in math_chains()]
    assert [i for i in ids if i in {r["id"] for r in traces}] == [r["id"] for r in traces]
    assert sorted(r["id"] for r in [*traces, *rejected]) == sorted(ids)
    schema = nprdsl.load("multiverse")
    assert all(schema.check(row["trace"]) == [] for row in traces)
    assert {row["schema"] for row in traces} == {"multiverse"}
    assert {row["rejected"]["reason"] for row in rejected} == {"nothing-parallel"}
    lines = result.stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["traces", "12 of 20 chains"]
    assert "8 nothing-parallel in group" in lines[1]
    assert any(line.split()[:4] == ["total", "76", "0", "0"] for line in lines)
    assert sorted(path.name for path in Path().iterdir()) == [
        "curate-cache", "out.jsonl", "out.rejected.jsonl"
    ]  # fmt: skip


def test_figures_as_json() -> None:
    with scripted(math_oracle()) as server:
        told = json.loads(invoke(*arguments(server, "--json", schema="npr")).stdout)
    assert (told["curated"], told["rejected"], told["blocks"]) == (12, 8, 14)
    cost = told["cost"]
    assert [*cost] == ["parse", "group", "arrange", "refill", "write", "total"]
    assert cost["total"]["calls"] == sum(cost[s]["calls"] for s in cost if s != "total") == 76
    assert cost["parse"]["prompt_tokens"] > cost["parse"]["completion_tokens"] > 0


def test_the_same_command_again_asks_nothing() -> None:
    with scripted(math_oracle()) as server:
        invoke(*arguments(server))
        before = Path("out.jsonl").read_bytes()
        asked = len(server.asked)
        result = invoke(*arguments(server))
    assert len(server.asked) == asked
    assert Path("out.jsonl").read_bytes() == before
    assert any(line.split()[:3] == ["total", "0", "76"] for line in result.stdout.splitlines())


class Gated:
    """The oracle, which falls silent after `answers`; `answered` holds what it has answered."""

    def __init__(self, answers: int) -> None:
        self._oracle, self._answers = math_oracle(), answers
        self.answered: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Response:
        with self._lock:
            if len(self.answered) == self._answers:
                return Silent()
            self.answered.append(json.dumps(asked.body))
        return self._oracle(asked)


def test_a_killed_run_repeats_no_call(tmp_path: Path) -> None:
    """Every reply that came before the kill is asked for once in both runs together."""
    cache = tmp_path / "curate-cache"
    script = Gated(30)
    with scripted(script) as server:
        with started(*arguments(server, "--in-flight", "3"), cwd=tmp_path) as running:
            _wait(lambda: len([*cache.rglob("*.json")]) == 30, running)
            running.send_signal(signal.SIGKILL)
            running.wait(SECONDS)
        assert not Path("out.jsonl").exists()
        server.script = math_oracle()
        result = invoke(*arguments(server, "--in-flight", "3"))
        asked = Counter(json.dumps(request.body) for request in server.asked)
    assert result.exit_code == 0
    assert [body for body in script.answered if asked[body] != 1] == []
    assert sum(asked.values()) <= 76 + 3, "only what was in flight may be sent twice"
    with scripted(math_oracle()) as server:
        invoke(*arguments(server, "--out", "at_once.jsonl", "--cache", "other"))
    assert Path("out.jsonl").read_bytes() == Path("at_once.jsonl").read_bytes()


def test_an_interrupt_is_no_traceback(tmp_path: Path) -> None:
    with (
        scripted(Gated(5)) as server,
        started(*arguments(server, "--in-flight", "2"), cwd=tmp_path) as running,
    ):
        _wait(lambda: len([*(tmp_path / "curate-cache").rglob("*.json")]) == 5, running)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=SECONDS)
    assert running.returncode == ExitCode.INTERRUPTED
    assert stderr.decode().strip() == "interrupted"
    assert [path.name for path in tmp_path.iterdir()] == ["curate-cache"]


def _wait(there: Any, running: Forked) -> None:
    pause = threading.Event()
    for _ in range(SECONDS * 20):
        if there():
            return
        assert running.poll() is None, running.communicate()[1].decode()
        pause.wait(0.05)
    raise AssertionError("it did not happen")


# secrets


@pytest.mark.parametrize("echo", ["reply", "error"])
def test_the_secret_comes_from_the_environment_and_goes_nowhere_else(
    echo: str, tmp_path: Path
) -> None:
    oracle = math_oracle()

    def script(asked: Asked) -> Response:
        told = asked.headers["authorization"]
        if echo == "error":
            return Failed(401, f"wrong key: {told}")
        said = oracle(asked)
        assert isinstance(said, Said)
        is_write = step_of(asked) == "write"
        return Said(said.text.replace("Found", f"Found {told}") if is_write else said.text)

    with scripted(script) as server:
        done = quick(*arguments(server), cwd=tmp_path, env={"OPENAI_API_KEY": KEY})
        named = quick(
            *arguments(server, "--api-key-env", "MINE", "--cache", "c"),
            cwd=tmp_path,
            env={"MINE": KEY},
        )
        by_hand = quick(
            *arguments(server, "--api-key", KEY, "--cache", "d"),
            cwd=tmp_path,
            env={"NPRDSL_API_KEY": "another", "OPENAI_API_KEY": "a third"},
        )
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    assert {one.returncode for one in (done, named, by_hand)} == {
        0 if echo == "reply" else ExitCode.USAGE
    }
    kept = [path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    runs = (done, named, by_hand)
    written = [text for one in runs for text in (one.stdout, one.stderr)] + kept
    assert [text for text in written if KEY in text] == []
    if echo == "error":
        assert done.stderr == "error: HTTP 401: wrong key: Bearer [secret]\n"


def test_our_own_variable_goes_before_that_of_openai(tmp_path: Path) -> None:
    with scripted(math_oracle()) as server:
        env = {"NPRDSL_API_KEY": KEY, "OPENAI_API_KEY": "another"}
        assert quick(*arguments(server), cwd=tmp_path, env=env).returncode == 0
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}


# what is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--schema", "nrp"], "error: no schema is named `nrp`; did you mean `npr`?"),
        (["--endpoint", "ftp://x"], "error: `ftp://x` is no address of an endpoint"),
        (["--endpoint", "http://a:b@c"], "error: the address of the endpoint must hold no name"),
        (["--param", "model=x"], "error: `model` is no sampling parameter"),
        (["--rejected", "out.jsonl"], "error: `out.jsonl` cannot hold both"),
        (["--out", "no/such/out.jsonl"], "error: cannot write `no/such/out.jsonl`: No such file"),
        (["--thought-field", "cot"], f"error: {CHAINS}:1: the field `cot` is not among id, prompt"),
        (["--id-field", "none"], None),
        (["--api-key", "a", "--api-key-env", "B"], "error: give --api-key or --api-key-env"),
        (["--api-key", "schlüssel"], "error: the API key has characters that no header takes"),
    ],
)
def test_mistakes_are_told_in_one_message(changes: list[str], told: str | None) -> None:
    with scripted(math_oracle()) as server:
        result = invoke(*arguments(server), *changes)
    if told is None:
        assert result.exit_code == 0
        assert rows("out.jsonl")[0]["id"] == "line 2"
        return
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith(told)
    assert server.asked == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "in.jsonl holds no chain of thought"),
        ("{", "in.jsonl:1: the row is not JSON"),
        ("[]", "in.jsonl:1: the row is not a JSON object"),
        (
            '{"prompt": "a", "solution": " "}',
            "in.jsonl:1: the field `solution` is no text, or empty",
        ),
        (
            '{"id": 1, "prompt": "a", "solution": "b"}\n' * 2,
            "in.jsonl:2: line 1 has the `id` `1` too",
        ),
    ],
)
def test_rows_that_are_none(text: str, told: str) -> None:
    Path("in.jsonl").write_text(text)
    with scripted(math_oracle()) as server:
        result = invoke("curate", "in.jsonl", *arguments(server)[2:])
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith(f"error: {told}")


def test_a_schema_without_room() -> None:
    Path("own.lark").write_text('start: "<a>" N "</a>"\nN: /[0-9]/\n')
    with scripted(math_oracle()) as server:
        result = invoke(*arguments(server, schema="own.lark"))
    assert result.exit_code == ExitCode.USAGE
    assert "the schema `own` has no room for a chain of thought: it wants a value for `N`" in (
        result.stderr
    )


def test_an_endpoint_that_is_not_there_ends_the_run() -> None:
    with scripted(math_oracle()) as server:
        pass
    result = invoke(*arguments(server, "--retries", "0"))
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith(f"error: nothing answers at {server.url}")
    assert not Path("out.jsonl").exists()


def test_failures_of_the_endpoint_are_told_and_tried_again() -> None:
    oracle, first = math_oracle(), math_chains()[1]["prompt"][:40]

    def script(asked: Asked) -> Response:
        return Failed(413, "too long") if first in asked.text else oracle(asked)

    with scripted(script) as server:
        result = invoke(*arguments(server))
        assert result.exit_code == ExitCode.BAD
        assert result.stderr == (
            "the endpoint failed some chains; the same command tries them again\n"
        )
        assert "1 endpoint-failed in parse" in result.stdout
        server.script = oracle
        again = invoke(*arguments(server))
    assert again.exit_code == 0
    assert len(rows("out.jsonl")) == 12


def test_nothing_curated_is_a_failure() -> None:
    Path("in.jsonl").write_text('{"prompt": "a", "solution": "One sentence."}\n')
    with scripted(math_oracle()) as server:
        result = invoke("curate", "in.jsonl", *arguments(server)[2:])
    assert result.exit_code == ExitCode.BAD
    assert result.stdout.startswith("traces    0 of 1 chains\nrejected  1 nothing-parallel\n")


def test_rows_from_stdin_with_fields_of_their_own() -> None:
    given = [
        {"unique": r["id"], "problem": r["prompt"], "cot": r["solution"], "level": 3}
        for r in math_chains()[:3]
    ]
    names = ("--prompt-field", "problem", "--thought-field", "cot", "--id-field", "unique")
    stdin = "\n\n".join(map(json.dumps, given))
    with scripted(math_oracle()) as server:
        result = invoke("curate", "-", *arguments(server)[2:], *names, stdin=stdin)
    assert result.exit_code == 0
    assert [row["level"] for row in [*rows("out.jsonl"), *rows("out.rejected.jsonl")]] == [3] * 3


def test_parameters_are_sent() -> None:
    params = ("--param", "temperature=0.6", "--param", "reasoning_effort=low")
    with scripted(math_oracle()) as server:
        invoke(*arguments(server, *params, "--structured", "never"))
    body = server.asked[0].body
    assert (body["temperature"], body["reasoning_effort"]) == (0.6, "low")
    assert "response_format" not in body


# without torch


def test_curating_needs_no_torch() -> None:
    """As where it is not installed, and nothing tries to import it."""
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None);"
        "import nprdsl.trainers.curate, nprdsl.cli.curate;"
        "print('math_verify' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment({}), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    before = "import sys; sys.modules['rapidfuzz'] = None;"
    with scripted(math_oracle()) as server:
        done = process(*arguments(server), cwd=tmp_path, before=before)
    assert done.returncode == ExitCode.USAGE
    assert "pip install 'nprdsl[curate]'" in done.stderr
