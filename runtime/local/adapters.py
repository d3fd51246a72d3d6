"""Weights that were trained beside a model, in the form of the library PEFT (LoRA and its like).

In goes the folder of an adapter; out comes its base model with the adapter's weights added to its
own, so that it runs at the base's speed. PEFT need not be installed where no adapter is opened.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safetensors import safe_open
from transformers import PreTrainedModel

from nprdsl.runtime.adapter_settings import AdapterSettings
from nprdsl.runtime.bundled import is_bundled
from nprdsl.runtime.errors import ModelNotFoundError, UnsupportedModelError
from nprdsl.runtime.smollm2 import INSTALL
from nprdsl.runtime.untrained import recorded_training

if TYPE_CHECKING:
    from peft import PeftConfig

WEIGHTS_NAME: Final = "adapter_model.safetensors"
_WHOLE: Final = ("", ".base_layer")  # trained as a whole, or kept whole below a LoRA


def require_peft(name: str, adapter: AdapterSettings) -> None:
    """Raises ModelNotFoundError, which says what the model is, where PEFT is not installed."""
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelNotFoundError(
            f"`{name}` is a PEFT adapter of the base model `{adapter.base}`; to open it, install "
            f"peft: {INSTALL if is_bundled(name) else 'pip install peft'}"
        ) from error


def with_rows(model: PreTrainedModel, folder: Path, tokens: int) -> None:
    """Gives the embeddings as many rows as the adapter's own have; where it has none of its own,
    rows for all `tokens` of its tokenizer. What stands in new ones is the adapter's."""
    now = model.get_input_embeddings().num_embeddings
    rows = _rows(model, folder / WEIGHTS_NAME) or max(tokens, now)
    if rows != now:
        model.resize_token_embeddings(rows, mean_resizing=False)


def _rows(model: PreTrainedModel, file: Path) -> int:
    """Of the embeddings in an adapter's weights, which need not be those of its tokenizer (padded
    to a round number, or cut to its tokens); 0 where there are none."""
    if not file.is_file():
        return 0
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    whole = {f"base_model.model.{name}{kind}.weight" for name in names for kind in _WHOLE}
    with safe_open(file, "pt") as weights:
        own = whole.intersection(weights.keys())
        found = [weights.get_slice(key).get_shape()[0] for key in own]
    return found[0] if found else 0


def with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter's weights; those of a quantized model stay apart.

    Raises ValueError for adapters that are no weights, and for weights that do not fit.
    """
    from peft import PeftConfig, PeftModel

    _check_kind(PeftConfig.from_pretrained(folder))
    try:
        adapted = PeftModel.from_pretrained(model, folder)
    except RuntimeError as error:  # of torch, a line for each weight
        first = str(error).strip().splitlines()[1:2] or [str(error)]
        raise ValueError(f"its weights do not fit the base model: {first[0].strip()}") from error
    quantized = model.config.to_dict().get("quantization_config") is not None
    merged: PreTrainedModel = adapted.get_base_model() if quantized else adapted.merge_and_unload()
    if (beside := folder / "config.json").is_file():
        trained = json.loads(beside.read_text(encoding="utf-8"))
        merged.config.update(recorded_training(trained))
    return merged


def without_wrapper(model: object) -> object:
    """The model of transformers, with the adapter's layers, inside one that PEFT has wrapped;
    another as it is. Raises UnsupportedModelError for adapters that are no weights."""
    peft = sys.modules.get("peft")
    if peft is None or not isinstance(model, peft.PeftModel):
        return model
    try:
        _check_kind(model.active_peft_config)
    except ValueError as error:
        raise UnsupportedModelError(str(error)) from None
    return model.get_base_model()


def _check_kind(config: PeftConfig) -> None:
    """Raises ValueError for adapters that are no weights."""
    if config.is_prompt_learning:
        raise ValueError(
            f"the adapter is of the kind {config.peft_type.value}, which puts keys or tokens "
            "before every prompt; only adapters that change weights can be run (LoRA and its like)"
        )
