"""How large a model is, and what a training step of it costs: parameters and floating-point
operations.

In goes a model, whose weights need not be there (torch's device "meta"); out come numbers that
metrics of speed and plans of memory are made of. Operations are those that the mathematics asks
for, as in PaLM (arXiv:2204.02311, appendix B): what is computed twice to save memory is not
counted, and an entry that a mask hides is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from nprdsl.runtime.local.model_facts import attention_layers


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Counts of a model. `parameters`: all, tied ones once; `trained` of them learn. `inner`: those
    that an entry is multiplied with, of experts the chosen ones, the output head aside;
    `largest_layer`: of the module that repeats. `head` is vocabulary x hidden.
    `attended`: layers x heads x size of a head; `cached`: numbers that an entry's keys and values
    are."""

    parameters: int
    trained: int
    inner: int
    largest_layer: int
    head: int
    hidden: int
    intermediate: int
    layers: int
    attended: int
    cached: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelSize:
        """Raises UnsupportedModelError for a model without attention."""
        config = model.config.get_text_config()
        settings = config.to_dict()
        own = list(model.parameters())
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        outer = {id(p) for end in ends if end is not None for p in end.parameters()}
        layers, hidden = attention_layers(model), int(config.hidden_size)
        heads = int(config.num_attention_heads)
        width = int(settings.get("head_dim") or hidden // heads)
        return cls(
            parameters=sum(p.numel() for p in own),
            trained=sum(p.numel() for p in own if p.requires_grad),
            inner=sum(_multiplied(p, settings) for p in own if id(p) not in outer),
            largest_layer=_largest_layer(model),
            head=int(config.vocab_size) * hidden,
            hidden=hidden,
            intermediate=int(settings.get("intermediate_size") or 4 * hidden),
            layers=layers,
            attended=layers * heads * width,
            cached=2 * layers * width * int(settings.get("num_key_value_heads") or heads),
        )

    def flops(self, entries: int, squares: int, scored: int) -> float:
        """Of a forward and its backward over rows with `entries` in all, whose lengths squared add
        up to `squares`, of which `scored` entries have a log-probability. Frozen matrices have no
        gradient of their own."""
        passes = 3 if self.trained > self.parameters // 2 else 2
        matrices = 2 * passes * (self.inner * entries + self.head * scored)
        return float(matrices + 12 * self.attended * squares // 2)  # half is hidden


def _multiplied(weights: nn.Parameter, settings: Mapping[str, Any]) -> int:
    """Numbers that one entry is multiplied with; matrices of all experts are one tensor."""
    match weights.ndim:
        case 0 | 1:
            return 0
        case 3 if chosen := settings.get("num_experts_per_tok"):
            return int(chosen) * weights[0].numel()
        case _:
            return weights.numel()


def _largest_layer(model: nn.Module) -> int:
    """Parameters of the largest module in a list of layers."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    layers = [layer for one in lists for layer in one]
    return max((sum(p.numel() for p in layer.parameters()) for layer in layers), default=0)
