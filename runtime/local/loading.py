"""Loads a model and its tokenizer from a folder, by a name on the hub, from a GGUF file, or as an
adapter on its base model, with errors that say what to do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import cached_file, logging

from nprdsl.runtime.adapter_settings import AdapterSettings, adapter_settings
from nprdsl.runtime.bundled import model_folder
from nprdsl.runtime.errors import ModelNotFoundError
from nprdsl.runtime.hub import why_not
from nprdsl.runtime.local.adapters import require_peft, with_adapter, with_rows
from nprdsl.runtime.local.gguf_tokenizer import gguf_tokenizer
from nprdsl.runtime.smollm2 import COMMAND, NAME, local_folder

DTYPES = {
    "auto": None,
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a model is loaded; all but `device` are transformers' own words.

    `dtype` "auto" is the checkpoint's own. `device_map` places the parts in place of `device`.
    Raises ValueError for a device or a dtype that cannot be used.
    """

    device: str | torch.device = "cpu"
    dtype: str | torch.dtype = "auto"
    revision: str | None = None
    attn_implementation: str | None = None
    device_map: str | dict[str, Any] | None = None
    quantization_config: object = None
    trust_remote_code: bool = False
    gguf_file: str | None = None

    def __post_init__(self) -> None:
        _device(self.device)
        _dtype(self.dtype)

    @property
    def of_both(self) -> dict[str, Any]:
        """For the tokenizer and the model."""
        given = {"trust_remote_code": self.trust_remote_code}
        return given if self.revision is None else {**given, "revision": self.revision}

    @property
    def of_model(self) -> dict[str, Any]:
        """For the model alone; what is not given is left to transformers."""
        quantized = self.quantization_config
        if self.gguf_file is not None and quantized is None:
            quantized = GgufConfig(dequantize=True)
        given = {
            "attn_implementation": self.attn_implementation,
            "device_map": self.device_map,
            "quantization_config": quantized,
            "gguf_file": self.gguf_file,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        return {**self.of_both, "dtype": _dtype(self.dtype) or "auto", **chosen}


def load_model(
    path: str | Path, options: LoadOptions
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model, in evaluation mode, and its fast tokenizer.

    `path` is a folder, a name on the hub, a GGUF file, or a PEFT adapter in a folder. Raises
    ModelNotFoundError, and ValueError for a tokenizer that cannot be used.
    """
    name = model_folder(str(path))
    if Path(name).suffix == ".gguf" and Path(name).is_file():
        options = replace(options, gguf_file=Path(name).name)
        name = str(Path(name).parent)
    _must_be_there(name, options)
    if options.gguf_file is None and (adapter := adapter_settings(Path(name))) is not None:
        return _with_adapter(str(path), Path(name), adapter, options)
    with _readable(name), quiet():
        if options.gguf_file is None:
            tokenizer = _tokenizer(name, options)
        else:
            file = cached_file(name, options.gguf_file, revision=options.revision)
            tokenizer = gguf_tokenizer(Path(file))
        model = AutoModelForCausalLM.from_pretrained(name, **options.of_model)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"`{name}` has a {type(tokenizer).__name__}; the engine needs a fast tokenizer (a "
            "tokenizer.json), because only its tokens' bytes are known"
        )
    return _placed(model, options).eval(), tokenizer


def _must_be_there(name: str, options: LoadOptions) -> None:
    folder, needed = Path(name), options.gguf_file or "config.json"
    if not folder.is_dir():
        if folder.is_file():
            raise ModelNotFoundError(f"no model at `{name}`: give the folder that this file is in")
        if _looks_local(name):
            raise ModelNotFoundError(f"no model at `{name}`: there is no such folder")
        if (reason := why_not(name, revision=options.revision, file=needed)) is not None:
            raise ModelNotFoundError(f"cannot load the model `{name}`: {reason}")
    elif not (folder / needed).is_file() and adapter_settings(folder) is None:
        raise ModelNotFoundError(f"no model at `{name}`: the folder has no {needed}")


def _tokenizer(name: str, options: LoadOptions) -> Any:
    """Raises ValueError, which says so where a folder has none."""
    try:
        return AutoTokenizer.from_pretrained(name, **options.of_both)
    except ValueError as error:
        if Path(name).is_dir() and not (Path(name) / "tokenizer.json").is_file():
            raise ValueError("the folder has no tokenizer.json") from error
        raise


def load_base(
    path: str | Path, options: LoadOptions
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The base model of the adapter in a folder, without its weights, and with the adapter's
    tokenizer, if it has one. Raises what `load_model` raises."""
    folder = Path(model_folder(str(path)))
    adapter = adapter_settings(folder)
    if adapter is None:
        raise ModelNotFoundError(f"no adapter at `{path}`")
    return _base(str(path), folder, adapter, options)


def _with_adapter(
    given: str, folder: Path, adapter: AdapterSettings, options: LoadOptions
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The base model with the adapter's weights; errors name it as `given`."""
    model, tokenizer = _base(given, folder, adapter, options)
    with _readable(str(folder)), quiet(), _peft_as_it_is():
        model = with_adapter(model, folder)
    return model.eval(), tokenizer


def _base(
    given: str, folder: Path, adapter: AdapterSettings, options: LoadOptions
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    require_peft(given, adapter)
    base = (local_folder() if adapter.base == NAME else None) or adapter.base
    try:
        model, tokenizer = load_model(base, replace(options, revision=adapter.revision))
    except ModelNotFoundError as error:
        way = f"; get it with: {COMMAND}" if base == NAME else ""
        raise ModelNotFoundError(
            f"`{given}` is a PEFT adapter, and its base model is missing: {error}{way}"
        ) from error
    with _readable(str(folder)), quiet():
        if (folder / "tokenizer.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder)
        with_rows(model, folder, len(tokenizer))
    return model, tokenizer


@contextmanager
def _peft_as_it_is() -> Iterator[None]:
    """PEFT asks transformers by a name that it gives up."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def _placed(model: PreTrainedModel, options: LoadOptions) -> PreTrainedModel:
    target = _device(options.device)
    if options.device_map is not None or model.device == target:
        return model
    return model.to(target)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """What transformers says of files that it cannot read, in one line."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = _first_line(error).rstrip(".")
        if "trust_remote_code=True" in str(error):
            reason += "; trust_remote_code=True runs it"
        raise ModelNotFoundError(f"cannot load the model `{name}`: {reason}") from error


def _device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
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
