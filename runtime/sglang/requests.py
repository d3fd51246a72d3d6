"""Requests for traces, checked and made ready: schema compiled, limits lowered, machine built.

Used by the scheduler's process, and by the one that talks to clients, so that both refuse the same
requests in the same words. A schema is compiled once for each vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from nprdsl.machine.budget import LimitError
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.kv_reservation import most_fed
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.schema_cache import Bindings
from nprdsl.runtime.sglang.protocol import ForkRequest, SchemaForm
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary

KEPT = 64  # schemas that were read


class RefusedError(ValueError):
    """A request that can never run on this server; the message is for the client."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can run. `slots`: the most tokens that it can ever feed."""

    request: ForkRequest
    machine: Machine
    sampling: Sampling
    slots: int


class Library:
    """Schemas over one vocabulary. `outputs` is the number of tokens that the model can choose."""

    def __init__(self, vocabulary: Vocabulary, outputs: int) -> None:
        self.vocabulary = vocabulary
        self._outputs = outputs
        self._bindings = Bindings(vocabulary)
        self._read: OrderedDict[str, Schema] = OrderedDict()  # by the key of their form

    def bound(self, form: SchemaForm) -> BoundSchema:
        """Raises ValueError (a SchemaError, or what else is wrong), FileNotFoundError."""
        key = form.key
        schema = self._read.pop(key, None)
        if schema is None:
            schema = form.read()
            self._check_outputs(schema)
            if len(self._read) >= KEPT:
                self._read.popitem(last=False)
        self._read[key] = schema
        return self._bindings.get(schema)

    def prepare(
        self, request: ForkRequest, prompt: Sequence[int], *, positions: int, capacity: int
    ) -> Prepared:
        """Raises RefusedError. `positions`: the most tokens of a sequence, `capacity`: of all that
        the server keeps together."""
        try:
            return self._prepare(request, prompt, positions, capacity)
        except (ValueError, FileNotFoundError) as error:
            raise RefusedError(str(error)) from error

    def _prepare(
        self, request: ForkRequest, prompt: Sequence[int], positions: int, capacity: int
    ) -> Prepared:
        bound = self.bound(request.language)
        limits, sampling = request.limits.limits(), request.settings()
        sampling.check_rules(bound.grammar.rules)
        room = positions - len(prompt)
        if not prompt:
            raise RefusedError("the prompt is empty: a trace needs one token before it at least")
        if room < 1:
            raise RefusedError(
                f"the prompt has {len(prompt)} tokens, but the server only {positions} positions"
            )
        if limits.max_tokens > room:
            limits = replace(limits, max_tokens=room)
        slots = most_fed(bound.grammar, limits, len(prompt))
        if slots > capacity:
            raise LimitError(
                f"the request may feed {slots:,} tokens (prompt, budget, reread copies), but the "
                f"server keeps {capacity:,} at most: lower max_tokens, or raise --max-total-tokens "
                "or --mem-fraction-static"
            )
        machine = Machine(bound, prompt=prompt, limits=limits, join=request.join())
        return Prepared(request, machine, sampling, slots)

    def _check_outputs(self, schema: Schema) -> None:
        """Tags of which the model knows no output cannot be generated."""
        for tag in schema.tags:
            token = self.vocabulary.special.get(tag, -1)
            if token >= self._outputs:
                raise RefusedError(
                    f"the tag {tag} is token {token} of the tokenizer, but the model has only "
                    f"{self._outputs} outputs"
                )


def described(error: ValidationError) -> str:
    """A malformed request in one line: every field that is wrong, and why."""
    faults = (
        f"{'.'.join(map(str, fault['loc'])) or 'request'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False)
    )
    return "the request for a trace is malformed: " + "; ".join(faults)
