"""The plugin refuses what it was not tested with, and servers that cannot run schemas say why."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from sglang.srt import runtime_context
from sglang.srt.plugins.hook_registry import HookRegistry
from transformers import GenerationConfig

import nprdsl
from nprdsl.runtime.sglang import plugin
from nprdsl.runtime.sglang.plugin import scheduler_hooks
from nprdsl.runtime.sglang.plugin.scheduler_plugin import SchedulerPlugin, server_refusal
from nprdsl.runtime.sglang.plugin.trace_scheduler import TraceScheduler
from nprdsl.runtime.sglang.protocol import KEY, ForkRequest
from tests.sglang.server import Server


def test_an_unknown_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "version", lambda name: "0.5.16")
    with pytest.raises(SystemExit, match=r"with SGLang 0\.5\.23, not with 0\.5\.16.*PLUGINS"):
        plugin.register()


def test_a_hook_that_is_not_in_place_ends_the_start() -> None:
    target = "sglang.srt.managers.schedule_batch.Req.no_such_method"
    HookRegistry.register(target, scheduler_hooks.is_idle)
    try:
        with pytest.raises(SystemExit, match=f"could not hook {target}"):
            plugin.register()
    finally:
        HookRegistry._hooks.pop(target)


def test_every_hook_is_in_place(server: Server) -> None:
    """SGLang has loaded the plugin through its entry point, in this process too."""
    assert len(plugin.import_hooks()) > 25 and plugin.import_hooks() <= HookRegistry._patched


def scheduler(**changes: Any) -> SimpleNamespace:
    """A scheduler that can run schemas, but for `changes`."""
    able = {
        "enable_overlap": False,
        "tokenizer": object(),
        "is_generation": True,
        "page_size": 1,
        "is_hybrid_swa": False,
        "sliding_window_size": None,
        "is_hybrid_ssm": False,
        "spec_algorithm": SimpleNamespace(is_none=lambda: True),
        "enable_priority_preemption": False,
        "dllm_config": None,
        "enable_hierarchical_cache": False,
        "enable_hisparse": False,
        "model_config": SimpleNamespace(model_is_mrope=False, is_encoder_decoder=False),
        "server_args": SimpleNamespace(
            disaggregation_mode="null", pp_size=1, enable_dp_attention=False
        ),
    }
    return SimpleNamespace(**able | changes)


def test_a_server_that_can_run_schemas() -> None:
    assert server_refusal(scheduler()) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"enable_overlap": True}, "--disable-overlap-schedule"),
        ({"page_size": 64}, "--page-size 1"),
        ({"tokenizer": None}, "--skip-tokenizer-init"),
        ({"sliding_window_size": 128}, "sliding window"),
        ({"is_hybrid_swa": True}, "sliding window"),
        ({"is_hybrid_ssm": True}, "recurrent"),
        ({"enable_hierarchical_cache": True}, "hierarchical"),
        ({"spec_algorithm": SimpleNamespace(is_none=lambda: False)}, "speculative"),
    ],
)
def test_a_server_that_cannot_says_why(changes: dict[str, Any], words: str) -> None:
    """In the public NPR engine the overlap scheduler, speculation and larger pages were on or off
    by luck."""
    assert words in server_refusal(scheduler(**changes))


@pytest.mark.parametrize(
    ("own", "sampling"),
    [
        (None, {"temperature": 0.0}),
        (GenerationConfig(), {"temperature": 0.0}),
        (GenerationConfig(do_sample=True, temperature=0.6), {"temperature": 0.6}),
    ],
)
def test_a_server_tells_the_settings_of_its_model(
    own: GenerationConfig | None, sampling: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that has none is greedy, as in the local engine."""
    serving = SimpleNamespace(served_model_name="tiny")
    monkeypatch.setattr(runtime_context, "get_serving", lambda: serving)
    made = scheduler(
        req_to_token_pool=SimpleNamespace(req_to_token=SimpleNamespace(shape=(8, 64))),
        max_total_num_tokens=100,
    )
    vars(made.model_config).update(
        context_len=128, vocab_size=300, hf_generation_config=own, dtype="torch.float32"
    )
    info = scheduler_hooks.add_server_info({"stock": 1}, made)
    assert info["stock"] == 1
    assert info[KEY]["sampling"] == sampling
    assert (info[KEY]["positions"], info[KEY]["capacity"]) == (64, 100)


def test_a_schema_on_a_server_with_overlap_is_refused(tiny: Path) -> None:
    started = Server(tiny, disable_overlap_schedule=False)
    try:
        with pytest.raises(ValueError, match="--disable-overlap-schedule"):
            started.generate([[1, 2, 3]], [ForkRequest.of(nprdsl.load("npr"))])
        plain = {"temperature": 0, "max_new_tokens": 5, "ignore_eos": True}
        assert len(started.generate([[1, 2, 3]], [plain])[0].ids) == 5
    finally:
        started.stop()


def test_requests_that_wait_too_long_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has begun, and waits again for what it gave back, is not late."""
    now = time.perf_counter()
    waiting = [
        SimpleNamespace(trace=SimpleNamespace(rid=rid, queued_s=now - waited), begun=begun)
        for rid, waited, begun in (
            ("late", 9.0, False),
            ("early", 1.0, False),
            ("begun", 9.0, True),
        )
    ]
    ours: Any = SimpleNamespace(traces=SimpleNamespace(waiting=waiting))
    assert scheduler_hooks.abort_overdue(ours, [], None) == []
    monkeypatch.setenv("SGLANG_REQ_WAITING_TIMEOUT", "5")
    (abort,) = scheduler_hooks.abort_overdue(ours, [], None)
    assert (abort.rid, abort.abort_message) == ("late", "Request waiting timeout reached.")


def test_an_aborted_prompt_leaves_the_queue() -> None:
    """Else SGLang tells its client of the abort, without a word about the trace."""
    run: Any = SimpleNamespace(trace=SimpleNamespace(rid="mine", failure="", finished_output=True))
    run.stop, run.end = Mock(), Mock()
    other, ours = object(), object.__new__(SchedulerPlugin)
    stock = SimpleNamespace(chunked_req=run.trace, waiting_queue=[other, run.trace])
    parts = {name: Mock() for name in ("turns", "make_batch", "queue", "send")}
    traces = TraceScheduler(Mock(), max_rows=1, unqueue=ours._unqueue, **parts)
    ours.scheduler, ours.traces = stock, traces
    traces.submit(run)
    asked = SimpleNamespace(rid="mine", abort_all=False, abort_message="")
    scheduler_hooks.abort_traces(ours, stock, asked)  # SGLang ends it between two chunks
    assert traces.waiting == [run]
    stock.chunked_req = None
    scheduler_hooks.abort_traces(ours, stock, asked)
    assert (stock.waiting_queue, traces.waiting) == ([other], [])
    run.end.assert_called_once()
