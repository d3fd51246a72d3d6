"""Holds new weights against those that the model was loaded with, before SGLang takes any.

SGLang skips a name that it does not know, and ends with an error in the middle of a weight of
another shape. Here names and shapes are noted while the model is loaded; new weights, as tensors or
in a folder, that do not fit them are refused as a whole, and the old ones stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from nprdsl.grammar.diagnostics import did_you_mean

_TIED: Final = "lm_head.weight"  # which checkpoints of models with tied embeddings leave out
_EMBEDDING: Final = "embed_tokens.weight"
_INDEX: Final = "model.safetensors.index.json"

Shape = tuple[int, ...]


class KnownWeights:
    """The names and shapes of the weights that a model was loaded with; empty where it was loaded
    from no checkpoint. `mixed`: a load failed in the middle, so that only all weights mend it.
    `is_loading`: tensors are going into the model, or a load of some failed."""

    def __init__(self) -> None:
        self._shapes: dict[str, Shape] = {}
        self.mixed = False
        self.is_loading = False
        self._awaited: set[str] = set()

    def noting(
        self, weights: Iterable[tuple[str, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The same weights; what is noted first counts, once all have come."""
        shapes: dict[str, Shape] = {}
        for name, weight in weights:
            shapes[name] = tuple(weight.shape)
            yield name, weight
        self._shapes = self._shapes or shapes

    def begin(self, given: Any) -> list[str]:
        """Tensors go into the model; gives their names."""
        self.is_loading = True
        return [name for name, _ in _shapes_of(given)]

    def came(self, names: Iterable[str]) -> None:
        """These are in the model."""
        self.is_loading = False
        self._awaited.difference_update(names)
        if self._shapes and not self._awaited:
            self.mixed = False

    def failed(self) -> None:
        """A load failed in the middle."""
        self.mixed, self.is_loading = True, False
        self._awaited = set(self._shapes)

    def loaded(self) -> None:
        """All have come at once."""
        self.mixed = False

    def fault(self, given: Any) -> str:
        """What is wrong with weights as SGLang's `update_weights_from_tensor` takes them; "" if
        nothing is known to be."""
        return self._fault(_shapes_of(given))

    def folder_fault(self, path: str) -> str:
        """What is wrong with the weights of a folder; "" if nothing is known to be. Files that are
        no safetensors are not looked into."""
        folder = Path(path)
        if not folder.is_dir():
            return f"the server sees no folder {path}; name one that it shares with who writes it"
        try:
            shapes = dict(_shapes_in(folder))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            return f"the weights in {path} cannot be read ({type(error).__name__}: {error})"
        if not shapes:
            return "" if any(folder.glob("*.bin")) else f"{path} has no weights (*.safetensors)"
        missing = next((name for name in self._shapes if name not in shapes), None)
        if self.mixed and missing is not None:
            return f"the server's weights are mixed, so all have to come, but `{missing}` does not"
        return self._fault(shapes.items())

    def _fault(self, shapes: Iterable[tuple[str, Shape | None]]) -> str:
        for name, shape in shapes:
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


def _shapes_in(folder: Path) -> Iterator[tuple[str, Shape]]:
    """Of the files that SGLang would load: where there is an index, those that it names."""
    index = folder / _INDEX
    if index.is_file():
        files = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    else:
        files = {file.name for file in folder.glob("*.safetensors")}
    for file in sorted(files):
        with safe_open(folder / file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118, it is no mapping
                yield name, tuple(opened.get_slice(name).get_shape())


def _shapes_of(given: Any) -> Iterator[tuple[str, Shape | None]]:
    """Names with shapes, None of tensors that another process still holds."""
    if isinstance(given, Mapping):  # one flat tensor, and where each weight lies in it
        yield from ((entry.name, tuple(entry.shape)) for entry in given["metadata"])
        return
    for name, weight in given:
        yield name, tuple(weight.shape) if isinstance(weight, torch.Tensor) else None
