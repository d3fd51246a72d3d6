"""The engine that writes rollouts, kept at the weights that are trained.

With the address "local" it is the trained model itself, in this process: nothing is copied. A
server, as `nprdsl serve` starts it, is given the weights before every batch; it may run on other
machines, with any parallelism of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nprdsl.runtime.engine import Engine
from nprdsl.runtime.local.engine import LocalEngine
from nprdsl.runtime.sglang.client.engine import SGLangEngine
from nprdsl.trainers.config.stages import LOCAL, EngineSection
from nprdsl.trainers.run.session import Session


@dataclass(frozen=True, slots=True, eq=False)
class RolloutEngine:
    """An engine, and what must be called before it samples."""

    engine: Engine
    refresh: Callable[[], object]


def rollout_engine(section: EngineSection, session: Session) -> RolloutEngine:
    """The engine that a section names, for the model of a session.

    Raises UnsupportedModelError, EngineUnavailableError, and ValueError for the local engine where
    every process has a part of the weights: their forwards would wait for each other.
    """
    if section.address != LOCAL:
        return _server(section.address, session)
    return shared_engine(
        session.setup.model,
        session.setup.tokenizer,
        max_kv_tokens=section.max_kv_tokens,
        max_rows=section.max_rows,
    )


def shared_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_kv_tokens: int,
    max_rows: int,
) -> RolloutEngine:
    """The local engine over a model that is trained. Raises what `rollout_engine` raises for it."""
    if any(isinstance(weights, DTensor) for weights in model.parameters()):
        raise ValueError(
            "the local engine cannot sample with weights that are shared out over processes "
            "(FSDP2): name a server as `engine.address`; in `sft`, leave `evaluation` out"
        )
    trained = model.config._attn_implementation
    model.set_attn_implementation("sdpa")  # the probe runs the model's own forward
    engine = LocalEngine(model, tokenizer, max_kv_tokens=max_kv_tokens, max_rows=max_rows)
    model.set_attn_implementation(trained)

    def refresh() -> None:
        model.eval()
        engine.forget()

    return RolloutEngine(engine, refresh)


def _server(address: str, session: Session) -> RolloutEngine:
    engine = SGLangEngine(address, tokenizer=session.setup.tokenizer)

    def refresh() -> None:
        """All processes gather the weights, one of them sends them."""
        weights = session.accelerator.get_state_dict(session.wrapped)
        if session.accelerator.is_main_process:
            tied = set(session.setup.model.all_tied_weights_keys)
            engine.weights.put((name, t) for name, t in weights.items() if name not in tied)
        session.accelerator.wait_for_everyone()

    return RolloutEngine(engine, refresh)
