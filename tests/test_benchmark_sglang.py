"""The benchmarks of the SGLang runtime, as far as they run without a server.

The local engine stands in for the server, with the random model that the benchmarks make.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import sglang_cpu, sglang_gpu
from benchmarks.sglang_runs import Shape, Size, Taken, forking, make_model, prompts, schema
from nprdsl.machine.machine import Machine
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.sglang.protocol import ForkRequest, TraceReport
from nprdsl.structure.events import EndReason
from nprdsl.testing import byte_vocabulary


class StandIn:
    """What the benchmarks use of a server."""

    def __init__(self, local: LocalEngine) -> None:
        self.local = local
        self.asked: list[str] = []

    def report(self, prompt: list[int], request: ForkRequest) -> TraceReport:
        result = self.local.generate(
            request.language.read(),
            prompt,
            limits=request.limits.limits(),
            sampling=request.settings(),
        )
        return TraceReport(
            final=True,
            finish=result.finish,
            ids=list(result.token_ids),
            logprobs=list(result.logprobs),
        )

    def fork(self, shape: Shape, *, parallel: bool = True, seed: int = 0) -> Taken:
        self.asked.append("fork" if parallel else "in turn")
        return Taken(1.0 if parallel else 4.0, 100 * shape.batch, 0.5, 30)

    def plain(self, shape: Shape, tokens: int, *, seed: int = 0) -> Taken:
        self.asked.append(f"plain {tokens}")
        return Taken(3.0, tokens * shape.batch, 1.5, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), Size(64, 2, 1024), torch.float32)


@pytest.fixture(scope="module")
def stand_in(folder: Path) -> Iterator[StandIn]:
    yield StandIn(LocalEngine.from_pretrained(folder, dtype="fp32"))


@pytest.mark.parametrize("branches", [1, 3, 8])
def test_forking_requests_have_the_shape_that_was_asked_for(
    stand_in: StandIn, branches: int
) -> None:
    shape = Shape(branches, 20)
    report = stand_in.report(prompts(shape, 26, 0)[0], forking(shape))
    assert report.finish is EndReason.COMPLETED
    assert len(report.ids) in (branches * 22 + 1, branches * 22 + 2)  # with an end token, or not


def test_budgets_hold_tags_that_are_spelled() -> None:
    shape = Shape(4, 20)
    bound = schema(20).bind(byte_vocabulary())
    machine = Machine(bound, limits=forking(shape).limits.limits())  # raises where it is too small
    machine.start()
    assert len(machine.live) == 4


def test_a_dense_forward_agrees_and_a_causal_one_does_not(stand_in: StandIn, folder: Path) -> None:
    oracle = sglang_gpu.Oracle(str(folder), torch.float32, "cpu")
    vocabulary = stand_in.local.vocabulary
    found = sglang_gpu.correctness("local", stand_in, oracle, vocabulary, (1, 3))  # type: ignore[arg-type]
    assert [d.fault(0.001) for d in found] == ["", ""]
    assert all(d.greatest < 1e-3 for d in found)
    assert found[1].control > 0.01
    assert "more than" in replace(found[1], median=0.2).fault(0.05)
    assert "nothing was tested" in replace(found[1], control=0.0).fault(0.05)


def test_speeds_compare_as_many_tokens(stand_in: StandIn) -> None:
    stand_in.asked.clear()
    found = sglang_gpu.speed("fa3", stand_in, Shape(4, 20, batch=2), 3)  # type: ignore[arg-type]
    assert stand_in.asked == ["fork", "plain 100", *["fork", "plain 100"] * 3]
    assert found.throughput_ratio == pytest.approx(3.0)
    assert found.answer_ratio == pytest.approx(3.0)
    ours = sglang_cpu.speedup(stand_in, 4, 2)  # type: ignore[arg-type]
    assert ours.ratio == pytest.approx(3.0)
    assert ours.forking / ours.in_turn == pytest.approx(4.0)


def test_kinds_of_runs_take_turns() -> None:
    order: list[str] = []

    def kind(name: str) -> Taken:
        order.append(name)
        return Taken(1.0, 1, 1.0, 0)

    found = sglang_cpu.in_turn([lambda _: kind("a"), lambda _: kind("b")], 3)
    assert [len(runs) for runs in found] == [3, 3]
    assert "".join(order) == "baabbaab"


class Steady:
    """A server that always takes as long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def plain(self, shape: Shape, tokens: int, *, seed: int = 0) -> Taken:
        return Taken(self.seconds, 100, 1.0, 0, cpu_s=2 * self.seconds)


def test_what_the_plugin_costs() -> None:
    bare, plugged = [Steady(1.0), Steady(1.0), Steady(1.1)], [Steady(1.0), *[Steady(1.03)] * 2]
    cost = sglang_cpu.overhead("the plugin", bare, plugged, 8, 4)  # type: ignore[arg-type]
    assert cost.percent == pytest.approx(3.0)
    assert cost.cpu_percent == pytest.approx(100 * (3.06 / 3.1 - 1))
    assert cost.spread == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--branches", "0"], "0 is not between 1 and 64"),
        (["--batches", "4", "9999"], "9999 is not between 1 and 512"),
        (["--tokens", "0"], "--tokens is 0"),
        (["--tolerance", "-1"], "--tolerance is -1"),
        (["--backends", "abacus"], "invalid choice"),
    ],
)
def test_bad_arguments(given: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sglang_gpu.arguments(given)
    assert told in capsys.readouterr().err


def test_arguments() -> None:
    chosen = sglang_gpu.arguments([])
    assert (chosen.branches, chosen.batches, chosen.tolerance) == (
        [1, 2, 4, 8],
        [1, 4, 16, 64],
        0.05,
    )
    assert sglang_gpu.arguments(["--dtype", "float32"]).tolerance == 0.001
    with pytest.raises(SystemExit):
        sglang_cpu.arguments(["--repeats", "0"])
    with pytest.raises(SystemExit):
        sglang_cpu.arguments(["--servers", "0"])
    assert Sampling(seed=0) == forking(Shape(2, 8)).settings()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_without_cuda_it_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["sglang_gpu"])
    with pytest.raises(SystemExit, match=r"benchmarks\.sglang_cpu"):
        sglang_gpu.main()
