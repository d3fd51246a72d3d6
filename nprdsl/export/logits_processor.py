"""A schema as a `LogitsProcessor` of transformers: stock `model.generate` writes its traces.

Input ids and scores of a batch go in; scores come out of which all but the allowed are -inf. The
branches are written one after another, as one text: a branch sees those before it, by the model's
ordinary attention, where the engines of `nprdsl.runtime` keep them apart. Labels, counts and
budgets are those of the engines, for the same machine decides. `Schema.logits_processor` makes one.
This module imports torch and transformers, which `import nprdsl` does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

try:
    import torch
    from transformers import LogitsProcessor, PreTrainedTokenizerBase
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"a logits processor needs {error.name}; install it with: pip install 'nprdsl[local]'",
        name=error.name,
    ) from error

from nprdsl.machine.budget import Limits, check_limits
from nprdsl.machine.linear_writer import LinearWriter
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.logit_masks import LogitMasks
from nprdsl.masks.matcher import IllegalTokenError
from nprdsl.tokens.bitmask import Mask, set_bit
from nprdsl.trace.trace import TokenTrace

_ROUNDING: Final = 1e-3  # of the logarithm of what the probabilities of a beam search add up to
_NOTHING: Final = torch.zeros(0, 0, dtype=torch.long)
_WAY_OUT: Final = "; call `reset()` before a prompt that only looks so"


class TraceLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Makes `model.generate` write legal traces, one a row, greedy or sampled.

    Each row has its own progress. What is forced is forced by the mask, and behind its end a row
    can only write the end token. `max_new_tokens` is what `generate` needs, so that every trace
    ends within its limits. Ids that do not go on with those of the call before begin new traces: no
    `reset` is needed between two prompts, unless the second is the first with all that was written
    behind it. Beam search and assisted decoding try tokens and take them back, and are refused.
    """

    supports_continuous_batching = False

    def __init__(self, bound: BoundSchema, limits: Limits, tokenizer: object) -> None:
        check_limits(limits)
        self.max_new_tokens = limits.max_tokens + 1
        pad_id: int | None = None
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            pad_id = tokenizer.pad_token_id
        self._bound = bound
        self._limits = limits
        self._fillers = [t for t in (bound.vocabulary.eos_id, pad_id) if t is not None]
        self._writers: list[LinearWriter] = []
        self._prompt = 0  # columns
        self._asked_again = False  # for the same prompts
        self._seen = _NOTHING
        self._masks = LogitMasks(0, torch.device("cpu"))
        self._device = torch.device("cpu")
        self._words = (bound.vocabulary.size + 31) // 32
        self._single: dict[int, Mask] = {}
        self._writer(())  # limits that cannot be met are refused here

    def reset(self) -> None:
        """The next call begins new traces, whatever its prompts."""
        self._writers, self._seen, self._asked_again = [], _NOTHING, False

    @torch.no_grad()
    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores `[B, width]` of the tokens that come next behind `input_ids` `[B, T]`.

        Raises ValueError for beam search and assisted decoding, and where other processors leave no
        token that the schema allows; IllegalTokenError where a token was taken that it forbids.
        """
        if not self._advance(input_ids):
            self._refuse_search(input_ids, scores)
            self._begin(input_ids)
        masked = scores.clone(memory_format=torch.contiguous_format)
        self._masks_of(masked).apply(masked, [self._mask(writer) for writer in self._writers])
        for row, writer in enumerate(self._writers):  # whatever other processors say
            for token in self._forced(writer):
                masked[row, token] = 0.0
        if bool((masked.amax(-1) == -torch.inf).any()):
            raise ValueError(
                "another logits processor, or a setting of `generate`, forbids every token that "
                f"`{self._bound.grammar.name}` allows here; leave it out"
            )
        return masked

    def traces(self, sequences: Any) -> list[TokenTrace]:
        """The traces of what `generate` gave last: int64 `[B, T]` with prompts and padding, or the
        output that holds it (`return_dict_in_generate=True`).

        Raises ValueError for sequences that are not of the last call, and for one that was cut off.
        """
        ids = sequences["sequences"] if isinstance(sequences, Mapping) else sequences
        if not self._advance(torch.as_tensor(ids)):
            raise ValueError("these are not the sequences that `generate` gave last")
        for row, writer in enumerate(self._writers):
            if not writer.ended:
                raise ValueError(
                    f"row {row} was cut off before its trace had ended: `generate` needs "
                    f"max_new_tokens={self.max_new_tokens}, the processor's `max_new_tokens`, and "
                    "no other stopping criterion or end token"
                )
        return [writer.machine.trace() for writer in self._writers]

    # following what is written

    def _writer(self, prompt: Sequence[int]) -> LinearWriter:
        return LinearWriter(Machine(self._bound, prompt, self._limits))

    def _begin(self, ids: torch.Tensor) -> None:
        """New traces behind the prompts `ids`."""
        self._asked_again = self._is_seen(ids) and ids.shape[1] == self._prompt
        self._writers = [self._writer(row) for row in ids.tolist()]
        self._prompt, self._seen = ids.shape[1], ids

    def _advance(self, ids: torch.Tensor) -> bool:
        """Takes the new column of ids; False where they do not go on with those seen before."""
        new = ids.shape[1] - self._seen.shape[1]
        if new not in (0, 1) or not self._is_seen(ids[:, : ids.shape[1] - new]):
            return False
        for row, token in enumerate(ids[:, -1].tolist() if new else ()):
            self._take(row, token)
        self._seen = ids
        return True

    def _take(self, row: int, token: int) -> None:
        try:
            self._writers[row].take(token)
        except IllegalTokenError as error:
            if token not in self._fillers:  # with which `generate` fills rows that it has stopped
                self.reset()
                reason = "nothing may choose a token that this processor forbids"
                raise IllegalTokenError(f"row {row}: {error}; {reason}") from None

    def _is_seen(self, ids: torch.Tensor) -> bool:
        """Whether all rows of ids are what was seen, or its beginning."""
        rows, columns = ids.shape
        if not self._writers or rows != len(self._writers) or columns > self._seen.shape[1]:
            return False
        return torch.equal(ids, self._seen[:, :columns].to(ids.device))

    # decoding that takes tokens back

    def _refuse_search(self, ids: torch.Tensor, scores: torch.Tensor) -> None:
        """Raises ValueError where ids that do not go on are no new prompts."""
        if self._are_reordered(ids) or _are_beams(ids, scores):
            raise ValueError(
                "beam search reorders rows, which this processor cannot follow; use greedy "
                f"decoding or sampling (num_beams=1){_WAY_OUT}"
            )
        if self._go_back(ids):
            raise ValueError(
                "the ids go back behind what was written, as in assisted decoding; leave out "
                f"`assistant_model`, `prompt_lookup_num_tokens` and their like{_WAY_OUT}"
            )

    def _are_reordered(self, ids: torch.Tensor) -> bool:
        """Whether every row goes on with some row of those seen."""
        if ids.shape != (len(self._writers), self._seen.shape[1] + 1):
            return False
        known = set(map(tuple, self._seen.tolist()))
        return all(tuple(row[:-1]) in known for row in ids.tolist())

    def _go_back(self, ids: torch.Tensor) -> bool:
        """Whether ids end within what was written, but for their last column.

        Where only that column stands behind the prompts, they are longer prompts, unless they were
        asked for twice, as by an assistant and the model, and a trace may begin so.
        """
        written = ids.shape[1] - 1 - self._prompt
        if written < 0 or not self._is_seen(ids[:, :-1]):
            return False
        return written > 0 or (self._asked_again and all(map(self._begins, ids[:, -1].tolist())))

    def _begins(self, token: int) -> bool:
        """Whether a trace may begin with the token."""
        try:
            self._writer(()).take(token)
        except IllegalTokenError:
            return False
        return True

    # masks

    def _mask(self, writer: LinearWriter) -> Mask:
        for token in self._forced(writer):
            return self._only(token)
        return np.full(self._words, -1, np.int32) if writer.ended else writer.mask()

    def _forced(self, writer: LinearWriter) -> list[int]:
        """The one token that must come next; none where there is a choice."""
        if writer.due:
            return [writer.due[0]]
        return self._fillers[:1] if writer.ended else []

    def _only(self, token: int) -> Mask:
        """The mask that allows one token."""
        mask = self._single.get(token)
        if mask is None:
            mask = self._single[token] = np.zeros(self._words, np.int32)
            set_bit(mask, token)
        return mask

    def _masks_of(self, scores: torch.Tensor) -> LogitMasks:
        """What applies masks to such scores. Raises ValueError for tags that are no outputs."""
        width = scores.shape[-1]
        if (width, scores.device) != (self._masks.width, self._device):
            for tag, token in self._bound.tag_tokens.items():
                if token >= width:
                    raise ValueError(
                        f"the tag {tag} is token {token} of the tokenizer, but the model has only "
                        f"{width} outputs; call model.resize_token_embeddings(len(tokenizer))"
                    )
            self._device, self._masks = scores.device, LogitMasks(width, scores.device)
        return self._masks


def _are_beams(ids: torch.Tensor, scores: torch.Tensor) -> bool:
    """Whether these look like the first call of a beam search: each prompt stands there several
    times, and the scores are log-probabilities."""
    same = (ids[1:] == ids[:-1]).all(-1)
    alone = same.new_zeros(1)
    if len(ids) < 2 or not bool((torch.cat([same, alone]) | torch.cat([alone, same])).all()):
        return False
    return bool((scores.logsumexp(-1).abs() < _ROUNDING).all())
