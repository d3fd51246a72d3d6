"""Weights that were trained beside a model, in the form of the library PEFT (LoRA and its like).

In goes the folder of an adapter; out comes its base model with the adapter's weights added to its
own, so that it runs at the base's speed. PEFT need not be installed where no adapter is opened.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import PreTrainedModel

from nprdsl.runtime.adapter_settings import AdapterSettings
from nprdsl.runtime.bundled import is_bundled
from nprdsl.runtime.errors import ModelNotFoundError
from nprdsl.runtime.smollm2 import INSTALL
from nprdsl.runtime.untrained import recorded_training


def require_peft(name: str, adapter: AdapterSettings) -> None:
    """Raises ModelNotFoundError, which says what the model is, where PEFT is not installed."""
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelNotFoundError(
            f"`{name}` is a PEFT adapter of the base model `{adapter.base}`; to open it, install "
            f"peft: {INSTALL if is_bundled(name) else 'pip install peft'}"
        ) from error


def with_rows(model: PreTrainedModel, tokens: int) -> None:
    """Gives the embeddings rows for all `tokens` of an adapter's tokenizer; what stands in the new
    ones is the adapter's."""
    if tokens > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(tokens, mean_resizing=False)


def with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter's weights; those of a quantized model stay apart.

    Raises ValueError for adapters that are no weights.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(folder)
    if config.is_prompt_learning:
        raise ValueError(
            f"the adapter is of the kind {config.peft_type.value}, which puts keys or tokens "
            "before every prompt; only adapters that change weights can be run (LoRA and its like)"
        )
    adapted = PeftModel.from_pretrained(model, folder)
    quantized = model.config.to_dict().get("quantization_config") is not None
    merged: PreTrainedModel = adapted.get_base_model() if quantized else adapted.merge_and_unload()
    if (beside := folder / "config.json").is_file():
        trained = json.loads(beside.read_text(encoding="utf-8"))
        merged.config.update(recorded_training(trained))
    return merged
