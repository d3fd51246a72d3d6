"""Checks a request for a trace and makes it ready to run: its schema is bound to the vocabulary,
its limits are lowered to what the server can hold, and its machine is built.

Two processes of a server do this: the scheduler's, before it runs a request, and the HTTP process
for chat completions, so that a bad chat is refused with a 400 before anything runs. Both raise the
same messages. Schemas were read before, elsewhere (`nprdsl.runtime.http.schema_compiler`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from nprdsl.machine.machine import Machine
from nprdsl.machine.native import NativeMachine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.drawing.avoided_runs import AvoidedRuns, AvoidedTexts
from nprdsl.runtime.http.packed_grammar import unpack
from nprdsl.runtime.http.refusals import RefusedError, refusing
from nprdsl.runtime.kv_reservation import most_fed
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.schema_cache import Bindings
from nprdsl.runtime.sglang.protocol import ForkRequest
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary

_MOST_SCHEMAS: Final = 64  # that stay parsed


@dataclass(frozen=True, slots=True)
class PreparedTrace:
    """A request that can run. `slots`: the most KV slots (tokens) that it can ever need; `avoided`:
    the runs of the texts that it is not to copy."""

    request: ForkRequest
    machine: Machine
    sampling: Sampling
    slots: int
    avoided: AvoidedRuns | None = None


class SchemaLibrary:
    """Compiled schemas over one vocabulary. `outputs`: the size of the model's output layer."""

    def __init__(self, vocabulary: Vocabulary, outputs: int) -> None:
        self.vocabulary = vocabulary
        self._outputs = outputs
        self._bindings = Bindings(vocabulary)
        self._avoided = AvoidedTexts(vocabulary)
        self._schema = lru_cache(_MOST_SCHEMAS)(self._read)

    def bound(self, packed: str) -> BoundSchema:
        """The schema whose grammar that is. Raises ValueError, of which a SchemaError is one."""
        return self._bindings.get(self._schema(packed))

    def _read(self, packed: str) -> Schema:
        schema = Schema(unpack(packed))
        self._check_outputs(schema)
        return schema

    @refusing()
    def prepare(
        self,
        request: ForkRequest,
        packed: str,
        prompt: Sequence[int],
        *,
        positions: int,
        capacity: int,
    ) -> PreparedTrace:
        """Checks a request with these prompt tokens; `packed` is the grammar of its schema.

        `positions` and `capacity` are the server's bounds, as in `ServerInfo`. Raises RefusedError.
        """
        bound = self.bound(packed)
        limits, sampling = request.limits.limits(), request.settings()
        sampling.check_rules(bound.grammar.rules)
        if not prompt:
            raise RefusedError("the prompt is empty: a trace needs one token before it at least")
        if len(prompt) >= positions:
            raise RefusedError(
                f"the prompt has {len(prompt)} tokens, but the server only {positions} positions"
            )
        limits = replace(limits, max_tokens=min(limits.max_tokens, positions - len(prompt)))
        slots = most_fed(bound.grammar, limits, len(prompt))
        if slots > capacity:
            raise RefusedError(
                f"the request may feed {slots:,} tokens (prompt, budget, reread copies), but the "
                f"server keeps {capacity:,} at most: lower max_tokens, or raise --max-total-tokens "
                "or --mem-fraction-static"
            )
        kind = NativeMachine if request.native else Machine
        machine = kind(bound, prompt, limits, request.join())
        machine.events.logprobs = request.logprobs
        avoided = self._avoided.runs(sampling.avoid)
        return PreparedTrace(request, machine, sampling, slots, avoided)

    def _check_outputs(self, schema: Schema) -> None:
        """A tag whose token lies beyond the model's outputs can never be generated."""
        for tag, token in self.vocabulary.tag_tokens(schema.tags).items():
            if token >= self._outputs:
                raise RefusedError(
                    f"the tag {tag} is token {token} of the tokenizer, but the model has only "
                    f"{self._outputs} outputs"
                )
