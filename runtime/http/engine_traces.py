"""Runs the traces of `/v1/chat/completions` on an engine of this process: a `TraceRunner`.

The event loop only hands out what the engine's threads write. A chat's answers run side by side, in
the rounds of all requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from nprdsl.prompting.examples import Example
from nprdsl.runtime.http.followed import Followed, submitted
from nprdsl.runtime.http.packed_grammar import unpacked_schema
from nprdsl.runtime.http.refusals import refusing
from nprdsl.runtime.http.request_models import TraceRequest
from nprdsl.runtime.http.schema_intake import SchemaIntake
from nprdsl.runtime.options import Options, shown_examples
from nprdsl.runtime.results import Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.untrained import eased
from nprdsl.schema import Schema
from nprdsl.structure.events import Event
from nprdsl.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from nprdsl.runtime.local.engine import LocalEngine


class EngineTraces:
    """All chats with schemas on one engine, which is served as `model`."""

    honoured: Sequence[str] = ()

    def __init__(self, engine: LocalEngine, model: str, intake: SchemaIntake) -> None:
        self._engine = engine
        self._model = model
        self._intake = intake

    @property
    def model(self) -> str:
        return self._model

    @property
    def vocabulary(self) -> Vocabulary:
        return self._engine.vocabulary

    async def start(
        self, chat: TraceRequest, seeds: list[int], source: str
    ) -> Followed[Event | Result]:
        """`source` is the client. Raises RefusedError, PreparationError."""
        packed = await self._intake.packed(chat.form, source)
        engine = self._engine
        numbers = await submitted(lambda: self._submit(chat, packed, seeds), engine.discard)
        return Followed(numbers, engine.afollow, engine.abort)

    @refusing()
    def _submit(self, chat: TraceRequest, packed: str, seeds: list[int]) -> list[int]:
        """Starts an answer for each seed; all, or none. Raises RefusedError."""
        engine, schema = self._engine, unpacked_schema(packed)
        options, messages = self._options(chat, schema), chat.texts()
        begin = engine.watch if chat.stream else engine.submit
        numbers: list[int] = []
        with ExitStack() as begun:
            for seed in seeds:
                sampling = self._sampling(chat, schema, seed, shown_examples(schema, options))
                numbers.append(begin(schema, messages, sampling=sampling, **options))
                begun.callback(engine.discard, numbers[-1])
            begun.pop_all()
        return numbers

    def _sampling(
        self, chat: TraceRequest, schema: Schema, seed: int, examples: Sequence[Example]
    ) -> Sampling:
        """As the chat says; where it says nothing, a model that does not know the format has what
        helps it."""
        sampling = chat.sampling(self._engine.sampling_defaults, seed)
        is_helped = not (chat.settings({}) or chat.rules or self._engine.knows(schema))
        return eased(sampling, schema, examples) if is_helped else sampling

    def _options(self, chat: TraceRequest, schema: Schema) -> Options:
        wanted = chat.instructions
        options: Options = {
            "join": chat.join_policy,
            "parallel": chat.parallel,
            "instructions": not self._engine.knows(schema) if wanted is None else wanted,
            "logprobs": bool(chat.logprobs),
        }
        if chat.has_limits:
            options["limits"] = chat.limits_form.limits()
        return options
