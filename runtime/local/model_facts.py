"""What an engine must know of a Hugging Face model before it runs: its layers, its cache, its
positions.

Configurations and forwards spell the same thing in many ways, and leave things out; here they are
read once, with a sentence for the user where the answer is that the engine cannot run the model.
"""

from __future__ import annotations

import inspect
import sys

import torch
from transformers import PreTrainedModel

from nprdsl.runtime.errors import UnsupportedModelError

KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})


def layer_kinds(model: PreTrainedModel) -> frozenset[str]:
    """`full_attention` and `sliding_attention`, as the configuration has them. Raises
    UnsupportedModelError for others."""
    settings = model.config.get_text_config().to_dict()
    declared = settings.get("layer_types")
    if declared is None:
        windowed = settings.get("sliding_window") and settings.get("use_sliding_window", True)
        declared = ["sliding_attention" if windowed else "full_attention"]
    kinds = frozenset(declared)
    if strange := sorted(kinds - KNOWN_LAYERS):
        raise UnsupportedModelError(
            f"has layers of the kind {', '.join(strange)}, which are no full or sliding-window "
            "attention"
        )
    return kinds


def attention_layers(model: PreTrainedModel) -> int:
    """Layers of attention. Raises UnsupportedModelError where there are none."""
    config = model.config.get_text_config()
    try:
        heads, layers = config.num_attention_heads, config.num_hidden_layers
    except AttributeError:
        heads = layers = 0
    if not heads:
        raise UnsupportedModelError("has no attention layers")
    return int(layers)


def cache_argument(model: PreTrainedModel) -> str:
    """What the model's `forward` calls its KV cache: `cache` from transformers 5.24 on.

    Models without attention say `cache_params`.
    """
    caches = ("past_key_values", "cache", "cache_params")
    return next((name for name in arguments(model) if name in caches), "past_key_values")


def arguments(model: PreTrainedModel) -> list[str]:
    """What the model's `forward` takes. One that only passes its arguments on takes those of the
    class that it comes from."""
    forwards = [vars(kind)["forward"] for kind in type(model).__mro__ if "forward" in vars(kind)]
    return [name for forward in forwards for name in inspect.signature(forward).parameters]


def hidden_layers(model: PreTrainedModel) -> int:
    """Layers of any kind. Raises UnsupportedModelError where the configuration does not say."""
    try:
        return int(model.config.get_text_config().num_hidden_layers)
    except AttributeError:
        message = f"{type(model).__name__} does not say how many layers it has"
        raise UnsupportedModelError(message) from None


def attention_windows(model: PreTrainedModel) -> frozenset[int]:
    """How many positions layers with a window see, as the configuration says."""
    settings = model.config.get_text_config().to_dict()
    kinds = settings.get("layer_types") or ["sliding", "chunked"]
    windows = {"sliding": settings.get("sliding_window") or 0}
    windows["chunked"] = settings.get("attention_chunk_size") or 0
    if not settings.get("use_sliding_window", True):
        windows["sliding"] = 0
    return frozenset(
        size for name, size in windows.items() if size and any(name in kind for kind in kinds)
    )


def most_positions(model: PreTrainedModel) -> int:
    """The longest sequence that the model can number; sys.maxsize where nothing says so.

    Where the configuration has no `max_position_embeddings`, a learned table of positions counts.
    """
    try:
        limit: int | None = model.config.get_text_config().max_position_embeddings
    except AttributeError:
        limit = None
    tables = [
        module.num_embeddings
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and "pos" in name.rpartition(".")[2]
    ]
    return limit or min(tables, default=sys.maxsize)
