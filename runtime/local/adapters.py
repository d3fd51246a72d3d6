"""Weights that were trained beside a model, in the form of the library PEFT (LoRA and its like).

In goes the folder of an adapter; out comes its base model with the adapter's weights added to its
own, so that it runs at the base's speed. PEFT need not be installed where no adapter is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from transformers import PreTrainedModel

from nprdsl.runtime.errors import ModelNotFoundError
from nprdsl.runtime.untrained import recorded_training

SETTINGS: Final = "adapter_config.json"
_WHOLE: Final = ("model*.safetensors", "pytorch_model*.bin")  # of a model that needs no base


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The `base` model of an adapter, by its folder or name, and its `revision` on the hub."""

    base: str
    revision: str | None


def adapter_settings(folder: Path) -> AdapterSettings | None:
    """Of the adapter in a folder; None where it holds none, or a whole model beside one.

    Raises ModelNotFoundError where the file does not name a base model.
    """
    file = folder / SETTINGS
    if not file.is_file() or any(found for kind in _WHOLE for found in folder.glob(kind)):
        return None
    settings = json.loads(file.read_text(encoding="utf-8"))
    base = settings.get("base_model_name_or_path")
    if not base:
        raise ModelNotFoundError(
            f"`{folder}` is a PEFT adapter whose {SETTINGS} has no `base_model_name_or_path`"
        )
    return AdapterSettings(base, settings.get("revision"))


def require_peft(folder: Path, adapter: AdapterSettings) -> None:
    """Raises ModelNotFoundError, which says what the folder is, where PEFT is not installed."""
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelNotFoundError(
            f"`{folder}` is a PEFT adapter of the base model `{adapter.base}`; to open it, install "
            "peft: pip install peft"
        ) from error


def with_adapter(model: PreTrainedModel, folder: Path, tokens: int) -> PreTrainedModel:
    """The model with the adapter's weights; `tokens` is the size of the tokenizer it was trained
    with. The weights of a quantized model stay apart.

    Raises ValueError for adapters that are no weights.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(folder)
    if config.is_prompt_learning:
        raise ValueError(
            f"the adapter is of the kind {config.peft_type.value}, which puts keys or tokens "
            "before every prompt; only adapters that change weights can be run (LoRA and its like)"
        )
    if tokens > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(tokens, mean_resizing=False)  # the adapter has them
    adapted = PeftModel.from_pretrained(model, folder)
    quantized = model.config.to_dict().get("quantization_config") is not None
    merged: PreTrainedModel = adapted.get_base_model() if quantized else adapted.merge_and_unload()
    if (beside := folder / "config.json").is_file():
        trained = json.loads(beside.read_text(encoding="utf-8"))
        merged.config.update(recorded_training(trained))
    return merged
