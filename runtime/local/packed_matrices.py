"""A model's matrices a second time, in the order in which a CPU's multiplication reads them.

Without it oneDNN arranges every matrix anew for each product, which for the few rows of a decoding
step takes longer than the product. In goes a model whose weights nobody replaces behind the
engine's back; inside `with matrices:` its linear layers use the copies. A weight that was changed
in place since is arranged again, and what a copy does not suit (another dtype, gradients) is
multiplied as ever. Outside of the block the model is untouched, so that it can be saved, copied or
trained.
"""

from __future__ import annotations

from typing import Final

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel

MOST_BYTES: Final = 2 << 30  # of all copies; larger models would need twice a lot of memory
_DTYPES: Final = (torch.float32, torch.bfloat16)
_TRIED_ROWS: Final = 3  # of a product by which a copy is tried
_ROUNDING: Final = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # of the largest result


class PackedMatrices:
    """The linear layers of a model on a CPU. None where there is nothing to gain: on other devices,
    without oneDNN, where all copies together would be larger than `most_bytes`, or where a product
    with a copy is not the layer's own."""

    def __init__(self, model: PreTrainedModel, most_bytes: int = MOST_BYTES) -> None:
        found = [module for module in model.modules() if _is_packable(module)]
        size = sum(layer.weight.nbytes for layer in found)
        if size > most_bytes or not _is_right(found):
            found = []
        self._layers = [_PackedLinear(layer) for layer in found]

    def __len__(self) -> int:
        return len(self._layers)

    def __enter__(self) -> None:
        for layer in self._layers:
            layer.begin()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for layer in self._layers:
            layer.end()


class _PackedLinear:
    """One layer and the copy of its weight."""

    __slots__ = ("_dtype", "_instance", "_module", "_packed", "_seen", "_weight")

    def __init__(self, module: torch.nn.Linear) -> None:
        self._module = module
        self._instance = vars(module)  # setting attributes of modules costs more than a product
        self._seen: tuple[int, int, int] | None = None

    def begin(self) -> None:
        weight = self._module.weight
        seen = (id(weight), weight.data_ptr(), weight._version)
        if seen != self._seen:
            if not _is_packable(self._module):  # it has moved, or is of another dtype
                return
            self._weight, self._dtype = weight, weight.dtype
            self._packed = _packed(weight)
            self._seen = seen
        self._instance["forward"] = self._multiplied

    def end(self) -> None:
        self._instance.pop("forward", None)

    def _multiplied(self, rows: torch.Tensor) -> torch.Tensor:
        suits = rows.dtype is self._dtype and rows.numel() > 0
        if not suits or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return linear(rows, self._weight, self._module.bias)
        return _product(rows, self._packed, self._module.bias)


def _is_packable(module: torch.nn.Module) -> bool:
    """A plain linear layer on a CPU: no adapter's, no quantized one (which may be a kind of tensor
    in a plain layer), no hook of accelerate's."""
    return (
        type(module) is torch.nn.Linear
        and type(module.weight) is torch.nn.Parameter
        and module.weight.device.type == "cpu"
        and module.weight.dtype in _DTYPES
        and "forward" not in vars(module)
    )


def _packed(weight: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return packed


def _product(rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return product


def _is_right(layers: list[torch.nn.Linear]) -> bool:
    """A product with a copy is the layer's own, for each kind of layer: these operations are not
    of torch's public ones, and processors differ."""
    kinds = {(x.weight.shape, x.weight.dtype, x.bias is None): x for x in layers}
    try:
        return all(_is_right_for(layer) for layer in kinds.values())
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return False


@torch.no_grad()
def _is_right_for(layer: torch.nn.Linear) -> bool:
    shape = (1, _TRIED_ROWS, layer.in_features)
    rows = torch.linspace(-1, 1, _TRIED_ROWS * layer.in_features).view(shape).to(layer.weight.dtype)
    own = linear(rows, layer.weight, layer.bias)
    other = _product(rows, _packed(layer.weight), layer.bias)
    least = _ROUNDING[layer.weight.dtype] * float(own.abs().max())
    return float((own.float() - other.float()).abs().max()) <= least
