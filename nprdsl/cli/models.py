"""The model behind a command: the bundled one, a folder, a hub name, or that of a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from nprdsl.cli.console import working
from nprdsl.cli.failures import Failure, Rejected, told
from nprdsl.cli.settings import Generating, Settings, read_settings
from nprdsl.trace.lexemes import TagMode

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine
    from nprdsl.runtime.local import LocalEngine
    from nprdsl.runtime.sglang.client.engine import SGLangEngine


_OF_THE_MODEL = ("model", "device", "dtype", "max_kv_tokens")


def check_model_options(given: Generating) -> None:
    """Options of a model in this process are refused where a server has the model."""
    if given["engine"] is None:
        return
    context = click.get_current_context()
    for name in _OF_THE_MODEL:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is for a model in this process; the server of "
                "--engine has its own"
            )


def open_engine(given: Generating) -> tuple[Engine, Settings, str]:
    """The engine that the options ask for, their settings, and the name of what it runs."""
    url, model = given["engine"], given["model"]
    if url is not None:
        with working(f"asking {url}"):
            reached = reach_engine(url)
        return reached, read_settings(given, default_schema(reached.info.model)), reached.info.model
    settings = read_settings(given, default_schema(model))
    with working(f"loading {model or 'the bundled model'}"):
        loaded = load_engine(
            model,
            device=given["device"],
            dtype=given["dtype"],
            max_kv_tokens=given["max_kv_tokens"],
        )
    return loaded, settings, f"{model} {given['dtype']}"


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
            f"this command needs {error.name}; install it with: pip install 'nprdsl[local]'"
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


def reach_engine(url: str) -> SGLangEngine:
    """The engine of the server at that address. A `Failure` where there is none."""
    try:
        from nprdsl.runtime.errors import EngineUnavailableError
        from nprdsl.runtime.sglang.client.engine import SGLangEngine

        with told(ValueError, EngineUnavailableError):
            return SGLangEngine(url)
    except ModuleNotFoundError as error:
        raise Failure(
            f"--engine needs {error.name}, for the tokenizer; install it with: "
            "pip install transformers"
        ) from error


@contextmanager
def engine_errors() -> Iterator[None]:
    """Errors of a generation, told to people."""
    from nprdsl.runtime.errors import (
        CapacityError,
        EngineUnavailableError,
        UnsupportedModelError,
        UnsupportedServerError,
    )
    from nprdsl.runtime.prompts import PromptError
    from nprdsl.runtime.results import GenerationError

    with (
        told(
            CapacityError,
            EngineUnavailableError,
            PromptError,
            UnsupportedModelError,
            UnsupportedServerError,
        ),
        told(GenerationError, *_out_of_memory(), kind=Rejected),
    ):
        yield


def _out_of_memory() -> tuple[type[Exception], ...]:
    """torch's own error; engines of servers do without torch."""
    torch = sys.modules.get("torch")
    return () if torch is None else (torch.OutOfMemoryError,)


def prompt_options(engine: Engine, settings: Settings) -> dict[str, bool]:
    """Whether a prompt goes into the chat template, and behind the instruction."""
    chat = engine.chats if settings.chat is None else settings.chat
    trained = engine.bind(settings.schema).mode is TagMode.SPECIAL
    instructions = not trained if settings.instructions is None else settings.instructions
    return {"chat": chat, "instructions": instructions}
