"""Loads a model and its tokenizer from a folder or by a name on the hub, with errors that say what
to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from nprdsl.runtime.bundled import model_folder
from nprdsl.runtime.hub import why_not

DTYPES = {
    "auto": None,
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}


class ModelNotFoundError(FileNotFoundError):
    """There is no model at the path, none of that name can be had, or it cannot be read."""


def load_model(
    path: str | Path, device: str | torch.device, dtype: str | torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model, in evaluation mode on `device`, and its fast tokenizer.

    `dtype` "auto" is the checkpoint's own. Raises ModelNotFoundError, and ValueError for a device,
    dtype or tokenizer that cannot be used.
    """
    target, kind = _device(device), _dtype(dtype)
    name = model_folder(str(path))
    if _looks_local(name) and not Path(name).is_dir():
        raise ModelNotFoundError(f"no model at `{name}`: there is no such folder")
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise ModelNotFoundError(f"no model at `{name}`: the folder has no config.json")
    if not Path(name).is_dir() and (reason := why_not(name)) is not None:
        raise ModelNotFoundError(f"cannot load the model `{name}`: {reason}")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=kind or "auto")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelNotFoundError(f"cannot load the model `{name}`: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"`{name}` has a {type(tokenizer).__name__}; the engine needs a fast tokenizer (a "
            "tokenizer.json), because only its tokens' bytes are known"
        )
    return model.to(target).eval(), tokenizer


def _device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"`{device}` is no device; use cpu, cuda, cuda:1 or mps") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(target.type, True):
        raise ValueError(f"the device `{device}` is not available on this machine; use device=cpu")
    return target


def _dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"`{dtype}` is no dtype; use one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _looks_local(name: str) -> bool:
    """A hub name is `name` or `owner/name`; anything else can only be a path."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), str(error))


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers inside the block."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
