"""What engines tell of traces, and the figures that Prometheus is given of it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

import nprdsl
from nprdsl.machine.machine import Machine
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.http.app import make_app

PROMPT = "37*42+85*19?"
ARITH = nprdsl.load("arith")
LINE = re.compile(r"^(nprdsl_\w+)(?:\{(.*?)\})? (\S+)$", re.M)


@dataclass
class Noted:
    """An observer that notes what it is told."""

    waited: list[float] = field(default_factory=list)
    tokens: Counter[str] = field(default_factory=Counter)
    finish: list[str] = field(default_factory=list)
    longest: list[int] = field(default_factory=list)
    loads: list[tuple[int, int, int]] = field(default_factory=list)

    def began(self, waited_s: float) -> None:
        self.waited.append(waited_s)

    def ended(self, machine: Machine, finish: str) -> None:
        self.tokens += machine.events.tokens_by_rule()
        self.finish.append(finish)
        self.longest.append(machine.transcript.longest())

    def load(self, *, waiting: int, running: int, branches: int) -> None:
        self.loads.append((waiting, running, branches))


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine.from_pretrained("arith", dtype="fp32")


def test_an_observer_is_told_of_every_trace(engine: LocalEngine) -> None:
    noted = Noted()
    engine.observed_by(noted)
    greedy = Sampling(temperature=0)
    results = engine.generate(ARITH, [PROMPT, "60*23+37*42?"], sampling=greedy, chat=True)
    assert noted.finish == ["completed"] * 2
    assert sorted(noted.longest) == sorted(r.usage.critical_path for r in results)
    assert noted.tokens.total() == sum(r.usage.total for r in results)
    assert noted.tokens["step"] > noted.tokens["takeaway"] > 0
    assert len(noted.waited) == 2 and min(noted.waited) >= 0
    assert max(branches for _, _, branches in noted.loads) >= 4
    assert noted.loads[-1] == (0, 0, 0)


def test_watched_or_not_and_stopped_or_not_all_tokens_are_counted(engine: LocalEngine) -> None:
    noted = Noted()
    engine.observed_by(noted)
    *_, result = engine.stream(ARITH, PROMPT, sampling=Sampling(temperature=0), chat=True)
    assert noted.tokens.total() == result.usage.total  # type: ignore[union-attr]
    number = engine.submit(ARITH, PROMPT, chat=True)
    engine.abort(number)
    engine.wait(number)
    assert noted.finish == ["completed", "aborted"]
    assert noted.loads[-1] == (0, 0, 0)
    engine.complete(ARITH, [PROMPT], max_tokens=4, chat=True)
    assert len(noted.finish) == 2, "plain text is no trace"


def figures(text: str) -> dict[str, float]:
    return {f"{name} {labels}".strip(): float(value) for name, labels, value in LINE.findall(text)}


def test_the_endpoint_tells_prometheus(engine: LocalEngine) -> None:
    pytest.importorskip("prometheus_client")
    app = make_app(engine, model="arith", api_key="secret")

    async def ask() -> tuple[dict[str, float], dict[str, float]]:
        transport = httpx.ASGITransport(app=app)
        key = {"authorization": "Bearer secret"}
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:

            async def told() -> dict[str, float]:
                return figures((await client.get("/metrics")).raise_for_status().text)

            async def chat(schema: Any) -> int:
                message = {"role": "user", "content": PROMPT}
                body = {"messages": [message], "schema": schema, "temperature": 0}
                return (
                    await client.post("/v1/chat/completions", json=body, headers=key)
                ).status_code

            before = await told()
            assert await chat("arith") == 200
            assert await chat({"name": "mine", "source": "start: ("}) == 400
            return before, await told()

    before, after = asyncio.run(ask())
    more = {name: value - before.get(name, 0.0) for name, value in after.items()}
    assert more['nprdsl_traces_total finish="completed",schema="arith"'] == 1
    assert more['nprdsl_trace_tokens_total rule="step",schema="arith"'] > 20
    assert more["nprdsl_trace_degree_count"] == 1 < more["nprdsl_trace_degree_sum"]
    assert more["nprdsl_trace_waiting_seconds_count"] == 1
    assert more['nprdsl_schemas_total outcome="refused"'] == 1
    assert more["nprdsl_schema_read_seconds_count"] == 1
    assert after["nprdsl_traces_running"] == after["nprdsl_branches_live"] == 0


def test_names_that_clients_make_up_are_bounded() -> None:
    pytest.importorskip("prometheus_client")
    from nprdsl.runtime.metrics import prometheus_metrics

    made = prometheus_metrics()
    known = set(made._names)
    labels = {made._bounded(f"schema{n}", "rule") for n in range(2000)}
    assert len(labels) < 600 and ("other", "other") in labels
    made._names = known
