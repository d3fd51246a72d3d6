"""The engine that samples for a trainer, kept at the weights that are trained.

"local" is the trained model itself, in this process: nothing is copied. A server, as
`nprdsl serve` starts it, is given the weights before every batch; it may run on other machines,
with any parallelism of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nprdsl.runtime.engine import Engine
from nprdsl.runtime.local.engine import LocalEngine
from nprdsl.runtime.sglang.client.engine import SGLangEngine
from nprdsl.trainers.config.sections import LOCAL, EngineSection


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """An engine, and what must be called before it samples."""

    engine: Engine
    refresh: Callable[[], None]


def sampler(
    section: EngineSection,
    accelerator: Accelerator,
    model: PreTrainedModel,
    wrapped: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
) -> Sampler:
    """The engine that a section names, for `model`, which `wrapped` trains.

    Raises UnsupportedModelError, EngineUnavailableError.
    """
    if section.address != LOCAL:
        return _remote(section.address, accelerator, model, wrapped, tokenizer)
    trained = model.config._attn_implementation
    model.eval()
    model.set_attn_implementation("sdpa")  # the probe runs the model's own forward
    engine = LocalEngine(
        model, tokenizer, max_kv_tokens=section.max_kv_tokens, max_rows=section.max_rows
    )
    model.set_attn_implementation(trained)

    def refresh() -> None:
        model.eval()

    return Sampler(engine, refresh)


def _remote(
    address: str,
    accelerator: Accelerator,
    model: PreTrainedModel,
    wrapped: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
) -> Sampler:
    engine = SGLangEngine(address, tokenizer=tokenizer)

    def refresh() -> None:
        """All processes gather the weights, one of them sends them."""
        weights = accelerator.get_state_dict(wrapped)
        if accelerator.is_main_process:
            tied = set(model.all_tied_weights_keys)
            engine.weights.put((name, t) for name, t in weights.items() if name not in tied)
        accelerator.wait_for_everyone()

    return Sampler(engine, refresh)
