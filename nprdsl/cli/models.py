"""The model behind `nprdsl run`: the bundled one, a folder, or a hub name; and its own defaults.

Non-goals: loading itself (see `nprdsl.runtime.local`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nprdsl.cli.failures import Failure, Rejected, told
from nprdsl.cli.settings import Settings
from nprdsl.parts import TagMode

if TYPE_CHECKING:
    from nprdsl.runtime.local import LocalEngine


def default_schema(model: str | None) -> str:
    """The schema that a model is run with if none is named."""
    from nprdsl.runtime.bundled import ARITH, is_bundled

    return ARITH if model is None or is_bundled(model) else "npr"


def load_engine(model: str | None, *, device: str, dtype: str, max_kv_tokens: int) -> LocalEngine:
    """The engine of that model. A `Failure` where it cannot be had."""
    # torch's threads must not spin while others work; read once, when torch is loaded
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from safetensors import SafetensorError

        from nprdsl.runtime.bundled import ARITH
        from nprdsl.runtime.local import LocalEngine
    except ModuleNotFoundError as error:
        raise Failure(
            f"`nprdsl run` needs {error.name}; install it with: pip install 'nprdsl[local]'"
        ) from error
    name = ARITH if model is None else model
    with (
        told(ValueError, OSError),
        told(
            ImportError,
            KeyError,
            RuntimeError,
            SafetensorError,
            TypeError,
            AttributeError,
            about=f"cannot load the model `{name}`",
        ),
    ):
        return LocalEngine.from_pretrained(
            name, device=device, dtype=dtype, max_kv_tokens=max_kv_tokens
        )


@contextmanager
def engine_errors() -> Iterator[None]:
    """Errors of a generation, told to people."""
    from torch import OutOfMemoryError

    from nprdsl.runtime.errors import CapacityError, UnsupportedModelError
    from nprdsl.runtime.prompts import PromptError
    from nprdsl.runtime.results import GenerationError

    with (
        told(CapacityError, PromptError, UnsupportedModelError),
        told(GenerationError, OutOfMemoryError, kind=Rejected),
    ):
        yield


def prompt_options(engine: LocalEngine, settings: Settings) -> dict[str, bool]:
    """Whether a prompt goes into the chat template, and behind the instruction."""
    chat = engine.chats if settings.chat is None else settings.chat
    trained = engine.bind(settings.schema).mode is TagMode.SPECIAL
    instructions = not trained if settings.instructions is None else settings.instructions
    return {"chat": chat, "instructions": instructions}


def sampling_defaults(engine: LocalEngine) -> dict[str, Any]:
    """The model's own settings, from its `generation_config.json`: greedy unless it samples."""
    config = engine.model.generation_config
    if config is None or not config.do_sample:
        return {"temperature": 0.0}
    own = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "min_p": config.min_p,
    }
    return {name: value for name, value in own.items() if value is not None}
