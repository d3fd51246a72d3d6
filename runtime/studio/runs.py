"""One run of the studio: a schema's text and a prompt in, what happens out, as server-sent events.

The messages are `event` (a run event, as `to_dict` has it), `live` (the lanes as they are, a few
times a second), `trace` (the view of the finished trace), and `refused`, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.resolve import read_grammar
from nprdsl.machine.budget import Limits
from nprdsl.runtime.engine import REFUSALS
from nprdsl.runtime.errors import UnsupportedModelError
from nprdsl.runtime.results import GenerationError, Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.studio.live_lanes import LiveLanes
from nprdsl.runtime.studio.schema_questions import FILE
from nprdsl.schema import Schema
from nprdsl.structure.events import Event, ForkEvent, JoinEvent

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine

_FRAME_S: Final = 0.08
_ALTERNATIVES: Final = 5  # kept of each token, for the page to show


class RunRequest(BaseModel):
    """What the page asks for; `parallel` False decodes one branch after another."""

    model_config = ConfigDict(extra="forbid")

    schema_text: str
    prompt: str = Field(min_length=1)
    seed: int = 0
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=1024, ge=1, le=65_536)
    parallel: bool = True


async def run_messages(engine: Engine, request: RunRequest, file: str = FILE) -> AsyncIterator[str]:
    """The messages of one run; closing the iterator stops it within a round. Imports of its schema
    are looked for beside `file`."""
    try:
        schema = Schema(read_grammar(request.schema_text, file=file, name="schema", types={}))
        options: dict[str, Any] = {"chat": engine.chats, "logprobs": True}
        if not engine.knows(schema):
            options["instructions"] = True
        stream = engine.astream(
            schema,
            request.prompt,
            sampling=Sampling(
                temperature=request.temperature, seed=request.seed, alternatives=_ALTERNATIVES
            ),
            limits=Limits(max_tokens=request.max_tokens),
            parallel=request.parallel,
            **options,
        )
        async with aclosing(stream):
            async for message in _followed(schema, stream):
                yield message
    except SchemaError as error:
        yield _message("refused", {"message": str(error)})
    except (GenerationError, UnsupportedModelError, ValueError, *REFUSALS) as error:
        yield _message("refused", {"message": str(error)})


async def _followed(schema: Schema, stream: AsyncIterator[Event | Result]) -> AsyncIterator[str]:
    lanes, drawn = LiveLanes(schema.grammar), 0.0
    async for item in stream:
        if isinstance(item, Result):
            view = item.view()
            if view is None:
                why = f"the run ended before its trace was whole ({item.finish}) {item.error}"
                yield _message("refused", {"message": why.rstrip()})
            else:
                yield _message("trace", view.model_dump(mode="json"))
            continue
        lanes.follow(item)
        yield _message("event", item.to_dict())
        now = perf_counter()
        if now - drawn >= _FRAME_S or isinstance(item, ForkEvent | JoinEvent):
            drawn = now
            yield _message("live", lanes.view().model_dump(mode="json"))


def _message(event: str, data: dict[str, Any]) -> str:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"
