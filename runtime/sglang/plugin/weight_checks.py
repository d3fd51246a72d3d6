"""Holds new weights against those that the model was loaded with, before SGLang takes any.

SGLang skips a name that it does not know, and ends with an error in the middle of a weight of
another shape. Here names and shapes are noted while a checkpoint is loaded; new tensors that do not
fit them are refused as a whole, and the old weights stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import torch

from nprdsl.grammar.diagnostics import did_you_mean

_TIED: Final = "lm_head.weight"  # which checkpoints of models with tied embeddings leave out
_EMBEDDING: Final = "embed_tokens.weight"

Shape = tuple[int, ...]


class KnownWeights:
    """The names and shapes of a checkpoint's weights; empty where none was loaded from one."""

    def __init__(self) -> None:
        self._shapes: dict[str, Shape] = {}

    def noting(
        self, weights: Iterable[tuple[str, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The same weights; what is noted counts once all have come."""
        shapes: dict[str, Shape] = {}
        for name, weight in weights:
            shapes[name] = tuple(weight.shape)
            yield name, weight
        self._shapes = shapes

    def fault(self, given: Any) -> str:
        """What is wrong with weights as SGLang's `update_weights_from_tensor` takes them; "" if
        nothing is known to be."""
        for name, shape in _shapes_of(given):
            known = self._shape(name)
            if self._shapes and known is None:
                hint = did_you_mean(name, self._shapes) or "names are those of its checkpoint"
                return f"the model has no weight `{name}`; {hint}"
            if None not in (known, shape) and shape != known:
                return f"the weight `{name}` has the shape {shape}, the model's has {known}"
        return ""

    def _shape(self, name: str) -> Shape | None:
        if name == _TIED and name not in self._shapes:
            tied = (s for known, s in self._shapes.items() if known.endswith(_EMBEDDING))
            return next(tied, None)
        return self._shapes.get(name)


def _shapes_of(given: Any) -> Iterator[tuple[str, Shape | None]]:
    """Names with shapes, None of tensors that another process still holds."""
    if isinstance(given, Mapping):  # one flat tensor, and where each weight lies in it
        yield from ((entry.name, tuple(entry.shape)) for entry in given["metadata"])
        return
    for name, weight in given:
        yield name, tuple(weight.shape) if isinstance(weight, torch.Tensor) else None
