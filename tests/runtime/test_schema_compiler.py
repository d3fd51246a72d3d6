"""Schemas of strangers are read in processes of their own, within bounds; without SGLang."""

from __future__ import annotations

import asyncio
import pickle
import signal
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import nprdsl
from nprdsl.runtime.http import schema_compiler, schema_worker
from nprdsl.runtime.http.packed_grammar import pack, unpack
from nprdsl.runtime.http.refusals import PreparationError, RefusedError, TooManyError
from nprdsl.runtime.http.schema_compiler import SchemaCompiler
from nprdsl.runtime.http.wire_forms import SchemaForm

SOURCE = '%declare KIND\nstart: "<a>" KIND "</a>"\n'
TYPED = SchemaForm.model_validate(
    {"name": "own", "source": SOURCE, "terminals": {"KIND": {"pattern": "x|y"}}}
)


def chain(rules: int) -> str:
    links = "\n".join(f"a{n}: a{n + 1}" for n in range(rules))
    return f'start: a0\n{links}\na{rules}: "1"\n'


# What a stranger may send, each as the fields of a form.
FORMS: dict[str, dict[str, Any]] = {
    "count of 10^9": {"source": 'start: "1"~1000000000'},
    "nested counts": {"source": 'start: a~1..1000\na: b~1..1000\nb: "1"~1..1000'},
    "regex of 2^18 states": {"source": "start: T\nT: /[0-9]*1[0-9]{18}/"},
    "chain of rules": {"source": chain(3000)},
    "doubling rules": {
        "source": "start: a0\n"
        + "\n".join(f"a{n}: a{n + 1} a{n + 1}" for n in range(60))
        + '\na60: "1"'
    },
    "parentheses": {"source": "start: " + "(" * 20000 + '"1"' + ")" * 20000},
    "parentheses in a regex": {"source": "start: T\nT: /" + "(" * 5000 + "1" + ")" * 5000 + "/"},
    "imports itself": {
        "source": "%import .x.A\nstart: A",
        "imports": {"x.lark": "%import .x.A"},
    },
    "long name of an import": {
        "source": 'start: "1"',
        "imports": {"y" * 5000 + ".lark": 'A: "1"'},
    },
    "imports in a circle": {
        "source": "%import .x.A\nstart: A",
        "imports": {"x.lark": "%import .y.A", "y.lark": "%import .x.A"},
    },
    "surrogates": {"source": 'start: "\\ud800"'},
    "null bytes": {"source": "start: \0"},
    "typed terminals that are not declared": {
        "source": 'start: "1"',
        "terminals": {f"T{n}": {"pattern": "1{100}"} for n in range(3000)},
    },
    "a type of many states": {
        "source": SOURCE,
        "terminals": {"KIND": {"pattern": "(x{1,900}y){90}"}},
    },
    "recursion without end": {"source": 'start: "<a>" start'},
}


def run(work: Callable[[SchemaCompiler], Awaitable[Any]], **options: Any) -> Any:
    async def inside() -> Any:
        compiler = SchemaCompiler(**options)
        try:
            return await work(compiler)
        finally:
            await compiler.close()

    return asyncio.run(inside())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_any_form_is_a_grammar_or_refused(form: dict[str, Any]) -> None:
    """Of no form the worker says that it failed."""
    line = SchemaForm.model_validate({"name": "x"} | form).model_dump_json()
    told = schema_worker.compile_form(line)
    assert list(told) in (["grammar"], ["refused"]), told


@pytest.mark.parametrize("name", ["arith", "npr", "multiverse", "parallel_r1"])
def test_a_packed_grammar_is_the_same_language(name: str) -> None:
    schema = nprdsl.load(name)
    again = unpack(pack(schema.grammar))
    assert again.digest == schema.grammar.digest and again.tags == schema.tags
    example = schema.examples[0].trace
    assert nprdsl.Schema(again).check(example) == [] == schema.check(example)


def test_a_grammar_with_types_is_packed() -> None:
    grammar = TYPED.read().grammar
    again = nprdsl.Schema(unpack(pack(grammar)))
    assert again.check("<a>x</a>") == [] and again.check("<a>z</a>") != []


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/nprdsl-evil"),))


@pytest.mark.parametrize(
    "packed", [Evil(), "text", signal.SIGTERM, {"a": 1}], ids=["object", "text", "enum", "dict"]
)
def test_nothing_else_is_unpacked(packed: object) -> None:
    with pytest.raises(ValueError, match="no packed grammar"):
        unpack(b64encode(pickle.dumps(packed)).decode())
    assert not Path("/tmp/nprdsl-evil").exists()


def test_a_worker_reads_refuses_and_goes_on() -> None:
    bad = SchemaForm(name="own", source="start: (")

    async def work(compiler: SchemaCompiler) -> None:
        with pytest.raises(RefusedError, match=r"own\.lark:1"):
            await compiler.packed(bad)
        first = await compiler.packed(TYPED)
        assert unpack(first).name == "own"
        assert await compiler.packed(TYPED) == first
        with pytest.raises(RefusedError, match=r"own\.lark:1"):
            await compiler.packed(bad)

    run(work, workers=1)


def test_one_that_is_too_large_to_be_bound_between_two_steps_is_refused() -> None:
    async def work(compiler: SchemaCompiler) -> None:
        with pytest.raises(RefusedError, match=r"3\.\d times as large"):
            await compiler.packed(SchemaForm(name="chain", source=chain(3000)))
        small = SchemaForm(name="chain", source=chain(600))
        assert unpack(await compiler.packed(small)).name == "chain"

    run(work, workers=1)


def form_that(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets workers run this code where they would read a schema named `slow`."""
    (tmp_path / "sitecustomize.py").write_text(
        "import nprdsl.runtime.sglang.protocol as p\n"
        "real = p.SchemaForm.read\n"
        "def read(self):\n"
        "    if self.name == 'slow':\n"
        f"        {code}\n"
        "    return real(self)\n"
        "p.SchemaForm.read = read\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")


SLOW = SchemaForm(name="slow", source='start: "<a>"\n')
OTHER = SchemaForm(name="other", source='start: "<b>"\n')


def test_one_that_takes_too_long_is_ended_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form_that("while True: pass", tmp_path, monkeypatch)

    async def work(compiler: SchemaCompiler) -> None:
        with pytest.raises(RefusedError, match=r"more than 0\.2 s"):
            await compiler.packed(SLOW)
        assert unpack(await compiler.packed(OTHER)).name == "other"
        with pytest.raises(RefusedError, match=r"more than 0\.2 s"):
            await asyncio.wait_for(compiler.packed(SLOW), 0.1)  # known

    run(work, workers=1, deadline_s=0.2)


def test_memory_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form_that("bytearray(1 << 40)", tmp_path, monkeypatch)

    async def work(compiler: SchemaCompiler) -> None:
        with pytest.raises(RefusedError, match="more memory than the 1,024 MB"):
            await compiler.packed(SLOW)
        assert unpack(await compiler.packed(OTHER)).name == "other"

    run(work, workers=1)


@pytest.mark.parametrize(
    "code", ["raise RuntimeError('ours')", "import os; os.abort()"], ids=["raises", "aborts"]
)
def test_a_fault_of_ours_is_logged_under_its_hash(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    form_that(code, tmp_path, monkeypatch)

    async def work(compiler: SchemaCompiler) -> None:
        with pytest.raises(PreparationError, match="the server's log says why"):
            await compiler.packed(SLOW)
        assert unpack(await compiler.packed(OTHER)).name == "other"

    run(work, workers=1)
    assert "could not be read" in caplog.text


def test_clients_take_turns_and_have_few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client fills its places; another, which comes last, waits for one schema only."""
    monkeypatch.setattr(schema_compiler, "PER_CLIENT", 6)
    order: list[str] = []

    async def ask(compiler: SchemaCompiler, client: str, name: str) -> None:
        await compiler.packed(SchemaForm(name=name, source='start: "<a>"\n'), client)
        order.append(name)

    async def work(compiler: SchemaCompiler) -> None:
        names = [f"many{n}" for n in range(6)]
        tasks = [asyncio.create_task(ask(compiler, "many", name)) for name in names]
        await asyncio.sleep(0)
        with pytest.raises(TooManyError, match="of this client"):
            await ask(compiler, "many", "one more")
        tasks.append(asyncio.create_task(ask(compiler, "few", "few")))
        await asyncio.gather(*tasks)

    run(work, workers=1)
    assert order.index("few") <= 2 and len(order) == 6 + 1
