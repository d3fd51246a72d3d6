"""One run of the studio: a schema's text and a prompt in, what happens out, as server-sent events.

The messages are `event` (a run event, as `to_dict` has it), `live` (the lanes as they are, a few
times a second), `trace` (the view of the finished trace), and `refused`, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from nprdsl.grammar.analysis import analyse
from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.terminal_types import TerminalType
from nprdsl.machine.budget import Limits
from nprdsl.prompting.examples import Example, of_other_topics
from nprdsl.runtime.engine import REFUSALS
from nprdsl.runtime.errors import UnsupportedModelError
from nprdsl.runtime.results import GenerationError, Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.studio.live_lanes import LiveLanes
from nprdsl.runtime.studio.schema_questions import FILE, NO_TYPES
from nprdsl.runtime.untrained import eased
from nprdsl.schema import Schema, examples_of, shipped
from nprdsl.structure.events import Event, ForkEvent, JoinEvent

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine

_FRAME_S: Final = 0.08
_ALTERNATIVES: Final = 5  # kept of each token, for the page to show


class RunRequest(BaseModel):
    """What the page asks for. `schema_name` is what its text began as: a schema that ships, or the
    studio's own file. `parallel` False decodes one branch after another."""

    model_config = ConfigDict(extra="forbid")

    schema_text: str
    schema_name: str = ""
    prompt: str = Field(min_length=1)
    seed: int = 0
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=1024, ge=1, le=65_536)
    parallel: bool = True


async def run_messages(
    engine: Engine,
    request: RunRequest,
    file: str = FILE,
    types: Mapping[str, TerminalType] = NO_TYPES,
) -> AsyncIterator[str]:
    """The messages of one run; closing the iterator stops it within a round. Imports of its schema
    and worked examples are looked for beside `file`; `types` are those of declared terminals."""
    try:
        read = analyse(request.schema_text, file, types)
        if read.grammar is None:
            raise SchemaError(read.faults, request.schema_text)
        schema = Schema(read.grammar)
        stream = engine.astream(
            schema,
            request.prompt,
            parallel=request.parallel,
            logprobs=True,
            chat=engine.chats,
            **_settings(engine, schema, request, file),
        )
        async with aclosing(stream):
            async for message in _followed(schema, stream):
                yield message
    except SchemaError as error:
        yield _message("refused", {"message": str(error)})
    except (GenerationError, UnsupportedModelError, ValueError, *REFUSALS) as error:
        yield _message("refused", {"message": str(error)})


def _settings(engine: Engine, schema: Schema, request: RunRequest, file: str) -> dict[str, Any]:
    """Sampling and limits as they are asked for; a model that does not know the format is shown
    examples, and has what helps it (`nprdsl.runtime.untrained`)."""
    sampling = Sampling(
        temperature=request.temperature, seed=request.seed, alternatives=_ALTERNATIVES
    )
    limits = Limits(max_tokens=request.max_tokens)
    if engine.knows(schema):
        return {"sampling": sampling, "limits": limits}
    shown = of_other_topics(_examples(schema, request.schema_name, file), request.prompt)
    if engine.helps(schema):
        sampling = eased(sampling, schema, shown)
        limits = engine.shared_limits(schema, request.max_tokens)
    return {"sampling": sampling, "limits": limits, "instructions": True, "examples": shown}


def _examples(schema: Schema, name: str, file: str) -> tuple[Example, ...]:
    """The worked examples of what the text began as that are legal in what it is now."""
    beside = name if name in shipped() else file
    found = None if beside == FILE else examples_of(beside)
    return () if found is None else schema.fitting(found)


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
