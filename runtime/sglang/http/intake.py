"""What every request passes in the server's HTTP process, before SGLang sees it.

Token ids that the model has not are refused: one of them would end the scheduler. The schema of a
request for a trace is read by the server's workers, bound once for its faults, and sent along
packed, so that a scheduler never reads one. Requests without a schema wait for nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.http.packed_grammar import pack
from nprdsl.runtime.http.refusals import RefusedError, refusing
from nprdsl.runtime.http.schema_intake import SchemaIntake
from nprdsl.runtime.http.served_schemas import described
from nprdsl.runtime.http.serving_settings import ServingSettings
from nprdsl.runtime.http.wire_forms import SchemaForm
from nprdsl.runtime.metrics import Told, untold
from nprdsl.runtime.schema_cache import MOST_SCHEMAS
from nprdsl.runtime.sglang.http.generate_fields import (
    check_count,
    check_lists,
    check_names,
    check_params,
    check_request,
    check_settings,
    check_top,
)
from nprdsl.runtime.sglang.preparation import SchemaLibrary
from nprdsl.runtime.sglang.protocol import KEY, KEY_GRAMMAR, fork_request, wants_trace
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary

T = TypeVar("T")
_INTEGERS: Final = "iu"  # kinds of numpy's types


class Intake:
    """One for each server. `outputs`: the size of the model's output layer; `hidden`: the width of
    its embeddings; `positions`: of a prompt and its answer; `host`: what the server listens on;
    `told`: whom each schema of a client is told to."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        outputs: int,
        hidden: int,
        positions: int,
        host: str,
        told: Told = untold,
    ) -> None:
        self.schemas = SchemaIntake(ServingSettings.of_environment(), host, told)
        self._tokenizer = tokenizer
        self._outputs = outputs
        self._hidden = hidden
        self._positions = positions
        self._bound: dict[str, None] = {}  # grammars without a fault of their bindings
        self._thread = ThreadPoolExecutor(1)

    @cached_property
    def library(self) -> SchemaLibrary:
        """Made when the first schema comes: that reads the whole vocabulary."""
        return SchemaLibrary(Vocabulary.from_tokenizer(self._tokenizer), self._outputs)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Does work that takes long for an event loop, one piece after another."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def packed(self, given: SchemaForm, client: str) -> str:
        """The grammar of a form that a client sent, packed. Raises RefusedError, or
        PreparationError where we are to blame."""
        packed = await self.schemas.packed(given, client)
        if packed not in self._bound:
            await self.in_thread(lambda: self._bind(packed))
        return packed

    async def described(self) -> dict[str, Any]:
        """The schemas that a request can name."""
        forms = self.schemas.register.forms

        def bind(schema: Schema) -> BoundSchema:
            return self.library.bound(pack(schema.grammar))

        return await self.in_thread(lambda: described(forms, bind))

    async def take_in(self, received: Any, client: str) -> None:
        """Checks a request that SGLang has read, and puts packed grammars into it. Raises as
        `packed` does."""
        check_lists(received)
        check_names(received.rid)
        self._check_prompts(received)
        check_top(received.top_logprobs_num, self._outputs)
        given = received.sampling_params
        settings = given if isinstance(given, list) else [given]
        check_settings(settings)
        check_count(received)
        if any(map(_wants_trace, settings)):
            check_request(received)
            made = [await self._with_grammar(one, client) for one in settings]
            received.sampling_params = made if isinstance(given, list) else made[0]

    async def _with_grammar(self, params: Any, client: str) -> Any:
        if not _wants_trace(params):
            return params
        check_params(params)
        custom = params["custom_params"]
        with refusing():
            request = fork_request(custom)
        assert request is not None
        packed = await self.packed(request.language, client)
        return {**params, "custom_params": {KEY: custom[KEY], KEY_GRAMMAR: packed}}

    @refusing()
    def _bind(self, packed: str) -> None:
        self.library.bound(packed)
        self._bound[packed] = None
        while len(self._bound) > MOST_SCHEMAS:
            del self._bound[next(iter(self._bound))]

    @cached_property
    def _most_characters(self) -> int:
        """A longer text has more tokens than there are positions, whatever it says."""
        longest = max(map(len, self._tokenizer.get_vocab()), default=1)
        return self._positions * longest

    def _check_prompts(self, received: Any) -> None:
        texts = received.text if isinstance(received.text, list) else [received.text]
        longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
        if self._tokenizer is not None and longest > self._most_characters:
            raise RefusedError(
                f"the prompt has {longest:,} characters, more than the {self._positions:,} "
                "positions of this server can hold"
            )
        ids = received.input_ids
        if ids is not None and len(ids):
            for one in ids if isinstance(ids[0], list | tuple) else [ids]:
                check_ids(one, self._outputs)
        if received.input_embeds is not None:
            check_widths(received.input_embeds, self._hidden)


def _wants_trace(params: Any) -> bool:
    return isinstance(params, dict) and wants_trace(params.get("custom_params"))


def check_ids(ids: Any, outputs: int) -> None:
    """Raises RefusedError unless all are ids of a model with so many."""
    if not len(ids):
        return
    with refusing():
        numbers = np.asarray(ids)
    if numbers.ndim != 1 or numbers.dtype.kind not in _INTEGERS:
        raise RefusedError("`input_ids` must be integers, each the id of a token")
    wrong = numbers[(numbers < 0) | (numbers >= outputs)]
    if len(wrong):
        raise RefusedError(f"`input_ids` has {wrong[0]}, the model has the ids 0 to {outputs - 1}")


def check_widths(embeds: Any, hidden: int) -> None:
    """Raises RefusedError unless all rows are as wide as the model's embeddings."""
    rows: list[Any] = [embeds]
    while rows and isinstance(rows[0], list) and rows[0] and isinstance(rows[0][0], list):
        rows = [inner for row in rows for inner in row]
    if any(not isinstance(row, list) or len(row) != hidden for row in rows):
        raise RefusedError(f"each row of `input_embeds` must have the model's {hidden} numbers")
