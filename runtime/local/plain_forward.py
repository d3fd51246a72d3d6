"""A model's own forward over one text: what the probes hold the local engine's logits against.

How far two logits may lie apart is measured by what one other token in the text does to them, so
that models of any scale are judged alike.
"""

from __future__ import annotations

from typing import Final

import torch
from transformers import PreTrainedModel

from nprdsl.runtime.errors import UnsupportedModelError

Ids = tuple[int, ...]

# Shares of the effect that one other token has.
EXACT: Final = 1e-3  # more than rounding does in float32
NOTHING: Final = 1e-6
_ROUNDING: Final = 0.2  # in other dtypes


class PlainForward:
    """The model without a cache; a text is read once. `measure` is to be called before logits are
    compared."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.width = 0  # of the logits
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self._model = model
        self._known: dict[Ids, torch.Tensor] = {}
        self._effect = 0.0
        self._wide = model.dtype.itemsize >= 4  # and `measure` saw no autocast

    @torch.no_grad()
    def __call__(self, tokens: Ids, positions: torch.Tensor | None = None) -> torch.Tensor:
        """Logits `[tokens, vocabulary]`."""
        if positions is None and tokens in self._known:
            return self._known[tokens]
        ids = torch.tensor([tokens], device=self._model.device)
        given = {} if positions is None else {"position_ids": positions[None].to(ids.device)}
        output = self._model(input_ids=ids, use_cache=False, **given)
        logits: torch.Tensor | None = output.get("logits")
        if logits is None or logits.dim() != 3:
            raise UnsupportedModelError("has no logits of each token: it is no language model")
        found = logits[0].float()
        if positions is None:
            self._known[tokens] = found
        return found

    def measure(self, tokens: Ids, changed: int) -> None:
        """Sees what another token at the place `changed` does to this text. Raises
        UnsupportedModelError, with the end of a sentence that begins with the model, where nothing
        can be compared."""
        other = tokens[:changed] + self.rotated(tokens[changed : changed + 1])
        inner = next(self._model.children())
        with inner.register_forward_pre_hook(self._see_autocast):
            plain = self(tokens)
        if plain.isnan().any():
            raise UnsupportedModelError("gives logits that are not numbers (NaN)")
        self._effect = distance(plain, self(other + tokens[changed + 1 :]))
        self.width = plain.shape[-1]

    def same(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        share: float | None = None,
        effect: float | None = None,
    ) -> bool:
        """They differ by at most that share of an effect; by default by what rounding may do,
        beside the effect that was measured.

        In half precision rounding may send a token to another expert: most tokens must agree.
        """
        whole = self._effect if effect is None else effect
        if share is not None or self._wide:
            return distance(a, b) <= (share or EXACT) * whole  # False for NaN
        return float((a - b).abs().amax(-1).median()) <= _ROUNDING * whole

    def _see_autocast(self, *_: object) -> None:
        """A trainer may have wrapped the forward, so that it computes in half precision."""
        self._wide = self._wide and not torch.is_autocast_enabled(self._model.device.type)

    def rotated(self, tokens: Ids) -> Ids:
        """Other tokens at every place."""
        half = self.vocabulary // 2
        return tuple((token + half) % self.vocabulary for token in tokens)


def spread(vocabulary: int, lengths: list[int]) -> list[Ids]:
    """Texts of these lengths: fixed tokens, spread over the vocabulary."""
    tokens = iter([7919 * (i + 1) % vocabulary for i in range(sum(lengths))])
    return [tuple(next(tokens) for _ in range(length)) for length in lengths]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())
